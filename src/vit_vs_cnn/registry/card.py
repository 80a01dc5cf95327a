"""The model card of a version: what a person must know before they use it."""

from collections.abc import Mapping
from importlib.resources import files

import pandas as pd
from jinja2 import Environment, StrictUndefined

from vit_vs_cnn.config.schema import ModelSettings, Settings
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.evaluation.results import Evaluation
from vit_vs_cnn.training.results import TrainingSummary

# MLflow keeps 5,000 characters of a description: of many classes the card has those that it knows worst.
_MOST_CLASSES = 20


def write_card(
    name: str,
    contestant: str,
    settings: Settings,
    info: DatasetInfo,
    summary: TrainingSummary,
    evaluation: Evaluation,
    lineage: Mapping[str, str],
) -> str:
    """Markdown about `contestant`, a version of the registered model `name`, from what its stages recorded."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    template = environment.from_string((files("vit_vs_cnn.registry") / "card.md.j2").read_text(encoding="utf-8"))
    model = settings.model(contestant)
    return template.render(
        name=name,
        contestant=contestant,
        model=model,
        recipe=_recipe(model),
        info=info,
        summary=summary,
        metrics=evaluation.metrics,
        cost=evaluation.cost,
        classes=_worst_first(evaluation.per_class),
        all_classes=len(evaluation.classes),
        confusions=_confusions(evaluation),
        lineage=lineage,
    )


def _recipe(model: ModelSettings) -> str:
    recipe = model.recipe
    augment = [f"{key} {value:g}" for key, value in recipe.augment.model_dump().items() if value]
    return (
        f"{recipe.optimizer.name}, peak learning rate {recipe.optimizer.lr:.3g}, weight decay "
        f"{recipe.optimizer.weight_decay:.3g}, {recipe.schedule.name} schedule, batches of {recipe.batch_size}, "
        f"label smoothing {recipe.label_smoothing:g}; augmentation: {', '.join(augment) or 'none'}"
    )


def _worst_first(per_class: pd.DataFrame) -> list[tuple[str, float, float, int]]:
    """Class, precision, recall and images of the classes with test images, the lowest recall first."""
    table = per_class[per_class["images"] > 0].sort_values("recall", kind="stable").head(_MOST_CLASSES)
    return [(str(row["class"]), row["precision"], row["recall"], int(row["images"])) for _, row in table.iterrows()]


def _confusions(evaluation: Evaluation) -> list[tuple[str, str, int]]:
    """The three most frequent confusions: true class, predicted class, images."""
    counts = [
        (evaluation.classes[row], evaluation.classes[column], int(count))
        for row, line in enumerate(evaluation.confusion)
        for column, count in enumerate(line)
        if row != column and count
    ]
    return sorted(counts, key=lambda each: -each[2])[:3]
