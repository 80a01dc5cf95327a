"""What a version says of itself: tags with numbers for the gate and the tables, and the model card for people."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.evaluation.results import Cost, Evaluation
from vit_vs_cnn.registry.versions import TEST_DIGEST, registered_name
from vit_vs_cnn.training.results import TrainingSummary

# MLflow keeps 5,000 characters of a description: of many classes the card has those with the lowest recall.
_MOST_CLASSES = 20


def version_tags(
    model: Path,
    info: DatasetInfo,
    summary: TrainingSummary,
    evaluation: Evaluation,
    cost: Cost,
    lineage: Mapping[str, str],
) -> dict[str, str]:
    """The tags of a version, whose exported model is in the folder `model`; numbers are JSON."""
    metrics = evaluation.metrics
    numbers = {
        "accuracy": metrics.accuracy,
        "accuracy_low": metrics.accuracy_low,
        "accuracy_high": metrics.accuracy_high,
        "val_accuracy": summary.val_accuracy,
        "calibration_error": metrics.expected_calibration_error,
        "latency_p95_ms": cost.latency_p95_ms,
        "size_mb": sum(path.stat().st_size for path in model.rglob("*") if path.is_file()) / 1e6,
        "parameters": cost.parameters,
    }
    return {
        **{tag: json.dumps(number) for tag, number in numbers.items()},
        "timm": summary.timm,
        "device": summary.device,
        "data.digest": info.digest,
        TEST_DIGEST: info.splits["test"].digest,
        "data.image_size": str(info.image_size),
        **lineage,
    }


def write_card(
    settings: Settings,
    contestant: str,
    info: DatasetInfo,
    summary: TrainingSummary,
    evaluation: Evaluation,
    cost: Cost,
    lineage: Mapping[str, str],
) -> str:
    """The model card of `contestant` in Markdown, from what its stages recorded."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    template = environment.from_string((files("vit_vs_cnn.registry") / "card.md.j2").read_text(encoding="utf-8"))
    classes = evaluation.per_class[evaluation.per_class["images"] > 0].sort_values("recall", kind="stable")
    return template.render(
        name=registered_name(settings.data.name),
        contestant=contestant,
        model=settings.model(contestant),
        info=info,
        summary=summary,
        evaluation=evaluation,
        cost=cost,
        classes=classes.head(_MOST_CLASSES).to_dict("records"),
        confusions=_confusions(evaluation),
        lineage=lineage,
    )


def _confusions(evaluation: Evaluation) -> list[tuple[str, str, int]]:
    """The three most frequent confusions: true class, predicted class, images."""
    counts = [
        (label, predicted, int(count))
        for label, row in zip(evaluation.classes, evaluation.confusion, strict=True)
        for predicted, count in zip(evaluation.classes, row, strict=True)
        if label != predicted and count
    ]
    return sorted(counts, key=lambda confusion: -confusion[2])[:3]
