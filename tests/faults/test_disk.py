"""A disk that is full at any moment, or cannot be written: one sentence, and when there is room the same result."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from harness.counts import asked
from harness.forked_commands import Command, Forks
from harness.real_project import ONE_CONTESTANT, output_digests, real_project
from harness.small_disk import MEGABYTE, SmallDisk, small_disk

# What DVC would delete before each.
STAGES = {
    ("prepare",): "data/prepared",
    ("train", "resnet"): "trained/resnet/0",
    ("evaluate", "resnet"): "evaluated/resnet/0",
    ("register",): "registered",
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with small_disk(tmp_path_factory.mktemp("disk") / "small", 96) as disk:
        yield disk


@pytest.fixture(scope="module")
def project(disk: SmallDisk, forks: Forks, empty_store: Path) -> Path:
    """A project on the small disk, which has run once."""
    folder = real_project(disk.root / "project", forks, empty_store, ("models.vit=null",))
    for stage in ONE_CONTESTANT:
        forks.call(folder, *stage)
    return folder


def is_one_sentence(command: Command) -> bool:
    return command.output.splitlines()[-1].startswith("error: ") and "Traceback" not in command.output


def test_a_disk_that_is_full_at_any_moment(
    project: Path, disk: SmallDisk, forks: Forks, capsys: pytest.CaptureFixture[str]
) -> None:
    """VIT_VS_CNN_FAULTS=100 is the whole measure."""
    random, refused = Random(0), 0
    undisturbed = output_digests(project)
    times = asked("VIT_VS_CNN_FAULTS", len(STAGES))
    for number in range(times):
        stage = [*STAGES][number % len(STAGES)]
        shutil.rmtree(project / STAGES[stage])
        with disk.only(free=int(random.uniform(0, 1) ** 3 * 2 * MEGABYTE)):
            command = forks.start(project, *stage)
            code = command.wait()
            assert code in (0, 2), command.output
            assert code == 0 or is_one_sentence(command), command.output
            refused += code == 2
        if code:
            forks.call(project, *stage)
        assert output_digests(project) == undisturbed
    with capsys.disabled():
        print(f"\n{times} stages on a disk with little room: {refused} refused, {times - refused} had enough")


@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_cannot_be_written(project: Path, disk: SmallDisk, forks: Forks, stage: tuple[str, ...]) -> None:
    with disk.read_only():
        command = forks.start(project, *stage)
        assert command.wait() == 2, command.output
        assert is_one_sentence(command), command.output
