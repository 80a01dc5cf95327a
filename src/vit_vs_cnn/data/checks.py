"""What is wrong with the data, found while they were prepared: data/prepared/checks.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import PREPARED_SPLITS, SplitName
from vit_vs_cnn.data.duplicates import Rows, fingerprint, identical_groups, near_groups
from vit_vs_cnn.data.sources.source import Source, Unreadable

Kind = Literal[
    "unreadable",
    "stray_file",
    "tiny_class",
    "missing_class",
    "constant",
    "duplicate",
    "leakage",
    "label_conflict",
    "near_duplicate",
    "near_leakage",
]

Severity = Literal["warning", "note"]

_MOST_EXAMPLES = 50
_MOST_IMAGES_OF_A_GROUP = 10


class ImageRef(BaseModel):
    """An image of the prepared data: row `row` of split `split`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: SplitName
    row: int
    class_name: str
    name: str


class Finding(BaseModel):
    """One kind of thing that the checks found.

    `count` counts files, classes, images or groups of images, as `sentence` says. `examples` are names of files or
    classes, `groups` are images that belong together; both hold 50 at most, and a group 10 images at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    severity: Severity
    count: int
    sentence: str
    examples: tuple[str, ...] = ()
    groups: tuple[tuple[ImageRef, ...], ...] = ()


class Checks(BaseModel):
    """checks.json: how many images were checked, the count of every kind of finding, and the findings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    counts: dict[Kind, int]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class DecodedImages:
    """All N decoded images, those of train first, then val, then test.

    `images` uint8 (N, S, S, 3); `labels` int64 (N,); `splits` int64 (N,), positions in PREPARED_SPLITS; N `names`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    splits: NDArray[np.int64]
    names: Sequence[str]

    def rows(self, split: SplitName) -> slice:
        """The rows of one split."""
        code = PREPARED_SPLITS.index(split)
        first, last = np.searchsorted(self.splits, [code, code + 1])
        return slice(int(first), int(last))


def check(pixels: DecodedImages, source: Source, unreadable: Sequence[Unreadable], min_images_per_class: int) -> Checks:
    """Check all images. What is found is reported; nothing is changed."""
    found = [
        *_files(source, unreadable),
        *_class_sizes(pixels, source.classes, min_images_per_class),
        *_images(pixels, source.classes),
    ]
    counts: dict[Kind, int] = dict.fromkeys(get_args(Kind), 0)
    counts.update({finding.kind: finding.count for finding in found})
    return Checks(images=len(pixels.labels), counts=counts, findings=tuple(found))


def write_checks(prepared: Path, checks: Checks) -> None:
    """Write checks.json."""
    (prepared / "checks.json").write_text(checks.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_checks(prepared: Path) -> Checks:
    """Read checks.json. Raises UserError where it is missing or not of this version."""
    path = prepared / "checks.json"
    try:
        return Checks.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no prepared data here; run `dvc repro prepare` first.") from None
    except ValidationError:
        raise UserError(f"{path}: was written by another version; run `dvc repro --force prepare`.") from None


def _files(source: Source, unreadable: Sequence[Unreadable]) -> list[Finding]:
    return [
        *_named(
            "unreadable",
            "warning",
            "files could not be read as images and are left out",
            [f"{file.name}: {file.reason}" for file in unreadable],
        ),
        *_named("stray_file", "note", "files lie outside the class folders and are left out", source.stray),
    ]


def _class_sizes(pixels: DecodedImages, classes: Sequence[str], least: int) -> list[Finding]:
    counts = {
        split: np.bincount(pixels.labels[pixels.rows(split)], minlength=len(classes)) for split in PREPARED_SPLITS
    }
    tiny = [f"{name}: {count}" for name, count in zip(classes, counts["train"], strict=True) if count < least]
    missing = [
        f"{classes[label]}: {split}"
        for split in PREPARED_SPLITS
        for label in np.flatnonzero(counts[split] == 0).tolist()
    ]
    return [
        *_named("tiny_class", "warning", f"classes have fewer than {least} training images", tiny),
        *_named("missing_class", "warning", "times a class has no image in a split", missing),
    ]


def _images(pixels: DecodedImages, classes: Sequence[str]) -> list[Finding]:
    prints = fingerprint(pixels.images)
    identical, near = identical_groups(prints), near_groups(pixels.images, prints)
    constant = [np.array([row]) for row in np.flatnonzero(prints.constant)]
    conflicts = [rows for rows in identical if len(np.unique(pixels.labels[rows])) > 1]
    found: list[tuple[Kind, Severity, str, list[Rows]]] = [
        ("constant", "warning", "images are of one colour all over", constant),
        ("duplicate", "warning", "groups of identical images within a split", _within_split(pixels, identical)),
        ("leakage", "warning", "groups of identical images across splits", _across_splits(pixels, identical)),
        ("label_conflict", "warning", "groups of identical images with more than one label", conflicts),
        ("near_duplicate", "note", "groups of nearly identical images within a split", _within_split(pixels, near)),
        ("near_leakage", "note", "groups of nearly identical images across splits", _across_splits(pixels, near)),
    ]
    return [
        Finding(
            kind=kind,
            severity=severity,
            count=len(groups),
            sentence=f"{len(groups):,} {what}.",
            groups=tuple(
                tuple(_reference(pixels, classes, int(row)) for row in rows[:_MOST_IMAGES_OF_A_GROUP])
                for rows in groups[:_MOST_EXAMPLES]
            ),
        )
        for kind, severity, what, groups in found
        if groups
    ]


def _within_split(pixels: DecodedImages, groups: Sequence[Rows]) -> list[Rows]:
    return [rows for rows in groups if len(np.unique(pixels.splits[rows])) < len(rows)]


def _across_splits(pixels: DecodedImages, groups: Sequence[Rows]) -> list[Rows]:
    return [rows for rows in groups if len(np.unique(pixels.splits[rows])) > 1]


def _named(kind: Kind, severity: Severity, what: str, names: Sequence[str]) -> list[Finding]:
    if not names:
        return []
    examples, sentence = tuple(names[:_MOST_EXAMPLES]), f"{len(names):,} {what}."
    return [Finding(kind=kind, severity=severity, count=len(names), sentence=sentence, examples=examples)]


def _reference(pixels: DecodedImages, classes: Sequence[str], row: int) -> ImageRef:
    split = PREPARED_SPLITS[pixels.splits[row]]
    return ImageRef(
        split=split,
        row=row - pixels.rows(split).start,
        class_name=classes[pixels.labels[row]],
        name=pixels.names[row],
    )
