"""The report as one self-contained HTML file."""

import base64
import io
import platform
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import COMPARE, EDA, ERRORS, PREPARED, SHIFT, explained
from vit_vs_cnn.data.checks import read_checks
from vit_vs_cnn.data.dataset import read_info
from vit_vs_cnn.report.answer import duplicates_sentence, validation_sentence, views_sentences
from vit_vs_cnn.report.claims import judge_claims
from vit_vs_cnn.report.comparison import Comparison, comparison_table, replicates_table
from vit_vs_cnn.report.errors import Errors, error_sentences
from vit_vs_cnn.report.figure_writer import FigureIndex
from vit_vs_cnn.report.map_quality import read_map_qualities
from vit_vs_cnn.report.robustness import Shift, shift_rows
from vit_vs_cnn.tuning.summary import TuningSummary

_PACKAGES = ("torch", "timm", "mlflow", "dvc", "scikit-learn", "numpy")
# The rest of the analysis is in its own folder: a report is read, not searched.
_EDA_SHOWN = ("class_distribution", "samples", "augmentation", "sharpness", "outliers", "duplicates")
# Photographs make figures of megabytes as PNG, and a report is sent by mail.
_LARGEST_PNG = 200_000


def embedded_figures(folder: Path, only: Collection[str] | None = None) -> FigureIndex:
    """The figures of `folder`, of these names if `only` says so; each `file` is the image itself, as a data URI.

    Raises UserError where the stage that makes them has not run.
    """
    index = FigureIndex.read(folder / "figures.json", "run `dvc repro` to make the figures")
    figures = tuple(
        figure.model_copy(update={"file": _data_uri(folder / figure.file)})
        for figure in index.figures
        if only is None or Path(figure.file).stem in only
    )
    return FigureIndex(figures=figures, skipped=index.skipped)


@dataclass(frozen=True)
class Provenance:
    """Which code and which run made a report."""

    commit: str
    run_name: str | None


def render_report(
    settings: Settings,
    comparison: Comparison,
    shift: Shift,
    errors: Errors | None,
    answer: str,
    weaknesses: Sequence[str],
    searches: Mapping[str, TuningSummary],
    provenance: Provenance,
) -> str:
    """Render the page, with the figures and results of all stages of the project in the working directory.

    `weaknesses` are those of the answer, `searches` the contestants' tunings. Raises UserError where a result is
    missing.
    """
    environment = page_environment()
    info = read_info(PREPARED)
    return environment.get_template("report.html.j2").render(
        settings=settings,
        title=f"{' or '.join(settings.models)} on {info.name}?",
        answer=unbroken(answer),
        weaknesses=[unbroken(sentence) for sentence in weaknesses],
        sentences=[
            unbroken(sentence)
            for sentence in (
                *comparison.sentences,
                validation_sentence(comparison),
                duplicates_sentence(comparison),
                *views_sentences(comparison),
            )
            if sentence
        ],
        rows=comparison_table(comparison).to_dict("records"),
        replicates=replicates_table(comparison).to_dict("records"),
        contestants={contestant.name: contestant for contestant in comparison.contestants},
        colours=comparison.colours,
        charts=embedded_figures(COMPARE),
        shift=embedded_figures(SHIFT),
        shift_rows=shift_rows(shift),
        shift_images=shift.images,
        errors=embedded_figures(ERRORS) if errors else None,
        error_sentences=[unbroken(sentence) for sentence in error_sentences(errors)] if errors else [],
        info=info,
        findings=read_checks(PREPARED).findings,
        eda=embedded_figures(EDA, _EDA_SHOWN),
        explanations={contestant: embedded_figures(explained(contestant)) for contestant in settings.models},
        faithfulness={contestant: _faithfulness(explained(contestant)) for contestant in settings.models},
        pairs=comparison.pairs,
        claims=judge_claims(
            comparison, {name: read_map_qualities(explained(name)) for name in settings.models}, shift.measured
        ),
        searches={contestant: search for contestant, search in searches.items() if search.trials},
        recipes={contestant: _differences(settings, contestant) for contestant in settings.models},
        devices=sorted(
            {replicate.summary.device for contestant in comparison.contestants for replicate in contestant.replicates}
        ),
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        commit=provenance.commit[:10],
        run_name=provenance.run_name,
        packages={package: version(package) for package in _PACKAGES},
    )


def page_environment() -> Environment:
    """Where the templates of pages are, the CSS that they share, and how they are filled in."""
    environment = Environment(
        loader=PackageLoader("vit_vs_cnn", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["flat"] = _flat
    environment.filters["unbroken"] = unbroken
    return environment


def _faithfulness(folder: Path) -> list[dict[Hashable, Any]]:
    """The rows of faithfulness.csv, none where a contestant has no maps."""
    try:
        return pd.read_csv(folder / "faithfulness.csv").to_dict("records")
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return []


def _differences(settings: Settings, contestant: str) -> dict[str, str]:
    """What is particular to one contestant: its architecture, and where its recipe differs from the shared one."""
    model = settings.models[contestant].model_dump()
    shared, own = _flat(settings.recipe.model_dump()), _flat(model.pop("recipe"))
    return _flat(model) | {key: value for key, value in own.items() if value != shared[key]}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as dotted keys, as in params.yaml, and words."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            flat[f"{prefix}{key}"] = "yes" if value else "no"
        else:
            flat[f"{prefix}{key}"] = "none" if value is None else str(value)
    return flat


def unbroken(sentence: str) -> str:
    """The sentence without line breaks between a number and its per cent sign."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _data_uri(path: Path) -> str:
    content, kind = path.read_bytes(), "svg+xml" if path.suffix == ".svg" else "png"
    if kind == "png" and len(content) > _LARGEST_PNG:
        smaller = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(smaller, "WEBP", quality=80)
        content, kind = smaller.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
