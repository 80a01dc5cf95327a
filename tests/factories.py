"""Settings, evaluations, trained contestants and registered versions that tests make for themselves."""

import io
import json
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import COST, PREPARED, cost_file, evaluated, robustness, trained
from vit_vs_cnn.data.dataset import DIGESTS, Split, write_split
from vit_vs_cnn.evaluation.corruptions import CLEAN, CORRUPTIONS
from vit_vs_cnn.evaluation.faithfulness import Faithfulness
from vit_vs_cnn.evaluation.metrics import evaluate
from vit_vs_cnn.evaluation.results import Cost, Evaluation, write_evaluation
from vit_vs_cnn.evaluation.robustness import Robustness, write_robustness
from vit_vs_cnn.registry.signing import signature_tags
from vit_vs_cnn.registry.versions import TEST_DIGEST, Registry
from vit_vs_cnn.report.figure_writer import FigureEntry, FigureIndex
from vit_vs_cnn.report.style import new_figure
from vit_vs_cnn.tracking.run import read_ref, start_run
from vit_vs_cnn.training.results import Epoch, TrainingSummary, write_history

REPOSITORY = Path(__file__).parent.parent

# Two contestants that train in a second, so that a test can afford the real thing.
TINY: dict[str, Any] = {
    "seeds": [0],
    "data": {"source": "digits", "name": "tiny", "path": "data/raw/digits.md", "image_size": 16},
    "recipe": {"batch_size": 16, "optimizer": {"lr": 0.002}, "augment": {"flip": 0.0}},
    "train": {"epochs": 2, "device": "cpu", "precision": "32-true"},
    "tune": {"trials": 0},
    "evaluate": {},
    "explain": {"images": 2},
    "models": {
        "vit": {"timm": "vit_tiny_patch16_224", "args": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}},
        "resnet": {"timm": "resnet10t", "args": {"channels": [8, 8, 16, 16], "stem_width": 8}},
    },
}

# A class is named after a folder, which can have any name.
CLASSES = ("cat", "dog <b>", "NA")
IMAGES = 600
REGISTRY = "tiny-classifier"


def cost(seconds_per_epoch: float = 1.0) -> Cost:
    return Cost(
        parameters=1000,
        flops=10**6,
        seconds_per_epoch=seconds_per_epoch,
        latency_p50_ms=1.0,
        latency_p50_ms_low=0.9,
        latency_p50_ms_high=1.2,
        latency_p95_ms=2.0,
        throughput_images_per_second=500.0,
        throughput_images_per_second_low=450.0,
        throughput_images_per_second_high=510.0,
        device="CPU, 2 threads",
        input_size=8,
    )


def evaluation(
    wrong: Collection[int],
    *,
    images: int = IMAGES,
    confidence: float = 0.96,
    first_image: str = "0",
    interval: float = 0.95,
    duplicates: Collection[int] = (),
    groups: tuple[str, ...] | None = None,
) -> Evaluation:
    """An evaluation that is wrong on the test images at these positions; image i shows class i modulo 3.

    The digest of image i is i.
    """
    labels: NDArray[np.int64] = np.arange(images) % len(CLASSES)
    predicted = np.where(np.isin(np.arange(images), list(wrong)), (labels + 1) % len(CLASSES), labels)
    probabilities = np.full((images, len(CLASSES)), (1 - confidence) / 2, np.float32)
    probabilities[np.arange(images), predicted] = confidence
    names = (first_image, *map(str, range(1, images)))
    pixels, digests = np.zeros((images, 8, 8, 3), np.uint8), np.arange(images, dtype=np.uint64)
    split = Split(pixels, labels, names, digests=digests, groups=groups)
    return evaluate(probabilities, split, CLASSES, interval, peak_memory_mb=100.0, duplicates=duplicates)


def add_version(
    settings: Settings,
    registry: Registry,
    wrong: Collection[int],
    latency_p95_ms: float = 2.0,
    test_digest: str = "same",
    model: Path | None = None,
    trained_on: Sequence[int] | None = (10**9,),
    groups: tuple[str, ...] | None = None,
) -> int:
    """A new version of `registry` with this evaluation, and the MLflow model in `model` where one is given.

    `trained_on` are the digests of its training images; None of a version that recorded none.
    """
    count = len(registry.client.search_model_versions(f"name = '{registry.name}'"))
    folder = Path("made-up") / str(count)
    folder.mkdir(parents=True)
    if model is None:
        model = folder / "model"
        model.mkdir()
        (model / "MLmodel").write_text("flavors: {}\n")
    measured = evaluation(wrong, groups=groups)
    write_evaluation(folder / "evaluation", measured)
    with start_run(settings, "train", "vit") as run:
        run.log_model(model, "vit", "image-classifier", {}, {}, step=1)
        run.log_artifact(folder / "evaluation", "evaluation")
        if trained_on is not None:
            np.save(folder / DIGESTS, np.array(trained_on, np.uint64))
            run.log_artifact(folder / DIGESTS, "training_images/train")
        run.write_ref(folder)
    tags = {
        "accuracy": str(measured.metrics.accuracy),
        "accuracy_low": str(measured.metrics.accuracy_low),
        "accuracy_high": str(measured.metrics.accuracy_high),
        "latency_p95_ms": json.dumps(latency_p95_ms),
        "size_mb": "0.5",
        "timm": "some_vit",
        TEST_DIGEST: test_digest,
    }
    return registry.add("vit", read_ref(folder), tags | signature_tags(model), "# A card")


