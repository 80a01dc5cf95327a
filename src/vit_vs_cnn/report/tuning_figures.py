"""The figures of a search, in the project's style and narrow enough for a phone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from vit_vs_cnn.report.style import NEUTRAL, new_figure
from vit_vs_cnn.tuning.result import StudyResult

_WIDTH = 6.5
_PRUNED = "#9CA3AF"
_PANELS_IN_A_ROW = 2
_ON_LINES: dict[str, Any] = {
    "fontsize": 8,
    "va": "center",
    "color": "#374151",
    "bbox": {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0},
}


def gain_curves(found: StudyResult, name: str, colour: str) -> Figure:
    """Validation accuracy by epoch of the recipe as it was and of the best trial."""
    figure = new_figure(_WIDTH, 4.2)
    axes = figure.subplots()
    curves = [(found.recipe, NEUTRAL, "--", f"{name}, recipe as it was")]
    if found.best.number != found.recipe.number:
        curves.append((found.best, colour, "-", f"{name}, best (trial {found.best.number})"))
    for trial, shade, line, label in curves:
        epochs, values = _curve(trial)
        axes.plot(epochs, values, line, color=shade, linewidth=2, marker="o", label=label)
    _label_epochs(axes)
    axes.legend(loc="lower right")
    return figure


def history(found: StudyResult, name: str, colour: str) -> Figure:
    """Value of each trial, and the best so far."""
    figure = new_figure(_WIDTH, 4.2)
    axes = figure.subplots()
    complete, pruned = _of(found.trials, TrialState.COMPLETE), _of(found.trials, TrialState.PRUNED)
    failed = _of(found.trials, TrialState.FAIL)
    axes.plot([each.number for each in pruned], _values(pruned), "x", color=_PRUNED, label="pruned")
    axes.plot([each.number for each in complete], _values(complete), "o", color=colour, label="complete")
    if failed:
        bottom = axes.get_ylim()[0]
        axes.plot([each.number for each in failed], [bottom] * len(failed), "v", color="black", label="failed")
    best = np.maximum.accumulate(_values(complete))
    numbers = [each.number for each in complete]
    axes.step(
        [*numbers, len(found.trials)],
        [*best, best[-1]],
        where="post",
        color=colour,
        linewidth=2,
        label="best so far",
    )
    recipe = found.summary.recipe_val_accuracy
    if recipe is not None:
        axes.axhline(recipe, linestyle="--", color=NEUTRAL, label="recipe as it was")
    axes.set_xlabel(f"trial of {name}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label_accuracy(axes)
    axes.legend(loc="best")
    return figure


def importances(weights: Mapping[str, float], colour: str) -> Figure:
    """One bar for each setting."""
    figure = new_figure(_WIDTH, 1.2 + 0.42 * len(weights))
    axes = figure.subplots()
    names = list(weights)[::-1]
    shares = [weights[name] for name in names]
    bars = axes.barh(names, shares, color=colour)
    axes.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3)
    axes.set_xlim(0, max(shares) * 1.15 or 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("share of the differences in validation accuracy")
    axes.grid(visible=False, axis="y")
    return figure


def slices(found: StudyResult, name: str, colour: str) -> Figure:
    """Value over each setting that was searched."""
    paths = _paths(found.trials)
    rows = math.ceil(len(paths) / _PANELS_IN_A_ROW)
    figure = new_figure(_WIDTH, 0.4 + 2.6 * rows)
    panels = figure.subplots(rows, _PANELS_IN_A_ROW, sharey=True, squeeze=False).ravel()
    for axes, path in zip(panels, paths, strict=False):
        scale = _Scale(path, found.trials)
        for state, marker, shade in ((TrialState.PRUNED, "x", _PRUNED), (TrialState.COMPLETE, "o", colour)):
            trials = [each for each in _of(found.trials, state) if path in each.params]
            axes.plot([scale.place(each.params[path]) for each in trials], _values(trials), marker, color=shade)
        if path in found.recipe.params and found.recipe.state == TrialState.COMPLETE:
            axes.plot(scale.place(found.recipe.params[path]), found.recipe.value, "D", color="black", markersize=7)
        scale.label(axes.xaxis)
        axes.set_xlim(-0.06, 1.06)
        axes.set_xlabel(path + (" (logarithmic)" if scale.log else ""))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in panels[len(paths) :]:
        axes.set_visible(False)
    figure.supylabel(f"validation accuracy of {name}")
    return figure


def parallel_coordinates(found: StudyResult, colour: str) -> Figure:
    """One line per trial over all settings that were searched and the value."""
    paths = _paths(found.trials)
    figure = new_figure(_WIDTH, 5.2)
    axes = figure.subplots()
    scales = [_Scale(path, found.trials) for path in paths]
    ends = _of(found.trials, TrialState.COMPLETE) + _of(found.trials, TrialState.PRUNED)
    low, high = min(_values(ends)), max(_values(ends))
    span = (high - low) or 1.0
    shades = LinearSegmentedColormap.from_list("trials", [(0.88, 0.89, 0.91), to_rgb(colour)])
    for trial in sorted(ends, key=lambda each: _values([each])[0]):
        height = (_values([trial])[0] - low) / span
        heights = [*(scale.place(trial.params.get(scale.path)) for scale in scales), height]
        style = "-" if trial.state == TrialState.COMPLETE else ":"
        axes.plot(heights, style, color=shades(height), linewidth=1 + 1.5 * height)
    for position, scale in enumerate(scales):
        for place, text in scale.ticks():
            axes.text(position, place, f" {text}", **_ON_LINES)
    last = len(scales)
    for share in (0.0, 0.5, 1.0):
        axes.text(last, share, f" {low + share * span:.1%}", **_ON_LINES)
    axes.set_xticks(
        range(last + 1), [*(path.replace(".", ".\n") for path in paths), "validation\naccuracy"], fontsize=8
    )
    axes.set_xlim(-0.1, last + 0.45)
    axes.set_yticks([])
    axes.grid(visible=True, axis="x")
    axes.spines["left"].set_visible(False)
    return figure


def intermediate_values(found: StudyResult, name: str, colour: str) -> Figure:
    """Validation accuracy by epoch of every trial."""
    figure = new_figure(_WIDTH, 4.2)
    axes = figure.subplots()
    for trial in found.trials:
        epochs, values = _curve(trial)
        if trial.state == TrialState.PRUNED:
            axes.plot(epochs, values, color=_PRUNED, linewidth=1, marker=".")
        elif trial.number not in (found.best.number, found.recipe.number):
            axes.plot(epochs, values, color=colour, alpha=0.3, linewidth=1)
    epochs, values = _curve(found.recipe)
    axes.plot(epochs, values, "--", color="black", linewidth=2, label="recipe as it was")
    if found.best.number != found.recipe.number:
        epochs, values = _curve(found.best)
        axes.plot(epochs, values, color=colour, linewidth=2.5, label=f"best (trial {found.best.number})")
    axes.plot([], [], color=colour, alpha=0.3, label="other complete trials of " + name)
    axes.plot([], [], color=_PRUNED, marker=".", linewidth=1, label="pruned")
    _label_epochs(axes)
    axes.legend(loc="lower right")
    return figure


def timeline(found: StudyResult, colour: str) -> Figure:
    """When each trial ran, in minutes since the first one began."""
    figure = new_figure(_WIDTH, 1.3 + 0.16 * len(found.trials))
    axes = figure.subplots()
    shades = {TrialState.COMPLETE: colour, TrialState.PRUNED: _PRUNED, TrialState.FAIL: "black"}
    begun = [trial for trial in found.trials if trial.datetime_start and trial.datetime_complete]
    origin = min(trial.datetime_start for trial in begun if trial.datetime_start)
    for state, shade in shades.items():
        of_state = [trial for trial in begun if trial.state == state]
        if of_state:
            starts = [
                (trial.datetime_start - origin).total_seconds() / 60 for trial in of_state if trial.datetime_start
            ]
            widths = [trial.duration.total_seconds() / 60 for trial in of_state if trial.duration]
            axes.barh([trial.number for trial in of_state], widths, left=starts, color=shade, label=state.name.lower())
    axes.invert_yaxis()
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("minutes since the first trial began")
    axes.set_ylabel("trial")
    axes.legend(loc="upper right")
    return figure


class _Scale:
    """The values of a searched setting on an axis from 0 to 1, logarithmic or by category where it was drawn so."""

    def __init__(self, path: str, trials: Sequence[FrozenTrial]) -> None:
        self.path = path
        distribution = next(trial.distributions[path] for trial in trials if path in trial.distributions)
        self.choices = list(distribution.choices) if isinstance(distribution, CategoricalDistribution) else None
        self.log = bool(getattr(distribution, "log", False))
        self._low: float = getattr(distribution, "low", 0.0)
        self._high: float = getattr(distribution, "high", 1.0)

    def place(self, value: Any) -> float:
        """Where a value stands; nowhere where the trial did not draw one."""
        if self.choices is not None:
            return self.choices.index(value) / (len(self.choices) - 1) if value in self.choices else math.nan
        if value is None:
            return math.nan
        low, high, value = (
            (map(math.log, (self._low, self._high, value))) if self.log else (self._low, self._high, value)
        )
        return float((value - low) / (high - low))

    def ticks(self) -> list[tuple[float, str]]:
        """Places and their words: the ends and the middle, or the choices."""
        if self.choices is not None:
            return [(self.place(choice), str(choice)) for choice in self.choices]
        middle = math.sqrt(self._low * self._high) if self.log else (self._low + self._high) / 2
        return [(self.place(value), f"{value:.2g}") for value in (self._low, middle, self._high)]

    def label(self, axis: Any) -> None:
        """Put the words on an axis of a figure."""
        places, words = zip(*self.ticks(), strict=True)
        axis.set_ticks(places, words)


def _paths(trials: Sequence[FrozenTrial]) -> list[str]:
    return list(dict.fromkeys(path for trial in trials for path in trial.params))


def _of(trials: Sequence[FrozenTrial], state: TrialState) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == state]


def _values(trials: Sequence[FrozenTrial]) -> list[float]:
    return [trial.value for trial in trials if trial.value is not None]


def _curve(trial: FrozenTrial) -> tuple[list[int], list[float]]:
    epochs = sorted(trial.intermediate_values)
    return epochs, [trial.intermediate_values[epoch] for epoch in epochs]


def _label_accuracy(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("validation accuracy")


def _label_epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label_accuracy(axes)
