"""What an evaluation writes can be read back, and what is missing is said."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from factories import cost
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import COST, cost_file
from vit_vs_cnn.core.records import numbers_of
from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.evaluation.metrics import evaluate
from vit_vs_cnn.evaluation.results import Evaluation, read_cost, read_evaluation, write_evaluation

# Names that CSV readers like to turn into something else.
CLASSES = ("NA", "true", "007", 'a,"b\n"')


@pytest.fixture
def evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    weights = rng.random((20, 4)).astype(np.float32)
    labels = np.arange(20) % 3
    split = Split(np.zeros((20, 1, 1, 3), np.uint8), labels, tuple(f"test/NA/{i}.png" for i in range(20)))
    return evaluate(weights / weights.sum(axis=1, keepdims=True), split, CLASSES, 0.95)


def test_everything_is_read_as_it_was_written(tmp_path: Path, evaluation: Evaluation) -> None:
    write_evaluation(tmp_path, evaluation)
    back = read_evaluation(tmp_path)
    assert back.classes == CLASSES
    assert back.metrics == evaluation.metrics
    pd.testing.assert_frame_equal(back.per_class, evaluation.per_class, check_dtype=False)
    pd.testing.assert_frame_equal(back.reliability, evaluation.reliability, check_dtype=False)
    np.testing.assert_array_equal(back.confusion, evaluation.confusion)
    assert back.predictions.names == evaluation.predictions.names
    np.testing.assert_array_equal(back.predictions.labels, evaluation.predictions.labels)
    np.testing.assert_array_equal(back.predictions.predicted, evaluation.predictions.predicted)
    np.testing.assert_array_equal(back.predictions.probabilities, evaluation.predictions.probabilities)
    assert back.predictions.probabilities.dtype == np.float32


def test_predictions_have_a_row_for_each_image_and_a_column_for_each_class(
    tmp_path: Path, evaluation: Evaluation
) -> None:
    write_evaluation(tmp_path, evaluation)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.column_names == ["name", "label", "predicted", "p_0", "p_1", "p_2", "p_3"]
    assert table.num_rows == 20
    assert [str(field.type) for field in table.schema] == ["string", "int64", "int64", *["float"] * 4]


def test_groups_and_digests_are_beside_the_predictions_where_they_are_known(
    tmp_path: Path, evaluation: Evaluation
) -> None:
    groups, digests = tuple(f"person {row // 5}" for row in range(20)), np.arange(2**64 - 20, 2**64, dtype=np.uint64)
    predictions = replace(evaluation.predictions, groups=groups, digests=digests)
    write_evaluation(tmp_path, replace(evaluation, predictions=predictions))
    back = read_evaluation(tmp_path).predictions
    assert back.groups == groups
    assert back.group_codes is not None
    assert back.group_codes.tolist() == [row // 5 for row in range(20)]
    np.testing.assert_array_equal(back.digests, digests)
    assert back.probabilities.shape == (20, 4)
    assert evaluation.predictions.group_codes is None


def test_metrics_are_flat_numbers_without_what_there_is_not(tmp_path: Path, evaluation: Evaluation) -> None:
    write_evaluation(tmp_path, evaluation)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert "top5_accuracy" not in written
    assert all(isinstance(value, int | float) for value in written.values())
    assert numbers_of(evaluation.metrics) == written
    assert "device" not in numbers_of(cost())


def test_the_cost_is_read_as_it_was_written_and_missing_names_its_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"cost/swin\.json: does not exist; run `dvc repro cost`"):
        read_cost("swin")
    COST.mkdir()
    cost().write(cost_file("swin"))
    assert read_cost("swin") == cost()


def test_an_evaluation_that_is_not_there_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no complete evaluation here.*dvc repro evaluate@swin-3"):
        read_evaluation(tmp_path / "swin" / "3")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", b"{"),
        ("confusion.csv", b"true,a\na,x\n"),
        ("per_class.csv", b""),
        ("predictions.parquet", b"not parquet"),
    ],
)
def test_a_damaged_file_is_a_users_error(tmp_path: Path, evaluation: Evaluation, name: str, content: bytes) -> None:
    write_evaluation(tmp_path, evaluation)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="no complete evaluation here"):
        read_evaluation(tmp_path)


def test_the_first_heading_of_the_confusions_is_no_class(tmp_path: Path, evaluation: Evaluation) -> None:
    write_evaluation(tmp_path, evaluation)
    with (tmp_path / "confusion.csv").open(encoding="utf-8", newline="") as file:
        headings = next(csv.reader(file))
    assert headings == ["true / predicted", *CLASSES]
    assert len(set(headings)) == len(headings)


def test_confusions_of_earlier_releases_are_read(tmp_path: Path, evaluation: Evaluation) -> None:
    write_evaluation(tmp_path, evaluation)
    path = tmp_path / "confusion.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("true / predicted", "true", 1), encoding="utf-8")
    back = read_evaluation(tmp_path)
    assert back.classes == CLASSES
    np.testing.assert_array_equal(back.confusion, evaluation.confusion)
