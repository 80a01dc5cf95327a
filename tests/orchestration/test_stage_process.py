import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from harness.small_project import SmallProject, wait_for
from vit_vs_cnn.core.console import Progress
from vit_vs_cnn.core.errors import RunError, TransientError, UserError
from vit_vs_cnn.orchestration import stage_process
from vit_vs_cnn.orchestration.dag import check_timeouts, choose_stages, read_dag, resolve_names, timeout_seconds
from vit_vs_cnn.orchestration.stage_process import StageCommand, StageResult, run_stage, stop_all


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[Progress] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def say(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, progress: Progress) -> None:
        self.steps.append(progress)


@pytest.fixture
def small(tmp_path: Path) -> SmallProject:
    return SmallProject(tmp_path)


def run(small: SmallProject, stage: str, timeout: float = 600.0, lock_wait: float = 30.0, heard: Heard | None = None):
    environment = small.environment() | {"PREFECT__FLOW_RUN_ID": "x"}
    return run_stage(StageCommand(small.root, stage, environment, timeout, lock_wait), heard or Heard())


def test_a_stage_runs_once_and_its_lines_and_progress_are_heard(small: SmallProject) -> None:
    heard = Heard()
    assert run(small, "prepare", heard=heard) is StageResult.RAN
    assert "prepare says hello" in heard.lines
    assert heard.steps == [Progress(50, "prepare works", "1/2, 1 it/s")]
    assert not any("git add" in line or "Updating lock file" in line for line in heard.lines)
    assert run(small, "prepare") is StageResult.CACHED
    assert [stage.name for stage in read_dag(small.root) if not stage.changes] == ["prepare"]


def test_the_stages_own_sentence_comes_through_with_the_end_of_its_log(small: SmallProject) -> None:
    small.control("in-place", prepare={"fails": 1, "sentence": "data.path: it is not there.", "retryable": True})
    with pytest.raises(TransientError) as failure:
        run(small, "prepare")
    assert str(failure.value) == "data.path: it is not there."
    assert "the last line of the log" in failure.value.__notes__[0].splitlines()
    small.control("in-place", prepare={"fails": 9, "sentence": "data.path: it is not there."})
    with pytest.raises(UserError, match="it is not there") as failure:
        run(small, "prepare")
    assert not isinstance(failure.value, TransientError)


def test_without_a_sentence_dvcs_own_one_is_raised(small: SmallProject) -> None:
    small.control("in-place", prepare={"code": 7})
    with pytest.raises(RunError, match=r"prepare: failed to reproduce 'prepare'.*exited with 7"):
        run(small, "prepare")


def test_a_stage_that_takes_too_long_is_ended_with_its_children(small: SmallProject) -> None:
    small.control("in-place", prepare={"hold": True, "child": 1})
    with pytest.raises(RunError, match=r"took longer than 0\.08.* min \(flow\.timeout_minutes\)"):
        run(small, "prepare", timeout=5.0)
    assert small.processes() == []


@pytest.mark.parametrize("victim", ["dvc", "stage.py"])
def test_a_killed_process_is_said_and_may_be_retried(small: SmallProject, victim: str) -> None:
    small.control("in-place", prepare={"hold": True})
    failures: list[Exception] = []

    def work() -> None:
        try:
            run(small, "prepare")
        except (RunError, UserError) as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    stage = psutil.Process(wait_for(lambda: small.history(what="start"))[0]["pid"])
    dvc = next(parent for parent in stage.parents() if "repro" in parent.cmdline())
    (stage if victim == "stage.py" else dvc).kill()
    thread.join(300)
    assert str(failures[0]) == "prepare: its process was killed (signal 9)."
    assert isinstance(failures[0], TransientError)
    wait_for(lambda: small.processes() == [])
    small.control("in-place", prepare={})
    assert run(small, "prepare") is StageResult.RAN


