"""What is wrong with the data, found while they are prepared: data/prepared/checks.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vit_vs_cnn.core.records import Record
from vit_vs_cnn.data.dataset import PREPARE_REMEDY, PREPARED_SPLITS, SplitName
from vit_vs_cnn.data.decode import DecodedImages
from vit_vs_cnn.data.duplicates import Groups, fingerprint, identical_groups, near_groups
from vit_vs_cnn.data.groups import possible_groups, shared_groups
from vit_vs_cnn.data.notes import balance_note
from vit_vs_cnn.data.sources.source import Source, Unreadable

Kind = Literal[
    "unreadable",
    "stray_file",
    "missing_file",
    "contradiction",
    "no_label",
    "repeated_row",
    "unlisted_file",
    "tiny_class",
    "missing_class",
    "constant",
    "duplicate",
    "leakage",
    "label_conflict",
    "near_duplicate",
    "near_leakage",
    "look_alike",
    "group_leakage",
    "possible_group",
]

Severity = Literal["warning", "note"]

_SENTENCES: dict[Kind, tuple[Severity, str]] = {
    "unreadable": ("warning", "files could not be read as images and are skipped"),
    "stray_file": ("note", "files lie outside the class folders and are ignored"),
    "missing_file": ("warning", "rows of the tables name an image that is not there and are skipped"),
    "contradiction": ("warning", "images have rows with different labels, splits or groups and are skipped"),
    "no_label": ("warning", "images have a row without a label and are skipped"),
    "repeated_row": ("note", "images have the same row more than once and count once"),
    "unlisted_file": ("note", "image files are in no row of the tables and are ignored"),
    "tiny_class": ("warning", "classes have fewer than {minimum} training images"),
    "missing_class": ("warning", "times a class has no image in a split"),
    "constant": ("warning", "images are of one colour all over"),
    "duplicate": ("warning", "groups of identical images within a split"),
    "leakage": ("warning", "groups of identical images across splits"),
    "label_conflict": ("warning", "groups of identical images with more than one label"),
    "near_duplicate": ("note", "groups of nearly identical images within a split"),
    "near_leakage": ("note", "groups of nearly identical images across splits"),
    "look_alike": (
        "note",
        "of {different:,} different images are nearly identical to another: here looking alike is no sign of a copy",
    ),
    "group_leakage": ("warning", "groups that images share are in more than one split"),
    "possible_group": ("note", "groups by file names, and no data.groups: an image of the same group may be in train"),
}

_MOST_EXAMPLES = 50
_MOST_IMAGES_OF_A_GROUP = 10
# Where more of the different images than this are nearly identical to another, they are of one kind, not copies.
_LOOK_ALIKE_SHARE = 0.5


class ImageRef(Record):
    """An image of the prepared data: row `row` of split `split`."""

    split: SplitName
    row: int
    class_name: str
    name: str


class Finding(Record):
    """One kind of thing that the checks found.

    `count` counts files, classes, images or groups of images, as `sentence` says. `examples` are names of files or
    classes, `groups` are images that belong together; both hold 50 at most, and a group 10 images at most. `look_alike`
    stands in place of the near-duplicates where most images have one.
    """

    kind: Kind
    severity: Severity
    count: int
    sentence: str
    examples: tuple[str, ...] = ()
    groups: tuple[tuple[ImageRef, ...], ...] = ()


class Checks(Record):
    """checks.json: how many images were checked, the count of every kind of finding, and the findings.

    `notes` say how the source and its images were understood.
    `test_rows_in_train` are the rows of all test images of which train has an identical or nearly identical one,
    `test_rows_in_val` those of which val has, which a refit trains on too.
    """

    images: int
    counts: dict[Kind, int]
    findings: tuple[Finding, ...]
    test_rows_in_train: tuple[int, ...] = ()
    test_rows_in_val: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def check(
    decoded: DecodedImages, source: Source, unreadable: Sequence[Unreadable], min_images_per_class: int
) -> Checks:
    """Check all images. What is found is reported; nothing is changed."""
    prints = fingerprint(decoded.images)
    identical, near = identical_groups(prints), near_groups(prints)
    names: dict[Kind, Sequence[str]] = {
        "unreadable": [f"{file.name}: {file.reason}" for file in unreadable],
        "stray_file": source.stray,
        "group_leakage": shared_groups(source),
        "possible_group": possible_groups(source),
        **dict(source.row_findings.items()),
        **_rare_classes(decoded, source.classes, min_images_per_class),
    }
    different = len(decoded.labels) - len(identical.rows) + len(identical)
    groups: dict[Kind, Groups] = {
        "constant": Groups(np.flatnonzero(prints.constant), np.arange(prints.constant.sum())),
        "duplicate": _within_split(decoded, identical),
        "leakage": _across_splits(decoded, identical),
        "label_conflict": identical.select(identical.distinct(decoded.labels) > 1),
        **_near_kinds(decoded, near, different),
    }
    counts = {kind: len(names.get(kind, ())) + len(groups.get(kind, ())) for kind in _SENTENCES}
    if "look_alike" in groups:
        counts["look_alike"] = len(near.rows)
    findings = tuple(
        Finding(
            kind=kind,
            severity=severity,
            count=counts[kind],
            sentence=f"{counts[kind]:,} {sentence.format(minimum=min_images_per_class, different=different)}.",
            examples=tuple(names.get(kind, ())[:_MOST_EXAMPLES]),
            groups=_references(decoded, source.classes, groups[kind]) if kind in groups else (),
        )
        for kind, (severity, sentence) in _SENTENCES.items()
        if counts[kind]
    )
    train_counts = np.bincount(decoded.labels[decoded.rows("train")], minlength=len(source.classes)).tolist()
    return Checks(
        images=len(decoded.labels),
        counts=counts,
        findings=findings,
        test_rows_in_train=_test_rows_in("train", decoded, identical, near),
        test_rows_in_val=_test_rows_in("val", decoded, identical, near),
        notes=(*source.notes, *decoded.notes, *balance_note(source.classes, train_counts)),
    )


def write_checks(prepared: Path, checks: Checks) -> None:
    """Write checks.json."""
    checks.write(prepared / "checks.json")


def read_checks(prepared: Path) -> Checks:
    """Read checks.json. Raises UserError where it is missing or of another version."""
    return Checks.read(prepared / "checks.json", PREPARE_REMEDY)


def _rare_classes(decoded: DecodedImages, classes: Sequence[str], minimum: int) -> dict[Kind, list[str]]:
    tiny, missing = [], []
    for split in PREPARED_SPLITS:
        counts = np.bincount(decoded.labels[decoded.rows(split)], minlength=len(classes))
        for name, count in zip(classes, counts, strict=True):
            if split == "train" and count < minimum:
                tiny.append(f"{name}: {count}")
            if count == 0:
                missing.append(f"{name}: {split}")
    return {"tiny_class": tiny, "missing_class": missing}


def _near_kinds(decoded: DecodedImages, near: Groups, different: int) -> dict[Kind, Groups]:
    if len(near.rows) > _LOOK_ALIKE_SHARE * different:
        return {"look_alike": near}
    return {"near_duplicate": _within_split(decoded, near), "near_leakage": _across_splits(decoded, near)}


def _within_split(decoded: DecodedImages, groups: Groups) -> Groups:
    return groups.select(groups.distinct(decoded.splits) < groups.sizes)


def _across_splits(decoded: DecodedImages, groups: Groups) -> Groups:
    return groups.select(groups.distinct(decoded.splits) > 1)


def _test_rows_in(split: SplitName, decoded: DecodedImages, identical: Groups, near: Groups) -> tuple[int, ...]:
    found = np.zeros(len(decoded.labels), np.bool_)
    found[decoded.rows(split)] = True
    # Of identical images only the first was compared with those that are nearly so: it tells the others in the end.
    for groups in (identical, near, identical):
        if len(groups):
            any_found = np.logical_or.reduceat(found[groups.rows], groups.starts)
            found[groups.rows] = np.repeat(any_found, groups.sizes)
    return tuple(np.flatnonzero(found[decoded.rows("test")]).tolist())


def _references(decoded: DecodedImages, classes: Sequence[str], groups: Groups) -> tuple[tuple[ImageRef, ...], ...]:
    return tuple(
        tuple(_reference(decoded, classes, row) for row in rows[:_MOST_IMAGES_OF_A_GROUP].tolist())
        for rows in groups.first(_MOST_EXAMPLES)
    )


def _reference(decoded: DecodedImages, classes: Sequence[str], row: int) -> ImageRef:
    split = PREPARED_SPLITS[decoded.splits[row]]
    return ImageRef(
        split=split,
        row=row - decoded.rows(split).start,
        class_name=classes[decoded.labels[row]],
        name=decoded.names[row],
    )
