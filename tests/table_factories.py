"""Tables and images that the tests of sources make for themselves."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.data.dataset import PREPARED_SPLITS
from vit_vs_cnn.data.sources.source import Source

Rows = list[dict[str, Any]]
PETS: Rows = [
    {"file_name": "a.png", "label": "dog"},
    {"file_name": "b.png", "label": "cat"},
    {"file_name": "c.png", "label": "dog"},
]


def settings(path: Path, **changes: object) -> DataSettings:
    values = {"source": "table", "name": "pets", "path": str(path), "image_size": 8, "min_images_per_class": 3}
    return DataSettings.model_validate(values | changes)


def write_table(path: Path, rows: Rows, metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(rows)
        parquet.write_table(table.replace_schema_metadata(metadata), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def png(level: int = 0) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(content, "PNG")
    return content.getvalue()


def write_images(folder: Path, *names: str) -> Path:
    for level, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(level))
    return folder


def placed(source: Source) -> list[tuple[str, str, str]]:
    """Split, class and name of each image."""
    return [
        (PREPARED_SPLITS[split], source.classes[label], name)
        for split, label, name in zip(source.splits, source.labels, source.names, strict=True)
    ]


def classes_in(source: Source) -> list[tuple[str, str]]:
    """Split and class of each image."""
    return [(split, name) for split, name, _ in placed(source)]
