import csv
import io
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from harness.model_server import CLASSES, Store
from vit_vs_cnn.cli import main
from vit_vs_cnn.registry.loading import load_registered
from vit_vs_cnn.serving.predict import Formatter, Prediction, image_files, predict_files

pytest_plugins = ["harness.serving_fixtures"]


@pytest.fixture
def photos(tmp_path: Path, images: NDArray[np.uint8], picture: Callable[..., bytes]) -> Path:
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for i, pixels in enumerate(images):
        (folder / "below" / f"{i}.png").write_bytes(picture(pixels))
    Image.new("LA", (300, 20), (200, 90)).save(folder / "wide.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / ".hidden").write_bytes(b"")
    return folder


@dataclass(frozen=True)
class Completed:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def predict(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Completed]:
    """The command, in this process: another one would take seconds to import MLflow and PyTorch."""

    def run(*arguments: str | Path) -> Completed:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
        monkeypatch.setattr("sys.argv", ["vit-vs-cnn", "predict", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Completed(code, *capfd.readouterr())

    return run


def test_files_and_folders_are_predicted_as_the_network_does_and_broken_ones_reported(
    predict: Callable[..., Completed], store: Store, photos: Path, images: NDArray[np.uint8]
) -> None:
    answer = predict("--format", "json", photos)
    assert answer.returncode == 0
    assert answer.stderr == f"{photos}/broken.jpg: not an image in a known format\n"
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [row["file"] for row in rows] == [f"{photos}/wide.png", *(f"{photos}/below/{i}.png" for i in range(6))]
    for row, expected in zip(rows[1:], store.expected(1, images), strict=True):
        assert row["class"] == CLASSES[expected.argmax()]
        assert row["probability"] == pytest.approx(expected.max(), abs=1e-5)
        assert [entry["probability"] for entry in row["top"]] == pytest.approx(sorted(expected)[::-1], abs=1e-5)


def test_where_nothing_can_be_read_it_says_so_and_exits_with_2(predict: Callable[..., Completed], photos: Path) -> None:
    answer = predict(photos / "broken.jpg", photos / "nowhere.png")
    assert answer.returncode == 2
    assert f"{photos}/nowhere.png: does not exist" in answer.stderr
    assert answer.stderr.endswith("error: none of the 2 files could be read as an image.\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model", "nobody"), "tiny-classifier has no version or alias 'nobody'; there are: 1"),
        (("--model", "999"), "tiny-classifier has no version or alias '999'"),
        (("--registry", "other"), "has no registered model 'other': name one of tiny-classifier"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(
    predict: Callable[..., Completed], photos: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    answer = predict(*arguments, photos)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ")
    assert sentence in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_reader_that_closes_the_pipe_is_no_error(
    predict: Callable[..., Completed], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with suppress(BrokenPipeError), os.fdopen(writing, "w", buffering=1) as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        answer = predict(photos)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "Broken" not in answer.stderr


def test_many_files_keep_their_order_and_few_are_in_memory(
    store: Store,
    tmp_path: Path,
    images: NDArray[np.uint8],
    picture: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(1000):
        (tmp_path / f"{number:04}.png").write_bytes(picture(images[number % 6]))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    model = load_registered("tiny-classifier", "2")
    listed, given = 0, 0

    def files() -> object:
        nonlocal listed
        for file in image_files([tmp_path]):
            listed += 1
            assert listed - given <= 64 * ((os.cpu_count() or 1) + 2)
            yield file

    for result in predict_files(model, files()):  # type: ignore[arg-type]
        assert isinstance(result, Prediction)
        assert result.file == str(tmp_path / f"{given:04}.png")
        given += 1
    assert given == 1000


def test_each_format_is_one_line_for_any_file_name() -> None:
    odd = Prediction('a,b\n\udcff".png', (("cat", 0.75), ("dog", 0.25)))
    assert Formatter("table", ["cat", "giraffe"]).line(odd) == 'cat           0.7500  a,b\\n\\udcff".png'
    assert json.loads(Formatter("json", []).line(odd))["file"] == odd.file
    assert next(csv.reader(io.StringIO(Formatter("csv", []).line(odd), newline=""))) == [odd.file, "cat", "0.75"]


@pytest.mark.parametrize(
    ("name", "cell"),
    [("=SUM(1)", "'=SUM(1)"), ("@x", "'@x"), ("-a", "'-a"), ("-1", "-1"), ("+2.5", "+2.5"), ("a=b", "a=b")],
)
def test_a_spreadsheet_computes_no_class_and_no_file_name(name: str, cell: str) -> None:
    line = Formatter("csv", []).line(Prediction(name, ((name, 0.75), ("dog", 0.25))))
    assert next(csv.reader(io.StringIO(line))) == [cell, cell, "0.75"]
