"""A run's results as tables and its registered model as a function, for notebooks: `vit_vs_cnn.load_run`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import COMPARE, PARAMS, evaluated, project_root, runs_dir, trained
from vit_vs_cnn.data.sources.source import Unreadable
from vit_vs_cnn.evaluation.results import Evaluation, read_evaluation
from vit_vs_cnn.registry.loading import RegisteredModel, load_registered
from vit_vs_cnn.registry.versions import resolve_model_name
from vit_vs_cnn.serving.predict import decode_file


@dataclass(frozen=True)
class Classifier:
    """A registered model as a function."""

    model: RegisteredModel

    def __repr__(self) -> str:
        return f"<{self.model.name} version {self.model.version}: {self.model.contestant}>"

    def __call__(self, images: NDArray[np.uint8] | Iterable[Path | str]) -> pd.DataFrame:
        """The probability of each class, a row per image: of files, or of pixels uint8 (N, S, S, 3), RGB.

        S is `model.image_size`. Raises UserError where a file cannot be read.
        """
        if isinstance(images, np.ndarray):
            pixels, names = images, None
        else:
            names = [*map(str, images)]
            decoded = [decode_file(Path(name), self.model.image_size, self.model.decoding) for name in names]
            for image in decoded:
                if isinstance(image, Unreadable):
                    raise UserError(f"{image.name}: {image.reason}.")
            pixels = np.stack([image for image in decoded if not isinstance(image, Unreadable)])
        return pd.DataFrame(self.model.probabilities(pixels), index=names, columns=list(self.model.classes))


@dataclass(frozen=True)
class LoadedRun:
    """A finished run of the pipeline: `folder` is its workspace, `settings` are those of its params.yaml.

    Tables of trainings have the columns contestant and seed before their own.
    """

    name: str
    folder: Path
    settings: Settings = field(repr=False)

    @property
    def answer(self) -> str:
        """The answer in words."""
        text: str = json.loads((self.folder / COMPARE / "significance.json").read_text(encoding="utf-8"))["answer"]
        return text

    @property
    def comparison(self) -> pd.DataFrame:
        """A row per contestant: accuracy with its interval, quality, cost."""
        return pd.read_csv(self.folder / COMPARE / "comparison.csv", dtype={"contestant": str}, index_col="contestant")

    @property
    def history(self) -> pd.DataFrame:
        """A row per epoch of each training."""
        files = {one: self.folder / trained(*one) / "history.csv" for one in self._trainings}
        return self._joined({one: pd.read_csv(file) for one, file in files.items()})

    @property
    def predictions(self) -> pd.DataFrame:
        """A row per test image and training: name, label, predicted, confidence, correct."""
        return self._joined({one: _predictions(evaluation) for one, evaluation in self._evaluations.items()})

    @property
    def per_class(self) -> pd.DataFrame:
        """A row per class and training: precision, recall, F1, images."""
        return self._joined({one: evaluation.per_class for one, evaluation in self._evaluations.items()})

    def model(self, version: str | int = "champion") -> Classifier:
        """A version of the registered model of the run's data, by its alias or number.

        Raises UserError where the data have no registered model, or there is no such version.
        """
        return Classifier(load_registered(resolve_model_name(self.settings.data.name, None), version))

    @property
    def _trainings(self) -> list[tuple[str, int]]:
        return [(contestant, seed) for contestant in self.settings.models for seed in self.settings.seeds]

    @cached_property
    def _evaluations(self) -> dict[tuple[str, int], Evaluation]:
        return {one: read_evaluation(self.folder / evaluated(*one)) for one in self._trainings}

    @staticmethod
    def _joined(tables: dict[tuple[str, int], pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(tables, names=["contestant", "seed"]).reset_index(level=[0, 1]).reset_index(drop=True)


def load_run(name: str = "") -> LoadedRun:
    """The run that `vit-vs-cnn run --name NAME` made; without a name, what `dvc repro` made in the project's folder.

    The working directory is in the project. Raises UserError outside a project, and where there is no finished run of
    this name.
    """
    folder = runs_dir() / name if name else project_root()
    if not (folder / COMPARE / "comparison.csv").is_file():
        finished = sorted(path.parents[2].name for path in runs_dir().glob(f"*/{COMPARE}/comparison.csv"))
        known = f"there are: {', '.join(finished)}" if finished else "none has finished yet"
        raise UserError(f"{folder} has no comparison: {known}; `vit-vs-cnn run --preset demo --name demo` makes one.")
    return LoadedRun(name or folder.name, folder, read_settings(folder / PARAMS))


def _predictions(evaluation: Evaluation) -> pd.DataFrame:
    found, classes = evaluation.predictions, np.array(evaluation.classes)
    return pd.DataFrame(
        {
            "name": found.names,
            "label": classes[found.labels],
            "predicted": classes[found.predicted],
            "confidence": found.probabilities.max(axis=1),
            "correct": found.correct,
        }
    )
