"""A small project whose stages leave invented results, for studies: they copy what `invent_results` has made."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from factories import TINY, contestant
from harness.signals import in_background
from harness.small_project import STAGE, SmallProject
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.checks import Checks
from vit_vs_cnn.data.dataset import DatasetInfo, SplitInfo, write_info

DVC_YAML = """
stages:
  prepare:
    cmd: python stage.py prepare
    params: [data]
    deps: [stage.py]
    outs: [data/prepared]
  train:
    matrix: {contestant: "${models}", seed: "${seeds}"}
    cmd: python stage.py train-${item.contestant}-${item.seed}
    meta: {accelerator: true}
    params: ["models.${item.contestant}", train]
    deps: [data/prepared]
    outs: ["trained/${item.contestant}/${item.seed}"]
  evaluate:
    matrix: {contestant: "${models}", seed: "${seeds}"}
    cmd: python stage.py evaluate-${item.contestant}-${item.seed}
    meta: {accelerator: true}
    deps: ["trained/${item.contestant}/${item.seed}"]
    outs: ["evaluated/${item.contestant}/${item.seed}"]
  register:
    cmd: python stage.py register
    deps: [evaluated]
    outs: [registered]
"""

_WRITES = STAGE.index('pathlib.Path("out").mkdir')
_COPIES = """
import shutil
folder = {"prepare": "data/prepared", "train": "trained", "evaluate": "evaluated"}[name.partition("-")[0]]
path = "/".join([folder, *name.split("-")[1:]])
shutil.copytree(os.path.join(os.environ["INVENTED"], path), path, dirs_exist_ok=True)
note("end")
"""


class StudyProject(SmallProject):
    """A project with the study `mine`."""

    dvc_yaml, stage = DVC_YAML, STAGE[:_WRITES] + _COPIES
    ignored = "/reports\n/data/prepared\n/trained\n/evaluated\n/registered\n"

    def __init__(self, folder: Path, **study: Any) -> None:
        super().__init__(folder)
        self._invented = folder / "invented"
        _invent_results(self._invented)
        (self.root / "studies").mkdir()
        with (self.root / "studies" / "mine.yaml").open("w") as file:
            YAML().dump(study, file)
        self.git("add", "--all")
        self.git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "-m", "study")

    def environment(self) -> dict[str, str]:
        return super().environment() | {"INVENTED": str(self._invented)}

    def start_study(self, log: Path) -> "subprocess.Popen[bytes]":
        """`vit-vs-cnn study mine` as a process of a script, to be ended."""
        with log.open("wb") as output:
            return subprocess.Popen(
                in_background(self.command("study", "mine")),
                cwd=self.root,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )


def _invent_results(folder: Path) -> None:
    """What every run leaves, whatever its settings."""
    folder.mkdir()
    here = Path.cwd()
    try:
        os.chdir(folder)
        for number, name in enumerate(TINY["models"]):
            contestant(parse_settings(TINY), name, errors=20 + 10 * number)
        PREPARED.mkdir(parents=True)
        splits = {name: SplitInfo(images=64, counts=(32, 32), digest=name) for name in ("train", "val", "test")}
        write_info(
            PREPARED,
            DatasetInfo(
                name="tiny",
                source="digits",
                description="nothing",
                classes=("a", "b"),
                image_size=16,
                split_seed=0,
                mean=(0.5, 0.5, 0.5),
                std=(0.3, 0.3, 0.3),
                splits=splits,  # type: ignore[arg-type]
                digest="invented",
            ),
        )
        Checks(images=192, counts={}, findings=()).write(PREPARED / "checks.json")
    finally:
        os.chdir(here)
    shutil.rmtree(folder / "cost")
