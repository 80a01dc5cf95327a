"""Studies from the command line and on a worker: killed, failing, in parallel."""

import json
import signal
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

from harness.local_services import Server
from harness.small_project import wait_for
from harness.study_project import StudyProject

AXES = {"images": [0.25, 0.5, 1.0]}
FIRST, SECOND, THIRD = (f"mine-images-{part}" for part in ("0.25", "0.5", "1"))
STAGES = ["prepare", "train-vit-0", "train-resnet-0", "evaluate-vit-0", "evaluate-resnet-0"]


def test_a_study_that_is_killed_continues_and_repeats_only_the_point_that_failed(tmp_path: Path) -> None:
    small = StudyProject(tmp_path, axes=AXES)
    folder = small.root / "reports" / "studies" / "mine"
    assert "wrong.yaml: axes.imags: there is no such setting; do you mean images?" in _refused(small)

    small.control(SECOND, prepare={"hold": True})
    for starts, sent in enumerate((signal.SIGTERM, signal.SIGINT), start=1):
        stopped = small.start_study(tmp_path / "stopped.log")
        wait_for(lambda starts=starts: small.started(SECOND).count("prepare") == starts)
        stopped.send_signal(sent)
        assert stopped.wait(300) == 128 + sent
        assert (tmp_path / "stopped.log").read_text().endswith("stopped; run the same command again to resume.\n")
        assert small.processes() == []
    killed = small.start_study(tmp_path / "killed.log")
    wait_for(lambda: small.started(SECOND).count("prepare") == 3)
    status = small.call("study", "status", "mine")
    assert "1 of 3 runs done, 0 failed" in status
    assert "running" in status
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    wait_for(lambda: not small.processes())

    small.control(SECOND, train_vit_0={"fails": 1, "sentence": "models.vit: the loss is not finite any more."})
    output = small.call("study", "mine", code=1)
    assert "study mine: 3 runs, about " in output
    assert "1 of 3 runs failed" in output
    assert f"{SECOND}: models.vit: the loss is not finite any more." in output
    assert sorted(small.started(FIRST)) == sorted(STAGES)
    assert small.started(SECOND).count("prepare") == 4
    table = pd.read_csv(folder / "results.csv")
    assert table["images"].tolist() == [0.25, 0.25, 1.0, 1.0]
    assert "the loss is not finite any more" in (folder / "study.html").read_text()
    status = json.loads(small.call("study", "status", "mine", "--json"))
    assert [run["state"] for run in status["runs"]] == ["done", "failed", "done"]

    before = len(small.history(what="start"))
    output = small.call("study", "mine")
    assert "With 64 of your 1,329 images and 2 epochs" in output  # 64 is what the invented results say
    assert {fact["run"] for fact in small.history(what="start")[before:]} == {SECOND}
    assert "train-vit-0" in small.started(SECOND)[1:]
    assert pd.read_csv(folder / "results.csv")["images"].tolist() == [0.25, 0.25, 0.5, 0.5, 1.0, 1.0]
    assert sorted(small.experiments().split()) == sorted([FIRST, SECOND, THIRD])
    assert "register" not in [fact["stage"] for fact in small.history()]

    client = MlflowClient(f"sqlite:///{small.root}/mlruns/mlflow.db")
    found = client.get_experiment_by_name("tiny")
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert [run.data.tags["mlflow.runName"] for run in parents] == ["study-mine"]
    assert parents[0].data.metrics["study/done"] == 3
    assert "study/study.html" in {file.path for file in client.list_artifacts(parents[0].info.run_id, "study")}
    assert (
        sorted(run.data.params["images"] for run in runs if run not in parents)
        == ["0.25"] * 2 + ["0.5"] * 2 + ["1.0"] * 2
    )


def test_workers_share_the_points_of_a_study_and_a_killed_one_takes_them_up_again(tmp_path: Path) -> None:
    """The points of a budget in seconds: a run for each contestant."""
    small, names = StudyProject(tmp_path, axes={"seconds": [5]}), ("mine-seconds-5-vit", "mine-seconds-5-resnet")
    for run in names:
        small.control(run, prepare={"hold": True})
    server = Server(small)
    try:
        killed = server.submit_to("study", study="mine")
        wait_for(lambda: {fact["run"] for fact in small.history(what="start")} == {*names})
        assert "study mine runs in another process" in small.call("study", "mine", code=2)
        (process,) = (each for each in small.processes() if each.environ().get("PREFECT__FLOW_RUN_ID") == killed)
        process.kill()
        server.end(killed)
        study = server.submit_to("study", study="mine")
        wait_for(lambda: "2 runs are submitted" in server.messages(study))
        for run in names:
            small.control(run)
        state = server.end(study)
        assert state["type"] == "COMPLETED", state["message"]
        assert "64 of your 1,329 images" in state["message"]  # 64 is what the invented results say
        named = [run["name"] for run in server.ask("flow_runs/filter", {})]
        assert sum(name.startswith(("mine-seconds", "study-mine")) for name in named) == 2 + 2, named

        # Studies in all other places of the worker: nobody would run what another one submits.
        others = {"parameters": {"study": "other"}, "state": {"type": "RUNNING"}}
        for _ in range(3):
            server.ask(f"deployments/{server.deployment('study')['id']}/create_flow_run", others)
        study = server.submit_to("study", study="mine")
        assert server.end(study)["type"] == "COMPLETED"
        wait_for(lambda: any(said.startswith("run 2 of 2") for said in server.messages(study)))
    finally:
        server.stop()
    assert [fact["stage"] for fact in small.history(what="start")].count("prepare") == 2
    client = MlflowClient(f"sqlite:///{small.root}/mlruns/mlflow.db")
    found = client.get_experiment_by_name("tiny")
    assert found is not None
    params = [run.data.params for run in client.search_runs([found.experiment_id])]
    assert sorted(each["contestant"] for each in params if "contestant" in each) == ["resnet", "vit"]


def _refused(small: StudyProject) -> str:
    (small.root / "studies" / "wrong.yaml").write_text("axes: {imags: [1]}\n")
    output = small.call("study", "wrong", code=2)
    (small.root / "studies" / "wrong.yaml").unlink()
    return output
