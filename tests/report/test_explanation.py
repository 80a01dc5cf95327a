import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image as mpimg
import numpy as np
import pandas as pd
import pytest
import timm
import torch

from factories import faithfulness_of
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.evaluation.results import Predictions
from vit_vs_cnn.explain.samples import SampleExplanations, explain_mistakes, explain_samples, shared_images
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.models.trained import TrainedModel
from vit_vs_cnn.report.explanation import write_explanation
from vit_vs_cnn.report.map_quality import read_maps

CLASSES = ["cat", "a rather long name of a class", "dog"]
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
EVERYWHERE = ["same_images", "mistakes", "first_filters", "feature_maps"]
ATTENTION = ["attention_heads", "attention_distance"]
CHARTS = {"attention_distance", "position_similarity"}


def split() -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    images.flags.writeable = False  # as a memory-mapped file is
    return Split(images, np.arange(12) % 3, tuple(f"{i}.png" for i in range(12)))


def model(name: str, arguments: dict[str, Any]) -> TrainedModel:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3, **arguments).eval()
    return TrainedModel(network, Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 32))


def answers(trained: TrainedModel, test: Split, always_right: bool = False) -> Predictions:
    probabilities = trained.probabilities(torch.from_numpy(test.images.copy())).numpy()
    predicted = test.labels if always_right else probabilities.argmax(axis=1)
    return Predictions(test.names, test.labels, predicted, probabilities)


def samples(
    name: str, arguments: dict[str, Any], always_right: bool = False
) -> tuple[TrainedModel, SampleExplanations, SampleExplanations | None]:
    """An untrained network, and its explanation on shared images and on its mistakes."""
    test, trained = split(), model(name, arguments)
    predictions = answers(trained, test, always_right)
    shared = explain_samples(trained, test, predictions, shared_images(test.labels, 5, seed=0))
    return trained, shared, explain_mistakes(trained, test, predictions, 2)


FAITHFULNESS = {"gradcam": faithfulness_of(0.25, 0.75), "rollout": faithfulness_of(0.499, 0.501)}


def write(
    explained: tuple[TrainedModel, SampleExplanations, SampleExplanations | None], folder: Path
) -> dict[str, Any]:
    trained, shared, mistakes = explained
    kinds = {"gradcam": shared.layer, "rollout": shared.attention}
    faithfulness = {kind: FAITHFULNESS[kind] for kind, maps in kinds.items() if maps is not None}
    write_explanation(trained, shared, mistakes, faithfulness, CLASSES, "#0072B2", folder)
    listed: dict[str, Any] = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert all(figure["alt"] for figure in listed["figures"])
    return listed


@pytest.mark.parametrize(
    ("name", "arguments", "figures", "skipped"),
    [
        ("vit_tiny_patch16_224", VIT, [*EVERYWHERE, *ATTENTION, "position_similarity"], []),
        ("eva02_tiny_patch14_224", {**VIT, "use_abs_pos_emb": False}, [*EVERYWHERE, *ATTENTION], ["position embed"]),
        ("resnet18", {"channels": (8, 16, 24, 32)}, EVERYWHERE, ["Attention per head", "position embed"]),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
            EVERYWHERE,
            ["Attention per head", "position embed"],
        ),
    ],
    ids=["vit", "rotary", "resnet", "swin"],
)
def test_every_network_shows_what_it_can_and_says_what_it_cannot(
    name: str, arguments: dict[str, Any], figures: Sequence[str], skipped: Sequence[str], tmp_path: Path
) -> None:
    listed = write(samples(name, arguments), tmp_path)
    assert sorted(figure["file"] for figure in listed["figures"]) == sorted(
        f"{figure}.{'svg' if figure in CHARTS else 'png'}" for figure in figures
    )
    assert {path.name for kind in ("png", "svg") for path in tmp_path.glob(f"*.{kind}")} == {
        figure["file"] for figure in listed["figures"]
    }
    for figure in listed["figures"]:
        if figure["file"].endswith("png"):
            assert mpimg.imread(tmp_path / figure["file"]).std() > 0.01  # something is drawn
        assert figure["title"]
        assert len(figure["caption"]) > 80
    assert len(listed["skipped"]) == len(skipped)
    for sentence, subject in zip(listed["skipped"], skipped, strict=True):
        assert subject in sentence
        assert sentence.endswith(".")


def test_without_a_mistake_there_is_no_figure_of_mistakes(tmp_path: Path) -> None:
    listed = write(samples("vit_tiny_patch16_224", VIT, always_right=True), tmp_path)
    assert not (tmp_path / "mistakes.png").exists()
    assert listed["skipped"] == ["Mistakes are skipped: the contestant made none on the test images."]
    assert "5 of these 5 are classified correctly" in listed["figures"][0]["caption"]


def test_the_images_are_those_that_were_chosen() -> None:
    test, (_, shared, mistakes) = split(), samples("resnet18", {"channels": (8, 16, 24, 32)})
    assert np.array_equal(shared.images, test.images[shared_images(test.labels, 5, seed=0)])
    assert mistakes is not None
    assert (mistakes.labels != mistakes.predicted).all()
    assert np.array_equal(mistakes.confidence, -np.sort(-mistakes.confidence))


