"""Contestants and pictures with made-up results, for the tests of the comparison and of the report."""

from pathlib import Path

import numpy as np

from vit_vs_cnn.config import Settings
from vit_vs_cnn.data.prepared import Split
from vit_vs_cnn.evaluation.metrics import evaluate
from vit_vs_cnn.evaluation.results import Cost, write_evaluation
from vit_vs_cnn.layout import evaluated, trained
from vit_vs_cnn.report.gallery import Gallery
from vit_vs_cnn.report.style import new_figure
from vit_vs_cnn.training.outputs import Epoch, TrainingSummary, write_history, write_summary

CLASSES = ("cat", "dog <b>", "NA")
IMAGES = 300


def contestant(
    settings: Settings,
    name: str,
    errors: int,
    seconds: float = 1.0,
    val_accuracy: float = 0.7,
    first_image: str = "0",
) -> None:
    """Write the results of a contestant that is wrong on the first `errors` of 300 test images."""
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
    write_evaluation(evaluated(name), evaluate(probabilities, split, CLASSES, settings.evaluate.confidence, cost))
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
        val_accuracy=val_accuracy,
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


def pictures(folder: Path) -> None:
    """A folder with one figure, and one that had to be left out."""
    gallery = Gallery(folder)
    gallery.add("samples", new_figure(2, 1), "A title", "A <caption>")
    gallery.leave_out("No attention: this one has none.")
    gallery.close()
