from pathlib import Path

import pytest

from vit_vs_cnn.core.devices import cpu_has_bf16


@pytest.mark.parametrize(
    ("flags", "has_bf16"),
    [("avx2 avx512f", False), ("avx512_bf16 avx512f", True), ("amx_bf16 amx_tile", True), ("amx_tile", False)],
)
def test_bf16_of_a_cpu_is_read_from_its_flags(tmp_path: Path, flags: str, has_bf16: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    assert cpu_has_bf16(tmp_path / "cpuinfo") is has_bf16


def test_where_there_are_no_flags_there_is_no_bf16(tmp_path: Path) -> None:
    assert not cpu_has_bf16(tmp_path / "cpuinfo")
