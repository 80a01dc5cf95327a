"""What an epoch of a part of the images is worth, and what a point with more epochs than all images have changes."""

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.studies.settings import Values


def steps_of(images: int, batch_size: int) -> int:
    """The optimizer steps of an epoch: a last incomplete batch is skipped, unless it is the only one."""
    return max(1, images // batch_size)


def computed_images(images: int, batch_size: int) -> int:
    """How many of the images an epoch computes."""
    return steps_of(images, batch_size) * min(batch_size, images)


def longer_training(settings: Settings, epochs: int) -> Values:
    """The settings of a training of so many epochs; warm-up, and whatever else counts epochs, keeps its share of it."""
    from vit_vs_cnn.training.optimization import warmup_epochs

    whole = settings.train.epochs
    counts: dict[str, int | None] = {"train.patience": settings.train.patience}
    if settings.tune.trials:
        counts["tune.epochs"] = settings.tune.epochs
    for name, model in settings.models.items():
        counts[f"models.{name}.recipe.schedule.warmup_epochs"] = warmup_epochs(model.recipe, whole)
        counts[f"models.{name}.recipe.head_epochs"] = model.recipe.head_epochs or None
    share = epochs / whole
    changes: Values = {path: round(count * share) for path, count in counts.items() if count is not None}
    changes |= {path: max(1, int(changes[path] or 0)) for path in ("train.patience", "tune.epochs") if path in changes}
    return changes | {"train.epochs": epochs}
