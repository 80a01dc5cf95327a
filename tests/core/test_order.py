from hypothesis import given
from hypothesis import strategies as st

from vit_vs_cnn.core.order import natural_order


def ordered(names: list[str]) -> list[str]:
    return [names[position] for position in natural_order(names)]


def test_numbers_in_names_are_counted_and_case_is_ignored() -> None:
    assert ordered(["10", "1", "2", "0"]) == ["0", "1", "2", "10"]
    assert ordered(["img12b", "Img2", "img12a", "img"]) == ["img", "Img2", "img12a", "img12b"]
    assert ordered(["b", "C", "a", "2nd"]) == ["2nd", "a", "b", "C"]


@given(st.lists(st.text(st.sampled_from("aB10٣²猫ß-")), max_size=8))
def test_any_names_have_one_order_whatever_order_they_come_in(names: list[str]) -> None:
    assert sorted(natural_order(names)) == list(range(len(names)))
    assert ordered(names) == ordered(names[::-1])


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_numbers_stand_in_their_order(numbers: list[int]) -> None:
    assert ordered([f"class {number}" for number in numbers]) == [f"class {number}" for number in sorted(numbers)]
