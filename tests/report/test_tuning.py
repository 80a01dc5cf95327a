"""The report of a search: its figures, its sentence, its table and the interactive page."""

import json
from collections.abc import Sequence
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from vit_vs_cnn.report.tuning import write_tuning_report
from vit_vs_cnn.tuning.result import StudyResult
from vit_vs_cnn.tuning.summary import TuningSummary

FIGURES = ["gain", "history", "importances", "parallel_coordinates", "slices", "intermediate_values", "timeline"]


def result_of(values: Sequence[float | None]) -> StudyResult:
    """A search of learning rate and optimizer over two epochs: the recipe, then others; None is a failed trial."""
    study = optuna.create_study(direction="maximize")
    for number, value in enumerate(values):
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.FAIL if value is None else TrialState.COMPLETE,
                value=value,
                params={"lr": 0.001 * (number + 1), "optimizer": ("adamw", "sgd")[number % 2]},
                distributions={
                    "lr": FloatDistribution(0.0001, 0.1, log=True),
                    "optimizer": CategoricalDistribution(("adamw", "sgd")),
                },
                intermediate_values={} if value is None else {1: value / 2, 2: value},
                user_attrs={"reason": "the loss is NaN"} if value is None else {"seconds": 1.5},
            )
        )
    trials = study.trials
    recipe, best = trials[0], study.best_trial
    summary = TuningSummary(
        trials=len(trials),
        complete=len(trials) - values.count(None),
        failed=values.count(None),
        recipe_val_accuracy=recipe.value,
        best_val_accuracy=best.value,
        gain=None if recipe.value is None else study.best_value - recipe.value,
        seconds=1234.0,
        epochs_saved=3,
    )
    return StudyResult(study, best, recipe, trials, summary)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            [0.5, 0.6, 0.7, 0.4, 0.55],
            "The best trial reached 70.00% on validation, the recipe as it was 50.00%. It was chosen on "
            "these very images, so expect less on other images. 5 trials (5 complete, 0 pruned, 0 failed) took",
        ),
        (
            [None, 0.6, 0.7],
            "The best trial reached 70.00% on validation; the recipe as it was failed. "
            "3 trials (2 complete, 0 pruned, 1 failed) took 1,234 s of training; pruning saved 3 epochs.",
        ),
        (
            [0.7, 0.6, None],
            "No trial was better than the recipe as it was (70.00% on validation). "
            "3 trials (2 complete, 0 pruned, 1 failed) took 1,234 s of training; pruning saved 3 epochs.",
        ),
    ],
    ids=["gain", "failed recipe", "no gain"],
)
def test_the_report_shows_what_the_search_gained(values: list[float | None], expected: str, tmp_path: Path) -> None:
    write_tuning_report(result_of(values), "vit", "#0072B2", tmp_path)
    index = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert index["figures"][0]["caption"].startswith(expected)
    assert index["figures"][0]["alt"].endswith(", reached 70.00% on validation")
    assert all(figure["alt"].startswith(f"{len(values)} trials: ") for figure in index["figures"][1:])
    complete = len(values) - values.count(None)
    shown = [name for name in FIGURES if name != "importances" or complete >= 4]
    assert [figure["file"] for figure in index["figures"]] == [f"{name}.svg" for name in shown]
    assert {path.name for path in tmp_path.glob("*.svg")} == {figure["file"] for figure in index["figures"]}
    assert index["skipped"] == (
        [] if complete >= 4 else ["The importances are not shown: too few complete trials differ."]
    )

    page = (tmp_path / "study.html").read_text(encoding="utf-8")
    assert "<h1>Tuning vit</h1>" in page
    assert expected in page
    assert page.count("Plotly.newPlot") >= len(shown) - 1
    assert "<script src=" not in page  # it works without a network
    trials = pd.read_csv(tmp_path / "trials.csv")
    assert trials["state"].tolist() == ["fail" if value is None else "complete" for value in values]
    assert trials["reason"].notna().sum() == values.count(None)
