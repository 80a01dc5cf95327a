"""Where the contestants err: sentences, pictures, and tables with file names."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.evaluation.results import Predictions
from vit_vs_cnn.report.errors import Errors, error_sentences, find_errors, write_errors

CLASSES = ("cat", "=dog", "emu")
NAMES = tuple(f"test/{image:03}.png" for image in range(60))
LABELS = np.arange(60) % 3


def says(answers: dict[int, int]) -> Predictions:
    """Right, but for these answers; always 90 % sure."""
    predicted = np.array([answers.get(image, LABELS[image]) for image in range(60)])
    probabilities = np.full((60, 3), 0.05, np.float32)
    probabilities[np.arange(60), predicted] = 0.9
    return Predictions(NAMES, LABELS, predicted, probabilities)


def split(names: tuple[str, ...] = NAMES) -> Split:
    return Split(np.zeros((60, 8, 8, 3), np.uint8), LABELS, names)


def found(vit: dict[int, int], resnet: dict[int, int]) -> Errors:
    errors = find_errors({"vit": [says(vit), says(vit)], "resnet": [says(resnet)]}, 0.95)
    assert errors is not None
    return errors


def test_one_alone_has_nobody_to_err_with() -> None:
    assert find_errors({"vit": [says({})]}, 0.95) is None


def test_the_sentences_count_images_and_say_what_an_average_reaches() -> None:
    overlap, average = error_sentences(found({1: 2, 2: 0}, {2: 0, 5: 0, 8: 0}))
    assert overlap == (
        "vit and resnet are both right on 56 test images, only vit on 2, only resnet on 1, neither on 1; were their "
        "errors independent, neither would be on 0.1 (error consistency κ = 0.37)."
    )
    assert average.startswith("The average of the probabilities of all would be right on ")
    assert "points beside vit alone (" in average


def test_pictures_and_tables_of_suspects_and_of_what_only_one_gets_right(tmp_path: Path) -> None:
    write_errors(found({1: 2, 2: 0}, {2: 0, 5: 0, 8: 0}), split(), CLASSES, tmp_path)
    index = json.loads((tmp_path / "figures.json").read_text())
    assert [figure["file"] for figure in index["figures"]] == ["label_suspects.png", "only_right.png"]
    assert "1 of 1 test images" in index["figures"][0]["caption"]
    assert "vit 2, resnet 1" in index["figures"][1]["caption"]
    assert index["figures"][0]["alt"] == "The first image: 002.png, is emu, they say cat, 90 % sure"
    assert index["figures"][1]["alt"] == "Images in rows: only vit is right (2), only resnet is right (1)"
    suspects = pd.read_csv(tmp_path / "label_suspects.csv")
    assert suspects.to_dict("records") == [
        {"name": "test/002.png", "label": "emu", "predicted": "cat", "confidence": pytest.approx(0.9)}
    ]
    alone = pd.read_csv(tmp_path / "only_right.csv")
    assert alone[["contestant", "name"]].to_numpy().tolist() == [
        ["vit", "test/005.png"], ["vit", "test/008.png"], ["resnet", "test/001.png"],
    ]  # fmt: skip
    mistakes = pd.read_csv(tmp_path / "mistakes.csv").set_index("name")
    assert mistakes.index.tolist() == [NAMES[image] for image in (1, 2, 5, 8)]
    assert mistakes.loc[NAMES[1], ["vit_predicted", "vit_right", "resnet_right"]].tolist() == ["emu", 0.0, 1.0]
    # A spreadsheet must not run a class as a formula.
    assert alone["label"].tolist() == ["emu", "emu", "'=dog"]


def test_where_there_are_none_a_sentence_says_so(tmp_path: Path) -> None:
    write_errors(found({}, {}), split(), CLASSES, tmp_path)
    index = json.loads((tmp_path / "figures.json").read_text())
    assert index["figures"] == []
    assert len(index["skipped"]) == 2
    assert pd.read_csv(tmp_path / "label_suspects.csv").empty


def test_evaluations_of_other_images_are_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of other test images than data/prepared/test has"):
        write_errors(found({}, {}), split(NAMES[::-1]), CLASSES, tmp_path)
