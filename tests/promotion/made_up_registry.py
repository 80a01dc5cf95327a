"""Versions with made-up evaluations in a real registry."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from vit_vs_cnn.config import Settings
from vit_vs_cnn.data.prepared import Split
from vit_vs_cnn.evaluation.metrics import evaluate
from vit_vs_cnn.evaluation.results import Cost, Evaluation, write_evaluation
from vit_vs_cnn.tracking.registry import TEST_DIGEST, Candidate, Registry
from vit_vs_cnn.tracking.run import read_ref, start_run

CLASSES = ("cat", "dog", "owl")
IMAGES = 600
NAME = "tiny-classifier"


def evaluation(wrong: Collection[int], latency_p95_ms: float = 2.0) -> Evaluation:
    """Of a model that is wrong on the test images at these positions; image i shows class i modulo 3."""
    labels = np.arange(IMAGES) % len(CLASSES)
    predicted = np.where(np.isin(np.arange(IMAGES), list(wrong)), (labels + 1) % len(CLASSES), labels)
    probabilities = np.full((IMAGES, len(CLASSES)), 0.02, np.float32)
    probabilities[np.arange(IMAGES), predicted] = 0.96
    split = Split(np.zeros((IMAGES, 8, 8, 3), np.uint8), labels, tuple(map(str, range(IMAGES))))
    cost = Cost(
        parameters=1000,
        flops=10**6,
        seconds_per_epoch=1.0,
        latency_p50_ms=1.0,
        latency_p95_ms=latency_p95_ms,
        throughput_images_per_second=500.0,
        peak_memory_mb=100.0,
        device="CPU, 2 threads",
        input_size=8,
    )
    return evaluate(probabilities, split, CLASSES, 0.95, cost)


def add_version(
    settings: Settings,
    registry: Registry,
    wrong: Collection[int],
    latency_p95_ms: float = 2.0,
    test_digest: str = "same",
    model: Path | None = None,
) -> int:
    """A new version of `registry` with this evaluation, and the MLflow model in `model` where one is given."""
    count = len(registry.client.search_model_versions(f"name = '{registry.name}'"))
    folder = Path("made-up") / str(count)
    folder.mkdir(parents=True)
    if model is None:
        model = folder / "model"
        model.mkdir()
        (model / "MLmodel").write_text("flavors: {}\n")
    made_up = evaluation(wrong, latency_p95_ms)
    write_evaluation(folder / "evaluation", made_up)
    with start_run(settings, "train", "vit") as run:
        run.log_model(model, "vit", "image-classifier", {}, {}, step=1)
        run.log_artifact(folder / "evaluation", "evaluation")
        run.send()
        run.write_ref(folder)
    metrics = {
        "accuracy": made_up.metrics.accuracy,
        "accuracy_low": made_up.metrics.accuracy_low,
        "accuracy_high": made_up.metrics.accuracy_high,
        "latency_p95_ms": latency_p95_ms,
        "size_mb": 0.5,
    }
    tags = {TEST_DIGEST: test_digest, "timm": "some_vit"}
    return registry.add(Candidate("vit", read_ref(folder), 0.5, metrics, tags, "# A card"))


def new_registry() -> Registry:
    """An empty registered model in the store of the working directory's project."""
    registry = Registry(NAME)
    registry.create()
    return registry
