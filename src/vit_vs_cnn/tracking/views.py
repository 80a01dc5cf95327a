"""Views of an experiment's runs that are prepared for MLflow's pages: which runs, columns and charts they open with.

A view is a tag of the experiment, written as MLflow's own *Save view* and *Share* write it; an address opens it by its
key. A version of MLflow that does not know a part of it shows its own default in its place.
"""

import json
import zlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
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
_RUN_NAME = "tags.`vit_vs_cnn.run_name`"
_SEARCH_METRICS = ("gain", "best_val_accuracy", "recipe_val_accuracy", "trials", "seconds")
_COLUMNS = (
    "metrics.`test/accuracy`",
    "metrics.`test/nll`",
    "metrics.`cost/latency_p50_ms`",
    "metrics.`cost/seconds_per_epoch`",
    "metrics.`cost/parameters`",
    _RUN_NAME,
    "attributes.`Description`",
)
_BY_EPOCH = {"xAxisKey": "step", "useGlobalXaxisKey": False}
_BY_TIME = {"xAxisKey": "metric", "selectedXAxisMetricKey": "time/elapsed_seconds", "useGlobalXaxisKey": False}


def _line(title: str, metrics: Sequence[str], x_axis: Mapping[str, object]) -> dict[str, Any]:
    return {
        "type": "LINE",
        "displayName": title,
        "metricKey": metrics[0],
        "selectedMetricKeys": [*metrics],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "ignoreOutliers": False,
        "useGlobalLineSmoothing": True,
        **x_axis,
    }


def _bars(title: str, metric: str) -> dict[str, Any]:
    return {"type": "BAR", "displayName": title, "metricKey": metric}


def _points(title: str, x_metric: str, y_metric: str) -> dict[str, Any]:
    axes = {axis: {"key": key, "type": "METRIC"} for axis, key in (("xaxis", x_metric), ("yaxis", y_metric))}
    return {"type": "SCATTER", "displayName": title, **axes}


def _images(title: str, key: str) -> dict[str, Any]:
    return {"type": "IMAGE", "displayName": title, "imageKeys": [key], "step": 1, "showRunParams": False}


_CHARTS = {
    "Accuracy": (
        _bars("On test", "test/accuracy"),
        _line("On validation, by epoch", ["val/accuracy"], _BY_EPOCH),
        _line("On validation, by seconds of training", ["val/accuracy"], _BY_TIME),
        _bars("Under corruptions", "robustness/accuracy"),
    ),
    "Loss": (
        _line("On train and validation, by epoch", ["train/loss", "val/loss"], _BY_EPOCH),
        _bars("Negative log-likelihood on test", "test/nll"),
        _bars("Calibration error on test", "test/ece"),
    ),
    "Cost": (
        _points("Accuracy over milliseconds for one image", "cost/latency_p50_ms", "test/accuracy"),
        _bars("Milliseconds for one image", "cost/latency_p50_ms"),
        _bars("Seconds per epoch", "cost/seconds_per_epoch"),
        _bars("Parameters", "cost/parameters"),
    ),
    "Images": (
        _images("Images that all contestants share", "explanation/same_images"),
        _images("Mistakes, the most confident first", "explanation/mistakes"),
    ),
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
        listed = ", ".join(f"'{run_id}'" for run_id in sorted(filter(None, compared.values())))
        wanted[f"{_VIEW_TAG}{view_key(compared)}"] = _packed(_state(f"attributes.run_id IN ({listed})"))
    if present.tags.get(NOTE_TAG, "") == present.tags.get(_OWN_NOTE_TAG, ""):
        wanted |= {NOTE_TAG: note, _OWN_NOTE_TAG: note}
    for tag, value in (wanted | dict(shown)).items():
        if present.tags.get(tag) != value:
            client.set_experiment_tag(experiment_id, tag, value)


def _views() -> dict[str, tuple[str, dict[str, Any]]]:
    """The views of all runs by their keys: names and states."""
    time, description = "attributes.start_time", _COLUMNS[-1]
    searches = (*(f"metrics.`tune/{name}`" for name in _SEARCH_METRICS), description)
    return {
        TRAININGS: ("Trainings: accuracy, loss, cost", _state("tags.stage = 'train'")),
        ANSWERS: ("Answers of all runs", _state("tags.stage = 'compare'", time, (_RUN_NAME, description), {})),
        SEARCHES: ("Searches", _state("tags.stage = 'tune'", time, searches, {})),
    }


def _state(
    runs: str,
    order: str = "metrics.`test/accuracy`",
    columns: Sequence[str] = _COLUMNS,
    charts: Mapping[str, Sequence[Mapping[str, Any]]] = _CHARTS,
) -> dict[str, Any]:
    """The state of the page that shows the `runs` of a filter: columns of the table, charts by their section."""
    state: dict[str, Any] = {"searchFilter": runs, "orderByKey": order, "orderByAsc": False, "startTime": "ALL"}
    state |= {"lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs"}
    state |= {"selectedColumns": [*columns], "columnOrder": [*columns], "runsHiddenMode": "FIRST_20_RUNS"}
    if charts:
        sections = [{"uuid": name, "name": name, "display": True, "isReordered": True} for name in charts]
        cards = [
            {"uuid": f"{name} {place}", "metricSectionId": name, "runsCountToCompare": 20, "deleted": False, **card}
            for name, cards in charts.items()
            for place, card in enumerate(cards)
        ]
        # MLflow adds the metrics that no chart has, below these sections.
        state |= {"compareRunCharts": cards, "compareRunSections": sections, "isAccordionReordered": True}
    return state


def _packed(state: Mapping[str, Any]) -> str:
    return "deflate;" + b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode("ascii")
