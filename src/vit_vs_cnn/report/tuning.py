"""What a search did, for people: figures, the table of trials, and Optuna's own interactive plots on one page."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from vit_vs_cnn.report.figures import FigureWriter
from vit_vs_cnn.report.tuning_figures import (
    gain_curves,
    history,
    importances,
    intermediate_values,
    parallel_coordinates,
    slices,
    timeline,
)
from vit_vs_cnn.tuning.result import StudyResult
from vit_vs_cnn.tuning.study import seconds_of

# With fewer complete trials, or values that are all equal, there is nothing to attribute to a parameter.
_FEWEST_FOR_IMPORTANCE = 4

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; color: #1b2029 }}
</style>
</head><body><h1>{title}</h1><p>{sentence}</p>
{plots}
</body></html>
"""


def write_tuning_report(study: Study, found: StudyResult, name: str, colour: str, folder: Path) -> None:
    """Write figures (PNG), trials.csv and study.html, where Optuna's plots can be turned and zoomed, into `folder`."""
    gallery = FigureWriter(folder)
    gallery.add("gain", gain_curves(found, name, colour), "The recipe as it was, and the best one found", _gain(found))
    gallery.add(
        "history",
        history(found, name, colour),
        "Trial by trial",
        "Validation accuracy at the end of each trial. Pruned trials stand where they were stopped.",
    )
    weights = importances_of(study, found)
    if weights:
        gallery.add(
            "importances",
            importances(weights, colour),
            "What mattered",
            "Share of the differences in validation accuracy that each setting explains (PED-ANOVA, complete trials).",
        )
    else:
        gallery.skip("Importances are not shown: there are too few complete trials that differ.")
    gallery.add(
        "parallel_coordinates",
        parallel_coordinates(found, colour),
        "Every trial as a line",
        "Where the lines of the best trials (dark) run together, the search has settled. Pruned trials are dotted.",
    )
    gallery.add(
        "slices",
        slices(found, name, colour),
        "Setting by setting",
        "Validation accuracy over each setting that was searched; the diamond is the recipe as it was.",
    )
    gallery.add(
        "intermediate_values",
        intermediate_values(found, name, colour),
        "Epoch by epoch",
        "Validation accuracy of every trial; a line that ends early was pruned.",
    )
    gallery.add(
        "timeline", timeline(found, colour), "When each trial ran", "One bar from the start of a trial to its end."
    )
    gallery.close()
    trials_table(found.trials).to_csv(folder / "trials.csv", index=False)
    page = _PAGE.format(title=f"Tuning {name}", sentence=_gain(found), plots="\n".join(_interactive(study)))
    (folder / "study.html").write_text(page, encoding="utf-8")


def trials_table(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """One row per trial: number, state, validation accuracy, epochs, seconds, drawn values, reason of a failure."""
    return pd.DataFrame(
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "val_accuracy": trial.value,
            "epochs": trial.user_attrs.get("epochs", 0),
            "seconds": round(seconds_of(trial), 3),
            **trial.params,
            "reason": trial.user_attrs.get("reason", ""),
        }
        for trial in trials
    )


def importances_of(study: Study, found: StudyResult) -> dict[str, float]:
    """The share of each searched setting in the differences between complete trials; empty where it cannot be told."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    complete = [trial for trial in found.trials if trial.state == TrialState.COMPLETE]
    if len(complete) < _FEWEST_FOR_IMPORTANCE or len({trial.value for trial in complete}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())


def _gain(found: StudyResult) -> str:
    """The gain in words, and what it cost."""
    summary = found.summary
    counts = f"{summary.trials} trials ({summary.complete} complete, {summary.pruned} pruned, {summary.failed} failed)"
    cost = f"{counts} took {summary.seconds:,.0f} s of training; pruning saved {summary.epochs_saved} epochs."
    assert summary.best_val_accuracy is not None
    best = f"The best trial reached {summary.best_val_accuracy:.2%} on validation"
    if summary.gain is None:
        return f"{best}; the recipe as it was failed. {cost}"
    if found.best.number == found.recipe.number:
        return (
            f"No trial was better than the recipe as it was ({summary.recipe_val_accuracy:.2%} on validation). {cost}"
        )
    return (
        f"{best}, {100 * summary.gain:.1f} points above the recipe as it was. It was chosen by that very figure, so "
        f"expect less on other images. {cost}"
    )


def _interactive(study: Study) -> list[str]:
    """Optuna's plots as HTML, the first one with plotly's script, so that the page works without a network."""
    from optuna import visualization

    makers: list[Any] = [
        visualization.plot_optimization_history,
        visualization.plot_param_importances,
        visualization.plot_parallel_coordinate,
        visualization.plot_slice,
        visualization.plot_intermediate_values,
        visualization.plot_timeline,
    ]
    parts: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for make in makers:
            try:
                figure = make(study)
            except (RuntimeError, ValueError) as error:
                parts.append(f"<p>{make.__name__}: {error}</p>")  # too few trials that differ
                continue
            script = not any("<script" in part for part in parts)
            parts.append(figure.to_html(full_html=False, include_plotlyjs=script, config={"responsive": True}))
    return parts
