"""Views of an experiment's runs that are prepared for MLflow's pages: which runs, columns and charts they open with.

A view is a tag of the experiment, written as MLflow's own *Save view* and *Share* write it; an address opens it by its
key. A version of MLflow that does not know a part of it shows its own default in its place.
"""

import json
import zlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_vs_cnn.core.records import digest_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

# The end of an address without which MLflow's menus are those of language models.
TRAINING_PAGES = "workflowType=machine_learning"
NOTE_TAG = "mlflow.note.content"
TRAININGS, ANSWERS, SEARCHES = "vit-vs-cnn-trainings", "vit-vs-cnn-answers", "vit-vs-cnn-searches"

_VIEW_TAG = "mlflow.sharedViewState."
# The description as it was written here: MLflow's pages do not show tags that begin like this.
_OWN_NOTE_TAG = "mlflow.vit_vs_cnn.note"
# MLflow limits the length of a tag, some releases to 5,000 characters.
_MOST_COMPARED = 100
_RUN_NAME = "tags.`vit_vs_cnn.run_name`"
_DESCRIPTION = "attributes.`Description`"
_COLUMNS = (
    "metrics.`test/accuracy`",
    "metrics.`test/nll`",
    "metrics.`cost/latency_p50_ms`",
    "metrics.`cost/seconds_per_epoch`",
    "metrics.`cost/parameters`",
    _RUN_NAME,
    _DESCRIPTION,
)
# Of searches, and of their trials below them.
_SEARCH_COLUMNS = (
    "metrics.`tune/gain`",
    "metrics.`tune/best_val_accuracy`",
    "metrics.`val/accuracy`",
    "tags.`trial.state`",
    _DESCRIPTION,
)
_WIDTHS = {_DESCRIPTION: 500}
_BY_EPOCH = {"xAxisKey": "step"}
_BY_TIME = {"xAxisKey": "metric", "selectedXAxisMetricKey": "time/elapsed_seconds"}


def _line(x_axis: Mapping[str, str], *metrics: str) -> dict[str, Any]:
    defaults = {"selectedXAxisMetricKey": "", "xAxisScaleType": "linear", "scaleType": "linear", "lineSmoothness": 0}
    own = {"type": "LINE", "metricKey": metrics[0], "selectedMetricKeys": metrics, "useGlobalXaxisKey": False}
    return {**defaults, "yAxisKey": "metric", "yAxisExpressions": [], "range": {}, **own, **x_axis}


def _bars(metric: str) -> dict[str, Any]:
    return {"type": "BAR", "metricKey": metric}


def _points(x_metric: str, y_metric: str) -> dict[str, Any]:
    axes = {axis: {"key": key, "type": "METRIC"} for axis, key in (("xaxis", x_metric), ("yaxis", y_metric))}
    return {"type": "SCATTER", **axes}


def _images(key: str) -> dict[str, Any]:
    return {"type": "IMAGE", "imageKeys": [key], "step": 1, "showRunParams": False}


@dataclass(frozen=True)
class _Section:
    """Charts below a heading, of which `columns` stand beside each other, each as high as so many pixels."""

    columns: int
    charts: tuple[Mapping[str, Any], ...]
    height: int = 360


_SECTIONS = {
    "Accuracy": _Section(
        2,
        (
            _bars("test/accuracy"),
            _bars("robustness/accuracy"),
            _line(_BY_EPOCH, "val/accuracy"),
            _line(_BY_TIME, "val/accuracy"),
        ),
    ),
    "Loss": _Section(3, (_line(_BY_EPOCH, "train/loss", "val/loss"), _bars("test/nll"), _bars("test/ece"))),
    "Cost": _Section(
        2,
        (
            _points("cost/latency_p50_ms", "test/accuracy"),
            _bars("cost/latency_p50_ms"),
            _bars("cost/seconds_per_epoch"),
            _bars("cost/parameters"),
        ),
    ),
    "Images": _Section(1, (_images("explanation/same_images"), _images("explanation/mistakes")), height=440),
}


