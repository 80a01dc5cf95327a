"""The report of a search: the gain curve, Optuna's plots as figures and on one interactive page, and trials.csv."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import optuna.visualization
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from vit_vs_cnn.core.console import points
from vit_vs_cnn.report.figures import FigureWriter
from vit_vs_cnn.report.style import NEUTRAL, new_figure
from vit_vs_cnn.tuning.result import StudyResult
from vit_vs_cnn.tuning.study import seconds_of

# What a trial's value is, by `select_by`; Optuna maximizes it.
_LABELS = {
    "accuracy": "validation accuracy",
    "balanced_accuracy": "balanced validation accuracy",
    "macro_f1": "macro F1 on validation",
    "nll": "negated validation loss",
}
# With fewer complete trials, or values that are all equal, no difference can be attributed to a setting.
_MIN_TRIALS_FOR_IMPORTANCES = 4
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title></head>
<body style="font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; color: #1b2029">
<h1>{title}</h1><p>{sentence}</p>
{plots}
</body></html>
"""

# By the name of the PNG: Optuna's plot, title, caption.
_PLOTS = {
    "history": (
        "optimization_history",
        "Trial by trial",
        "{label} of each complete trial, and the best so far; the dashed line is the recipe as it was.",
    ),
    "importances": (
        "param_importances",
        "Importance of each setting",
        "Share of the differences in {label} that each setting explains (PED-ANOVA, complete trials).",
    ),
    "parallel_coordinates": (
        "parallel_coordinate",
        "Each complete trial as a line",
        "Where the lines of the best trials (dark) run together, the search has settled.",
    ),
    "slices": (
        "slice",
        "Setting by setting",
        "{label} of the complete trials, later ones darker; the diamond is the recipe as it was.",
    ),
    "intermediate_values": (
        "intermediate_values",
        "Epoch by epoch",
        "{label} of every trial; one that ends early was pruned, the dashed one is the recipe as it was.",
    ),
    "timeline": (
        "timeline",
        "When each trial ran",
        "A bar from the start of each trial to its end; an attempt that was killed is a failed bar of its own.",
    ),
}


def write_tuning_report(result: StudyResult, contestant: str, colour: str, folder: Path) -> None:
    """Write figures (PNG), trials.csv and the interactive study.html into `folder`."""
    writer, sentence = FigureWriter(folder), _describe_gain(result)
    gain = _draw_gain(result, contestant, colour)
    writer.add("gain", gain, "The recipe as it was, and the best one found", sentence)
    html: list[str] = []
    for name, (plot, title, caption) in _PLOTS.items():
        if name == "importances" and not _have_importances(result.trials):
            writer.skip("The importances are not shown: too few complete trials differ.")
            continue
        with warnings.catch_warnings(action="ignore"):
            text = caption.format(label=_label(result))
            writer.add(name, _draw(plot, result), title, text[0].upper() + text[1:])
            interactive = getattr(optuna.visualization, f"plot_{plot}")(result.study)
        # The first one brings plotly's script, so that the page needs no network.
        html.append(interactive.to_html(full_html=False, include_plotlyjs=not html, config={"responsive": True}))
    writer.close()
    trials_table(result.trials, result.summary.select_by).to_csv(folder / "trials.csv", index=False)
    page = _PAGE.format(title=f"Tuning {contestant}", sentence=sentence, plots="\n".join(html))
    (folder / "study.html").write_text(page, encoding="utf-8")


def trials_table(trials: Sequence[FrozenTrial], select_by: str) -> pd.DataFrame:
    """One row per trial: state, accuracy, score if that is another, epochs, seconds, values, reason of a failure."""
    return pd.DataFrame(
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "val_accuracy": trial.user_attrs.get("val_accuracy", trial.value if select_by == "accuracy" else None),
            **({} if select_by == "accuracy" else {"score": trial.value}),
            "epochs": len(trial.intermediate_values),
            "seconds": round(seconds_of(trial), 3),
            **trial.params,
            "reason": trial.user_attrs.get("reason", ""),
        }
        for trial in trials
    )


def _label(result: StudyResult) -> str:
    return _LABELS[result.summary.select_by]


def _recipe_value(result: StudyResult) -> float | None:
    return result.recipe.value if result.recipe.state == TrialState.COMPLETE else None


