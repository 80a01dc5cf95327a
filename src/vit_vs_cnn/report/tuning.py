"""The report of a search: figures, the table of trials, and Optuna's interactive plots on one page."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from optuna import visualization
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from vit_vs_cnn.core.console import points
from vit_vs_cnn.report.figures import FigureWriter
from vit_vs_cnn.report.style import NEUTRAL, new_figure
from vit_vs_cnn.tuning.result import StudyResult
from vit_vs_cnn.tuning.study import seconds_of

# With fewer complete trials, or values that are all equal, no difference can be attributed to a setting.
_MIN_TRIALS_FOR_IMPORTANCE = 4
_PANELS_PER_ROW = 2

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


def write_tuning_report(result: StudyResult, contestant: str, colour: str, folder: Path) -> None:
    """Write figures (PNG), trials.csv and the interactive study.html into `folder`."""
    writer, sentence = FigureWriter(folder), describe_gain(result)
    writer.add("gain", _gain(result, contestant, colour), "The recipe as it was, and the best one found", sentence)
    writer.add(
        "history",
        _history(result),
        "Trial by trial",
        "Validation accuracy of each complete trial, and the best so far; the dashed line is the recipe as it was.",
    )
    complete = [trial.value for trial in result.trials if trial.state == TrialState.COMPLETE]
    if len(complete) >= _MIN_TRIALS_FOR_IMPORTANCE and len(set(complete)) > 1:
        writer.add(
            "importances",
            _draw(plots.plot_param_importances, result, target_name="validation accuracy"),
            "Importance of each setting",
            "Share of the differences in validation accuracy that each setting explains (PED-ANOVA, complete trials).",
        )
    else:
        writer.skip("The importances are not shown: too few complete trials differ.")
    parallel = _draw(plots.plot_parallel_coordinate, result, target_name="accuracy")
    for axes in parallel.axes:
        axes.grid(visible=False)
    writer.add(
        "parallel_coordinates",
        parallel,
        "Each complete trial as a line",
        "Where the lines of the best trials (dark) run together, the search has settled.",
    )
    writer.add(
        "slices",
        _slices(result),
        "Setting by setting",
        "Validation accuracy of the complete trials over each setting, later trials darker; the diamond is the recipe "
        "as it was.",
    )
    writer.add(
        "intermediate_values",
        _intermediate_values(result),
        "Epoch by epoch",
        "Validation accuracy of every trial; one that ends early was pruned, the dashed one is the recipe as it was.",
    )
    writer.add(
        "timeline",
        _draw(plots.plot_timeline, result),
        "When each trial ran",
        "A bar from the start of each trial to its end. A trial that was killed is a second, failed bar.",
    )
    writer.close()
    trials_table(result.trials).to_csv(folder / "trials.csv", index=False)
    page = _PAGE.format(title=f"Tuning {contestant}", sentence=sentence, plots="\n".join(_interactive_plots(result)))
    (folder / "study.html").write_text(page, encoding="utf-8")


def trials_table(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """One row per trial: number, state, validation accuracy, epochs, seconds, drawn values, reason of a failure."""
    return pd.DataFrame(
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "val_accuracy": trial.value,
            "epochs": len(trial.intermediate_values),
            "seconds": round(seconds_of(trial), 3),
            **trial.params,
            "reason": trial.user_attrs.get("reason", ""),
        }
        for trial in trials
    )


def describe_gain(result: StudyResult) -> str:
    """Say what the search gained and what it cost."""
    summary = result.summary
    counts = f"{summary.trials} trials ({summary.complete} complete, {summary.pruned} pruned, {summary.failed} failed)"
    cost = f"{counts} took {summary.seconds:,.0f} s of training; pruning saved {summary.epochs_saved} epochs."
    assert summary.best_val_accuracy is not None
    best = f"The best trial reached {summary.best_val_accuracy:.2%} on validation"
    if summary.gain is None:
        return f"{best}; the recipe as it was failed. {cost}"
    if result.best.number == result.recipe.number:
        return (
            f"No trial was better than the recipe as it was ({summary.recipe_val_accuracy:.2%} on validation). {cost}"
        )
    return (
        f"{best}, {points(summary.gain)} points above the recipe as it was. It was chosen by this very accuracy, so "
        f"expect less on other images. {cost}"
    )


def _gain(result: StudyResult, contestant: str, colour: str) -> Figure:
    """Draw validation accuracy by epoch of the recipe as it was and of the best trial."""
    figure = new_figure(6.5, 4.2)
    axes = figure.subplots()
    _mark_recipe(axes, result)
    if result.best.number != result.recipe.number:
        values = sorted(result.best.intermediate_values.items())
        label = f"{contestant}, best (trial {result.best.number})"
        axes.plot(*zip(*values, strict=True), color=colour, linewidth=2, marker="o", label=label)
    _label_accuracy(axes)
    axes.set_xlabel("epoch")
    axes.legend(loc="lower right")
    return figure


def _history(result: StudyResult) -> Figure:
    figure = _draw(plots.plot_optimization_history, result, target_name="validation accuracy")
    (axes,) = figure.axes
    if result.summary.recipe_val_accuracy is not None:
        axes.axhline(result.summary.recipe_val_accuracy, linestyle="--", color=NEUTRAL)
    _label_accuracy(axes)
    return figure


def _slices(result: StudyResult) -> Figure:
    """Draw Optuna's slices in rows of two, which a phone can show."""
    figure = _draw(plots.plot_slice, result, target_name="validation accuracy")
    *panels, colour_bar = figure.axes
    colour_bar.remove()
    rows = -(-len(panels) // _PANELS_PER_ROW)
    grid = figure.add_gridspec(rows, _PANELS_PER_ROW)
    figure.set_size_inches(6.5, 0.4 + 2.6 * rows)
    for position, axes in enumerate(panels):
        axes.set_subplotspec(grid[position])
        axes.tick_params(labelleft=True)
        path = axes.get_xlabel()
        if path in result.recipe.params and result.recipe.state == TrialState.COMPLETE:
            value = result.recipe.params[path]
            is_category = isinstance(result.recipe.distributions[path], CategoricalDistribution)
            axes.plot(repr(value) if is_category else value, result.recipe.value, "D", color="black")
    return figure


def _intermediate_values(result: StudyResult) -> Figure:
    figure = _draw(plots.plot_intermediate_values, result)
    (axes,) = figure.axes
    _mark_recipe(axes, result)
    _label_accuracy(axes)
    axes.set_xlabel("epoch")
    axes.legend().remove()
    return figure


def _draw(plot: Callable[..., Any], result: StudyResult, **options: Any) -> Figure:
    """Draw one of Optuna's plots in the project's style."""
    new_figure()
    plt.switch_backend("agg")
    # Optuna's plots set this style sheet; an empty one leaves the project's style.
    plt.style.library["ggplot"] = mpl.RcParams()
    with mpl.rc_context({"figure.figsize": (6.5, 4.2)}), warnings.catch_warnings(action="ignore"):
        plot(result.study, **options)
    figure = plt.gcf()
    plt.close(figure)
    figure.suptitle("")
    for axes in figure.axes:
        axes.set_title("")
        axes.set_title("", loc="center")
    return figure


def _mark_recipe(axes: Axes, result: StudyResult) -> None:
    values = sorted(result.recipe.intermediate_values.items())
    if values:
        axes.plot(*zip(*values, strict=True), "--", color="black", linewidth=2, label="recipe as it was")


def _label_accuracy(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("validation accuracy")


def _interactive_plots(result: StudyResult) -> list[str]:
    """Optuna's plots as HTML, the first one with plotly's script, so that the page needs no network."""
    makers: list[Callable[..., Any]] = [
        visualization.plot_optimization_history,
        visualization.plot_param_importances,
        visualization.plot_parallel_coordinate,
        visualization.plot_slice,
        visualization.plot_intermediate_values,
        visualization.plot_timeline,
    ]
    parts: list[str] = []
    for make in makers:
        try:
            figure = make(result.study)
        except (RuntimeError, ValueError) as error:
            parts.append(f"<p>{make.__name__}: {error}</p>")  # too few trials that differ
            continue
        script = not any("<script" in part for part in parts)
        parts.append(figure.to_html(full_html=False, include_plotlyjs=script, config={"responsive": True}))
    return parts