def view_address(experiment_id: str, key: str, *, charts: bool = True) -> str:
    """The address of a view, after that of the server."""
    mode = "CHART" if charts else "TABLE"
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={key}&compareRunsMode={mode}&{TRAINING_PAGES}"


def view_key(run_keys: Iterable[str]) -> str:
    """The key of the view of the trainings with these keys."""
    return digest_of(" ".join(sorted(run_keys)).encode())[:12]


def describe_experiment(
    client: "MlflowClient", experiment_id: str, about: str, shown: Mapping[str, str], compared: Mapping[str, str | None]
) -> None:
    """Set the tags that are `shown`, the views of all runs and of those `compared`, and the description.

    `compared` are ids of trainings by their keys, None where the store does not have one. The description is `about`,
    in Markdown, with links to the views; one that a person wrote stays.
    """
    present = client.get_experiment(experiment_id)
    views = _views()
    addresses = {key: view_address(experiment_id, key, charts=key == TRAININGS) for key in views}
    note = f"{about}\n\n" + " · ".join(f"[{name}]({addresses[key]})" for key, (name, _) in views.items())
    created = {"createdAt": present.creation_time}
    wanted = {
        f"{_VIEW_TAG}{key}": json.dumps({"name": name, **created, "state": _packed(state)})
        for key, (name, state) in views.items()
    }
    if compared:  # without a name: the menu of views has those of all runs
        listed = ", ".join(f"'{run_id}'" for run_id in sorted(filter(None, compared.values()))[:_MOST_COMPARED])
        wanted[f"{_VIEW_TAG}{view_key(compared)}"] = _packed(_state(f"attributes.run_id IN ({listed})"))
    if present.tags.get(NOTE_TAG, "") == present.tags.get(_OWN_NOTE_TAG, ""):
        wanted |= {NOTE_TAG: note, _OWN_NOTE_TAG: note}
    for tag, value in (wanted | dict(shown)).items():
        if present.tags.get(tag) != value:
            client.set_experiment_tag(experiment_id, tag, value)


def _views() -> dict[str, tuple[str, dict[str, Any]]]:
    """The views of all runs by their keys: names and states."""
    time = "attributes.start_time"
    return {
        TRAININGS: ("Trainings: accuracy, loss, cost", _state("tags.stage = 'train'")),
        ANSWERS: ("Answers of all runs", _state("tags.stage = 'compare'", time, (_RUN_NAME, _DESCRIPTION), {})),
        SEARCHES: ("Searches", _state("tags.stage = 'tune'", time, _SEARCH_COLUMNS, {})),
    }


def _state(
    runs: str,
    order: str = "metrics.`test/accuracy`",
    columns: Sequence[str] = _COLUMNS,
    sections: Mapping[str, _Section] = _SECTIONS,
) -> dict[str, Any]:
    """The state of the page that shows the `runs` of a filter: columns of the table, charts by their section."""
    state: dict[str, Any] = {"searchFilter": runs, "orderByKey": order, "orderByAsc": False, "startTime": "ALL"}
    state |= {"lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs"}
    state |= {"selectedColumns": columns, "columnOrder": columns}
    state["columnWidths"] = {column: _WIDTHS.get(column, 120) for column in columns}
    if sections:
        shown = [
            {"uuid": name, "name": name, "display": True, "isReordered": True}
            | {"columns": section.columns, "cardHeight": section.height}
            for name, section in sections.items()
        ]
        cards = [
            {"uuid": f"{name} {place}", "metricSectionId": name, "runsCountToCompare": 20, "deleted": False, **chart}
            for name, section in sections.items()
            for place, chart in enumerate(section.charts)
        ]
        # MLflow adds the metrics that no chart has, below these sections.
        state |= {"compareRunCharts": cards, "compareRunSections": shown, "isAccordionReordered": True}
    return state


def _packed(state: Mapping[str, Any]) -> str:
    return "deflate;" + b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode("ascii")
