"""Two clones on one DVC cache; and everything at once in one clone: runs, DVC, `clean`, `doctor`, promotions."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from factories import add_version, new_registry
from harness.counts import asked
from harness.forked_commands import Forks
from harness.killed_project import STAGES, KilledProject, RunningServer
from harness.small_project import wait_for
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.registry.audit import open_audit_log
from vit_vs_cnn.registry.versions import CHAMPION

RUNS = "VIT_VS_CNN_RUNS"
needs_a_count = pytest.mark.skipif(RUNS not in os.environ, reason=f"{RUNS} is not set: minutes of runs")


@pytest.fixture
def idle_forks(flow_forks: Forks, server: RunningServer) -> Iterator[Forks]:
    yield flow_forks
    wait_for(lambda: not server.unfinished(), 120)


def run(name: str, seed: int) -> tuple[str, ...]:
    return ("run", "--name", name, "--set", f"seeds=[{seed}]")


def dvc(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def is_in_cache(small: KilledProject, name: str) -> bool:
    """Whether the outputs of a run come back when they are deleted."""
    folder = small.root / "runs" / name
    shutil.rmtree(folder / "out")
    dvc(folder, "checkout", "--quiet")
    return small.is_whole(name)


@needs_a_count
@pytest.mark.parametrize("place", ["outside", "in the first"])
def test_what_one_clone_cleans_the_other_still_has(
    small: KilledProject, idle_forks: Forks, tmp_path: Path, place: str
) -> None:
    other = small.clone(tmp_path / "other")
    cache = tmp_path / "cache" if place == "outside" else small.root / ".dvc" / "cache"
    for project in (small, other):
        (project.root / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n")
    together = [idle_forks.start(small.root, *run("one", 1)), idle_forks.start(other.root, *run("two", 2))]
    for command in together:
        assert command.wait() == 0, command.output
    assert "cache was left as it is" in idle_forks.call(small.root, "clean", "--yes", "--days", "0").output
    assert not (small.root / "runs/one").exists()
    assert is_in_cache(other, "two")
    assert "cache was left as it is" in idle_forks.call(other.root, "clean", "--yes", "--days", "0").output
    for project, name, seed in ((small, "one", 1), (other, "two", 2)):
        idle_forks.call(project.root, *run(name, seed))
        assert project.is_whole(name)
        assert len(small.started(name)) == len(STAGES)  # the second time all of it came from the cache


@needs_a_count
def test_many_runs_at_once_beside_all_that_cleans_and_promotes(
    small: KilledProject, idle_forks: Forks, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VIT_VS_CNN_RUNS=6 is the whole measure."""
    registry = new_registry()
    for wrong in range(2):
        add_version(settings, registry, range(10 * wrong))
    shutil.rmtree("made-up")
    names = [f"run-{number}" for number in range(asked(RUNS, 2))]
    history = tmp_path / "repro.jsonl"
    repro = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--quiet"],
        cwd=small.root,
        env=idle_forks.environment | {"HISTORY": str(history), "PREFECT__FLOW_RUN_ID": "none"},
    )
    cleaning = idle_forks.start(small.root, "clean", "--yes")
    runs = [idle_forks.start(small.root, *run(name, seed)) for seed, name in enumerate(names, start=1)]
    beside: dict[str, int] = dict.fromkeys(("clean", "doctor", "promote"), 0)

    def call_others() -> None:
        nonlocal cleaning
        promoting = [
            idle_forks.start(small.root, "registry", "promote", str(version), "--force", "--reason", "in turn")
            for version in (1, 2)
        ]
        fixing = idle_forks.start(small.root, "doctor", "--fix")
        for command in (*promoting, fixing):
            assert command.wait() in (0, 3), command.output
        assert cleaning.wait() == 0 or "is active: wait for its end, then clean" in cleaning.output, cleaning.output
        for kind, count in (("promote", 2), ("doctor", 1), ("clean", 1)):
            beside[kind] += count
        cleaning = idle_forks.start(small.root, "clean", "--yes")

    while any(command.poll() is None for command in runs):
        call_others()
    assert cleaning.wait() in (0, 2), cleaning.output
    for command in runs:
        assert command.wait() == 0, command.output
    assert repro.wait(600) == 0
    for name in names:
        assert small.is_whole(name)
        assert sorted(small.started(name)) == sorted(STAGES)
        assert is_in_cache(small, name)
    dvc(small.root, "status")
    with open_audit_log(registry) as log:
        moves = [found.version for found in log.decisions() if found.alias == CHAMPION and found.moves]
    assert moves[-1] == registry.aliases()[CHAMPION]
    with capsys.disabled():
        print(f"\n{len(runs)} runs at once and `dvc repro`, beside {beside}; the champion moved {len(moves)} times")
