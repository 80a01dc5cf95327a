"""What the gate judges: how versions did on the same test images, as recorded or else measured again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import DatasetInfo, Split, read_info, read_split
from vit_vs_cnn.evaluation.calibration import expected_calibration_error, reliability_table
from vit_vs_cnn.evaluation.results import Predictions, read_evaluation
from vit_vs_cnn.registry.audit import RuleOutcome
from vit_vs_cnn.registry.gate import Evidence
from vit_vs_cnn.registry.loading import RegisteredModel, load_registered
from vit_vs_cnn.registry.versions import Registry, Version

# Where test images are excluded, fewer than these decide nothing.
FEWEST_IMAGES = 50


@dataclass(frozen=True)
class Collected:
    """The evidence on each version, all on the same test images, which none of them was trained on.

    `left_out` counts the test images that one was trained on, of `images` in all. `unknown` are the versions that do
    not say what they were trained on. `evidence` is empty where too few images are left.
    """

    evidence: tuple[Evidence, ...]
    images: int
    left_out: int
    unknown: tuple[int, ...]

    @property
    def rules(self) -> tuple[RuleOutcome, ...]:
        """Whether enough test images are left; no rule where none is excluded."""
        left = self.images - self.left_out
        return tuple(
            RuleOutcome(
                rule="test images",
                measured=f"{left:,} of {self.images:,} that none of the versions was trained on",
                required=f"at least {FEWEST_IMAGES}",
                state="pass" if left >= FEWEST_IMAGES else "fail",
                value=left,
            )
            for _ in range(self.left_out > 0)
        )

    @property
    def sentence(self) -> str:
        """What is excluded, and what is not known, as a part of the sentence about what was judged."""
        parts = []
        if self.left_out:
            parts.append(f"{self.left_out:,} of {self.images:,} test images, which one was trained on, are excluded")
        if self.unknown:
            versions = f"version{'s' if len(self.unknown) > 1 else ''} {', '.join(map(str, self.unknown))}"
            parts.append(f"it is not recorded which images {versions} trained on")
        return "".join(f"; {part}" for part in parts)


def on_same_images(versions: Sequence[Version]) -> bool:
    """Whether the versions were evaluated on the same test images."""
    return len({version.test_digest for version in versions}) == 1


def judged_digest(versions: Sequence[Version], prepared: Path) -> str:
    """The digest of the test images that `collect` judges the versions on. Raises UserError where there are none."""
    if on_same_images(versions):
        return versions[0].test_digest
    info, _ = _test_split(prepared, versions[0])
    return info.splits["test"].digest


def collect(registry: Registry, versions: Sequence[Version], prepared: Path) -> Collected:
    """The evidence on each version, all on the same test images, without those that one of them was trained on.

    The recorded predictions where they are of the same images, otherwise predictions for the test split in the folder
    `prepared`. Raises UserError where there is none, or one of other classes or another image size.
    """
    measured = [_measure(registry, version, versions, prepared) for version in versions]
    trained_on = {version.number: registry.trained_on(version) for version in versions}
    digests = next((found.digests for _, found in measured if found.digests is not None), None)
    images = len(measured[0][1].labels)
    unseen = np.ones(images, np.bool_)
    if digests is not None:
        for seen in trained_on.values():
            unseen &= ~np.isin(digests, seen if seen is not None else [])
    left = int(unseen.sum())
    unknown = tuple(number for number, seen in trained_on.items() if seen is None or digests is None)
    if left < min(images, FEWEST_IMAGES):
        return Collected((), images, images - left, unknown)
    evidence = [
        _evidence(version, classes, predictions, unseen)
        for version, (classes, predictions) in zip(versions, measured, strict=True)
    ]
    return Collected(tuple(evidence), images, images - left, unknown)


def predict_test(model: RegisteredModel, info: DatasetInfo, test: Split) -> Predictions:
    """The model's predictions for the test split, with a progress bar.

    Raises UserError where the model has other classes, or takes images of another size or decoded in another way.
    """
    if model.classes != info.classes:
        raise UserError(f"version {model.version} has the classes {', '.join(model.classes)}; {info.name} has others.")
    if model.image_size != info.image_size:
        raise UserError(
            f"version {model.version} takes images of {model.image_size} px; {info.name} has {info.image_size} px."
        )
    if not model.decoding.agrees_with(info.decoding):
        raise UserError(
            f"version {model.version} takes images with {model.decoding}; those of {info.name} have {info.decoding}: "
            "prepare them in the same way (data.fit, data.channels, data.bit_depth)."
        )
    probabilities = model.probabilities(test.images, f"version {model.version}")
    return Predictions(test.names, test.labels, probabilities.argmax(axis=1), probabilities, test.groups, test.digests)


def _measure(
    registry: Registry, version: Version, versions: Sequence[Version], prepared: Path
) -> tuple[tuple[str, ...], Predictions]:
    if on_same_images(versions):
        with registry.artifacts(version, "evaluation") as folder:
            evaluation = read_evaluation(folder)
        return evaluation.classes, evaluation.predictions
    info, test = _test_split(prepared, versions[0])
    model = load_registered(registry.name, version.number, torch.device("cpu"))
    return info.classes, predict_test(model, info, test)


def _evidence(
    version: Version, classes: tuple[str, ...], predictions: Predictions, unseen: NDArray[np.bool_]
) -> Evidence:
    predictions = predictions if unseen.all() else predictions.of_rows(np.flatnonzero(unseen))
    reliability = reliability_table(predictions.probabilities, predictions.labels)
    return Evidence(
        classes=classes,
        predictions=predictions,
        calibration_error=expected_calibration_error(reliability),
        # The cost does not depend on the images: it stays the one that was measured after training.
        latency_p95_ms=version.metric("latency_p95_ms") or float("nan"),
        size_mb=version.metric("size_mb") or float("nan"),
    )


def _test_split(prepared: Path, version: Version) -> tuple[DatasetInfo, Split]:
    try:
        return read_info(prepared), read_split(prepared, "test")
    except UserError:
        raise UserError(
            f"version {version.number} was evaluated on other test images than the champion, and {prepared} has none "
            "to measure both on; name a folder of prepared data, e.g. --data runs/NAME/data/prepared."
        ) from None
