"""The replicates of a contestant in MLflow: one parent with their means, which a longer list of seeds continues."""

from collections.abc import Callable

import pytest
from mlflow.entities import Run

from factories import contestant
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.evaluation.contestants import read_contestant
from vit_vs_cnn.evaluation.replicate_runs import record_replicates
from vit_vs_cnn.tracking.run import start_run
from vit_vs_cnn.tracking.store import experiment, open_client

Make = Callable[..., Settings]


def train(settings: Settings, errors: int, seed: int) -> None:
    contestant(settings, "vit", errors, seed=seed)
    with start_run(settings, "train", "vit", part=str(seed)) as run:
        run.write_ref(trained("vit", seed))


def recorded() -> dict[str, Run]:
    client = open_client()
    runs = client.search_runs([experiment(client, "tiny").experiment_id])
    return {run.info.run_name: run for run in runs}


def test_trainings_become_children_of_a_run_with_their_means(make_settings: Make, prepared: DatasetInfo) -> None:
    for number, (errors, expected) in enumerate(((30, 0.9), (60, 0.85), (90, 0.8))):
        settings = make_settings({"seeds": list(range(number + 1))})
        train(settings, errors, number)
        measured = read_contestant(settings, "vit")
        record_replicates(settings, measured)
        runs = recorded()
        if number == 0:
            assert runs.keys() == {"train-vit-0"}
            continue
        parent = runs.pop("replicates-vit")
        assert len(runs) == number + 1
        assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
        assert parent.data.metrics["test/accuracy"] == pytest.approx(expected)
        assert parent.data.metrics["test/accuracy_low"] == pytest.approx(measured.mean.low)
        assert parent.data.metrics["test/accuracy_std"] > 0
        assert parent.data.tags["seeds"] == ", ".join(map(str, settings.seeds))
        assert "seed" not in parent.data.params
