"""What an epoch of a part of the images is worth, and what a point with more epochs than all images have changes."""

import math
from collections.abc import Mapping

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.studies.settings import Values

# Contestants whose epochs of equal steps differ by no more have the same number of them, in one run.
_NEAR = 1.1


def steps_of(images: int, batch_size: int) -> int:
    """The optimizer steps of an epoch: a last incomplete batch is skipped, unless it is the only one."""
    return max(1, images // batch_size)


def computed_images(images: int, batch_size: int) -> int:
    """How many of the images an epoch computes."""
    return steps_of(images, batch_size) * min(batch_size, images)


def epochs_of_equal_steps(settings: Settings, whole: int, part: int) -> dict[str, int]:
    """The epochs of `part` images that give each contestant the steps of `whole`; one number where they are near.

    They are far from each other where a part is below the larger of two batches: its epoch is one step all the same.
    """
    batches = {name: model.recipe.batch_size for name, model in settings.models.items()}
    times = {name: steps_of(whole, batch) / steps_of(part, batch) for name, batch in batches.items()}
    if max(times.values()) <= _NEAR * min(times.values()):
        times = dict.fromkeys(times, max(times.values()))
    return {name: math.ceil(settings.train.epochs * more) for name, more in times.items()}


def whole_epochs(budget: float, seconds: Mapping[str, float], refit: bool) -> dict[str, int]:
    """The epochs of each contestant, which take so many `seconds`, in a budget; refused below one epoch of each."""
    seconds = {name: (1 + refit) * found for name, found in seconds.items()}
    slowest = max(seconds, key=seconds.__getitem__)
    least = seconds[slowest]
    if budget < least:
        of = f"{slowest} and one of its refit" if refit else slowest
        takes = f"an epoch of {of} takes {least:,.1f} s here"
        raise UserError(f"{takes}: choose {math.ceil(least):,} seconds or more, or fewer images.")
    return {name: int(budget / found) for name, found in seconds.items()}


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
