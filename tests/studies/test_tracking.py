"""A study in MLflow: recorded again it is the same runs, with what was measured last."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from study_factories import planned, results_of
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.studies.results import Results
from vit_vs_cnn.studies.summary import summarize
from vit_vs_cnn.studies.tracking import track_study
from vit_vs_cnn.tracking.store import tracking_uri


def tracked(results: Results, settings: Settings, folder: Path) -> dict[str, Run]:
    """Record the results, and return all runs by their names, each of which is there once."""
    track_study(summarize(results), settings, folder)
    client = MlflowClient(tracking_uri())
    experiment = client.get_experiment_by_name("pets")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    runs = {str(run.info.run_name): run for run in found}
    assert len(found) == len(runs)
    assert {run.info.status for run in found} == {"FINISHED"}
    return runs


@pytest.fixture
def pets(settings: Settings) -> Settings:
    models = {"vit": settings.models["vit"], "cnn": settings.models["resnet"]}
    return settings.model_copy(update={"data": settings.data.model_copy(update={"name": "pets"}), "models": models})


def test_more_seeds_add_to_the_run_and_what_is_measured_anew_replaces(
    pets: Settings, project: Path, tmp_path: Path
) -> None:
    axes = {"images": [1.0]}
    results = results_of(planned(axes, (0,)))
    first = tracked(results, pets, tmp_path)
    names = {"study-vit-made-up-images-1.0-0", "study-cnn-made-up-images-1.0-0"}
    assert first.keys() == names | {"study-made-up"}

    (name,) = results.done
    vit, cnn = results.done[name].replicates
    anew = vit.model_copy(update={"train_seconds": 9.0, "accuracy": 0.5})
    results.done[name] = results.done[name].model_copy(update={"replicates": (anew, cnn)})
    second = tracked(results, pets, tmp_path)
    assert {key: run.info.run_id for key, run in second.items()} == {key: run.info.run_id for key, run in first.items()}
    metrics = second["study-vit-made-up-images-1.0-0"].data.metrics
    assert (metrics["test/accuracy"], metrics["study/train_seconds"]) == (0.5, 9.0)
    unchanged = [runs["study-cnn-made-up-images-1.0-0"].info.end_time for runs in (first, second)]
    assert unchanged[0] == unchanged[1]

    more = tracked(results_of(planned(axes, (0, 1))), pets, tmp_path)
    assert more["study-made-up"].info.run_id == first["study-made-up"].info.run_id
    assert more.keys() - first.keys() == {"study-vit-made-up-images-1.0-1", "study-cnn-made-up-images-1.0-1"}
    assert {run.data.tags.get("mlflow.parentRunId") for key, run in more.items() if key != "study-made-up"} == {
        first["study-made-up"].info.run_id
    }
