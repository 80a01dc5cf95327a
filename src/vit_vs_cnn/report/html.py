"""The report as one self-contained HTML file."""

import base64
import io
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image
from pydantic import BaseModel

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.checks import Checks
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.report.comparison import Comparison, answer, comparison_table, validation_sentence
from vit_vs_cnn.tuning.summary import TuningSummary

_PACKAGES = ("torch", "timm", "mlflow", "dvc", "scikit-learn", "numpy")
# The rest of the analysis is in its own folder: a report is read, not searched.
_EDA_SHOWN = ("class_distribution", "samples", "augmentation", "sharpness", "outliers", "duplicates")


# Photographs make pictures of megabytes as PNG, and a report is sent by mail.
_LARGEST_PNG = 200_000


@dataclass(frozen=True)
class Picture:
    """A figure inside the page: title, caption, and the image as a data URI."""

    title: str
    caption: str
    source: str


@dataclass(frozen=True)
class Pictures:
    """The figures of one folder and what had to be left out of it."""

    figures: tuple[Picture, ...]
    skipped: tuple[str, ...]


def read_pictures(folder: Path, only: tuple[str, ...] | None = None) -> Pictures:
    """The figures that the folder's figures.json lists, of these names if `only` says so.

    Raises UserError where the stage that makes them has not run.
    """
    try:
        contents = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{folder}: no figures here; run `dvc repro` to make them.") from None
    figures = [each for each in contents["figures"] if only is None or Path(each["file"]).stem in only]
    return Pictures(
        figures=tuple(
            Picture(each["title"], each["caption"], _data_uri(folder / Path(each["file"]).name)) for each in figures
        ),
        skipped=tuple(contents["skipped"]),
    )


def render_report(
    settings: Settings,
    info: DatasetInfo,
    checks: Checks,
    comparison: Comparison,
    colours: Mapping[str, str],
    charts: Pictures,
    eda: Path,
    explanations: Mapping[str, Path],
    searches: Mapping[str, TuningSummary],
    commit: str,
    run_name: str | None,
) -> str:
    """The page.

    `charts` are the comparison's, `eda` and `explanations` the folders of the other figures, `searches` say how the
    recipes were found, `commit` and `run_name` say which code and which run made all this.
    """
    environment = Environment(
        loader=PackageLoader("vit_vs_cnn", "report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=f"{' or '.join(settings.models)} on {info.name}?",
        answer=_unbroken(answer(comparison)),
        sentences=[_unbroken(each) for each in (*comparison.sentences, validation_sentence(comparison)) if each],
        rows=comparison_table(comparison).to_dict("records"),
        confidence=settings.evaluate.confidence,
        colours=colours,
        charts=charts,
        info=info,
        findings=checks.findings,
        eda=read_pictures(eda, _EDA_SHOWN),
        explanations={name: read_pictures(folder) for name, folder in explanations.items()},
        searches={name: search for name, search in searches.items() if search.trials},
        published=[row for row in settings.published if row.dataset == settings.data.name],
        recipes={name: _differences(settings, name) for name in settings.models},
        shared_recipe=_flat(settings.recipe),
        budget=_flat(settings.train),
        data=_flat(settings.data),
        seed=settings.seed,
        devices=sorted({each.summary.device for each in comparison.contestants}),
        precisions={each.name: each.summary.precision for each in comparison.contestants},
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        commit=commit[:10],
        run_name=run_name,
        packages={name: version(name) for name in _PACKAGES},
    )


def _differences(settings: Settings, name: str) -> dict[str, str]:
    """What is particular to one contestant: its architecture, and where its recipe leaves the shared one."""
    model, shared = settings.models[name], _flat(settings.recipe)
    own = {key: value for key, value in _flat(model.recipe).items() if value != shared[key]}
    return _flat(model, skip="recipe") | own


def _flat(settings: BaseModel, skip: str | None = None) -> dict[str, str]:
    """Settings as dotted names and words."""
    flat: dict[str, str] = {}
    for key in type(settings).model_fields:
        value = getattr(settings, key)
        if key == skip:
            continue
        if isinstance(value, BaseModel):
            flat |= {f"{key}.{inner}": each for inner, each in _flat(value).items()}
        else:
            flat[key] = _words(value)
    return flat


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items()) or "none"
    return "none" if value is None else str(value)


def _unbroken(sentence: str) -> str:
    """No line may end between a number and its per cent sign."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _data_uri(path: Path) -> str:
    content, kind = path.read_bytes(), "png"
    if len(content) > _LARGEST_PNG:
        smaller = io.BytesIO()
        with Image.open(path) as picture:
            picture.convert("RGB").save(smaller, "WEBP", quality=80)
        content, kind = smaller.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
