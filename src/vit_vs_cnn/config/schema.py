"""The settings in params.yaml: frozen, strict, checked."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from vit_vs_cnn.config.search_space import Dimension, Scalar, Space, at_path, flatten_space, in_order, setting_at
from vit_vs_cnn.core.errors import UserError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
SpaceOverlay = Annotated[dict[str, Dimension | None], BeforeValidator(flatten_space)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataSettings(_Strict):
    """The images: where they come from and how they are stored and split."""

    source: Literal["cifar10", "folder", "digits"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    path: str
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    split_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    val_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.2
    min_images_per_class: Annotated[int, Field(ge=3)] = 10
    on_bad: Literal["fail", "skip"] = "fail"


class OptimizerSettings(_Strict):
    """timm's optimizer factory, by timm's names."""

    name: str = "adamw"
    lr: Annotated[float, Field(gt=0.0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    momentum: Fraction = 0.9


class ScheduleSettings(_Strict):
    """timm's scheduler factory, updated at every step."""

    name: Literal["cosine", "step", "multistep", "poly", "tanh"] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    min_lr: Annotated[float, Field(ge=0.0)] = 1e-6


class AugmentSettings(_Strict):
    """Random changes of a training image; each image of a batch has its own draw.

    `flip` is the probability of a horizontal flip; `alternating_flip` flips each image in every other epoch instead.
    `translate` is the largest shift as a fraction of the side, `rotation` the largest angle in degrees, `resize` the
    largest part of the area that a random resized crop leaves out. `brightness`, `contrast` and `saturation` are the
    largest relative changes, `hue` the largest shift in turns of the colour circle. `trivial_augment` applies one
    random operation to each image. `erase` is the probability of an erased square, `cutout` the side of a square that
    every image loses. `mixup` and `cutmix` are the alpha of their Beta distribution. Zero and false are off.
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
    trivial_augment: bool = False
    erase: Fraction = 0.0
    cutout: Fraction = 0.0
    mixup: Annotated[float, Field(ge=0.0)] = 0.0
    cutmix: Annotated[float, Field(ge=0.0)] = 0.0


class Recipe(_Strict):
    """How a contestant is trained, apart from the budget, which all contestants share."""

    batch_size: Annotated[int, Field(ge=1)] = 128
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    augment: AugmentSettings = AugmentSettings()
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    clip_grad: Annotated[float, Field(gt=0.0)] | None = None
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None


class ModelSettings(_Strict):
    """One contestant: any timm image model and its recipe."""

    timm: str
    pretrained: bool = False
    weights: str | None = None
    input_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    stem: Literal["timm", "cifar", "conv"] = "timm"
    freeze_backbone: bool = False
    args: dict[str, Scalar | list[Scalar] | None] = {}
    recipe: Recipe = Recipe()


class TrainSettings(_Strict):
    """The budget, the same for every contestant, and the machine.

    Each batch is shared by `devices` GPUs, or on a CPU by as many processes.
    """

    epochs: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=1)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    compile: bool | Literal["auto"] = "auto"


class SamplerSettings(_Strict):
    """A sampler of Optuna by its name, and arguments of it; it is seeded with `seed`."""

    name: Literal["TPESampler", "RandomSampler", "GPSampler"] = "TPESampler"
    args: dict[str, Scalar] = {}


class PrunerSettings(_Strict):
    """A pruner of Optuna by its name, and arguments of it; Hyperband is told the epochs of a trial."""

    name: Literal["HyperbandPruner", "SuccessiveHalvingPruner", "MedianPruner", "PercentilePruner", "NopPruner"] = (
        "HyperbandPruner"
    )
    args: dict[str, Scalar] = {}


class TuneSettings(_Strict):
    """The tuning budget, the same for every contestant, and what may be changed.

    `trials` is the total of each contestant, whatever is killed or joins in between. `epochs` (None: those of train)
    and `data_fraction` are what one trial may use; with `seconds` no trial begins once the trials of a contestant
    have taken so long. `space` is for all contestants, `models` changes it for one, path by path.
    """

    trials: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=1)] | None = None
    data_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seconds: Annotated[float, Field(gt=0.0)] | None = None
    workers: Annotated[int, Field(ge=1, le=64)] | None = None
    sampler: SamplerSettings = SamplerSettings()
    pruner: PrunerSettings = PrunerSettings()
    space: SpaceOverlay = {}
    models: dict[str, SpaceOverlay] = {}


class EvaluateSettings(_Strict):
    """The statistics of the evaluation on test."""

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    bootstrap: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    batch_size: Annotated[int, Field(ge=1)] = 256


class GateSettings(_Strict):
    """What a challenger must meet to become champion; a limit of None is no rule.

    `margin` is how far the paired interval of its accuracy may lie below the champion's, `class_margin` how much less
    often it may be right on any class; both are fractions.
    """

    min_accuracy: Fraction = 0.5
    margin: Fraction = 0.01
    class_margin: Fraction = 0.05
    max_calibration_error: Fraction | None = 0.1
    max_latency_p95_ms: Annotated[float, Field(gt=0.0)] | None = None
    max_size_mb: Annotated[float, Field(gt=0.0)] | None = None


class ExplainSettings(_Strict):
    """How many test images the explanations show, the same for every contestant.

    Up to half as many of a contestant's own mistakes are added.
    """

    images: Annotated[int, Field(ge=2, le=32)] = 8


class NotifySettings(_Strict):
    """Who is told of the end of a flow run: the name of a Prefect notification block, and of which ends."""

    block: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")] | None = None
    ends: list[Literal["completed", "failed", "crashed", "cancelled"]] = ["failed", "crashed"]


class FlowSettings(_Strict):
    """How Prefect runs the stages; nothing here changes a result.

    `timeout_minutes` is per stage, by its name in dvc.yaml without `@<model>`; `default` stands for the others.
    """

    timeout_minutes: dict[str, Annotated[float, Field(gt=0.0)]] = {"default": 1440.0}
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    retry_delay_seconds: Annotated[float, Field(ge=0.0)] = 10.0
    lock_wait_seconds: Annotated[float, Field(ge=0.0)] = 600.0
    keep_days: Annotated[float, Field(ge=0.0)] = 30.0
    notify: NotifySettings = NotifySettings()


class PublishedResult(_Strict):
    """A result that others published on a data set, quoted in the report of that data set; the texts are theirs."""

    dataset: str
    model: str
    accuracy: str
    time_per_epoch: str
    parameters: str
    source: str


class Settings(_Strict):
    """The whole experiment."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    data: DataSettings
    recipe: Recipe
    train: TrainSettings
    tune: TuneSettings
    evaluate: EvaluateSettings
    explain: ExplainSettings
    models: Annotated[dict[str, ModelSettings], Field(min_length=1)]
    gate: GateSettings = GateSettings()
    flow: FlowSettings = FlowSettings()
    published: list[PublishedResult] = []

    @model_validator(mode="before")
    @classmethod
    def _lay_model_recipes_over_the_shared_one(cls, values: Any) -> Any:
        models, shared = values.get("models"), values.get("recipe")
        if not isinstance(models, dict) or not isinstance(shared, dict):
            return values
        merged = {
            name: {**model, "recipe": merge(shared, model.get("recipe") or {})} if isinstance(model, dict) else model
            for name, model in models.items()
        }
        return {**values, "models": merged}

    @model_validator(mode="after")
    def _model_names_are_safe_in_paths(self) -> Self:
        for name in self.models:
            if not (name.isidentifier() and name.islower()):
                raise ValueError(f"models.{name}: a contestant's name is lower-case letters, digits and underscores")
        return self

    @model_validator(mode="after")
    def _devices_get_equal_shares(self) -> Self:
        for name, model in self.models.items():
            if model.recipe.batch_size % self.train.devices:
                raise ValueError(
                    f"models.{name}.recipe.batch_size: {self.train.devices} devices (train.devices) cannot share "
                    f"{model.recipe.batch_size} images equally"
                )
        return self

    @model_validator(mode="after")
    def _search_spaces_fit_the_recipes(self) -> Self:
        for name in self.tune.models:
            if name not in self.models:
                raise ValueError(f"tune.models.{name}: there is no contestant of that name")
        if self.tune.trials > 0:
            for name in self.models:
                self._check_space(name)
        return self

    def space(self, name: str) -> Space:
        """What tuning may change of contestant `name`, each dimension after those that its condition names."""
        key_path = f"tune.models.{name}" if name in self.tune.models else "tune.space"
        return in_order(_without_removed({**self.tune.space, **self.tune.models.get(name, {})}), key_path)

    def _check_space(self, name: str) -> None:
        space, model = self.space(name), self.models[name].model_dump()
        if not space:
            raise ValueError(f"tune.space: nothing is searched for {name}; name a setting, or set tune.trials to 0")
        for path, dimension in space.items():
            key_path = f"{'tune.models.' + name if path in self.tune.models.get(name, {}) else 'tune.space'}.{path}"
            try:
                own = setting_at(model, path)
            except KeyError:
                hint = f"; say its value in models.{name}.args first" if path.startswith("model.args.") else ""
                raise ValueError(f"{key_path}: {name} has no such setting{hint}") from None
            for end in dimension.ends():
                _require_possible(model, path, end, key_path)
            if not dimension.holds(own):
                raise ValueError(
                    f"{key_path}: the recipe's own value for {name}, {own!r}, cannot be drawn from it, and the recipe "
                    "as it is takes part as trial 0: widen the range"
                )

    def model(self, name: str) -> ModelSettings:
        """The contestant `name`. Raises UserError if there is none of that name."""
        if name not in self.models:
            raise UserError(f"models.{name}: no such contestant in params.yaml; there are {', '.join(self.models)}.")
        return self.models[name]


def _without_removed(overlay: Mapping[str, Dimension | None]) -> Space:
    """The dimensions, less those whose path, or a path above it, is None."""
    removed = [path for path, dimension in overlay.items() if dimension is None]
    return {
        path: dimension
        for path, dimension in overlay.items()
        if dimension is not None and not any(path.startswith(f"{gone}.") for gone in removed)
    }


def _require_possible(model: dict[str, Any], path: str, value: Any, key_path: str) -> None:
    try:
        ModelSettings.model_validate(merge(model, at_path(path, value)))
    except ValidationError as error:
        raise ValueError(f"{key_path}: {value!r} is not possible: {error.errors()[0]['msg']}") from None


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `overlay` laid over it, nested mappings key by key."""
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
