"""What MLflow's pages find in an experiment: its description, prepared views, and images beside each other."""

import json
import socket
import zlib
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.tracking.delivery import sync
from vit_vs_cnn.tracking.outbox import RunRef
from vit_vs_cnn.tracking.pages import comparison_page, pages_address, running_pages_file
from vit_vs_cnn.tracking.run import read_ref, start_run
from vit_vs_cnn.tracking.store import experiment, open_client, tracking_uri

SERVER = "http://127.0.0.1:5000"


def state(packed: str) -> dict[str, Any]:
    """The state of a page as MLflow's pages read it."""
    assert packed.startswith("deflate;")
    unpacked: dict[str, Any] = json.loads(zlib.decompress(b64decode(packed.removeprefix("deflate;"))))
    return unpacked


def tags() -> Mapping[str, str]:
    found = MlflowClient(tracking_uri()).get_experiment_by_name("tiny")
    assert found is not None
    return found.tags


def train(settings: Settings, info: DatasetInfo) -> list[RunRef]:
    """Two trainings and their comparison."""
    trainings = []
    for contestant in ("vit", "resnet"):
        with start_run(settings, "train", contestant, part="0") as run:
            run.describe("90% of the images right")
            run.write_ref(Path())
        trainings.append(read_ref(Path()))
    with start_run(settings, "compare") as run:
        run.describe_experiment(info, trainings)
    return trainings


def test_an_experiment_says_what_it_is_about_and_links_its_views(settings: Settings, prepared: DatasetInfo) -> None:
    train(settings, prepared)
    note = tags()["mlflow.note.content"]
    assert note.startswith("three greys; 3 classes.\n\n[")
    assert (tags()["data.source"], tags()["classes"], tags()["images"]) == ("digits", "3", "112")
    for link in note.partition("\n\n")[2].split(" · "):
        address = link.partition("(")[2].rstrip(")")
        (key,) = parse_qs(urlsplit(address.replace("/#", "")).query)["viewStateShareKey"]
        view = json.loads(tags()[f"mlflow.sharedViewState.{key}"])
        assert link.startswith(f"[{view['name']}]")
        assert state(view["state"])["searchFilter"].startswith("tags.stage = ")


def test_the_trainings_of_a_comparison_open_on_accuracy_loss_and_cost(
    settings: Settings, prepared: DatasetInfo
) -> None:
    trainings = train(settings, prepared)
    page = comparison_page(trainings, SERVER)
    assert page is not None
    (key,) = parse_qs(urlsplit(page.replace("/#", "")).query)["viewStateShareKey"]
    shown = state(tags()[f"mlflow.sharedViewState.{key}"])
    ids = [training.run_id for training in trainings]
    found = MlflowClient(tracking_uri()).search_runs(
        [trainings[0].experiment_id], shown["searchFilter"], order_by=["metrics.`test/accuracy` DESC"]
    )
    assert sorted(run.info.run_id for run in found) == sorted(filter(None, ids))
    assert {run.data.tags["mlflow.note.content"] for run in found} == {"90% of the images right"}
    assert [section["name"] for section in shown["compareRunSections"]][:3] == ["Accuracy", "Loss", "Cost"]
    sections = {section["uuid"] for section in shown["compareRunSections"]}
    assert {card["metricSectionId"] for card in shown["compareRunCharts"]} == sections
    assert "metrics.`test/accuracy`" in shown["selectedColumns"]


def test_a_page_is_not_known_before_the_store_has_the_runs() -> None:
    assert comparison_page([RunRef(key="k", experiment="tiny", name="train-vit-0")], SERVER) is None


def test_the_pages_of_a_running_up_are_known_and_those_of_a_killed_one_are_not(project: Path) -> None:
    assert pages_address() is None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        running_pages_file().write_text(address)
        assert pages_address() == address
    assert pages_address() is None


def test_a_description_that_a_person_wrote_stays(settings: Settings, prepared: DatasetInfo) -> None:
    train(settings, prepared)
    client = open_client()
    client.set_experiment_tag(experiment(client, "tiny").experiment_id, "mlflow.note.content", "ours, of May")
    train(settings, prepared)
    assert tags()["mlflow.note.content"] == "ours, of May"


def test_a_new_store_has_no_default_experiment_and_another_one_keeps_it(settings: Settings, project: Path) -> None:
    client = open_client()
    with start_run(settings, "prepare"):
        pass
    assert [found.name for found in client.search_experiments()] == ["tiny"]
    client.restore_experiment("0")
    client.create_run("0")
    experiment(client, "another", "what it is about")
    assert {found.name for found in client.search_experiments()} == {"tiny", "another", "Default"}
    assert experiment(client, "another").tags["mlflow.note.content"] == "what it is about"


def test_images_are_logged_under_key_and_step_once(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / "images"
    folder.mkdir()
    for step in (1, 2, 10):
        Image.fromarray(np.full((4, 4, 3), step, np.uint8)).save(folder / f"{step}.png")
    original, calls = MlflowClient.log_image, []

    def flaky(self: MlflowClient, *arguments: Any, **more: Any) -> None:
        original(self, *arguments, **more)
        calls.append(more["step"])
        if calls == [1, 2]:
            raise OSError("the connection is lost")

    monkeypatch.setattr(MlflowClient, "log_image", flaky)
    with start_run(settings, "train", "vit") as run:
        run.log_images(folder, "explanation/same_images")
    sync()
    client = MlflowClient(tracking_uri())
    (found,) = client.search_runs([experiment(client, "tiny").experiment_id])
    logged = [file.path for file in client.list_artifacts(found.info.run_id, "images")]
    full = sorted(path.partition("+timestamp")[0] for path in logged if path.endswith(".png"))
    assert full == [f"images/explanation~same_images+step+{step}" for step in (1, 10, 2)]
    assert found.data.tags["mlflow.loggedImages"] == "True"