def test_another_dvc_process_is_waited_for(small: SmallProject) -> None:
    small.control("in-place", prepare={"hold": True})
    other = threading.Thread(target=run, args=(small, "prepare"))
    other.start()
    wait_for(lambda: small.started("in-place"))

    class Ends(Heard):
        def say(self, text: str) -> None:
            super().say(text)
            if text == "another DVC process holds the lock; waiting for it":
                small.control("in-place")

    heard = Ends()
    assert run(small, "prepare", heard=heard, lock_wait=300) is StageResult.CACHED
    other.join()
    assert "another DVC process holds the lock; waiting for it" in heard.lines
    assert small.started("in-place") == ["prepare"]


def test_waiting_for_another_dvc_process_has_a_limit(small: SmallProject) -> None:
    small.control("in-place", prepare={"hold": True})
    other = threading.Thread(target=run, args=(small, "prepare"))
    other.start()
    wait_for(lambda: small.started("in-place"))
    with pytest.raises(TransientError, match="another DVC process holds its lock for more than 0 s"):
        run(small, "prepare", lock_wait=0.0)
    small.control("in-place")
    other.join()


def test_stopping_ends_the_whole_tree_and_lets_nothing_else_begin(
    small: SmallProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_process, "_stopping", threading.Event())
    small.control("in-place", prepare={"hold": True, "child": 1})
    failures: list[RunError] = []

    def work() -> None:
        try:
            run(small, "prepare")
        except RunError as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: small.started("in-place"))
    stop_all()
    thread.join(300)
    assert small.processes() == []
    assert "starting the run again continues it" in str(failures[0])
    with pytest.raises(RunError, match="stopped before it began"):
        run(small, "eda")


def test_a_stage_does_not_outlive_a_killed_parent(small: SmallProject) -> None:
    small.control("in-place", prepare={"hold": True})
    code = (
        "import os, pathlib; from vit_vs_cnn.orchestration.stage_process import *\n"
        "class L:\n    line = progress = lambda *_: None\n"
        "environment = dict(os.environ, PREFECT__FLOW_RUN_ID='x')\n"
        "run_stage(StageCommand(pathlib.Path.cwd(), 'prepare', environment, 600, 600), L())"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=small.root, env=small.environment())
    pid = wait_for(lambda: small.history(what="start"))[0]["pid"]
    parent.kill()
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(pid))
    wait_for(lambda: small.processes() == [])


def test_the_dag_is_dvcs(small: SmallProject) -> None:
    dag = read_dag(small.root)
    assert {stage.name: stage.needs for stage in dag} == {
        "prepare": (),
        "eda": ("prepare",),
        "train@vit": ("prepare",),
        "train@resnet": ("prepare",),
        "compare": ("eda", "train@resnet", "train@vit"),
    }
    assert dag[0].name == "prepare"
    assert {stage.name for stage in dag if stage.uses_accelerator} == {"train@vit", "train@resnet"}
    assert {stage.name for stage in choose_stages(dag, ["train"])} == {"prepare", "train@vit", "train@resnet"}
    assert resolve_names(dag, ["train@vit"]) == {"train@vit"}
    with pytest.raises(UserError, match="there is no stage trian; there are prepare, "):
        choose_stages(dag, ["trian"])


def test_a_dvc_yaml_that_cannot_be_read_is_one_sentence(small: SmallProject) -> None:
    (small.root / "dvc.yaml").write_text("stages: {prepare: {cmd: [}}")
    with pytest.raises(UserError, match="DVC cannot read the pipeline"):
        read_dag(small.root)


def test_timeouts_are_by_stage_with_a_default(small: SmallProject, make_settings) -> None:
    dag = read_dag(small.root)
    settings = make_settings({"flow": {"timeout_minutes": {"default": 10, "train": 60}}}).flow
    check_timeouts(dag, settings)
    assert {stage.name: timeout_seconds(stage, settings) for stage in dag}["train@vit"] == 3600
    assert timeout_seconds(dag[0], settings) == 600
    with pytest.raises(UserError, match=r"flow\.timeout_minutes\.trian: there is no such stage"):
        check_timeouts(dag, make_settings({"flow": {"timeout_minutes": {"trian": 1.0, "default": 1.0}}}).flow)