def test_mistakes_are_explained_for_both_classes() -> None:
    _, shared, mistakes = samples("vit_tiny_patch16_224", VIT)
    assert shared.cam_true is None
    assert mistakes is not None
    assert mistakes.cam_predicted is not None
    assert mistakes.cam_true is not None
    assert not np.allclose(mistakes.cam_predicted, mistakes.cam_true)


def test_captions_say_whether_the_maps_are_evidence(tmp_path: Path) -> None:
    same_images, mistakes = write(samples("vit_tiny_patch16_224", VIT), tmp_path)["figures"][:2]
    for figure in (same_images, mistakes):
        gradcam, rollout = figure["caption"].split("Attention rollout")
        assert "deletion AUC of 0.25 against 0.50" in gradcam
        assert "insertion AUC of 0.75" in gradcam
        assert "on 8 test images" in gradcam
        assert "do not read it as evidence" not in gradcam
        # The intervals of its differences reach zero.
        assert "No better than a random order of pixels (deletion AUC 0.50 against 0.50; insertion AUC 0.50" in rollout
        assert "do not read it as evidence" in rollout
    said = "drawn at random, not over these mistakes"
    assert said in mistakes["caption"]
    assert said not in same_images["caption"]


def test_a_caption_says_which_of_deletion_and_insertion_is_better_where_only_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAITHFULNESS, "gradcam", faithfulness_of(0.25, 0.4))
    monkeypatch.setitem(FAITHFULNESS, "rollout", faithfulness_of(0.5, 0.6))
    caption = write(samples("vit_tiny_patch16_224", VIT), tmp_path)["figures"][0]["caption"]
    gradcam, rollout = caption.split("Attention rollout")
    assert "only where they are deleted (deletion AUC 0.25 against 0.50), not where they are inserted" in gradcam
    assert "only where they are inserted (insertion AUC 0.60 against 0.50), not where they are deleted" in rollout
    table = pd.read_csv(tmp_path / "faithfulness.csv")
    assert table["better_than_random"].tolist() == [False, False]


@pytest.mark.parametrize(
    ("arguments", "layer", "source"),
    [
        (VIT, "layer blocks.1.norm1, behind which no patch reaches the class token", "from the class token"),
        (
            {**VIT, "class_token": False, "global_pool": "avg"},
            "layer blocks.1, the last that resolves the image",
            "from all patches on average",
        ),
    ],
    ids=["class token", "mean of patches"],
)
def test_captions_say_where_the_maps_are_read(
    arguments: dict[str, Any], layer: str, source: str, tmp_path: Path
) -> None:
    caption = write(samples("vit_tiny_patch16_224", arguments), tmp_path)["figures"][0]["caption"]
    assert layer in caption
    assert source in caption


def test_the_table_has_the_areas_of_every_kind_of_map(tmp_path: Path) -> None:
    write(samples("vit_tiny_patch16_224", VIT), tmp_path)
    table = pd.read_csv(tmp_path / "faithfulness.csv").set_index("map")
    assert list(table.index) == ["gradcam", "rollout"]
    assert table.loc["gradcam", ["images", "deletion_auc", "insertion_auc", "random_auc"]].tolist() == [
        8, 0.25, 0.75, 0.5,
    ]  # fmt: skip
    assert table["better_than_random"].tolist() == [True, False]
    assert (table["deletion_low"] < table["deletion_difference"]).all()
    assert (table["deletion_difference"] < table["deletion_high"]).all()
    assert table.loc["gradcam", "deletion_high"] < 0 < table.loc["rollout", "deletion_high"]
    assert table.loc["gradcam", "insertion_difference"] == pytest.approx(0.25)


def test_the_curves_are_kept_image_by_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.arange(8) // 2
    grouped = replace(FAITHFULNESS["rollout"], groups=groups)
    write(samples("vit_tiny_patch16_224", VIT), tmp_path)
    plain = read_maps(tmp_path)
    assert list(plain) == ["gradcam", "rollout"]
    np.testing.assert_allclose(plain["gradcam"].curves, FAITHFULNESS["gradcam"].curves)
    np.testing.assert_allclose(plain["rollout"].shares, [0, 0.5, 1])
    assert plain["rollout"].groups is None
    monkeypatch.setitem(FAITHFULNESS, "gradcam", grouped)
    monkeypatch.setitem(FAITHFULNESS, "rollout", grouped)
    write(samples("vit_tiny_patch16_224", VIT), tmp_path)
    np.testing.assert_array_equal(read_maps(tmp_path)["rollout"].groups, groups)


def test_the_table_has_every_head_of_every_block(tmp_path: Path) -> None:
    write(samples("vit_tiny_patch16_224", {**VIT, "depth": 3}), tmp_path)
    lines = (tmp_path / "attention_distance.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "block,head,pixels"
    assert [line.rsplit(",", 1)[0] for line in lines[1:]] == ["1,1", "1,2", "2,1", "2,2", "3,1", "3,2"]


def test_the_same_explanation_is_drawn_the_same(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(samples("vit_tiny_patch16_224", VIT), tmp_path / folder)
    assert (tmp_path / "one/same_images.png").read_bytes() == (tmp_path / "two/same_images.png").read_bytes()


def test_predictions_of_other_images_are_refused() -> None:
    test, trained = split(), model("resnet18", {"channels": (8, 8, 8, 8)})
    predictions = answers(trained, test)
    renamed = Split(test.images, test.labels, tuple(reversed(test.names)))
    with pytest.raises(UserError, match="other test images"):
        explain_samples(trained, renamed, predictions, np.arange(2))
