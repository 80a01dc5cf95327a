"""The figures of a study, narrow enough for a phone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from vit_vs_cnn.core.colours import contestant_colour
from vit_vs_cnn.core.console import points
from vit_vs_cnn.report.figure_writer import FigureWriter
from vit_vs_cnn.report.style import LINE, NEUTRAL, new_figure
from vit_vs_cnn.studies.curves import crossing_sentence
from vit_vs_cnn.studies.leads import Lead, Place
from vit_vs_cnn.studies.settings import EPOCHS, IMAGES, SECONDS, SPLIT_SEED, AxisValue
from vit_vs_cnn.studies.summary import Summary, is_reference, reference_text, same_text, trainings_text

_NUMBERS = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")


def write_figures(summary: Summary, folder: Path) -> None:
    """Write the figures that the measured places allow, and figures.json, into `folder`."""
    writer = FigureWriter(folder, "study")
    colours = colours_of(summary)
    at, confidence = reference_text(summary), f"{100 * summary.plan.confidence:g} %"
    if len(summary.slice) > 1:
        writer.add(
            "accuracy_by_images",
            accuracy_by_images(summary, colours),
            _last(summary.slice),
            at=at,
            same=same_text(summary.plan),
        )
        writer.table("accuracy_by_images", _means(summary.slice))
    if summary.curves is not None:
        several = any(len(run.seeds) > 1 for run in summary.plan.runs)
        chance = "the choice of test images" + (" and the chance of training" if several else "")
        alt = " ".join(crossing_sentence(crossing, summary.curves) for crossing in summary.crossings)
        figure = error_by_images(summary, colours)
        writer.add("error_by_images", figure, alt, at=at, confidence=confidence, chance=chance)
    axes = [axis for axis in summary.plan.axes if axis != SPLIT_SEED]
    if summary.places:
        writer.add("accuracy_by_seconds", accuracy_by_seconds(summary, colours), _last(summary.places))
        writer.table("accuracy_by_seconds", _means(summary.places))
    leading = Counter(lead.leader for lead in summary.leads if lead is not None)
    trainings = trainings_text(summary)
    leaders = ", ".join(f"{name} is ahead at {count} of {leading.total()} points" for name, count in leading.items())
    if len(axes) > 1 and any(summary.leads):
        across, down = _map_axes(axes)
        figure = lead_map(summary, across, down, colours)
        labels = {"across": axis_label(across), "down": axis_label(down)}
        writer.add("lead_map", figure, leaders, **labels, confidence=confidence, trainings=trainings)
    elif any(summary.leads):
        figure = lead_by_axis(summary, axes[0] if axes else IMAGES, colours)
        writer.add("lead", figure, leaders, confidence=confidence, trainings=trainings)
    writer.close()


def colours_of(summary: Summary) -> dict[str, str]:
    """The colour of each contestant."""
    models = dict.fromkeys(summary.plan.contestants)
    return {name: contestant_colour(models, name) for name in models}


def axis_label(axis: str) -> str:
    """An axis for people."""
    return {IMAGES: "training images", EPOCHS: "epochs", SECONDS: "seconds of training"}.get(axis, axis)


def accuracy_by_images(summary: Summary, colours: Mapping[str, str]) -> Figure:
    """Test accuracy over training images; bands from the lowest to the highest training."""
    figure = new_figure()
    axes = figure.subplots()
    for name, colour in colours.items():
        places = [place for place in summary.slice if name in place.contestants]
        images = [place.train_images for place in places]
        values = [place.accuracies(name) for place in places]
        axes.plot(images, [np.mean(found) for found in values], "o-", color=colour, label=name)
        axes.fill_between(
            images,
            [min(found) for found in values],
            [max(found) for found in values],
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
    _log_images(axes, summary.slice)
    axes.set_ylabel("test accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def error_by_images(summary: Summary, colours: Mapping[str, str]) -> Figure:
    """Test error over training images on two logarithmic axes, with the fitted power laws and where they cross."""
    assert summary.curves is not None
    figure = new_figure(height=3.8)
    axes, images = figure.subplots(), summary.curves.images
    grid = np.geomspace(images.min(), 10 * images.max(), 100)
    for name, law in summary.curves.curves.items():
        low, high = summary.curves.band(name, grid, summary.plan.confidence)
        axes.fill_between(grid, low, high, color=colours[name], alpha=0.15, linewidth=0)
        measured = grid <= images.max()
        axes.plot(grid[measured], law.error(grid[measured]), color=colours[name], label=name)
        if all(crossing.fits for crossing in summary.crossings if name in (crossing.first, crossing.second)):
            axes.plot(grid[~measured], law.error(grid[~measured]), "--", color=colours[name])
        errors = [1 - float(np.mean(place.accuracies(name))) for place in summary.slice]
        axes.plot(images, errors, "o", color=colours[name])
    for crossing in summary.crossings:
        if crossing.images <= grid[-1]:
            axes.axvline(crossing.images, color=NEUTRAL, linestyle=":", linewidth=1)
            axes.axvspan(max(grid[0], crossing.low), min(grid[-1], crossing.high), color=NEUTRAL, alpha=0.08)
    axes.set_yscale("log")
    _log_images(axes, summary.slice)
    axes.set_xlim(grid[0] / 1.1, grid[-1])
    lowest = min(float(law.error(grid[-1])) for law in summary.curves.curves.values())
    axes.set_ylim(bottom=max(lowest / 3, 1e-4), top=1.0)
    axes.set_ylabel("test error")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 * error:g}%"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def accuracy_by_seconds(summary: Summary, colours: Mapping[str, str]) -> Figure:
    """Test accuracy of every place over the seconds that its training took; lines join the last number of images."""
    figure = new_figure()
    axes = figure.subplots()
    most = max(place.train_images for place in summary.places)
    for name, colour in colours.items():
        found = [place for place in summary.places if name in place.contestants]
        rows = sorted(
            (place.seconds(name), float(np.mean(place.accuracies(name))), place.train_images) for place in found
        )
        axes.plot([row[0] for row in rows], [row[1] for row in rows], "o", color=colour, label=name, alpha=0.7)
        joined = [row for row in rows if row[2] == most]
        axes.plot([row[0] for row in joined], [row[1] for row in joined], color=colour)
    axes.set_xscale("log")
    spread = axes.dataLim.x1 / axes.dataLim.x0
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if spread > 100 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(_NUMBERS)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="seconds of training", ylabel="test accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def lead_map(summary: Summary, across: str, down: str, colours: Mapping[str, str]) -> Figure:
    """Who leads at each combination of two axes (at the reference of the others): the stronger, the surer."""
    columns, rows = summary.plan.axes[across], summary.plan.axes[down]
    leads = {
        (place.values[across], place.values[down]): (place, lead)
        for place, lead in zip(summary.places, summary.leads, strict=True)
        if is_reference(place, summary.plan, (across, down))
    }
    figure = new_figure(height=1.2 + 0.75 * len(rows))
    axes = figure.subplots()
    for x, column in enumerate(columns):
        for y, row in enumerate(rows):
            found = leads.get((column, row))
            lead = found[1] if found else None
            axes.add_patch(_cell(x, y, lead, colours))
            axes.text(x, y, _cell_text(lead), ha="center", va="center")
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xticks(range(len(columns)), [_tick(across, value, summary.places) for value in columns])
    axes.set_yticks(range(len(rows)), [_tick(down, value, summary.places) for value in rows])
    axes.set(xlabel=axis_label(across), ylabel=axis_label(down))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return figure


def lead_by_axis(summary: Summary, axis: str, colours: Mapping[str, str]) -> Figure:
    """How far the leader is ahead at each value of the only axis, with the interval."""
    found = [(place, lead) for place, lead in zip(summary.places, summary.leads, strict=True) if lead is not None]
    figure = new_figure(height=1.2 + 0.5 * len(found))
    axes = figure.subplots()
    for y, (_, lead) in enumerate(found):
        interval = [[lead.difference - lead.low], [lead.high - lead.difference]]
        axes.errorbar(lead.difference, y, xerr=interval, fmt="o", color=colours[lead.leader], capsize=4)
        axes.annotate(
            f"{lead.leader} over {lead.rival}",
            (lead.difference, y),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            color=colours[lead.leader],
        )
    axes.axvline(0, color=NEUTRAL, linewidth=1)
    labels = [_tick(axis, place.values.get(axis), [place]) for place, _ in found]
    axes.set_yticks(range(len(found)), labels)
    axes.set_ylim(-0.6, len(found) - 0.3)
    axes.set(xlabel="points of accuracy ahead", ylabel=axis_label(axis))
    digits = 0 if max(lead.high - lead.low for _, lead in found) > 0.1 else 1
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: points(value, digits)))
    return figure


def _cell(x: int, y: int, lead: Lead | None, colours: Mapping[str, str]) -> Rectangle:
    face = (
        to_rgba(LINE, 0.2) if lead is None else to_rgba(colours[lead.leader], 0.5 if lead.verdict == "better" else 0.12)
    )
    return Rectangle(
        (x - 0.48, y - 0.48), 0.96, 0.96, facecolor=face, edgecolor=LINE, hatch="//" if lead is None else None
    )


def _cell_text(lead: Lead | None) -> str:
    if lead is None:
        return "no result"
    if lead.verdict == "equal":
        return f"practically equal\n{points(lead.difference, sign=True)}"
    return f"{lead.leader}\n{points(lead.difference, sign=True)}\n{lead.sure_text}"


def _tick(axis: str, value: AxisValue, places: Sequence[Place]) -> str:
    if axis != IMAGES:
        return f"{value:g}" if isinstance(value, float) else str(value)
    images = next((place.train_images for place in places if place.values.get(IMAGES) == value), None)
    return f"{100 * float(value or 0):g} %" if images is None else f"{images:,}"


def _map_axes(axes: list[str]) -> tuple[str, str]:
    """The axes of the map: images across and the budget down where there are such."""
    across = IMAGES if IMAGES in axes else axes[0]
    others = [axis for axis in axes if axis != across]
    return across, next((axis for axis in others if axis in (EPOCHS, SECONDS)), others[0])


def _log_images(axes: Axes, places: tuple[Place, ...]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("training images")
    axes.set_xticks([place.train_images for place in places])
    axes.xaxis.set_major_formatter(_NUMBERS)
    axes.xaxis.set_minor_formatter(NullFormatter())


def _last(places: tuple[Place, ...]) -> str:
    """What is seen at the end of the curves."""
    last = places[-1]
    reached = (
        f"{name} {points(float(np.mean(last.accuracies(name))))} % in {last.seconds(name):,.0f} s"
        for name in last.contestants
    )
    return f"With {last.train_images:,} training images: {', '.join(reached)}"


def _means(places: tuple[Place, ...]) -> dict[str, list[object]]:
    """The numbers behind a figure: one row for each place and contestant."""
    rows = [(place, name) for place in places for name in place.contestants]
    return {
        "contestant": [name for _, name in rows],
        **{axis: [place.values[axis] for place, _ in rows] for axis in places[0].values},
        "train_images": [place.train_images for place, _ in rows],
        "train_seconds": [place.seconds(name) for place, name in rows],
        "trainings": [len(place.accuracies(name)) for place, name in rows],
        "accuracy": [float(np.mean(place.accuracies(name))) for place, name in rows],
        "lowest": [min(place.accuracies(name)) for place, name in rows],
        "highest": [max(place.accuracies(name)) for place, name in rows],
    }
