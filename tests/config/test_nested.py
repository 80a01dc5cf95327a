from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_vs_cnn.config.nested import merge, nest, value_at

KEYS = st.sampled_from("abc")
MAPPINGS = st.recursive(
    st.dictionaries(KEYS, st.none() | st.integers() | st.lists(st.integers())),
    lambda children: st.dictionaries(KEYS, children | st.integers()),
    max_leaves=8,
)


@given(MAPPINGS, MAPPINGS)
def test_merge_keeps_every_key_lets_the_overlay_win_and_changes_neither(
    base: dict[str, Any], overlay: dict[str, Any]
) -> None:
    before = deepcopy((base, overlay))
    merged = merge(base, overlay)
    assert (base, overlay) == before
    assert merged.keys() == base.keys() | overlay.keys()
    for key, value in overlay.items():
        if not isinstance(value, dict):
            assert merged[key] is value
        elif isinstance(base.get(key), dict):
            assert merged[key] == merge(base[key], value)


@given(st.dictionaries(st.lists(KEYS, min_size=2, max_size=2).map(".".join), st.integers()))
def test_what_is_nested_is_found_at_its_path(values: dict[str, int]) -> None:
    nested = nest(values)
    assert {path: value_at(nested, path) for path in values} == values


@pytest.mark.parametrize("path", ["a", "a.c", "a.b.c", "b"])
def test_a_path_to_nothing_or_to_a_mapping_is_a_key_error(path: str) -> None:
    with pytest.raises(KeyError):
        value_at({"a": {"b": 1}}, path)
