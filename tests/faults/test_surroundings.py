"""Machines and folders as they come: names in any script, few open files, no home, a strict umask, a moved project.

And disks that are full at any moment, or cannot be written: one sentence, and when there is room the same result.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from factories import encoded, noise
from harness.counts import asked
from harness.forked_commands import Command, Forks
from harness.real_project import ONE_CONTESTANT, output_digests, real_project
from harness.small_disk import MEGABYTE, SmallDisk, small_disk

NAME = "Größe & Maß (50 %) #1 «Bilder» 猫 "
FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
STRICT = "import os; os.umask(0o077)\n"
HOMELESS = "import os; [os.environ.pop(name, None) for name in ('HOME', 'XDG_CONFIG_HOME', 'XDG_CACHE_HOME')]\n"
# Stages, and what DVC would delete before each.
OUTPUT = {
    ("prepare",): "data/prepared",
    ("train", "resnet"): "trained/resnet/0",
    ("evaluate", "resnet"): "evaluated/resnet/0",
    ("register",): "registered",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("surroundings") / "root"


@pytest.fixture(scope="module")
def mounted(root: Path) -> Iterator[SmallDisk | None]:
    with small_disk(root, 96) as disk:
        yield disk


@pytest.fixture(scope="module")
def project(root: Path, mounted: SmallDisk | None, forks: Forks, empty_store: Path) -> Path:
    """A project in a folder with a name of 200 characters, that has run once under a strict umask with few files."""
    folder = root / (NAME + "x" * (200 - len(NAME)))
    real_project(folder, forks, empty_store, ("models.vit=null",))
    for stage in ONE_CONTESTANT:
        forks.call(folder, *stage, before=FEW_FILES + STRICT)
    forks.call(folder, "registry", "promote", "--force", "--reason", "the first", before=FEW_FILES + STRICT)
    return folder


@pytest.fixture
def disk(mounted: SmallDisk | None) -> SmallDisk:
    """The small disk that the project is on."""
    if mounted is None:
        pytest.skip("mounting a file system needs root on Linux")
    return mounted


def predicts(forks: Forks, project: Path, before: str = "") -> None:
    image = project.parent / "image.png"
    image.write_bytes(encoded(Image.fromarray(noise(16, 16))))
    answer = forks.call(project, "predict", str(image), before=before)
    assert "image.png" in answer.output


def test_a_folder_with_any_name_a_strict_umask_and_few_open_files(project: Path, forks: Forks) -> None:
    predicts(forks, project)
    left = [path for path in project.rglob("*") if "%20" in path.name or "%25" in path.name]
    assert left == []


def test_a_user_without_a_home(project: Path, forks: Forks) -> None:
    forks.call(project, "registry", "list", before=HOMELESS)
    forks.call(project, "evaluate", "resnet", before=HOMELESS)


def test_a_home_that_cannot_be_written(project: Path, forks: Forks) -> None:
    nowhere = {"HOME": "/dev/null", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    refused = forks.call(project, "register", code=2, environment=nowhere)
    assert refused.output.splitlines()[-1].startswith("error: /dev/null/.config")
    forks.call(project, "evaluate", "resnet", environment=nowhere)


def test_a_project_that_moves_still_has_its_artifacts(project: Path, forks: Forks) -> None:
    moved = project.with_name("moved")
    project.rename(moved)
    try:
        predicts(forks, moved)
        forks.call(moved, "evaluate", "resnet")
        with closing(sqlite3.connect(moved / "mlruns/mlflow.db")) as store:
            places = [place for (place,) in store.execute("SELECT artifact_uri FROM runs")]
        assert places
        assert all(place.startswith(moved.as_uri()) for place in places)
    finally:
        moved.rename(project)


def is_one_sentence(command: Command) -> bool:
    return command.output.splitlines()[-1].startswith("error: ") and "Traceback" not in command.output


def test_a_disk_that_is_full_at_any_moment(
    project: Path, disk: SmallDisk, forks: Forks, capsys: pytest.CaptureFixture[str]
) -> None:
    """VIT_VS_CNN_FAULTS=100 is the whole measure."""
    random, refused = Random(0), 0
    undisturbed = output_digests(project)
    times = asked("VIT_VS_CNN_FAULTS", 2)
    for number in range(times):
        stage = [*OUTPUT][number % len(OUTPUT)]
        shutil.rmtree(project / OUTPUT[stage])
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


@pytest.mark.parametrize("stage", OUTPUT)
def test_a_disk_that_cannot_be_written(project: Path, disk: SmallDisk, forks: Forks, stage: tuple[str, ...]) -> None:
    with disk.read_only():
        command = forks.start(project, *stage)
        assert command.wait() == 2, command.output
        assert is_one_sentence(command), command.output
