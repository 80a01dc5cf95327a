"""The report of a search: the gain curve, Optuna's plots as figures and on one interactive page, and trials.csv."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import optuna.visualization
import pandas as pd
from jinja2 import Environment, PackageLoader
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from vit_vs_cnn.report.figure_writer import FigureWriter
from vit_vs_cnn.report.style import INK, NEUTRAL, WIDTH, new_figure
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

_PLOTLY = {"responsive": True}
# Optuna's plots by the names of the figures.
PLOTS = {
    "history": "optimization_history",
    "importances": "param_importances",
    "parallel_coordinates": "parallel_coordinate",
    "slices": "slice",
    "intermediate_values": "intermediate_values",
    "timeline": "timeline",
}


def write_tuning_report(result: StudyResult, contestant: str, colour: str, folder: Path) -> None:
    """Write figures, trials.csv and the interactive study.html into `folder`."""
    writer = FigureWriter(folder, "tuning")
    summary = result.summary
    gain = {"outcome": _outcome(result, writer), **summary.model_dump()}
    trials = f"{summary.trials} trials: {summary.complete} complete, {summary.pruned} pruned, {summary.failed} failed"
    best = f"The best, trial {result.best.number}, reached {summary.best_val_accuracy:.2%} on validation"
    writer.add("gain", _draw_gain(result, contestant, colour), best, **gain)
    interactive: list[str] = []
    for name, plot in PLOTS.items():
        if name == "importances" and not _have_importances(result.trials):
            writer.skip("importances")
            continue
        with warnings.catch_warnings(action="ignore"):
            writer.add(name, _draw(plot, result), trials, label=_label(result))
            page_plot = getattr(optuna.visualization, f"plot_{plot}")(result.study)
        # The first one brings plotly's script, so that the page needs no network.
        interactive.append(page_plot.to_html(full_html=False, include_plotlyjs=not interactive, config=_PLOTLY))
    writer.close()
    trials_table(result.trials, result.summary.select_by).to_csv(folder / "trials.csv", index=False)
    sentence = writer.text("gain", "caption", **gain)
    template = Environment(loader=PackageLoader("vit_vs_cnn", "report"), autoescape=True).get_template("tuning.html.j2")
    page = template.render(title=f"Tuning {contestant}", sentence=sentence, plots=interactive)
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


def _outcome(result: StudyResult, writer: FigureWriter) -> str:
    summary = result.summary
    if summary.gain is None:
        return writer.text("gain", "recipe_failed", best=summary.best_val_accuracy)
    if result.best.number == result.recipe.number:
        return writer.text("gain", "not_improved", best=summary.best_val_accuracy)
    return writer.text("gain", "improved", best=summary.best_val_accuracy, recipe=summary.recipe_val_accuracy)


def _have_importances(trials: Sequence[FrozenTrial]) -> bool:
    values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE]
    return len(values) >= _MIN_TRIALS_FOR_IMPORTANCES and len(set(values)) > 1


def _draw_gain(result: StudyResult, contestant: str, colour: str) -> Figure:
    """Draw the score on validation by epoch of the recipe as it was and of the best trial."""
    figure = new_figure()
    axes = figure.subplots()
    if result.best.number != result.recipe.number:
        label = f"{contestant}, best (trial {result.best.number})"
        axes.plot(_curve(result.best), color=colour, linewidth=2, marker="o", label=label)
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
    with mpl.rc_context({"figure.figsize": (WIDTH, 3.4)}):
        getattr(optuna.visualization.matplotlib, f"plot_{plot}")(result.study, **options)
    figure = plt.gcf()
    plt.close(figure)
    figure.suptitle("")
    for axes in figure.axes:
        axes.set_title("")
        axes.set_title("", loc="center")
    match plot:
        case "optimization_history":
            if (recipe := _recipe_value(result)) is not None:
                figure.axes[0].axhline(recipe, linestyle="--", color=NEUTRAL)
            _format_scores(figure.axes[0], result)
        case "parallel_coordinate":
            _arrange_coordinates(figure, result)
        case "slice":
            _arrange_slices(figure, result)
        case "timeline":
            figure.tight_layout()  # Optuna's own is before the labels of the times are there
        case "intermediate_values":
            _mark_recipe(figure.axes[0], result)
            figure.axes[0].legend().remove()  # it names every trial
    return figure


def _arrange_coordinates(figure: Figure, result: StudyResult) -> None:
    """Give the coordinates the room of the colour bar, which repeats the first of them, and names that differ."""
    for axes in figure.axes:
        if axes.get_label() == "<colorbar>":
            axes.remove()
            continue
        axes.grid(visible=False)
        axes.tick_params(labelsize="small")
    complete = [trial for trial in result.trials if trial.state == TrialState.COMPLETE]
    names = sorted({name for trial in complete for name in trial.params})
    labels = [_label(result), *(name.removeprefix("recipe.") for name in names)]
    axis = figure.axes[0].xaxis
    axis.set_ticks(axis.get_ticklocs(), labels, rotation=20, ha="right")
    figure.tight_layout()
    figure.subplots_adjust(right=0.91)  # the labels of the last coordinate, which it does not count


def _arrange_slices(figure: Figure, result: StudyResult) -> None:
    """Arrange the slices in two columns, which a phone can show, and mark the recipe as it was in each."""
    *panels, colour_bar = figure.axes
    colour_bar.remove()
    grid = figure.add_gridspec((len(panels) + 1) // 2, 2)
    recipe = _recipe_value(result)
    figure.set_size_inches(WIDTH, 0.4 + 2.2 * grid.nrows)
    for position, axes in enumerate(panels):
        axes.set_subplotspec(grid[position])
        axes.tick_params(labelleft=True)
        path = axes.get_xlabel()
        if path in result.recipe.params and recipe is not None:
            value = result.recipe.params[path]
            is_category = isinstance(result.recipe.distributions[path], CategoricalDistribution)
            axes.plot(repr(value) if is_category else value, recipe, "D", color=INK)


def _mark_recipe(axes: Axes, result: StudyResult) -> None:
    """Draw the recipe as it was by epoch, and label the axes."""
    axes.plot(_curve(result.recipe), "--", color=INK, linewidth=2, label="recipe as it was")
    axes.set(xlabel="epoch", ylabel=_label(result))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _format_scores(axes, result)


def _format_scores(axes: Axes, result: StudyResult) -> None:
    if result.summary.select_by != "nll":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _curve(trial: FrozenTrial) -> "pd.Series[float]":
    """The score on validation by epoch."""
    return pd.Series(trial.intermediate_values, dtype=float).sort_index()