def _describe_gain(result: StudyResult) -> str:
    """Say what the search gained and what it cost."""
    summary = result.summary
    counts = f"{summary.trials} trials ({summary.complete} complete, {summary.pruned} pruned, {summary.failed} failed)"
    cost = f"{counts} took {summary.seconds:,.0f} s of training; pruning saved {summary.epochs_saved} epochs."
    best = f"The best trial reached {summary.best_val_accuracy:.2%} on validation"
    if summary.gain is None:
        return f"{best}; the recipe as it was failed. {cost}"
    if result.best.number == result.recipe.number:
        return f"No trial was better than the recipe as it was ({summary.best_val_accuracy:.2%} on validation). {cost}"
    return (
        f"{best}, {points(summary.gain)} points above the recipe as it was. It was chosen on these very images, so "
        f"expect less on other images. {cost}"
    )


def _have_importances(trials: Sequence[FrozenTrial]) -> bool:
    values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE]
    return len(values) >= _MIN_TRIALS_FOR_IMPORTANCES and len(set(values)) > 1


def _draw_gain(result: StudyResult, contestant: str, colour: str) -> Figure:
    """Draw validation accuracy by epoch of the recipe as it was and of the best trial."""
    figure = new_figure(6.5, 4.2)
    axes = figure.subplots()
    if result.best.number != result.recipe.number:
        epochs, values = zip(*sorted(result.best.intermediate_values.items()), strict=True)
        label = f"{contestant}, best (trial {result.best.number})"
        axes.plot(epochs, values, color=colour, linewidth=2, marker="o", label=label)
    _mark_recipe(axes, result)
    axes.legend(loc="lower right")
    return figure


def _draw(plot: str, result: StudyResult) -> Figure:
    """Draw one of Optuna's plots in the project's style, with the recipe as it was marked."""
    new_figure()
    plt.switch_backend("agg")
    # Optuna's plots set this style sheet; an empty one leaves the project's style.
    plt.style.library["ggplot"] = mpl.RcParams()
    options = {} if plot in ("intermediate_values", "timeline") else {"target_name": _label(result)}
    with mpl.rc_context({"figure.figsize": (6.5, 4.2)}):
        getattr(optuna.visualization.matplotlib, f"plot_{plot}")(result.study, **options)
    figure = plt.gcf()
    plt.close(figure)
    figure.suptitle("")
    for axes in figure.axes:
        axes.set_title("")
        axes.set_title("", loc="center")
    adapt = {
        "optimization_history": _adapt_history,
        "parallel_coordinate": _adapt_parallel_coordinates,
        "slice": _adapt_slices,
        "intermediate_values": _adapt_intermediate_values,
    }.get(plot)
    if adapt:
        adapt(figure, result)
    return figure


def _adapt_history(figure: Figure, result: StudyResult) -> None:
    if (recipe := _recipe_value(result)) is not None:
        figure.axes[0].axhline(recipe, linestyle="--", color=NEUTRAL)
    _format_scores(figure.axes[0], result)


def _adapt_parallel_coordinates(figure: Figure, _: StudyResult) -> None:
    for axes in figure.axes:
        axes.grid(visible=False)


def _adapt_slices(figure: Figure, result: StudyResult) -> None:
    """Arrange the slices in two columns, which a phone can show."""
    *panels, colour_bar = figure.axes
    colour_bar.remove()
    grid = figure.add_gridspec((len(panels) + 1) // 2, 2)
    recipe = _recipe_value(result)
    figure.set_size_inches(6.5, 0.4 + 2.6 * grid.nrows)
    for position, axes in enumerate(panels):
        axes.set_subplotspec(grid[position])
        axes.tick_params(labelleft=True)
        path = axes.get_xlabel()
        if path in result.recipe.params and recipe is not None:
            value = result.recipe.params[path]
            is_category = isinstance(result.recipe.distributions[path], CategoricalDistribution)
            axes.plot(repr(value) if is_category else value, recipe, "D", color="black")


def _adapt_intermediate_values(figure: Figure, result: StudyResult) -> None:
    _mark_recipe(figure.axes[0], result)
    figure.axes[0].legend().remove()  # it names every trial


def _mark_recipe(axes: Axes, result: StudyResult) -> None:
    """Draw the recipe as it was by epoch, and label the axes."""
    epochs = sorted(result.recipe.intermediate_values)
    values = [result.recipe.intermediate_values[epoch] for epoch in epochs]
    axes.plot(epochs, values, "--", color="black", linewidth=2, label="recipe as it was")
    axes.set(xlabel="epoch", ylabel=_label(result))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _format_scores(axes, result)


def _format_scores(axes: Axes, result: StudyResult) -> None:
    if result.summary.select_by != "nll":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
