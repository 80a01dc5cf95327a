from pathlib import Path

from vit_vs_cnn.core.paths import bytes_in


def test_the_size_of_a_folder_is_that_of_all_files_below_it_and_none_where_there_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(bytes(3))
    (tmp_path / "a" / "b" / "two").write_bytes(bytes(40))
    (tmp_path / "a" / "broken").symlink_to(tmp_path / "nothing")
    assert bytes_in(tmp_path) == 43
    assert bytes_in(tmp_path / "nothing") == 0
