"""Groups: images that share a person, a place, a video. No split and no interval may treat them as independent."""

import re
from collections.abc import Sequence
from dataclasses import replace

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.sources.source import Source

_MOST_NAMED = 5
# A file name that ends in a number after something else, or in a word after a number: `patient_12_003`, `p7_front`.
_IN_GROUP = re.compile(r"(?:(?P<numbered>.+?)[ _.-]+\(?\d+\)?|(?P<named>.*\d)[ _.-]+[^\W\d_]+)")


def with_groups(source: Source, pattern: str | None) -> Source:
    """The source with the groups that `pattern`, with one capturing group, finds anywhere in the names of its images.

    Without a pattern the groups are the source's own, if it has any. Raises UserError where an image does not match,
    or where both would name the groups.
    """
    if pattern is None:
        return source
    if source.groups is not None:
        raise UserError("data.groups: the source says itself which images belong together: remove data.groups.")
    found = [re.search(pattern, name) for name in source.names]
    groups = [match[1] if match else None for match in found]
    unmatched = [name for name, group in zip(source.names, groups, strict=True) if group is None]
    if unmatched:
        named = ", ".join(unmatched[:_MOST_NAMED])
        raise UserError(
            f"data.groups: {pattern!r} does not match {len(unmatched):,} of {len(groups):,} images ({named}): "
            "change the pattern so that it finds the group in the path of every image."
        )
    return replace(source, groups=tuple(group for group in groups if group is not None))


def possible_groups(source: Source) -> list[str]:
    """The groups that file names look as if they held, the largest first, where nothing is known of groups.

    That is where most names begin like others of their class, in several such groups.
    """
    if source.groups is not None:
        return []
    files: dict[tuple[int, str], list[str]] = {}
    for name, label in zip(source.names, source.labels.tolist(), strict=True):
        file = name.rpartition("/")[2]
        if found := _IN_GROUP.fullmatch(file.rpartition(".")[0] or file):
            files.setdefault((label, found["numbered"] or found["named"]), []).append(file)
    shared = {group: names for group, names in files.items() if len(names) > 1}
    classes = len({label for label, _ in shared})
    if len(shared) < 2 * classes or 2 * sum(map(len, shared.values())) < len(source.names):
        return []
    largest = sorted(shared, key=lambda group: (len(shared[group]), group), reverse=True)
    return [f"{len(shared[group]):,} files like {shared[group][0]} that begin with {group[1]!r}" for group in largest]


def shared_groups(source: Source) -> list[str]:
    """The groups that are in more than one of the given splits, as `name: split, split`."""
    if source.groups is None:
        return []
    splits_of: dict[str, set[int]] = {}
    for group, split in zip(source.groups, source.splits.tolist(), strict=True):
        splits_of.setdefault(group, set()).add(split)
    return [
        f"{group}: {', '.join(PREPARED_SPLITS[split] for split in sorted(splits))}"
        for group, splits in sorted(splits_of.items())
        if len(splits) > 1
    ]


def refuse_shared_groups(shared: Sequence[str], path: str) -> None:
    """Raise UserError if there are shared groups: what is measured on test would be known from train."""
    if shared:
        raise UserError(
            f"data.groups: {len(shared):,} groups are in more than one split of {path} "
            f"({'; '.join(shared[:_MOST_NAMED])}): put each into one split, or have the splits carved by group: "
            "remove the given ones; or set data.on_bad to skip to have this reported only."
        )
