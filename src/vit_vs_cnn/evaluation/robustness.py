"""What the replicates of a contestant are worth on changed test images, and the files in robustness/<contestant>/."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError, first_line
from vit_vs_cnn.core.records import write_atomically
from vit_vs_cnn.data.dataset import DatasetInfo, Split
from vit_vs_cnn.evaluation.calibration import expected_calibration_error, reliability_table
from vit_vs_cnn.evaluation.corruptions import CLEAN, CORRUPTIONS, Corruption, corrupted, corruptions_of
from vit_vs_cnn.evaluation.metrics import log_losses
from vit_vs_cnn.evaluation.predict import batch_predict

_POSITION = "position"
_PER_IMAGE = ("correct", "losses", "confidences")

Conditions = dict[tuple[str, int], NDArray[Any]]


@dataclass(frozen=True)
class Robustness:
    """The results of one contestant under every condition.

    `conditions` has a row for each corruption, severity and seed: columns corruption, severity, level, seed, images,
    accuracy, nll, ece; the clean images are severity 0. `positions` int64 (N,) are the rows of test that were used.
    The others have for each (corruption, severity) what each of S replicates made of them, (S, N): whether it is right,
    bool; its negative log-likelihood in nats and its confidence, float32.
    """

    conditions: pd.DataFrame
    positions: NDArray[np.int64]
    correct: Conditions
    losses: Conditions
    confidences: Conditions

    @property
    def corruptions(self) -> list[Corruption]:
        """The corruptions that were measured, in the order of all."""
        return [corruption for corruption in CORRUPTIONS if (corruption.name, 1) in self.correct]

    def severities(self, corruption: str) -> list[tuple[str, int]]:
        """The conditions of a corruption, mildest first."""
        return [condition for condition in self.correct if condition[0] == corruption]

    def at_all_severities(self, corruption: str) -> NDArray[np.bool_]:
        """Whether each replicate was right at the first severity, then at the second …: bool (S, severities x N)."""
        return np.concatenate([self.correct[condition] for condition in self.severities(corruption)], axis=1)

    def means(self) -> dict[str, float]:
        """Accuracy by corruption, over severities and seeds, and the mean of each measure over the corruptions."""
        table = self.by_corruption()
        shifts = [corruption.name for corruption in self.corruptions if corruption.is_corruption]
        accuracies = {f"{name}_accuracy": float(value) for name, value in table["accuracy"].items()}
        return accuracies | {str(measure): float(value) for measure, value in table.loc[shifts].mean().items()}

    def by_corruption(self) -> pd.DataFrame:
        """Accuracy, nll and ece by corruption, means over severities and seeds."""
        return self.conditions.groupby("corruption", sort=False)[["accuracy", "nll", "ece"]].mean()


def chosen_images(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Positions (int64, rising) of `count` images, or all: of each class its share, which ones by `seed`."""
    by_class = np.lexsort((np.random.default_rng(seed).permutation(len(labels)), labels))
    places = np.linspace(0, len(labels), min(count, len(labels)), endpoint=False).astype(np.int64)
    return np.sort(by_class[places])


def mean_colour(info: DatasetInfo) -> list[int]:
    """The mean colour of the training images, in levels: nothing to a network that is normalised by it."""
    return [round(255 * mean) for mean in info.mean]


def measure_robustness(
    replicates: Mapping[int, Callable[[Tensor], Tensor]],
    test: Split,
    info: DatasetInfo,
    images: int,
    batch_size: int,
    device: torch.device,
) -> Robustness:
    """Measure replicates on at most so many images of `test` under every condition.

    By seed, each takes a batch of uint8 images (N, S, S, 3) on `device` and returns its probabilities.
    """
    positions = chosen_images(test.labels, images, info.split_seed)
    pixels, labels = test.images[positions], test.labels[positions]
    blank, grey = mean_colour(info), info.decoding.channels == "grey"
    conditions = [
        (corruption, severity, level)
        for corruption in corruptions_of(pixels)
        for severity, level in enumerate(corruption.levels, start=1)
    ]
    rows, correct, losses, confidences = [], {}, {}, {}

    def measure(name: str, severity: int, level: float, changed: NDArray[np.uint8]) -> None:
        right, loss, confidence = [], [], []
        for seed, call in replicates.items():
            probabilities = batch_predict(call, changed, batch_size, device)
            right.append(probabilities.argmax(axis=1) == labels)
            loss.append(log_losses(probabilities, labels).astype(np.float32))
            confidence.append(probabilities.max(axis=1))
            rows.append(
                {
                    "corruption": name,
                    "severity": severity,
                    "level": level,
                    "seed": seed,
                    "images": len(labels),
                    "accuracy": float(right[-1].mean()),
                    "nll": float(loss[-1].mean(dtype=np.float64)),
                    "ece": expected_calibration_error(reliability_table(probabilities, labels)),
                }
            )
        condition = name, severity
        correct[condition], losses[condition] = np.array(right), np.array(loss)
        confidences[condition] = np.array(confidence, np.float32)

    measure(CLEAN, 0, 0.0, pixels)
    for corruption, severity, level in tqdm(conditions, desc="conditions", **bar_options()):
        changed = corrupted(
            pixels, positions.tolist(), corruption, level,
            blank=blank, grey=grey, batch_size=batch_size, device=device,
        )  # fmt: skip
        measure(corruption.name, severity, level, changed)
    return Robustness(pd.DataFrame(rows), positions, correct, losses, confidences)


def write_robustness(folder: Path, robustness: Robustness) -> None:
    """Write conditions.csv, means.json, and images.parquet: a row per image, three columns per condition and seed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "means.json", json.dumps(robustness.means(), indent=2) + "\n")
    robustness.conditions.to_csv(folder / "conditions.csv", index=False, float_format="%.6g")
    columns: dict[str, NDArray[Any]] = {_POSITION: robustness.positions}
    seeds = robustness.conditions["seed"].unique()
    for field in _PER_IMAGE:
        for (name, severity), found in getattr(robustness, field).items():
            columns |= {
                f"{field} {name} {severity} {seed}": of_seed for seed, of_seed in zip(seeds, found, strict=True)
            }
    pq.write_table(pa.table(columns), folder / "images.parquet", compression="zstd", use_dictionary=False)


def read_robustness(folder: Path) -> Robustness:
    """Read what `write_robustness` wrote. Raises UserError where a file is missing or damaged."""
    try:
        conditions = pd.read_csv(folder / "conditions.csv")
        table = pq.read_table(folder / "images.parquet")
        of_replicates: dict[str, dict[tuple[str, int], list[NDArray[Any]]]] = {field: {} for field in _PER_IMAGE}
        for column in table.column_names[1:]:
            field, name, severity, _ = column.split()
            of_replicates[field].setdefault((name, int(severity)), []).append(table[column].to_numpy())
        correct, losses, confidences = (
            {condition: np.array(found) for condition, found in of_replicates[field].items()} for field in _PER_IMAGE
        )
        return Robustness(conditions, table[_POSITION].to_numpy(), correct, losses, confidences)
    # The errors of pandas and pyarrow are ValueErrors.
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}: no complete results here ({first_line(error)}); run `dvc repro robustness@{folder.name}`."
        ) from None
