"""How a contestant is trained: optimizer, schedule, augmentation, regularisation."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vit_vs_cnn.config.former import former
from vit_vs_cnn.config.gate import Fraction
from vit_vs_cnn.config.search_space import Scalar, StrictModel


class OptimizerSettings(StrictModel):
    """timm's optimizer factory, by timm's names."""

    name: str = "adamw"
    lr: Annotated[float, Field(gt=0.0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    momentum: Fraction = 0.9
    args: dict[str, Scalar | list[Scalar] | None] = Field(default_factory=dict)


def _without_former_schedules(name: Any) -> Any:
    """Refuse what earlier versions offered: over the epochs of a training these hardly decayed, or not at all."""
    if name in ("step", "multistep", "poly", "tanh"):
        raise ValueError(f"{name} is no longer a schedule, because it did not end at min_lr: use cosine or linear")
    return name


class ScheduleSettings(StrictModel):
    """The learning rate from step to step: a linear warm-up, then a decay that ends at `min_lr`."""

    name: Annotated[Literal["cosine", "linear"], BeforeValidator(_without_former_schedules)] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    min_lr: Annotated[float, Field(ge=0.0)] = 1e-6


class AugmentSettings(StrictModel):
    """Random changes of a training image; each image of a batch has its own draw.

    `flip` is the probability of a horizontal flip; `alternating_flip` flips each image in every other epoch instead.
    `translate` is the largest shift as a fraction of the side, `rotation` the largest angle in degrees, `resize` the
    largest part of the area that a random resized crop cuts off. `brightness`, `contrast` and `saturation` are the
    largest relative changes, `hue` the largest shift in turns of the colour circle. `erase` is the probability of an
    erased square, `cutout` the side of a square that every image loses. `mixup` and `cutmix` are the alpha of their
    Beta distribution. Zero and false are off.
    """

    flip: Fraction = 0.5
    alternating_flip: bool = False
    translate: Annotated[float, Field(ge=0.0, le=0.5)] = 0.125
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    resize: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    brightness: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    contrast: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    saturation: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    erase: Fraction = 0.0
    cutout: Fraction = 0.0
    mixup: Annotated[float, Field(ge=0.0)] = 0.0
    cutmix: Annotated[float, Field(ge=0.0)] = 0.0


class Recipe(StrictModel):
    """How a contestant is trained, apart from the budget, which all contestants share."""

    batch_size: Annotated[int, Field(ge=1)] = 128
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    balance: Literal["none", "weights", "sampler"] = "none"
    head_epochs: Annotated[int, Field(ge=0)] = 0
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    augment: Annotated[
        AugmentSettings,
        former(
            "trivial_augment",
            lambda value: value is False,
            "use rotation, resize, brightness, contrast, saturation and hue",
        ),
    ] = AugmentSettings()
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    clip_grad: Annotated[float, Field(gt=0.0)] | None = None
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
