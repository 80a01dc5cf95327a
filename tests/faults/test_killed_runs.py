"""`vit-vs-cnn run`, killed at any moment, alone, with DVC, its whole tree, a stage, git: the next start finishes it."""

import shutil
from pathlib import Path

import pytest

from harness.counts import asked, seeded
from harness.forked_commands import Forks
from harness.killed_project import KilledProject, RunningServer, processes, victims
from harness.kills import KILLS, Killer, Moment, changes_of, counting
from harness.small_project import wait_for

# Whose n-th change of a file is the moment, by a part of its command line.
PLACES = ("vit-vs-cnn run", "repro --single-item", "exp save", "stage.py")
# Those that write.
GIT_COMMANDS = ("worktree add", "checkout")


def run(name: str, seed: int) -> tuple[str, ...]:
    return ("run", "--name", name, "--set", f"seeds=[{seed}]")


def test_a_killed_run_ends_as_an_undisturbed_one(
    small: KilledProject, server: RunningServer, flow_forks: Forks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """VIT_VS_CNN_KILLS=200 is the whole measure."""
    counts = tmp_path / "counts"
    flow_forks.call(small.root, *run("undisturbed", 0), environment=counting(counts, small.root))
    changes = {
        place: max(count for command, count in changes_of(counts).items() if place in command) for place in PLACES
    }
    killer, seed = Killer(tmp_path, small.root, seeded()), 1
    for _ in range(asked(KILLS, 3, 0.2)):
        who = killer.random.choice(["alone", "command", "command and dvc", "tree", "git"])
        if who == "git":
            command_of_git = killer.random.choice(GIT_COMMANDS)
            if command_of_git == "worktree add":
                shutil.rmtree(small.root / "runs" / "killed", ignore_errors=True)
            environment = killer.git_environment(command_of_git, killer.random.randrange(2))
        else:
            place = killer.random.choice(PLACES)
            change = killer.random.randint(1, changes[place])
            environment = killer.environment(Moment(place, change, killer.random.random() < 0.5, alone=who == "alone"))
        command = flow_forks.start(small.root, *run("killed", seed), environment=environment)
        others = None if who in ("alone", "git") else victims(small, flow_forks, who, command)
        if killer.wait(command, others):
            killer.done[who] += 1
        code = command.wait()
        assert code in (0, 1, 2, -9), command.output
        assert "Traceback" not in command.output, command.output
        if code == 0:
            assert small.is_whole("killed")
            seed += 1
    flow_forks.call(small.root, *run("killed", 0))
    assert killer.done
    with capsys.disabled():
        print(f"\n{sum(killer.done.values())} kills: {dict(killer.done)}")
    assert small.outputs("killed") == small.outputs("undisturbed")
    wait_for(lambda: not server.unfinished(), 120)
    wait_for(lambda: not processes(small, flow_forks), 120)
    assert not list((small.root / ".git").rglob("*.lock"))
    assert small.git("status", "--short") == ""
