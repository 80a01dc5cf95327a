"""What changes under shift: the contestants on corrupted, shifted and cut images, in figures, tables and words."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import between, points, points_between
from vit_vs_cnn.core.paths import robustness
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.evaluation.corruptions import CLEAN, CORRUPTIONS, MOST_SEVERE, Corruption, corrupted
from vit_vs_cnn.evaluation.robustness import Robustness, mean_colour, read_robustness
from vit_vs_cnn.evaluation.shift import Lead, UnderCorruption, compare_under_shift
from vit_vs_cnn.report.answer import listed
from vit_vs_cnn.report.comparison import Comparison
from vit_vs_cnn.report.figure_writer import FigureWriter
from vit_vs_cnn.report.grid import Tile, image_grid
from vit_vs_cnn.report.style import NEUTRAL, new_figure

_PANELS_PER_ROW = 2
_TILE = 84
_ENDS = ("", "_low", "_high")
_BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}


@dataclass(frozen=True)
class Shift:
    """What was measured of each contestant, their colours, and the results, those on clean images first.

    `best` is the contestant that is best on all of test.
    """

    measured: Mapping[str, Robustness]
    colours: Mapping[str, str]
    results: Sequence[UnderCorruption]
    best: str

    @property
    def clean(self) -> UnderCorruption:
        """The results on the same images as they are."""
        return self.results[0]

    @property
    def corruptions(self) -> list[UnderCorruption]:
        """The results under corruptions that images meet in use; patches are not dropped there."""
        return [result for result in self.results[1:] if _BY_NAME[result.corruption].is_corruption]

    @property
    def images(self) -> int:
        """The number of images."""
        return len(next(iter(self.measured.values())).positions)


def read_shift(settings: Settings, comparison: Comparison) -> Shift:
    """Read robustness/ of all contestants and compare them.

    Raises UserError where it is missing, or of other images.
    """
    measured = {name: read_robustness(robustness(name)) for name in settings.models}
    positions = next(iter(measured.values())).positions
    groups = comparison.contestants[0].chosen.evaluation.predictions.group_codes
    groups = None if groups is None else groups[positions]
    results = compare_under_shift(measured, settings.evaluate.confidence, groups)
    return Shift(measured, comparison.colours, results, comparison.best.name)


def shift_sentence(shift: Shift) -> str | None:
    """What changes under shift: under what each contestant leads, and where the order stays; None of one alone."""
    if not shift.clean.leads:
        return None
    corruptions = shift.corruptions
    leads = sorted(
        ((result, lead) for result in corruptions if (lead := _notable_lead(result, shift.best))),
        key=lambda found: -found[1].difference,
    )
    by_words: dict[str, list[tuple[str, Lead]]] = {}
    for result, lead in leads:
        words = "leads by" if result.winner else f"is ahead of {shift.best} by"
        by_words.setdefault(f"{lead.leader} {words}", []).append((result.corruption, lead))
    if by_words:
        found = "; ".join(_leads_in_words(words, own) for words, own in by_words.items())
    else:
        found = f"under none of {len(corruptions)} corruptions does one lead by more than chance"
    kept = sum(result.order == shift.clean.order for result in corruptions)
    sentence = f"{found}. The order on clean images holds in {kept} of {len(corruptions)} corruptions."
    return sentence[0].upper() + sentence[1:]


def _notable_lead(result: UnderCorruption, best_on_clean: str) -> Lead | None:
    """The winner's over the next best; where none wins, the best's over the one on clean images if that is behind."""
    if result.winner:
        return result.leads[0]
    return next((lead for lead in result.leads if lead.other == best_on_clean and lead.is_significant), None)


def _leads_in_words(leads_by: str, leads: Sequence[tuple[str, Lead]]) -> str:
    """The corruptions under which one leads, the largest lead first and with its interval."""
    (corruption, lead), *others = leads
    also = f", and under {listed([_title(other) for other, _ in others])}" if others else ""
    return (
        f"under {_title(corruption)} {leads_by} {points(lead.difference)} points ({points(lead.low)} to "
        f"{points(lead.high)}){also}"
    )


def shift_rows(shift: Shift) -> list[dict[str, str]]:
    """The table of the report as texts: a row for clean images and for each corruption."""
    rows = []
    measures = {name: measured.by_corruption() for name, measured in shift.measured.items()}
    for result in shift.results:
        row = {"corruption": _title(result.corruption)}
        for name, accuracy in result.accuracies.items():
            own = measures[name].loc[result.corruption].to_dict()
            row |= {
                f"accuracy {name}": f"{points(accuracy.value)} ({points(accuracy.low)} – {points(accuracy.high)})",
                f"NLL {name}": f"{own['nll']:.2f}",
                f"ECE {name}": f"{points(own['ece'])}",
            }
        row["lead"] = _lead_in_words(result)
        if nll := result.nll:
            row["NLL lead"] = f"{nll.value:+.2f}".replace("-", "−") + f" ({between(nll.low, nll.high, 2)})"
        if ece := result.ece:
            row["ECE lead"] = _interval(ece.value, ece.low, ece.high)
        rows.append(row)
    return rows


def _interval(value: float, low: float, high: float) -> str:
    return f"{points(value, sign=True)} ({points_between(low, high)})"


def _title(corruption: str) -> str:
    return corruption.replace("_", " ")


def _lead_in_words(result: UnderCorruption) -> str:
    if not result.leads:
        return ""
    lead = result.leads[0]
    words = f"{lead.leader} {_interval(lead.difference, lead.low, lead.high)}"
    return words if result.winner else f"none: {words}"


def shift_table(shift: Shift) -> pd.DataFrame:
    """A row per corruption and contestant with accuracy, interval, nll and ece, and who leads by how much."""
    rows = []
    for result in shift.results:
        for name, accuracy in result.accuracies.items():
            own = shift.measured[name].by_corruption().loc[result.corruption]
            row = {"corruption": result.corruption, "contestant": name, "images": shift.images}
            row |= {"accuracy": accuracy.value, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
            row |= {"nll": own["nll"], "ece": own["ece"]}
            if result.leads:
                lead, p_value = result.leads[0], max(lead.adjusted_p_value for lead in result.leads)
                row |= {"leader": lead.leader, "lead_over": lead.other, "lead": lead.difference}
                row |= {"lead_low": lead.low, "lead_high": lead.high}
                row |= {"adjusted_p_value": p_value, "significant": result.winner is not None}
            for measure, found in (("nll", result.nll), ("ece", result.ece)):
                if found:
                    row |= {f"lead_{measure}{end}": value for end, value in zip(_ENDS, astuple(found), strict=True)}
            rows.append(row)
    return pd.DataFrame(rows)


def write_shift(shift: Shift, example: NDArray[np.uint8], info: DatasetInfo, folder: Path) -> None:
    """Write the figures, robustness.csv and figures.json into `folder`; the corruptions are shown on `example`.

    That is an image uint8 (S, S, 3) of the data that `info` is about.
    """
    writer = FigureWriter(folder, "robustness")
    writer.table("robustness", shift_table(shift))
    measured = [_BY_NAME[result.corruption] for result in shift.results[1:]]
    means = {name: found.means() for name, found in shift.measured.items()}
    averages = "; ".join(
        f"{name} {points(mean['clean_accuracy'])} % clean and {points(mean['accuracy'])} % on average under corruptions"
        for name, mean in means.items()
    )
    writer.add("mean_accuracy", _means_figure(shift), averages, images=shift.images)
    corruptions = [corruption for corruption in measured if corruption.is_corruption]
    writer.add("severities", _severities_figure(shift, corruptions), f"{len(corruptions)} panels: {averages}")
    patches = [corruption for corruption in measured if not corruption.is_corruption]
    changed = "; ".join(
        f"{name} {points(mean['patches_dropped_accuracy'])} % with patches deleted and "
        f"{points(mean['patches_shuffled_accuracy'])} % with patches in other places, on average"
        for name, mean in means.items()
    )
    writer.add("patches", _patches_figure(shift, patches, 1 / len(info.classes)), changed)
    rows = ", ".join(corruption.title for corruption in measured)
    writer.add_images("examples", _examples_figure(example, measured, info), f"One image in rows: {rows}")
    writer.close()


def _means_figure(shift: Shift) -> Figure:
    """A row per corruption with a dot and an interval for each contestant."""
    figure = new_figure(height=1.2 + 0.32 * len(shift.results))
    axes = figure.subplots()
    contestants = list(shift.measured)
    for place, name in enumerate(contestants):
        found = [result.accuracies[name] for result in shift.results]
        values = np.array([(accuracy.value, accuracy.low, accuracy.high) for accuracy in found])
        heights = np.arange(len(values)) + (place - (len(contestants) - 1) / 2) * 0.5 / len(contestants)
        errors = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(values[:, 0], heights, xerr=errors, fmt="o", ms=5, color=shift.colours[name], label=name)
    axes.set_yticks(range(len(shift.results)), [_title(result.corruption) for result in shift.results])
    axes.set(ylim=(len(shift.results) - 0.4, -0.6), xlabel="accuracy, mean over severities")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.tick_params(axis="y", length=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _severities_figure(shift: Shift, corruptions: Sequence[Corruption]) -> Figure:
    """Accuracy over the severity, a panel for each corruption."""
    rows = -(-len(corruptions) // _PANELS_PER_ROW)
    figure = new_figure(height=0.7 + 1.6 * rows)
    panels = figure.subplots(rows, _PANELS_PER_ROW, sharex=True, sharey=True, squeeze=False)
    for axes, corruption in zip(panels.flat, corruptions, strict=False):
        _draw_levels(axes, shift, corruption.name)
        axes.set_xticks(range(MOST_SEVERE + 1))
        axes.set_title(corruption.title)
    for axes in panels.flat[len(corruptions) :]:
        axes.set_axis_off()
    for axes in panels.flat[max(0, len(corruptions) - _PANELS_PER_ROW) : len(corruptions)]:
        axes.tick_params(labelbottom=True)
    axes.yaxis.set_major_formatter("{x:.0%}")
    figure.supxlabel("severity, 0 is clean", fontsize="medium")
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _patches_figure(shift: Shift, corruptions: Sequence[Corruption], chance: float) -> Figure:
    """Accuracy over the share of patches that is dropped, and over how finely the patches are that change places."""
    figure = new_figure(height=2.8)
    panels = figure.subplots(1, len(corruptions), sharey=True)
    for axes, corruption in zip(panels, corruptions, strict=True):
        _draw_levels(axes, shift, corruption.name)
        axes.set_xticks(range(len(corruption.levels) + 1), ["0", *corruption.labels])
        axes.axhline(chance, color=NEUTRAL, linestyle="--", label="chance")
        axes.set_title(corruption.title)
    panels[0].yaxis.set_major_formatter("{x:.0%}")
    panels[0].set_ylabel("accuracy")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return figure


def _draw_levels(axes: Axes, shift: Shift, corruption: str) -> None:
    """The mean over the replicates as a line, from clean images on, and the range of them as a band."""
    for name, measured in shift.measured.items():
        is_shown = measured.conditions["corruption"].isin([CLEAN, corruption])
        found = measured.conditions[is_shown].groupby("severity")["accuracy"]
        mean, colour = found.mean(), shift.colours[name]
        axes.plot(mean.index, mean, "o-", ms=3.5, color=colour, label=name, clip_on=False)
        axes.fill_between(mean.index, found.min(), found.max(), color=colour, alpha=0.2, linewidth=0)
    axes.set_ylim(0, 1)


def _examples_figure(image: NDArray[np.uint8], corruptions: Sequence[Corruption], info: DatasetInfo) -> Figure:
    """One image in each severity of each corruption; darker and lighter and both directions are drawn by image."""
    blank, grey = mean_colour(info), info.decoding.channels == "grey"
    rows = [
        [
            Tile(corrupted(image[None], [0], corruption, level, blank=blank, grey=grey)[0], label)
            for level, label in zip(corruption.levels, corruption.labels, strict=True)
        ]
        for corruption in corruptions
    ]
    return image_grid(rows, _TILE, row_labels=[corruption.title.replace(" ", "\n") for corruption in corruptions])
