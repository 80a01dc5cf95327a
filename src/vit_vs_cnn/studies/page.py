"""The page of a study, one self-contained HTML file in the style of the report, and the table for a terminal."""

import platform
from pathlib import Path

from vit_vs_cnn.core.console import duration, points, table
from vit_vs_cnn.report.embed import embedded_figures
from vit_vs_cnn.report.html import page_environment
from vit_vs_cnn.studies.claims import judge_study
from vit_vs_cnn.studies.curves import crossing_sentence
from vit_vs_cnn.studies.figures import axis_label, colours_of
from vit_vs_cnn.studies.leads import Lead, Place
from vit_vs_cnn.studies.settings import IMAGES, SPLIT_SEED, axis_text, point_text
from vit_vs_cnn.studies.summary import Summary, answer, same_text, trainings_text, weaknesses


def render_page(summary: Summary, folder: Path, commit: str) -> str:
    """Render the page from the figures in `folder`; `commit` is the code that measured."""
    plan, results = summary.plan, summary.results
    replicates = [found for run in results.done.values() for found in run.replicates]
    curves = summary.curves
    return (
        page_environment()
        .get_template("study.html.j2")
        .render(
            plan=plan,
            title=f"{' or '.join(plan.contestants)} on {plan.data_name}? {plan.study}",
            answer=answer(summary),
            sentences=[crossing_sentence(crossing, curves) for crossing in summary.crossings if curves is not None],
            weaknesses=weaknesses(summary),
            claims=judge_study(summary),
            colours=colours_of(summary),
            axes=[axis_label(axis) for axis in plan.axes if axis != SPLIT_SEED],
            rows=[_row(place, lead, summary) for place, lead in zip(summary.places, summary.leads, strict=True)],
            holes=[(point_text(run.values), results.failed.get(run.name, "not run yet")) for run in results.open],
            same=same_text(plan) if IMAGES in plan.axes else "",
            each=trainings_text(summary),
            figures=embedded_figures(folder),
            curves={} if curves is None else curves.curves,
            exponents={}
            if curves is None
            else {name: curves.exponent(name, plan.confidence) for name in curves.curves},
            trainings=len(replicates),
            training_time=duration(sum(found.train_seconds for found in replicates)),
            devices=sorted({found.device for found in replicates}),
            speeds={name: 1 / seconds for name, seconds in plan.seconds_per_image.items()},
            machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            commit=commit[:10],
        )
    )


def terminal_table(summary: Summary) -> str:
    """Who leads at each point, for a terminal, with the points that have no result."""
    names, axes = summary.plan.contestants, list(summary.plan.axes)
    rows = [["point", *names, "ahead", f"{100 * summary.plan.confidence:g} % interval"]]
    for place, lead in zip(summary.places, summary.leads, strict=True):
        means = [_mean(place, name) for name in names]
        ahead = "" if lead is None else f"{lead.leader} {_by(lead)}"
        rows.append([point_text(place.values, axes), *means, ahead, "" if lead is None else _interval(lead)])
    for run in summary.results.open:
        what = "failed" if run.name in summary.results.failed else "not run yet"
        rows.append([point_text(run.values, axes), *("" for _ in names), what, ""])
    return table(rows)


def _row(place: Place, lead: Lead | None, summary: Summary) -> dict[str, object]:
    return {
        "values": [
            f"{place.train_images:,} ({100 * float(value or 0):g} %)" if axis == IMAGES else axis_text(axis, value)
            for axis, value in place.values.items()
        ],
        "epochs": ", ".join(dict.fromkeys(str(place.epochs(name)) for name in place.contestants)),
        "means": {name: _mean(place, name) for name in summary.plan.contestants},
        "lead": lead,
        "by": "" if lead is None else _by(lead),
        "sure": "" if lead is None else lead.sure_text,
        "interval": "" if lead is None else _interval(lead),
    }


def _by(lead: Lead) -> str:
    """How far one is ahead, and of whom where there are several."""
    return f"{points(lead.difference, sign=True)}{f' over {lead.rival}' if lead.others else ''}"


def _interval(lead: Lead) -> str:
    return f"{points(lead.low)} to {points(lead.high)}"


def _mean(place: Place, name: str) -> str:
    found = place.accuracies(name)
    if not found:
        return ""
    spread = f" ({points(min(found))}–{points(max(found))})" if len(found) > 1 else ""
    return f"{points(sum(found) / len(found))} %{spread}"
