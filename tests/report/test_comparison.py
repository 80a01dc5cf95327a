"""The answer, the tables and the charts of a comparison."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from factories import contestant, faithfulness_of, of_two
from vit_vs_cnn.cli.outcome import results_table
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.colours import PALETTE
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.core.paths import COMPARE, trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.report.answer import answer
from vit_vs_cnn.report.comparison import comparison_table, read_comparison, replicates_table, write_tables
from vit_vs_cnn.report.comparison_figures import (
    accuracy_and_cost,
    accuracy_and_latency,
    confusion_difference,
    deletion_and_insertion,
    learning_by_epoch,
    learning_by_time,
    recall_by_class,
)

Make = Callable[..., Settings]
VIT_COLOUR, RESNET_COLOUR = PALETTE[:2]


@pytest.fixture(autouse=True)
def _in_a_project(prepared: DatasetInfo) -> None:
    """Every test writes into its own project."""


def labels_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_contestants_measured_on_other_images_are_not_compared(settings: Settings) -> None:
    contestant(settings, "vit", 30)
    contestant(settings, "resnet", 30, first_image="another")
    with pytest.raises(UserError, match="evaluated/resnet: was measured on other test images than vit; run"):
        read_comparison(settings)


def test_tables_and_the_terminal_say_the_same(settings: Settings) -> None:
    of_two(settings, 90, 30)
    comparison = read_comparison(settings)
    write_tables(comparison, answer(comparison), COMPARE)
    table = results_table(Path())
    assert table.split()[:2] == ["contestant", "test"]
    assert "95 % interval" in table
    assert re.search(r"vit +70\.00% +64\.\d+% – 74\.\d+% +4\.0 +1,000 +1\.0 ms", table)
    verdicts = json.loads((COMPARE / "significance.json").read_text())
    assert table.endswith(verdicts["answer"])
    assert verdicts["pairs"][0]["better"] == "resnet"
    assert verdicts["pairs"][0]["sentence"] == comparison.sentences[0]
    assert pd.read_csv(COMPARE / "comparison.csv")["accuracy"].tolist() == [0.7, 0.9]
    summary = json.loads((COMPARE / "summary.json").read_text())
    assert summary["difference_vit_resnet"] == pytest.approx(-0.2)
    assert summary["accuracy_vit"] == 0.7
    assert all(isinstance(value, float) for value in summary.values())


def test_the_terminal_names_the_confidence_even_of_one_alone(make_settings: Make) -> None:
    settings = make_settings({"evaluate": {"confidence": 0.9}})
    alone = settings.model_copy(update={"models": {"vit": settings.models["vit"]}})
    contestant(alone, "vit", 30)
    write_tables(read_comparison(alone), "An answer.", COMPARE)
    assert "90 % interval" in results_table(Path())


def test_learning_curves_show_train_validation_and_the_chosen_epoch(settings: Settings) -> None:
    of_two(settings, 90, 30)
    figure = learning_by_epoch(read_comparison(settings))
    accuracy = figure.axes[0]
    assert labels_of(figure) == ["vit", "resnet"]
    val, annealed, train, chosen = accuracy.lines[:4]
    assert train.get_xydata().tolist() == [[1, 0.5], [2, 0.5]]
    assert val.get_xydata() == pytest.approx(np.array([[1, 0.6], [2, 0.7]]))
    assert annealed.get_linewidth() > val.get_linewidth()
    assert chosen.get_xydata() == pytest.approx(np.array([[2, 0.7]]))
    assert {line.get_color() for line in accuracy.lines} == {VIT_COLOUR, RESNET_COLOUR}


def test_only_what_was_measured_after_the_rate_came_down_is_drawn_as_a_result(settings: Settings) -> None:
    of_two(settings, 90, 30)
    path = trained("vit", 0) / "history.csv"
    rates = [0.05, 0.1, 1.0, 0.5, 0.2, 0.1, 0.05]  # the first two are of the warm-up
    history = pd.concat([pd.read_csv(path).head(1)] * 7).assign(epoch=range(1, 8), learning_rate=rates)
    history.to_csv(path, index=False)
    annealed = learning_by_epoch(read_comparison(settings)).axes[0].lines[1]
    assert list(annealed.get_xdata()) == [5, 6, 7]  # from the point before on


def test_an_epoch_in_which_the_machine_was_busy_does_not_stretch_the_curve(settings: Settings) -> None:
    of_two(settings, 90, 30)
    path = trained("vit", 0) / "history.csv"
    history = pd.concat([pd.read_csv(path).head(1)] * 3)
    history.assign(epoch=[1, 2, 3], epoch_seconds=[4.0, 400.0, 4.0]).to_csv(path, index=False)
    curve = learning_by_time(read_comparison(settings)).axes[0].lines[0]
    assert list(curve.get_xdata()) == [4.0, 8.0, 12.0]


def test_accuracy_stands_over_each_cost_with_its_interval(settings: Settings) -> None:
    of_two(settings, 90, 30)
    comparison = read_comparison(settings)
    metrics = comparison.contestants[0].chosen.evaluation.metrics
    training, latency = accuracy_and_cost(comparison), accuracy_and_latency(comparison)
    assert len(training.axes) == 2
    for axes, cost in ((training.axes[0], 4.0), (training.axes[1], 1000), (latency.axes[0], 1.0)):
        point, _, (*_, bar) = axes.containers[0].lines
        assert point.get_xydata().tolist() == [[cost, 0.7]]
        assert bar.get_segments()[0][:, 1].tolist() == pytest.approx([metrics.accuracy_low, metrics.accuracy_high])
        assert axes.get_ylim()[1] <= 1


def test_a_round_in_which_the_machine_was_busy_does_not_stretch_the_axis_of_latency(settings: Settings) -> None:
    of_two(settings, 90, 30)
    comparison = read_comparison(settings)
    vit, resnet = comparison.contestants
    slow = replace(resnet, cost=resnet.cost.model_copy(update={"latency_p50_ms": 1.4, "latency_p50_ms_high": 254.2}))
    axes = accuracy_and_latency(replace(comparison, contestants=(vit, slow))).axes[0]
    assert 1.4 < axes.get_xlim()[1] < 10


def test_recall_of_each_class_for_each_contestant(settings: Settings) -> None:
    of_two(settings, 90, 30)
    axes = recall_by_class(read_comparison(settings)).axes[0]
    dots = [np.asarray(collection.get_offsets())[:, 0].tolist() for collection in axes.collections[1:]]
    assert dots == [pytest.approx([0.7] * 3), pytest.approx([0.9] * 3)]


def test_confusion_difference_is_in_points_of_the_true_class(settings: Settings) -> None:
    of_two(settings, 90, 30)
    figure = confusion_difference(*read_comparison(settings).contestants)
    shown = np.asarray(figure.axes[0].collections[0].get_array())
    assert np.diag(shown).tolist() == pytest.approx([-20.0] * 3)
    assert shown.sum(axis=1).tolist() == pytest.approx([0.0] * 3)


def test_tables_have_the_means_and_the_spread_of_the_trainings(make_settings: Make) -> None:
    settings = make_settings({"seeds": [3, 1]})
    for name, errors, val_accuracies in (("vit", (90, 84), (0.7, 0.8)), ("resnet", (30, 33), (0.9, 0.6))):
        for seed, count, val_accuracy in zip(settings.seeds, errors, val_accuracies, strict=True):
            contestant(settings, name, count, seconds=1 + seed, seed=seed, val_accuracy=val_accuracy)
    comparison = read_comparison(settings)
    table = comparison_table(comparison).set_index("contestant")
    assert table["accuracy"].tolist() == pytest.approx([0.71, 0.895])
    assert table["accuracy_std"].tolist() == pytest.approx([0.01414, 0.00707], abs=1e-5)
    assert table["chosen_seed"].tolist() == [1, 3]
    assert table["seconds_per_epoch"].tolist() == [3.0, 3.0]
    trainings = replicates_table(comparison)
    assert trainings["seed"].tolist() == [3, 1, 3, 1]
    assert trainings["accuracy"].tolist() == pytest.approx([0.7, 0.72, 0.9, 0.89])
    assert trainings["chosen"].tolist() == [False, True, True, False]
    assert len(learning_by_epoch(comparison).axes[0].lines) == 2 * (1 + 4)


def test_replicates_measured_on_other_images_are_not_averaged(make_settings: Make) -> None:
    settings = make_settings({"seeds": [0, 1]})
    for name in settings.models:
        contestant(settings, name, 30)
        contestant(settings, name, 30, seed=1, first_image="another")
    with pytest.raises(UserError, match="evaluated/vit/1: was measured on other test images than vit/0"):
        read_comparison(settings)


def test_deletion_and_insertion_have_a_row_for_each_kind_of_map(settings: Settings) -> None:
    of_two(settings, 90, 30)
    maps = {
        "vit": {"gradcam": faithfulness_of(0.4, 0.6), "rollout": faithfulness_of(0.3, 0.7)},
        "resnet": {"gradcam": faithfulness_of(0.2, 0.8)},
    }
    figure = deletion_and_insertion(read_comparison(settings), maps)
    assert labels_of(figure) == ["vit", "resnet"]
    heights = [[line.get_ydata()[0] for line in axes.get_lines()] for axes in figure.axes]
    # Each beside its own random orders.
    drawn = [0.4, 0.5, 0.2, 0.5], [0.6, 0.5, 0.8, 0.5], [0.3, 0.5], [0.7, 0.5]
    assert heights == [pytest.approx(row) for row in drawn]
    colours = [line.get_color() for line in figure.axes[0].get_lines()]
    assert colours == [VIT_COLOUR, VIT_COLOUR, RESNET_COLOUR, RESNET_COLOUR]
