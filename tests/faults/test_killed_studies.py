"""`vit-vs-cnn study`, killed at any moment, alone or with its whole tree: the next start finishes it."""

import os
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from harness.counts import asked, seeded
from harness.forked_commands import Forks
from harness.killed_project import KilledProject, RunningServer, processes, victims
from harness.kills import KILLS, Killer, Moment, changes_of, counting
from harness.small_project import wait_for
from harness.study_project import DVC_YAML, StudyProject

PLACES = ("vit-vs-cnn study", "repro --single-item", "exp save", "stage.py")


class KilledStudy(StudyProject):
    """Nothing in it waits for an accelerator, and its stages end with their DVC, as in `KilledProject`."""

    dvc_yaml = DVC_YAML.replace("    meta: {accelerator: true}\n", "")
    stage = KilledProject.exits_with_dvc + StudyProject.stage

    def results(self) -> pd.DataFrame:
        table = pd.read_csv(self.root / "reports/studies/mine/results.csv")
        return table[[name for name in table.columns if "seconds" not in name]]


@pytest.fixture
def small(tmp_path: Path) -> KilledStudy:
    return KilledStudy(tmp_path, axes={"images": [0.5, 1.0]})


@pytest.mark.skipif(KILLS not in os.environ, reason=f"{KILLS} is not set: minutes of studies")
def test_a_killed_study_ends_as_an_undisturbed_one(
    small: KilledStudy, server: RunningServer, flow_forks: Forks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VIT_VS_CNN_KILLS=200 is the whole measure."""
    counts = tmp_path / "counts"
    study = ("study", "mine")
    flow_forks.call(small.root, *study, environment=counting(counts, small.root))
    undisturbed, params = small.results(), (small.root / "params.yaml").read_text()
    changes = {
        place: max(count for command, count in changes_of(counts).items() if place in command) for place in PLACES
    }
    killer, round_ = Killer(tmp_path, small.root, seeded()), 1

    def ask_anew() -> None:
        """Change what its stages depend on, so that all of them run again."""
        (small.root / "stage.py").write_text(f"{KilledStudy.stage}\n# {round_}\n")

    ask_anew()
    for _ in range(asked(KILLS, 2, 0.05)):
        who = killer.random.choice(["alone", "command", "tree"])
        place = killer.random.choice(PLACES)
        change = killer.random.randint(1, changes[place])
        moment = Moment(place, change, killer.random.random() < 0.5, alone=who == "alone")
        command = flow_forks.start(small.root, *study, environment=killer.environment(moment))
        if killer.wait(command, None if who == "alone" else victims(small, flow_forks, who, command)):
            killer.done[who] += 1
        code = command.wait()
        assert code in (0, 1, 2, -9), command.output
        assert "Traceback" not in command.output, command.output
        if code == 0:
            round_ += 1
            ask_anew()
    flow_forks.call(small.root, *study)
    with capsys.disabled():
        print(f"\n{sum(killer.done.values())} kills: {dict(killer.done)}")
    assert (small.root / "params.yaml").read_text() == params
    pd.testing.assert_frame_equal(small.results(), undisturbed)
    client = MlflowClient(f"sqlite:///{small.root}/mlruns/mlflow.db")
    found = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {run.info.status for run in found} == {"FINISHED"}
    wait_for(lambda: not server.unfinished(), 120)
    wait_for(lambda: not processes(small, flow_forks), 120)
    assert not list((small.root / ".git").rglob("*.lock"))
