"""What the gate judges: both versions on the same test images, as recorded or, where those differ, measured again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from vit_vs_cnn.core.console import bar_options
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import DatasetInfo, Split, read_info, read_split
from vit_vs_cnn.evaluation.calibration import expected_calibration_error, reliability_table
from vit_vs_cnn.evaluation.results import Predictions, read_evaluation
from vit_vs_cnn.registry.gate import Evidence
from vit_vs_cnn.registry.loading import load_registered
from vit_vs_cnn.registry.versions import TEST_DIGEST, Registry, Version

_BATCH = 256


@dataclass(frozen=True)
class EvaluationPair:
    """What is to be judged; `note` says so where the versions had to be measured again."""

    classes: tuple[str, ...]
    challenger: Evidence
    champion: Evidence | None
    note: str = ""


def collect(registry: Registry, challenger: Version, champion: Version | None, prepared: Path) -> EvaluationPair:
    """The evidence on `challenger` and, where there is one, on `champion`.

    Recorded evaluations of the same test images count as they are. Otherwise both versions are measured on the test
    split in the folder `prepared`; UserError where there is none, or one that a version cannot take.
    """
    if champion is None or _on_same_images(challenger, champion):
        classes, recorded = _recorded(registry, challenger)
        return EvaluationPair(classes, recorded, _recorded(registry, champion)[1] if champion else None)
    note = (
        f"Version {challenger.number} was evaluated on other test images than the champion, version {champion.number}: "
        f"both are measured again on {prepared / 'test'}."
    )
    try:
        info, test = read_info(prepared), read_split(prepared, "test")
    except UserError:
        raise UserError(
            f"{note} There are none; name a folder of prepared data, e.g. --data runs/NAME/data/prepared."
        ) from None
    measured = [_measured(registry, each, info, test) for each in (challenger, champion)]
    return EvaluationPair(info.classes, measured[0], measured[1], note)


def predict_registered(registry: Registry, version: Version, info: DatasetInfo, test: Split) -> NDArray[np.float32]:
    """Class probabilities float32 (N, K) of the registered model itself, on the CPU.

    Raises UserError where the version knows other classes or takes images of another size.
    """
    model = load_registered(registry.name, version.number, torch.device("cpu"))
    if model.classes != info.classes:
        raise UserError(
            f"version {version.number} knows the classes {', '.join(model.classes)}; {info.name} has others."
        )
    if model.image_size != info.image_size:
        raise UserError(
            f"version {version.number} takes images of {model.image_size} px; {info.name} has {info.image_size} px."
        )
    batches = range(0, len(test), _BATCH)
    return np.concatenate(
        [
            # A copy: a tensor must not point into a memory-mapped file.
            model.probabilities(np.array(test.images[start : start + _BATCH]))
            for start in tqdm(batches, desc=f"version {version.number}", unit="batch", **bar_options())
        ]
    )


def _on_same_images(first: Version, second: Version) -> bool:
    return TEST_DIGEST in first.tags and first.tags[TEST_DIGEST] == second.tags.get(TEST_DIGEST)


def _recorded(registry: Registry, version: Version) -> tuple[tuple[str, ...], Evidence]:
    with registry.artifacts(version, "evaluation") as folder:
        evaluation = read_evaluation(folder)
    calibration_error = evaluation.metrics.expected_calibration_error
    return evaluation.classes, _evidence(version, evaluation.predictions, calibration_error)


def _measured(registry: Registry, version: Version, info: DatasetInfo, test: Split) -> Evidence:
    probabilities = predict_registered(registry, version, info, test)
    predictions = Predictions(test.names, test.labels, probabilities.argmax(axis=1), probabilities)
    return _evidence(version, predictions, expected_calibration_error(reliability_table(probabilities, test.labels)))


def _evidence(version: Version, predictions: Predictions, calibration_error: float) -> Evidence:
    """The cost does not depend on the images: it stays the one that was measured after training."""
    return Evidence(
        labels=predictions.labels,
        predicted=predictions.predicted,
        calibration_error=calibration_error,
        latency_p95_ms=version.figure("latency_p95_ms") or float("nan"),
        size_mb=version.figure("size_mb") or float("nan"),
    )
