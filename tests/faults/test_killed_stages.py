"""Stages that are killed again and again, and then started once more: their outputs are those of undisturbed ones."""

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from harness.counts import asked, seeded
from harness.forked_commands import Forks
from harness.kills import KILLS, Killer, Moment, changes_of, counting
from harness.real_project import output_digests, real_project

LONG = KILLS in os.environ
CONTESTANTS = ("vit", "resnet") if LONG else ("resnet",)
ORDER = ("prepare", "eda", "tune", "train", "evaluate", "robustness", "cost", "explain", "compare", "register")
SHORT = ("prepare", "tune", "train", "evaluate", "cost", "register")
OF_ALL = ("prepare", "eda", "cost", "compare", "register")
STAGES = [
    (stage, *name)
    for stage in (ORDER if LONG else SHORT)
    for name in ([()] if stage in OF_ALL else [(contestant,) for contestant in CONTESTANTS])
]


def test_killed_stages_end_as_undisturbed_ones(
    tmp_path: Path, forks: Forks, empty_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VIT_VS_CNN_KILLS=200 is the whole measure."""
    fewer = () if LONG else ("models.vit=null",)
    undisturbed, killed = (
        real_project(tmp_path / name, forks, empty_store, fewer) for name in ("undisturbed", "killed")
    )
    counts = tmp_path / "counts"
    seconds = [
        forks.call(undisturbed, *stage, environment=counting(counts, undisturbed)).processor_seconds for stage in STAGES
    ]
    changes = changes_of(counts)
    killer = Killer(tmp_path, killed, seeded())
    asked_for = asked(KILLS, len(STAGES), 0.5)
    for index, stage in enumerate(STAGES):
        for _ in range(asked_for * (index + 1) // len(STAGES) - asked_for * index // len(STAGES)):
            _kill(killer, forks, stage, changes[f"vit-vs-cnn {' '.join(stage)}"], seconds[index])
        forks.call(killed, *stage)
    assert killer.done
    with capsys.disabled():
        print(f"\n{sum(killer.done.values())} kills: {dict(killer.done)}")
    assert output_digests(killed) == output_digests(undisturbed)
    for project in (killed, undisturbed):
        client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
        runs = client.search_runs([found.experiment_id for found in client.search_experiments()])
        left = [f"{run.info.run_name} {run.info.status}" for run in runs if run.info.status == "RUNNING"]
        assert left == []


def _kill(killer: Killer, forks: Forks, stage: tuple[str, ...], changes: int, seconds: float) -> None:
    folder = killer.within
    if killer.random.random() < 0.5:
        moment = Moment(stage[0], killer.random.randint(1, changes), killer.random.random() < 0.5)
        command = forks.start(folder, *stage, environment=killer.environment(moment))
        hit, how = killer.wait(command), "at a change of a file"
    else:
        command = forks.start(folder, *stage)
        hit, how = killer.kill_after(command, killer.random.uniform(0, seconds)), "at a moment of processor time"
    assert command.wait() in ((-9,) if hit else (0,)), command.output
    if hit:
        killer.done[how] += 1
