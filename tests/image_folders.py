"""Image folders that tests make for themselves, and what a source has read of one."""

from collections import Counter
from pathlib import Path

from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.sources.source import Source

# As much of an image as an image folder looks at.
PNG = b"\x89PNG"


def write(folder: Path, *names: str) -> Path:
    """Files by their paths, and folders where a path ends with a slash; a file of text has the suffix .txt or .csv."""
    for name in names:
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"words" if path.suffix in (".txt", ".csv") else PNG)
    return folder


def counts(source: Source) -> dict[str, Counter[str]]:
    """The number of images of each class by split."""
    found: dict[str, Counter[str]] = {}
    for split, label in zip(source.splits, source.labels, strict=True):
        found.setdefault(PREPARED_SPLITS[split], Counter())[source.classes[label]] += 1
    return found
