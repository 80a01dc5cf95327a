"""What the tasks of a flow run link."""

from pathlib import Path

import pytest

from vit_vs_cnn.core.paths import RUN_FILE, trained
from vit_vs_cnn.orchestration.artifacts import link_trainings
from vit_vs_cnn.tracking.outbox import RunRef


@pytest.mark.parametrize(
    ("stage", "linked"),
    [
        ("train@vit-1", ["train-vit-1"]),
        ("explain@vit", ["train-vit-0", "train-vit-1"]),
        ("cost", ["train-resnet-0", "train-vit-0", "train-vit-1"]),
        ("compare", []),
    ],
)
def test_a_task_links_the_trainings_that_its_stage_adds_to(
    stage: str, linked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for contestant, seed in (("vit", 0), ("vit", 1), ("resnet", 0)):
        folder = tmp_path / trained(contestant, seed)
        folder.mkdir(parents=True)
        ref = RunRef(key="k", run_id="0a1b", experiment="tiny", name=f"train-{contestant}-{seed}")
        ref.write(folder / RUN_FILE)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    links: list[str] = []
    monkeypatch.setattr("prefect.artifacts.create_link_artifact", lambda _, link_text, **__: links.append(link_text))
    link_trainings(tmp_path, stage)
    assert sorted(links) == [f"{name} in MLflow" for name in linked]