def new_registry() -> Registry:
    """An empty registered model in the store of the working directory's project."""
    registry = Registry(REGISTRY)
    registry.create()
    return registry


def contestant(
    settings: Settings,
    name: str,
    errors: int,
    seconds: float = 1.0,
    val_accuracy: float = 0.7,
    first_image: str = "0",
    duplicates: Collection[int] = (),
    groups: tuple[str, ...] | None = None,
    seed: int = 0,
    first_error: int = 0,
    **summary_fields: Any,
) -> None:
    """Write the results of a replicate that is wrong on `errors` of 300 test images, from `first_error` on."""
    measured = evaluation(
        range(first_error, first_error + errors),
        images=300,
        confidence=0.8,
        first_image=first_image,
        interval=settings.evaluate.confidence,
        duplicates=duplicates,
        groups=groups,
    )
    write_evaluation(evaluated(name, seed), measured)
    write_robustness(robustness(name), robustness_results({CLEAN: errors, "blur": errors}))
    COST.mkdir(exist_ok=True)
    cost(seconds).write(cost_file(name))
    folder = trained(name, seed)
    folder.mkdir(parents=True)
    history = [
        Epoch(
            epoch=epoch,
            elapsed_seconds=epoch * seconds,
            epoch_seconds=seconds,
            learning_rate=0.1,
            train_loss=1.0 / epoch,
            train_accuracy=0.5,
            val_loss=1.0 / epoch,
            val_accuracy=0.5 + epoch / 10,
            val_balanced_accuracy=0.5 + epoch / 10,
            val_macro_f1=0.5 + epoch / 10,
            val_top_share=0.4,
            images_per_second=100.0,
        )
        for epoch in (1, 2)
    ]
    write_history(history, folder / "history.csv")
    summary = TrainingSummary(
        model=name,
        seed=seed,
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
    summary.model_copy(update=summary_fields).write(folder / "training.json")


def of_two(settings: Settings, first_errors: int, second_errors: int) -> None:
    """The results of two contestants; an epoch of the first takes four times as long."""
    contestant(settings, "vit", first_errors, seconds=4.0)
    contestant(settings, "resnet", second_errors, seconds=1.0)


def robustness_results(
    errors: Mapping[str, int],
    *,
    images: int = 300,
    seeds: Sequence[int] = (0,),
    more_errors: Sequence[int] = (0,),
) -> Robustness:
    """Results that are wrong on so many of the first images under a corruption, at all severities; else on none.

    `more_errors` are those that each replicate makes under them in addition.
    """
    rows, correct = [], {}
    conditions = [(CLEAN, 0, 0.0)]
    conditions += [(found.name, place, level) for found in CORRUPTIONS for place, level in enumerate(found.levels, 1)]
    for name, severity, level in conditions:
        right = []
        for seed, more in zip(seeds, cycle(more_errors)):
            wrong = errors[name] + more if name in errors else 0
            right.append(np.arange(images) >= wrong)
            measures = {"images": images, "accuracy": 1 - wrong / images, "nll": 0.5, "ece": 0.1}
            rows.append({"corruption": name, "severity": severity, "level": level, "seed": seed, **measures})
        correct[name, severity] = np.array(right)
    losses = {condition: np.where(right, 0.1, 2.0).astype(np.float32) for condition, right in correct.items()}
    confidences = {condition: np.full(right.shape, 0.9, np.float32) for condition, right in correct.items()}
    return Robustness(pd.DataFrame(rows), np.arange(images), correct, losses, confidences)


def faithfulness_of(deletion: float, insertion: float, varying: float = 0.01) -> Faithfulness:
    """Maps of eight images with these areas, where random orders have 0.5 on average and vary by so much."""
    random = 0.5 + varying * np.array([1, -1] * 4)
    areas = np.array([np.full(8, deletion), np.full(8, insertion), random])
    return Faithfulness(np.linspace(0, 1, 3), areas[..., None].repeat(3, axis=2))


def write_test_split(images: int = 300) -> None:
    """The test images that `contestant` is evaluated on."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, 8, 8, 3), dtype=np.uint8)
    write_split(PREPARED / "test", pixels, np.arange(images) % len(CLASSES), list(map(str, range(images))))


def pictures(folder: Path, *names: str) -> None:
    """A folder with empty figures of these names, by default one, and the reason why another was skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        FigureEntry(file=f"{name}.png", title="A title", caption="A <caption>") for name in names or ("samples",)
    ]
    for entry in entries:
        new_figure(2, 1).savefig(folder / entry.file)
    index = FigureIndex(figures=tuple(entries), skipped=("No attention: this one has none.",))
    index.write(folder / "figures.json")


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def noise(height: int, width: int, *channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels), dtype=np.uint8)
