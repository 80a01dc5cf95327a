import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vit_vs_cnn.config import Settings
from vit_vs_cnn.data.checks import Checks, write_checks
from vit_vs_cnn.data.prepared import DatasetInfo, Split
from vit_vs_cnn.errors import UserError
from vit_vs_cnn.evaluation.metrics import evaluate
from vit_vs_cnn.evaluation.results import Cost, write_evaluation
from vit_vs_cnn.layout import COMPARE, EDA, PREPARED, evaluated, explained, trained
from vit_vs_cnn.report.comparison import answer, comparison_table, read_comparison, terminal_table, write_tables
from vit_vs_cnn.report.gallery import Gallery
from vit_vs_cnn.report.style import new_figure
from vit_vs_cnn.stages import compare
from vit_vs_cnn.tracking.run import start_run
from vit_vs_cnn.training.outputs import Epoch, TrainingSummary, write_history, write_summary

CLASSES = ("cat", "dog <b>", "NA")
IMAGES = 300


def contestant(settings: Settings, name: str, errors: int, seconds: float, first_image: str = "0") -> None:
    """A contestant that is wrong on the first `errors` test images."""
    labels = np.arange(IMAGES) % len(CLASSES)
    predicted = np.where(np.arange(IMAGES) < errors, (labels + 1) % len(CLASSES), labels)
    probabilities = np.full((IMAGES, len(CLASSES)), 0.1, np.float32)
    probabilities[np.arange(IMAGES), predicted] = 0.8
    names = (first_image, *map(str, range(1, IMAGES)))
    split = Split(np.zeros((IMAGES, 8, 8, 3), np.uint8), labels, names)
    cost = Cost(
        parameters=1000,
        flops=10**6,
        seconds_per_epoch=seconds,
        latency_p50_ms=1.0,
        latency_p95_ms=2.0,
        throughput_images_per_second=500.0,
        peak_memory_mb=100.0,
        device="CPU, 2 threads",
        input_size=8,
    )
    write_evaluation(evaluated(name), evaluate(probabilities, split, CLASSES, 0.95, cost))
    folder = trained(name)
    folder.mkdir(parents=True)
    epochs = [Epoch(n, n * seconds, seconds, 0.1, 1.0 / n, 0.5, 1.0 / n, 0.5 + n / 10, 100.0) for n in (1, 2)]
    write_history(epochs, folder / "history.csv")
    summary = TrainingSummary(
        model=name,
        timm=settings.models[name].timm,
        parameters=1000,
        trainable_parameters=1000,
        epochs=2,
        best_epoch=2,
        val_accuracy=0.7,
        val_loss=0.5,
        seconds=2 * seconds,
        seconds_per_epoch=seconds,
        images_per_second=100.0,
        device="CPU, 2 threads",
        precision="32-true",
        train_images=64,
        batch_size=16,
    )
    write_summary(summary, folder / "training.json")
    with start_run(settings, "train", name) as run:
        run.send()
        run.write_ref(folder)


def pictures(folder: Path) -> None:
    gallery = Gallery(folder)
    gallery.add("samples", new_figure(2, 1), "A title", "A <caption>")
    gallery.leave_out("No attention: this one has none.")
    gallery.close()


@pytest.fixture
def setting(settings: Settings, prepared: DatasetInfo) -> Settings:
    return settings


def test_a_clear_difference_names_the_better_one_whichever_it_is(setting: Settings) -> None:
    contestant(setting, "vit", errors=90, seconds=4.0)
    contestant(setting, "resnet", errors=30, seconds=1.0)
    comparison = read_comparison(setting)
    assert answer(comparison).startswith("resnet is better: resnet 90.0%, vit 70.0%, more than chance explains.")
    assert "An epoch of vit takes 4.0 times as long as one of resnet." in answer(comparison)
    assert "resnet is right on 20.0 points more than vit" in comparison.sentences[0]


def test_a_small_difference_has_no_winner(setting: Settings) -> None:
    contestant(setting, "vit", errors=31, seconds=1.0)
    contestant(setting, "resnet", errors=30, seconds=1.0)
    assert answer(read_comparison(setting)).startswith("No winner: ")


def test_of_three_the_two_best_may_be_tied(make_settings: Callable[..., Settings], prepared: DatasetInfo) -> None:
    three = make_settings({"models": {"third": {"timm": "convnext_atto"}}})
    for name, errors in (("vit", 30), ("resnet", 31), ("third", 120)):
        contestant(three, name, errors, seconds=1.0)
    comparison = read_comparison(three)
    assert len(comparison.pairs) == 3
    assert answer(comparison).startswith("vit and resnet cannot be told apart and are better than the others")
    assert list(comparison_table(comparison)["contestant"]) == ["vit", "resnet", "third"]


def test_contestants_measured_on_other_images_are_not_compared(setting: Settings) -> None:
    contestant(setting, "vit", errors=30, seconds=1.0)
    contestant(setting, "resnet", errors=30, seconds=1.0, first_image="another")
    with pytest.raises(UserError, match="evaluated/resnet: was measured on other test images than vit"):
        read_comparison(setting)


def test_tables_and_the_terminal_say_the_same(setting: Settings) -> None:
    contestant(setting, "vit", errors=90, seconds=4.0)
    contestant(setting, "resnet", errors=30, seconds=1.0)
    write_tables(read_comparison(setting), COMPARE)
    table = terminal_table(Path())
    assert re.search(r"vit +70\.00% +64\.\d+% – 74\.\d+% +4\.0 +1,000 +1\.0 ms", table)
    assert table.endswith(json.loads((COMPARE / "significance.json").read_text())["answer"])
    assert pd.read_csv(COMPARE / "comparison.csv")["accuracy"].tolist() == [0.7, 0.9]
    summary = json.loads((COMPARE / "summary.json").read_text())
    assert summary["difference_vit_resnet"] == pytest.approx(-0.2)


def test_the_report_is_one_safe_file_with_everything_in_it(setting: Settings) -> None:
    contestant(setting, "vit", errors=90, seconds=4.0)
    contestant(setting, "resnet", errors=30, seconds=1.0)
    pictures(EDA)
    for name in setting.models:
        pictures(explained(name))
    write_checks(PREPARED, Checks(images=112, counts={}, findings=()))
    compare.run(setting)
    html = (COMPARE / "report.html").read_text()
    assert "resnet is better" in html
    assert "A &lt;caption&gt;" in html
    assert "<caption>" not in html
    assert "No attention: this one has none." in html
    assert "94.61 % (test)" in html
    assert "Published, not measured" in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    assert "<script" not in html
