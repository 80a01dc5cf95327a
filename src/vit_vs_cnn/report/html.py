"""The report as one self-contained HTML file."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import between, printable
from vit_vs_cnn.core.paths import COMPARE, EDA, ERRORS, PREPARED, SHIFT, explained
from vit_vs_cnn.data.checks import read_checks
from vit_vs_cnn.data.dataset import Split, read_info
from vit_vs_cnn.report.answer import duplicates_sentence, validation_sentence, views_sentences
from vit_vs_cnn.report.claims import judge_claims
from vit_vs_cnn.report.comparison import Comparison, comparison_table, replicates_table, with_views
from vit_vs_cnn.report.embed import EmbeddedTile, embedded_figures, embedded_tile, image_source
from vit_vs_cnn.report.errors import Errors, error_sentences, error_tiles
from vit_vs_cnn.report.figure_writer import FigureIndex
from vit_vs_cnn.report.grid import Tile
from vit_vs_cnn.report.map_quality import read_faithfulness, read_maps
from vit_vs_cnn.report.next_steps import next_steps
from vit_vs_cnn.report.robustness import Shift, shift_rows
from vit_vs_cnn.tracking.outbox import RunRef
from vit_vs_cnn.tracking.pages import USUAL_PAGES, run_page
from vit_vs_cnn.tuning.summary import TuningSummary

_PACKAGES = ("torch", "timm", "mlflow", "dvc", "scikit-learn", "numpy")
# The rest of the analysis is in its own folder: a report is read, not searched.
_EDA_SHOWN = ("class_distribution", "samples", "augmentation", "sharpness", "outliers", "duplicates")
# What differs between contestants, and what decides no result.
_NOT_SHARED = {"models", "gate", "flow", "published"}
# Classes of which a test image stands at the top.
_MOST_IMAGES = 10


@dataclass(frozen=True)
class Provenance:
    """Which code and which run made a report, and where MLflow has the training of each contestant that is shown.

    `command` runs the same settings again; `dirty` code had uncommitted changes. `pages` is the address of MLflow's
    pages, which stay where they are not those of `vit-vs-cnn up`. `comparison_page` is that of the one with all
    trainings, None where MLflow does not have them yet, `commit_page` that of the commit where the repository came
    from, None where it is not known.
    """

    commit: str
    run_name: str | None
    tracked: Mapping[str, RunRef]
    command: str = "vit-vs-cnn run"
    pages: str = USUAL_PAGES
    pages_stay: bool = False
    comparison_page: str | None = None
    commit_page: str | None = None
    dirty: bool = False


def render_report(
    settings: Settings,
    comparison: Comparison,
    test: Split,
    shift: Shift,
    errors: Errors | None,
    answer: str,
    weaknesses: Sequence[str],
    searches: Mapping[str, TuningSummary],
    provenance: Provenance,
) -> str:
    """Render the page, with the figures and results of all stages of the project in the working directory.

    `test` are the test images, `weaknesses` those of the answer, `searches` the contestants' tunings. Raises UserError
    where a result is missing.
    """
    environment = page_environment()
    info = read_info(PREPARED)
    return environment.get_template("report.html.j2").render(
        settings=settings,
        title=f"{' or '.join(settings.models)} on {info.name}?",
        answer=unbroken(answer),
        weaknesses=[unbroken(sentence) for sentence in weaknesses],
        next_steps=next_steps(comparison, settings, searches, provenance.command),
        images=_first_images(test, info.classes),
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
        views={contestant.name: with_views(contestant) for contestant in comparison.contestants},
        replicates=replicates_table(comparison).to_dict("records"),
        contestants={contestant.name: contestant for contestant in comparison.contestants},
        colours=comparison.colours,
        charts=embedded_figures(COMPARE),
        shift=embedded_figures(SHIFT),
        shift_rows=shift_rows(shift),
        shift_images=shift.images,
        errors=FigureIndex.read(ERRORS / "figures.json", "run `dvc repro`") if errors else None,
        error_tiles=_embedded_rows(error_tiles(errors, test, info.classes)) if errors else {},
        error_tables=[path.relative_to(COMPARE).as_posix() for path in sorted(ERRORS.glob("*.csv"))],
        error_sentences=[unbroken(sentence) for sentence in error_sentences(errors)] if errors else [],
        info=info,
        findings=read_checks(PREPARED).findings,
        eda=embedded_figures(EDA, _EDA_SHOWN),
        explanations={contestant: embedded_figures(explained(contestant)) for contestant in settings.models},
        faithfulness={contestant: read_faithfulness(explained(contestant)) for contestant in settings.models},
        pairs=comparison.pairs,
        claims=judge_claims(comparison, {name: read_maps(explained(name)) for name in settings.models}, shift.measured),
        searches={contestant: search for contestant, search in searches.items() if search.trials},
        shared=_flat(settings.model_dump(exclude=_NOT_SHARED)),
        recipes={contestant: _differences(settings, contestant) for contestant in settings.models},
        devices=sorted(
            {replicate.summary.device for contestant in comparison.contestants for replicate in contestant.replicates}
        ),
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        provenance=provenance,
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
        finalize=_shown,
    )
    environment.filters["unbroken"] = unbroken
    environment.globals["between"] = between
    environment.filters["run_page"] = run_page
    return environment


def _shown(value: object) -> object:
    """A value as a page shows it: autoescape takes care of markup, and this of marks that the eye does not see."""
    return printable(value, lines=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def _first_images(test: Split, classes: Sequence[str]) -> list[EmbeddedTile]:
    """The first test image of each class, of some classes where there are many."""
    shown = np.linspace(0, len(classes) - 1, min(len(classes), _MOST_IMAGES)).round().astype(int).tolist()
    found = {label: np.flatnonzero(test.labels == label)[:1].tolist() for label in shown}
    return [
        EmbeddedTile(image_source(test.images[row]), (classes[label],)) for label, rows in found.items() for row in rows
    ]


def _embedded_rows(figures: Mapping[str, Mapping[str, Sequence[Tile]]]) -> dict[str, dict[str, list[EmbeddedTile]]]:
    return {
        name: {heading: [embedded_tile(tile) for tile in tiles] for heading, tiles in rows.items()}
        for name, rows in figures.items()
    }


def _differences(settings: Settings, contestant: str) -> dict[str, str]:
    """What is particular to one contestant: its architecture, and where its recipe differs from the shared one."""
    model = settings.models[contestant].model_dump()
    shared, own = _flat(settings.recipe.model_dump()), _flat(model.pop("recipe"))
    return _flat(model) | {key: value for key, value in own.items() if value != shared.get(key)}


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
