"""The results of an evaluation, evaluated/<contestant>/<seed>, metrics, tables, predictions per image; and of cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vit_vs_cnn.core.errors import UserError, first_line
from vit_vs_cnn.core.paths import cost_file
from vit_vs_cnn.core.records import Record
from vit_vs_cnn.data.dataset import group_codes

# The heading of confusion.csv's first column: no folder has such a name, and a label of a table hardly.
_TRUE_CLASS = "true / predicted"


class Views(Record):
    """Test accuracy with answers averaged over several views of each image, beside that of the plain model.

    `forwards` is how often the network is called for an image; `gained` and `lost` count the images that are classified
    correctly only with the views, or only without.
    """

    forwards: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    gained: int
    lost: int


class Metrics(Record):
    """metrics.json: quality on the test split; fractions, not per cent. None where the data do not allow a metric.

    What is `uncalibrated` is of the network's own probabilities, before its temperature. `peak_memory_mb` is what the
    predictions took (see `evaluation.cost`), `duplicates_in_train` counts the test images of which train has an
    identical or nearly identical one. With `groups`, the number of groups of the test images, intervals are by groups.
    What may be None for another reason is not in results of release 0.1.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_without_duplicates: float | None = None
    duplicates_in_train: int | None = None
    top5_accuracy: float | None = None
    balanced_accuracy: float | None = None
    macro_f1: float
    negative_log_likelihood: float
    brier_score: float
    expected_calibration_error: float
    expected_calibration_error_low: float | None = None
    expected_calibration_error_high: float | None = None
    uncalibrated_negative_log_likelihood: float | None = None
    uncalibrated_expected_calibration_error: float | None = None
    uncalibrated_expected_calibration_error_low: float | None = None
    uncalibrated_expected_calibration_error_high: float | None = None
    roc_auc_ovr: float | None = None
    images: int
    groups: int | None = None
    confidence: float
    peak_memory_mb: float | None = None
    views: Views | None = None


class Speed(Record):
    """Latency and throughput, measured in several rounds: medians, with the lowest and highest median of a round.

    `latency_p95_ms` is of the calls of all rounds. Units are in the names.
    """

    latency_p50_ms: float
    latency_p50_ms_low: float
    latency_p50_ms_high: float
    latency_p95_ms: float
    throughput_images_per_second: float
    throughput_images_per_second_low: float
    throughput_images_per_second_high: float


class Cost(Speed):
    """cost/<contestant>.json: what training and using the model costs; `flops` is for one image."""

    parameters: int
    flops: int
    seconds_per_epoch: float
    device: str
    input_size: int


@dataclass(frozen=True)
class Predictions:
    """One row per test image: labels and predicted int64 (N,), probabilities float32 (N, K).

    `groups` name what an image shares with others, `digests` uint64 (N,) are of the images as they came from the
    source; None where they are not known.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    groups: tuple[str, ...] | None = None
    digests: NDArray[np.uint64] | None = None

    @property
    def group_codes(self) -> NDArray[np.int64] | None:
        """A code for each image's group, int64 (N,)."""
        return group_codes(self.groups)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image was classified correctly, bool (N,)."""
        return np.equal(self.labels, self.predicted)

    def of_rows(self, rows: NDArray[np.int64]) -> "Predictions":
        """The predictions in some rows."""
        return Predictions(
            names=tuple(self.names[row] for row in rows),
            labels=self.labels[rows],
            predicted=self.predicted[rows],
            probabilities=self.probabilities[rows],
            groups=None if self.groups is None else tuple(self.groups[row] for row in rows),
            digests=None if self.digests is None else self.digests[rows],
        )


@dataclass(frozen=True)
class Evaluation:
    """All measurements of one contestant on the test split.

    `per_class` has columns class, precision, recall, f1, images; `confusion` is int64 (K, K), rows true, columns
    predicted; `reliability` has columns bin_low, bin_high, images, confidence, accuracy, accuracy_low, accuracy_high,
    and the last five once more, named uncalibrated_…, of the network's own probabilities. Results of earlier versions
    lack some of them.
    """

    classes: tuple[str, ...]
    metrics: Metrics
    per_class: pd.DataFrame
    confusion: NDArray[np.int64]
    reliability: pd.DataFrame
    predictions: Predictions


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write all files of `evaluation` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    # Without what is None: `dvc metrics show` would print it as a value.
    evaluation.metrics.write(folder / "metrics.json", exclude_none=True)
    evaluation.per_class.to_csv(folder / "per_class.csv", index=False)
    evaluation.reliability.to_csv(folder / "reliability.csv", index=False)
    confusion = pd.DataFrame(evaluation.confusion, columns=list(evaluation.classes))
    confusion.insert(0, _TRUE_CLASS, list(evaluation.classes))
    confusion.to_csv(folder / "confusion.csv", index=False)
    _write_predictions(folder / "predictions.parquet", evaluation.predictions)


def read_evaluation(folder: Path) -> Evaluation:
    """Read what `write_evaluation` wrote. Raises UserError where a file is missing or damaged."""
    try:
        # Without its headings: that of the first column was `true` up to release 0.1, as a class may be called too.
        confusion = pd.read_csv(
            folder / "confusion.csv", header=None, skiprows=1, dtype={0: str}, keep_default_na=False
        )
        return Evaluation(
            classes=tuple(confusion[0]),
            metrics=Metrics.model_validate_json((folder / "metrics.json").read_text(encoding="utf-8")),
            per_class=_read_per_class(folder / "per_class.csv"),
            confusion=confusion.iloc[:, 1:].to_numpy(np.int64),
            reliability=pd.read_csv(folder / "reliability.csv"),
            predictions=_read_predictions(folder / "predictions.parquet"),
        )
    # The errors of pydantic, pandas and pyarrow are ValueErrors.
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}: no complete evaluation here ({first_line(error)}); "
            f"run `dvc repro evaluate@{folder.parent.name}-{folder.name}`."
        ) from None


def read_cost(contestant: str) -> Cost:
    """Read what the stage `cost` measured of a contestant. Raises UserError where it is missing or not valid."""
    return Cost.read(cost_file(contestant), "run `dvc repro cost`")


def _read_per_class(path: Path) -> pd.DataFrame:
    # A class may be called "NA" or "007": names stay text, only the scores may be empty.
    scores = ["precision", "recall", "f1"]
    return pd.read_csv(path, dtype={"class": str}, keep_default_na=False, na_values={score: [""] for score in scores})


def _write_predictions(path: Path, predictions: Predictions) -> None:
    # Here and below: who computes metrics and writes no predictions, as on a bare GPU host, needs no pyarrow.
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "name": predictions.names,
        "label": predictions.labels,
        "predicted": predictions.predicted,
    }
    if predictions.groups is not None:
        columns["group"] = predictions.groups
    if predictions.digests is not None:
        columns["digest"] = predictions.digests
    columns |= {f"p_{index}": column for index, column in enumerate(predictions.probabilities.T)}
    # Almost every value is there once: a dictionary of them would only add to the file.
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False)


def _read_predictions(path: Path) -> Predictions:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    classes = sum(name.startswith("p_") for name in table.column_names)
    return Predictions(
        names=tuple(map(str, table["name"].to_pylist())),
        labels=table["label"].to_numpy(),
        predicted=table["predicted"].to_numpy(),
        probabilities=np.column_stack([table[f"p_{index}"].to_numpy() for index in range(classes)]),
        groups=tuple(table["group"].to_pylist()) if "group" in table.column_names else None,
        digests=table["digest"].to_numpy() if "digest" in table.column_names else None,
    )
