"""Names of split folders as people write them: `train`, `Training`, `valid`, `dev`, `test_set`, `seg_train`."""

import re
from collections import defaultdict
from collections.abc import Iterable

from vit_vs_cnn.data.dataset import SplitName

_WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_SEPARATED = re.compile(r"[^\W\d_]+|\d+")
_CAMEL_CASE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")

# What surrounds the word of a split in a folder's name; None stands for the word itself.
Affix = tuple[str | None, ...]
_PLAIN: Affix = (None,)


def read_split_name(name: str) -> tuple[SplitName, Affix] | None:
    """The split that a folder's name has a word for, and what surrounds that word; None without exactly one such word.

    `set` after the word says nothing more: `training_set` and `trainset` are `train`.
    """
    for pattern in (_SEPARATED, _CAMEL_CASE):
        tokens = [token.lower() for token in pattern.findall(name)]
        words = [token if token in _WORDS else token.removesuffix("set") for token in tokens]
        places = [place for place, word in enumerate(words) if word in _WORDS]
        if len(places) == 1:
            place = places[0]
            after = tokens[place + 1 :]
            rest = after[1:] if after[:1] == ["set"] else after
            return _WORDS[words[place]], (*tokens[:place], None, *rest)
    return None


def split_named(name: str) -> SplitName | None:
    """The split that a name stands for by itself, with nothing around the split's word, None where it is none."""
    found = read_split_name(name)
    return found[0] if found and found[1] == _PLAIN else None


def named_splits(names: Iterable[str]) -> dict[str, SplitName]:
    """The names among those of neighbouring folders that name splits.

    A name with more than the split's word counts where a neighbour has the same around the word of another split:
    `seg_train` beside `seg_test`, and not the class `train_station`.
    """
    found = {name: read for name in names if (read := read_split_name(name))}
    splits_with = defaultdict(set)
    for split, affix in found.values():
        splits_with[affix].add(split)
    return {name: split for name, (split, affix) in found.items() if affix == _PLAIN or len(splits_with[affix]) > 1}
