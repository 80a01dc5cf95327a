"""The whole search on real trainings: result, records, figures, and resuming after kills."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState

from harness.sleeping_study import sleeping, sleeping_study
from vit_vs_cnn.config.load import with_tuned
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import PREPARED, state_dir, tuned, tuning_report
from vit_vs_cnn.data.dataset import DatasetInfo, read_split
from vit_vs_cnn.data.split import sample
from vit_vs_cnn.report.tuning import write_tuning_report
from vit_vs_cnn.stages import tune
from vit_vs_cnn.tracking.delivery import sync
from vit_vs_cnn.tracking.run import start_run
from vit_vs_cnn.tracking.store import tracking_uri
from vit_vs_cnn.training.checkpoint import Checkpoint
from vit_vs_cnn.tuning.objective import TrainingObjective
from vit_vs_cnn.tuning.result import study_result
from vit_vs_cnn.tuning.search import join_search
from vit_vs_cnn.tuning.storage import open_storage, storage_url
from vit_vs_cnn.tuning.study import TuningStudy, open_study
from vit_vs_cnn.tuning.summary import read_tuning_summary
from vit_vs_cnn.tuning.worker import work

Make = Callable[..., Settings]
LR = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}


def searching(make_settings: Make, trials: int, space: Any, **more: Any) -> Settings:
    return make_settings({"tune": {"trials": trials, "epochs": 3, "space": space, **more}, "train": {"epochs": 2}})


def runs_of(client: MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def worked(settings: Settings, info: DatasetInfo) -> TuningStudy:
    """A study that a worker in this very process has worked on."""
    tuning = open_study(open_storage(storage_url()), settings, "vit", info)
    objective = TrainingObjective(tuning, PREPARED)
    work(tuning, objective, objective.remove_checkpoint)
    return tuning


def wait_for(what: Callable[[], Any]) -> Any:
    """The first truthy value of `what()`."""
    deadline = time.monotonic() + 300
    while not (value := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return value


def kill_the_worker(killed: list[int]) -> None:
    """Kill the worker with SIGKILL in its second trial."""
    wait_for(Path(storage_url().removeprefix("sqlite:///")).is_file)
    storage = open_storage(storage_url())
    (name,) = wait_for(lambda: optuna.get_all_study_names(storage))
    study = optuna.load_study(study_name=name, storage=storage)

    def worker_of_second_trial() -> Any:
        trials = study.get_trials(deepcopy=False)
        return len(trials) > 1 and trials[1].state == TrialState.RUNNING and trials[1].user_attrs.get("worker")

    killed.append(int(wait_for(worker_of_second_trial).rpartition(":")[2]))
    os.kill(killed[0], signal.SIGKILL)


def test_a_search_whose_worker_is_killed_leaves_recipe_report_and_every_run(
    make_settings: Make, prepared: DatasetInfo
) -> None:
    settings = searching(make_settings, 5, {"optimizer": {"lr": LR}}, pruner={"name": "NopPruner"})
    killed: list[int] = []
    killer = threading.Thread(target=kill_the_worker, args=(killed,))
    killer.start()
    tune.run(settings, "vit")
    killer.join()
    assert killed

    summary = read_tuning_summary("vit")
    assert (summary.trials, summary.complete, summary.pruned, summary.failed) == (5, 5, 0, 0)
    assert summary.gain is not None
    assert summary.gain >= 0
    trials = pd.read_csv(tuning_report("vit") / "trials.csv")
    numbers = list(trials["trial"])
    assert len(set(numbers)) == 5
    assert numbers[:2] == [0, 1]
    assert trials["val_accuracy"].max() == summary.best_val_accuracy
    best = trials.set_index("trial").loc[summary.best_trial]
    assert with_tuned(settings, "vit").model("vit").recipe.optimizer.lr == pytest.approx(best["optimizer.lr"])
    figures = {figure["file"] for figure in json.loads((tuning_report("vit") / "figures.json").read_text())["figures"]}
    assert {"gain.svg", "history.svg", "parallel_coordinates.svg", "slices.svg", "timeline.svg"} <= figures
    page = (tuning_report("vit") / "study.html").read_text()
    assert page.count("Plotly.newPlot") >= 5
    assert "<script src=" not in page  # it works without a network

    client = MlflowClient(tracking_uri())
    (parent,) = [run for run in runs_of(client) if run.info.run_name == "tune-vit"]
    children = [run for run in runs_of(client) if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(runs_of(client)) == 6
    assert sorted(run.info.run_name for run in children) == [f"tune-vit-trial-{number}" for number in numbers]
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    for run in children:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "val/accuracy")]
        assert sorted(set(steps)) == [1, 2, 3]
    assert parent.data.metrics["tune/gain"] == summary.gain
    assert len(client.get_metric_history(parent.info.run_id, "tune/recipe_val_accuracy")) == 3
    assert {Path(artifact.path).name for artifact in client.list_artifacts(parent.info.run_id, "tuning")} >= {
        "study.html",
        "trials.csv",
        "gain.svg",
        "vit.yaml",
    }
    assert not list((state_dir() / "checkpoints").glob("*"))
    assert not list((state_dir() / "outbox").glob("*/header.json"))

    # The same question is answered already: nothing is trained, the answer is the same.
    before = tuned("vit").read_text()
    tune.run(settings, "vit")
    assert tuned("vit").read_text() == before
    assert len(runs_of(client)) == 6


def test_pruned_and_failed_trials_end_so_in_mlflow_too_with_their_reason(
    make_settings: Make, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two rates: one that learns, one whose loss is infinite in the first epoch.
    space = {"optimizer": {"lr": {"type": "categorical", "choices": [0.002, 1e30]}}}
    settings = searching(make_settings, 6, space, sampler={"name": "RandomSampler", "args": {}})
    prune = "optuna.trial.Trial.should_prune"
    monkeypatch.setattr(prune, lambda trial: trial.number >= 3)
    tuning = worked(settings, prepared)
    states = {trial.number: trial.state for trial in tuning.trials()}
    assert set(states.values()) == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    client = MlflowClient(tracking_uri())
    status = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
    runs = [run for run in runs_of(client) if "trial-" in run.info.run_name]
    # Their parent was never made here: all of it waits until it is.
    assert runs == []
    with start_run(settings, "tune", "vit", tuning.run_key):
        pass
    sync()
    runs = [run for run in runs_of(client) if "trial-" in run.info.run_name]
    assert len(runs) == 6
    for run in runs:
        trial = tuning.trials()[int(run.data.params["trial"])]
        assert run.info.status == status[trial.state]
        assert run.data.tags["trial.state"] == trial.state.name.lower()
        if trial.state == TrialState.FAIL:
            assert "the loss is not finite any more in epoch 1" in run.data.tags["failure"]
        if trial.state == TrialState.PRUNED:
            assert run.data.tags["trial.reason"] == "HyperbandPruner stopped it after epoch 1"
            assert list(trial.intermediate_values) == [1]
    found = study_result(tuning)
    pruned = sum(state == TrialState.PRUNED for state in states.values())
    assert found.summary.epochs_saved == 2 * pruned


def test_a_search_without_a_single_complete_trial_says_why(make_settings: Make, prepared: DatasetInfo) -> None:
    space = {"optimizer": {"lr": {"type": "float", "low": 1e29, "high": 1e31, "log": True}}}
    settings = make_settings(
        {"tune": {"trials": 2, "epochs": 1, "space": space}, "recipe": {"optimizer": {"name": "sgd", "lr": 1e30}}}
    )
    tuning = worked(settings, prepared)
    with pytest.raises(UserError, match=r"models\.vit: all 2 trials failed, .*the loss is not finite"):
        study_result(tuning)


def test_where_all_trials_failed_the_reason_of_the_first_one_is_named(tmp_path: Path) -> None:
    tuning = sleeping_study(f"sqlite:///{tmp_path / 'studies.db'}", 2)

    def fails(trial: optuna.Trial) -> float:
        raise UserError(("the rate is too high", "a loss is not finite")[trial.number])

    work(tuning, fails)
    with pytest.raises(UserError, match="all 2 trials failed, the first one so: the rate is too high"):
        study_result(tuning)


def test_a_killed_trial_loses_no_finished_epoch(
    make_settings: Make, prepared: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = searching(make_settings, 2, {"optimizer": {"lr": LR}}, pruner={"name": "NopPruner"})
    saved: list[int] = []
    save = Checkpoint.save

    class Killed(BaseException):
        pass

    def dies_once(file: Checkpoint, state: Any, history: Any) -> None:
        save(file, state, history)
        saved.append(history[-1].epoch)
        if len(saved) == 5:
            raise Killed  # its last epoch is in the checkpoint, and not reported

    monkeypatch.setattr(Checkpoint, "save", dies_once)
    with pytest.raises(Killed):
        worked(settings, prepared)
    open_study(open_storage(storage_url()), settings, "vit", prepared).release_trial(os.getpid())
    tuning = worked(settings, prepared)
    assert saved == [1, 2, 3, 1, 2, 3]
    assert [list(trial.intermediate_values) for trial in tuning.trials()] == [[1, 2, 3], [1, 2, 3]]
    assert not list((state_dir() / "checkpoints").glob("*"))


def test_a_search_that_is_killed_ends_with_exactly_its_budget_when_it_is_started_again(
    make_settings: Make, prepared: DatasetInfo
) -> None:
    settings = searching(make_settings, 3, {"optimizer": {"lr": LR}}, pruner={"name": "NopPruner"})
    tuning = open_study(open_storage(storage_url()), settings, "vit", prepared)
    command = [sys.executable, "-c", "from vit_vs_cnn.cli import program; program()", "tune", "vit", "--join"]
    search = subprocess.Popen(command, start_new_session=True)
    wait_for(lambda: any(trial.state == TrialState.COMPLETE for trial in tuning.trials()))
    search.kill()
    search.wait()
    join_search("vit")
    assert [trial.state for trial in tuning.trials()] == [TrialState.COMPLETE] * 3
    assert all(list(trial.intermediate_values) == [1, 2, 3] for trial in tuning.trials())
    assert not list((state_dir() / "checkpoints").glob("*"))


def test_a_worker_that_joins_without_the_data_says_so(make_settings: Make, prepared: DatasetInfo) -> None:
    settings = searching(make_settings, 2, {"optimizer": {"lr": LR}})
    open_study(open_storage(storage_url()), settings, "vit", prepared)
    (PREPARED / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"vit: the study tiny-vit-\w+ is about the data tiny .*which are not here"):
        join_search("vit")


def test_another_process_joins_by_the_command(make_settings: Make, prepared: DatasetInfo) -> None:
    settings = searching(make_settings, 2, {"optimizer": {"lr": LR}}, pruner={"name": "NopPruner"})
    tuning = open_study(open_storage(storage_url()), settings, "vit", prepared)
    command = "import sys; from vit_vs_cnn.cli import program; sys.argv[1:] = ['tune', 'vit', '--join']; program()"
    answer = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert f"the study {tuning.name} has its 2 trials" in answer.stdout
    assert tuning.is_finished()


def test_a_part_of_the_data_keeps_every_class(prepared: DatasetInfo) -> None:
    split = read_split(PREPARED, "train")
    part = sample(split, 0.25, seed=3)
    assert 0.2 * len(split) < len(part) < 0.3 * len(split)
    assert set(part.labels) == set(split.labels)
    assert (part.images[0] == split.images[split.names.index(part.names[0])]).all()
    assert sample(split, 1.0, seed=3) is split


def test_another_score_than_accuracy_is_what_is_maximized_and_shown(make_settings: Make, prepared: DatasetInfo) -> None:
    settings = searching(make_settings, 2, {"optimizer": {"lr": LR}}, pruner={"name": "NopPruner"})
    settings = settings.model_copy(update={"select_by": "nll"})
    tuning = worked(settings, prepared)
    result = study_result(tuning)
    assert result.best.value == max(trial.value or 0.0 for trial in tuning.trials())
    assert result.best.value == -min(-value for value in result.best.intermediate_values.values())
    assert result.best.value == -result.best.user_attrs["val_loss"] < 0
    assert (result.summary.select_by, result.summary.best_val_accuracy) == (
        "nll",
        result.best.user_attrs["val_accuracy"],
    )
    write_tuning_report(result, "vit", "C0", tuning_report("vit"))
    trials = pd.read_csv(tuning_report("vit") / "trials.csv")
    assert list(trials["score"]) == [trial.value for trial in tuning.trials()]
    assert trials["val_accuracy"].between(0, 1).all()
    captions = (tuning_report("vit") / "figures.json").read_text()
    assert "Each complete trial by its negated validation loss" in captions
    assert "validation accuracy" not in captions


def test_a_best_value_at_the_edge_of_its_range_is_named_where_the_range_could_be_wider(tmp_path: Path) -> None:
    space = {
        "optimizer": {
            "lr": {"type": "float", "low": 1e-4, "high": 0.002, "log": True},
            "weight_decay": {"type": "float", "low": 0.05, "high": 0.2},
        },
        "batch_size": {"type": "int", "low": 8, "high": 32},
        "label_smoothing": {"type": "float", "low": 0.0, "high": 0.2, "step": 0.05},
        "schedule": {"name": {"type": "categorical", "choices": ["cosine", "linear"]}},
    }
    tuning = sleeping_study(f"sqlite:///{tmp_path / 'studies.db'}", 1, space=space)
    work(tuning, sleeping(tuning))
    assert study_result(tuning).summary.at_edge == ("optimizer.lr", "optimizer.weight_decay")
