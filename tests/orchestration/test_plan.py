"""What a run would do, said before anything runs: which stages and why, how long, and what would be shorter."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from factories import REPOSITORY
from harness.small_project import SmallProject
from image_folders import write
from vit_vs_cnn.config.load import read_settings
from vit_vs_cnn.core import paths
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.orchestration.dag import read_dag
from vit_vs_cnn.orchestration.durations import record_duration
from vit_vs_cnn.orchestration.image_counts import known_images
from vit_vs_cnn.orchestration.plan import RunPlan, plan_run
from vit_vs_cnn.orchestration.preview import preview
from vit_vs_cnn.orchestration.request import Request
from vit_vs_cnn.orchestration.stage_process import StageCommand, run_stage
from vit_vs_cnn.orchestration.workspace import open_run


class Silent:
    def line(self, text: str) -> None:
        pass

    def progress(self, progress: object) -> None:
        pass


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallProject]:
    small = SmallProject(tmp_path)
    monkeypatch.chdir(small.root)
    paths.project_root.cache_clear()
    paths.main_root.cache_clear()
    yield small
    paths.project_root.cache_clear()
    paths.main_root.cache_clear()


def finish(small: SmallProject, *stages: str) -> None:
    environment = small.environment() | {"PREFECT__FLOW_RUN_ID": "x"}
    for stage in stages:
        run_stage(StageCommand(small.root, stage, environment, 600.0, 300.0), Silent())


def plan(**request: tuple[str, ...]) -> RunPlan:
    with open_run(Request(in_place=True, **request)) as run:
        return plan_run(run, Request(in_place=True, **request))


def reasons(found: RunPlan) -> dict[str, tuple[str, ...]]:
    return {planned.stage.name: planned.reasons for planned in found.stages}


def test_the_plan_says_what_changed_what_follows_from_it_and_what_is_cached(small: SmallProject) -> None:
    finish(small, "prepare", "eda")
    found = plan()
    assert reasons(found) == {
        "prepare": (), "eda": (), **dict.fromkeys(("train@vit", "train@resnet", "compare"), ("has not run here yet",))
    }  # fmt: skip
    assert not found.is_done
    assert found.lines()[0].startswith("3 of 5 stages run, about ")
    assert found.lines()[-1] == "  cached: prepare, eda"
    params = small.root / "params.yaml"
    params.write_text(params.read_text().replace("seeds:\n- 0", "seeds:\n- 0\n- 1"))
    assert reasons(plan(stages=("eda",))) == {"prepare": ("seeds [0] → [0, 1]",), "eda": ("prepare runs",)}


def test_where_all_is_done_nothing_runs_but_what_is_forced(small: SmallProject) -> None:
    finish(small, "prepare", "eda")
    done = plan(stages=("eda",))
    assert done.is_done
    assert done.lines() == ["nothing to run: all 2 stages are cached"]
    forced = plan(stages=("eda",), force=("eda",))
    assert reasons(forced) == {"prepare": (), "eda": ("it is forced",)}
    assert [planned.forced for planned in forced.stages] == [False, True]


def seconds_of(name: str) -> float:
    found = next(planned.seconds for planned in plan().stages if planned.stage.name == name)
    assert found is not None
    return found


def test_what_a_stage_took_with_the_same_settings_is_what_it_will_take(small: SmallProject) -> None:
    finish(small, "prepare")
    vit = next(stage for stage in read_dag(small.root) if stage.name == "train@vit")
    record_duration(vit, read_settings(small.root / "params.yaml").data, 4321.0)
    seconds = {planned.stage.name: planned.seconds for planned in plan().stages}
    assert seconds["train@vit"] == 4321.0
    assert seconds["train@resnet"] != 4321.0
    assert any("train@vit" in line and "about 72 min" in line for line in plan().lines())
    params = small.root / "params.yaml"
    before = params.read_text()
    for changed in (before.replace("depth: 2", "depth: 3"), before.replace("image_size: 16", "image_size: 24")):
        params.write_text(changed)
        assert seconds_of("train@vit") != 4321.0


def test_own_images_are_counted_by_their_names_and_train_fraction_is_a_part_of_them(small: SmallProject) -> None:
    names = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(500)]
    write(small.root / "data" / "pets", *names)
    params = small.root / "params.yaml"
    own = params.read_text().replace("source: digits", "source: folder").replace("data/raw/digits.md", "data/pets")
    params.write_text(own)
    assert known_images(read_settings(params).data, small.root) == (720, 80, 200)
    assert plan().lines()[0].startswith("5 of 5 stages run, about ")
    whole = seconds_of("train@vit")
    params.write_text(own.replace("image_size: 16", "image_size: 16\n  train_fraction: 0.1"))
    assert seconds_of("train@vit") < whole
    assert known_images(read_settings(params).data, small.root) == (72, 8, 200)


def test_what_was_prepared_says_how_many_images_there_are_without_its_own_train_fraction(
    project: Path, prepared: DatasetInfo
) -> None:
    unlisted = {"source": "torchvision", "name": prepared.name}
    data = read_settings(project / "params.yaml").data.model_copy(update=unlisted)
    assert known_images(data, project) is None
    locked: dict[str, dict[str, dict[str, object]]] = {"params.yaml": {"data": {"train_fraction": 0.5}}}
    (project / "dvc.lock").write_text(json.dumps({"stages": {"prepare": {"params": locked}}}))
    assert known_images(data, project) == (128, 48, 24)
    assert known_images(data.model_copy(update={"path": "data/others"}), project) == (128, 48, 24)
    locked["params.yaml"]["data"]["path"] = "data/some"
    (project / "dvc.lock").write_text(json.dumps({"stages": {"prepare": {"params": locked}}}))
    assert known_images(data.model_copy(update={"path": "data/others"}), project) is None


@pytest.fixture
def committed(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with its real pipeline as a DVC project with a commit, on a machine without an accelerator."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (project / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(REPOSITORY / ".dvc" / name, project / ".dvc")
    for command in (["add", "."], ["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    return project


def test_a_run_that_takes_days_here_says_what_would_be_shorter_and_leaves_nothing(committed: Path) -> None:
    found = preview(Request(name="reference"))
    lines = found.lines()
    assert re.fullmatch(r"(\d+) of \1 stages run, about \d+\.\d h", lines[0])
    assert "too long? Choose for example:" in lines
    choices = lines[lines.index("too long? Choose for example:") + 1 :]
    assert choices[0].startswith("  --preset cpu")
    assert choices[1].startswith("  --set 'seeds=[0]', one training of each, about ")
    assert found.record()["advice"] == found.advice
    assert found.disk.needed is not None
    # Of ViT-B/16 with each seed the weights of the best and of the last epoch, beside much else.
    assert 3 * 2 * 4 * 86e6 < found.disk.needed < 20e9
    assert any(re.fullmatch(r"  disk: about \d+\.\d GB of [\d,.]+ [GM]B free", line) for line in lines)
    assert not (committed / "runs" / "reference").exists()
    seconds = {planned.stage.name: planned.seconds or 0.0 for planned in found.stages}
    # Each calls a network thousands of times.
    assert seconds["explain@vit"] > 2 * seconds["explain@resnet"]
    assert seconds["cost"] > seconds["register"] + 5


def test_a_run_that_does_not_fit_on_the_disk_says_so_before_it_runs(
    committed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(committed)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=500_000_000))
    warnings = [line for line in preview(Request(name="large")).lines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "and 0.5 GB are free: `vit-vs-cnn clean` removes what is old" in warnings[0]


def test_a_run_that_is_long_with_few_images_says_so_before_they_are_counted(committed: Path) -> None:
    unseen = ("data.source=torchvision", "data.dataset=EuroSAT", "data.path=data/raw/eurosat")
    lines = preview(Request(name="unseen", overrides=unseen)).lines()
    assert lines[0].endswith("stages run, how long is known when the images are read")
    assert any(line.endswith("how much it takes is known when the images are read") for line in lines)
    choices = lines[lines.index("too long? Choose for example:") + 1 :]
    assert choices == [
        "  --preset cpu, small networks for CPUs",
        "  --set 'seeds=[0]', one training of each",
        "  --set train.epochs=2",
    ]


def test_what_another_run_has_made_of_the_same_inputs_is_cached_and_what_follows_from_a_change_is_not(
    small: SmallProject,
) -> None:
    finish(small, "prepare", "eda", "train@vit", "train@resnet", "compare")
    same = preview(Request(name="same"))
    assert same.lines() == ["nothing to run: all 5 stages are cached"]
    assert not same.is_done
    other = preview(Request(name="other", overrides=("models.vit.args.depth=3",)))
    assert [planned.stage.name for planned in other.stages if planned.runs] == ["train@vit", "compare"]
    assert "  cached by another run: eda, prepare, train@resnet" in [*map(sorted_names, other.lines())]
    forced = preview(Request(name="forced", force=("prepare",)))
    assert all(planned.runs for planned in forced.stages)


def sorted_names(line: str) -> str:
    title, colon, names = line.rpartition(": ")
    return f"{title}{colon}{', '.join(sorted(names.split(', ')))}"


def test_a_preview_leaves_the_settings_of_a_run_that_is_there(small: SmallProject) -> None:
    with open_run(Request(name="kept", preset="other")) as run:
        params = (run.workspace / "params.yaml").read_text()
    planned = preview(Request(name="kept", overrides=("seeds=[5]",), stages=("prepare",)))
    assert [found.stage.name for found in planned.stages] == ["prepare"]
    assert (run.workspace / "params.yaml").read_text() == params


def test_a_preview_that_is_refused_leaves_nothing(small: SmallProject) -> None:
    with pytest.raises(UserError, match="nothing-like-it"):
        preview(Request(name="mistaken", stages=("nothing-like-it",)))
    assert list((small.root / "runs").glob("mistaken*")) == []
    assert len(small.git("worktree", "list").splitlines()) == 1
