"""A study in MLflow: a run with the table, the page and the figures, and below it one for each training."""

import uuid
from pathlib import Path

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.records import digest_of
from vit_vs_cnn.studies.plan import MEASURED_SETTINGS
from vit_vs_cnn.studies.results import Replicate, RunResult
from vit_vs_cnn.studies.summary import Summary, answer
from vit_vs_cnn.tracking.run import start_run
from vit_vs_cnn.tracking.store import experiment, find_run, open_client, store_errors

# A tag with a digest of what a training's run has.
_MEASURED = "measured"


def track_study(summary: Summary, settings: Settings, folder: Path) -> None:
    """Record what was measured in the experiment of the data set; what it has already is not recorded again.

    More seeds add to the same run, and a training that was measured anew takes the place of its earlier figures.
    """
    plan = summary.plan
    decisive = settings.model_dump_json(include=MEASURED_SETTINGS - {"seeds"})
    key = _key("study", plan.study, plan.digest, decisive)
    with start_run(settings, "study", part=plan.study, key=key) as parent:
        parent.log_params({"preset": plan.preset or "none", "same": plan.same, "axes": dict(plan.axes)})
        parent.set_tags({"study": plan.study})
        parent.describe(answer(summary))
        counts = {"runs": len(plan.runs), "done": len(summary.results.done), "failed": len(summary.results.failed)}
        parent.log_metrics({f"study/{what}": count for what, count in counts.items()})
        for path in sorted(folder.iterdir()):
            if path.suffix in (".csv", ".parquet", ".html", ".png", ".svg"):
                parent.log_artifact(path, "study")
    for run in plan.runs:
        result = summary.results.done.get(run.name)
        for replicate in result.replicates if result else ():
            child = _key(key, run.name, replicate.contestant, str(replicate.seed))
            measured = digest_of(replicate.model_dump_json().encode())
            if not _is_tracked(plan.data_name, child, measured):
                part = f"{run.name}-{replicate.seed}"
                with start_run(settings, "study", replicate.contestant, child, part=part, parent=key) as tracked:
                    params = {**run.values, "contestant": replicate.contestant, "seed": replicate.seed}
                    tracked.log_params(params)
                    assert result is not None
                    tracked.log_metrics(_metrics(result, replicate))
                    tracked.set_tags({_MEASURED: measured})


def _metrics(result: RunResult, replicate: Replicate) -> dict[str, float]:
    """The measurements of a training, and what it was trained on as numbers that MLflow can plot against."""
    return {
        "test/accuracy": replicate.accuracy,
        "test/macro_f1": replicate.macro_f1,
        "test/nll": replicate.negative_log_likelihood,
        "test/ece": replicate.expected_calibration_error,
        "best/val_accuracy": replicate.val_accuracy,
        "study/train_images": result.train_images,
        "study/epochs": replicate.epochs,
        "study/steps": replicate.steps,
        "study/train_seconds": replicate.train_seconds,
    }


def _key(*parts: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, " ".join(parts)).hex


def _is_tracked(experiment_name: str, key: str, measured: str) -> bool:
    """Whether the store has what was measured of the run with this key; of one that cannot be asked it is not known."""
    try:
        client = open_client()
        run_id = find_run(client, experiment(client, experiment_name).experiment_id, key)
        return run_id is not None and client.get_run(run_id).data.tags.get(_MEASURED) == measured
    except store_errors():
        return False
