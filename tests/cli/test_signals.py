"""Commands end in good order on SIGINT and SIGTERM, also where a script started them in the background.

The signals of `run`, `study`, `serve` and `up` are in the tests of these.
"""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from factories import TINY
from harness.signals import in_background
from harness.small_project import wait_for
from vit_vs_cnn.config.nested import merge
from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.tracking.outbox import outbox_dir
from vit_vs_cnn.tracking.store import tracking_uri

SEARCH = {"trials": 2, "epochs": 100_000, "space": {"optimizer": {"lr": {"type": "float", "low": 1e-4, "high": 1e-1}}}}


@pytest.mark.parametrize(
    ("command", "sent", "code"), [("train", signal.SIGTERM, 143), ("tune", signal.SIGINT, 130)], ids=["train", "tune"]
)
def test_a_stage_by_hand_ends_its_processes_and_its_run_and_can_be_continued(
    prepared: DatasetInfo, project: Path, command: str, sent: signal.Signals, code: int
) -> None:
    endless = merge(TINY, {"train": {"epochs": 100_000}, "tune": SEARCH})
    with (project / "params.yaml").open("w") as file:
        YAML().dump(endless, file)
    main = [sys.executable, "-c", "from vit_vs_cnn.cli import program; program()", command, "vit"]
    process = subprocess.Popen(in_background(main), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: process.poll() is not None or list((state_dir() / "checkpoints").glob("*/checkpoint.pt")))
    assert process.poll() is None, process.communicate()[1]
    children = psutil.Process(process.pid).children(recursive=True)
    assert bool(children) == (command == "tune")
    process.send_signal(sent)
    _, said = process.communicate(timeout=300)
    assert process.returncode == code, said
    assert said.splitlines()[-1] == "stopped; run the same command again to resume."
    assert not any(child.is_running() for child in children)
    client = MlflowClient(tracking_uri())
    found = client.get_experiment_by_name("tiny")
    assert found is not None
    assert {run.info.status for run in client.search_runs([found.experiment_id])} == {"KILLED"}
    assert not list(outbox_dir().glob("*/header.json"))
    # Stopped between two renames, it has the one before alone.
    assert list((state_dir() / "checkpoints").glob("*/checkpoint*.pt"))
