"""The settings in params.yaml: frozen, strict, checked."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.config.former import former
from vit_vs_cnn.config.gate import GateSettings, SelectBy
from vit_vs_cnn.config.nested import merge, nest, value_at
from vit_vs_cnn.config.recipe import Recipe
from vit_vs_cnn.config.search_space import Scalar, StrictModel, TuneSettings, settings_path
from vit_vs_cnn.core.errors import UserError


class ModelSettings(StrictModel):
    """One contestant: any timm image model and its recipe."""

    timm: str
    pretrained: bool = False
    weights: str | None = None
    input_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    stem: Literal["timm", "cifar", "conv"] = "timm"
    freeze_backbone: bool = False
    args: dict[str, Scalar | list[Scalar] | None] = Field(default_factory=dict)
    recipe: Recipe = Recipe()


class TrainSettings(StrictModel):
    """The budget, the same for every contestant, and the machine.

    Each batch is shared by `devices` GPUs, or on a CPU by as many processes, of each of `nodes` machines. `calibrate`
    fits a temperature on
    validation after the training, which changes how certain the model is and never what it predicts.
    """

    epochs: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=1)] | None = None
    refit: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    compile: bool = False
    calibrate: bool = True
    checkpoint_gradients: bool = False
    deterministic: bool = False


class EvaluateSettings(StrictModel):
    """The evaluation on test.

    `views` is how many views of each image an additional row averages: 1 (no such row), the image with its mirror
    image, or six. What is registered and what the tests compare is the plain model.
    """

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    batch_size: Annotated[int, Field(ge=1)] = 256
    views: Literal[1, "flip", 6] = 1


class RobustnessSettings(StrictModel):
    """How many test images, or all, are measured under each corruption; the same for every contestant."""

    images: Annotated[int, Field(ge=10)] = 1000


class CompareSettings(StrictModel):
    """When contestants are practically equal: where the interval of their difference is within `margin` of 0."""

    margin: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01


class ExplainSettings(StrictModel):
    """How many test images the explanations show, the same for every contestant.

    Up to half as many of a contestant's own mistakes are added.
    """

    images: Annotated[int, Field(ge=2, le=32)] = 8


class FlowSettings(StrictModel):
    """How Prefect runs the stages; nothing here changes a result.

    `timeout_minutes` is per stage, by its name in dvc.yaml without `@<contestant>`; `default` stands for the others.
    """

    timeout_minutes: dict[str, Annotated[float, Field(gt=0.0)]] = Field(default={"default": 1440.0})
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    retry_delay_seconds: Annotated[float, Field(ge=0.0)] = 10.0
    lock_wait_seconds: Annotated[float, Field(ge=0.0)] = 600.0
    keep_days: Annotated[float, Field(ge=0.0)] = 30.0


class PublishedResult(StrictModel):
    """A result that others published on a data set, quoted in the report of that data set; the texts are theirs."""

    dataset: str
    model: str
    accuracy: str
    time_per_epoch: str
    parameters: str
    source: str


class Settings(StrictModel):
    """The whole experiment.

    Every contestant is trained once with each of the `seeds`: these trainings are its replicates.
    """

    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    select_by: SelectBy = "accuracy"
    data: DataSettings
    recipe: Recipe
    train: Annotated[TrainSettings, former("compile", lambda value: value == "auto")]
    tune: TuneSettings
    evaluate: Annotated[EvaluateSettings, former("bootstrap", lambda _: True)]
    robustness: RobustnessSettings = RobustnessSettings()
    compare: CompareSettings = CompareSettings()
    explain: ExplainSettings
    models: Annotated[dict[str, ModelSettings], Field(min_length=1)]
    gate: GateSettings = GateSettings()
    flow: Annotated[
        FlowSettings,
        former(
            "notify",
            lambda value: isinstance(value, Mapping) and value.get("block") is None,
            "make an automation in Prefect's pages (Automations) that sends a notification when a flow run fails",
        ),
    ] = FlowSettings()
    published: list[PublishedResult] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _read_the_former_seed(cls, values: Any) -> Any:
        """Up to version 0.1 there was one."""
        if "seed" not in values:
            return values
        if "seeds" in values:
            raise ValueError("seed: it is seeds now, a list, e.g. --set 'seeds=[1]'")
        return {key: value for key, value in values.items() if key != "seed"} | {"seeds": [values["seed"]]}

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
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: each may be there once")
        return self

    @model_validator(mode="after")
    def _contestants_are_safe_in_paths(self) -> Self:
        for contestant in self.models:
            if not (contestant.isidentifier() and contestant.islower()):
                raise ValueError(
                    f"models.{contestant}: a contestant's name is lower-case letters, digits and underscores"
                )
        return self

    @model_validator(mode="after")
    def _devices_get_equal_shares(self) -> Self:
        for contestant, model in self.models.items():
            devices = self.train.devices * self.train.nodes
            if model.recipe.batch_size % devices:
                keys = "train.devices" if self.train.nodes == 1 else "train.devices × train.nodes"
                raise ValueError(
                    f"models.{contestant}.recipe.batch_size: {devices} devices ({keys}) cannot share "
                    f"{model.recipe.batch_size} images equally"
                )
        return self

    @model_validator(mode="after")
    def _search_spaces_fit_the_recipes(self) -> Self:
        for contestant in self.tune.models:
            if contestant not in self.models:
                raise ValueError(f"tune.models.{contestant}: there is no contestant of that name")
        if self.tune.trials > 0:
            for contestant in self.models:
                self._check_space(contestant)
        return self

    def _check_space(self, contestant: str) -> None:
        space, model = self.tune.space_of(contestant), self.models[contestant].model_dump()
        if not space:
            raise ValueError(
                f"tune.space: nothing is searched for {contestant}; name a setting, or set tune.trials to 0"
            )
        for path, dimension in space.items():
            key_path = self.tune.key_path(contestant, path)
            try:
                own = value_at(model, settings_path(path))
            except KeyError:
                hint = f"; set it in models.{contestant}.args first" if path.startswith("model.args.") else ""
                raise ValueError(f"{key_path}: {contestant} has no such setting{hint}") from None
            for end in dimension.ends():
                try:
                    ModelSettings.model_validate(merge(model, nest({settings_path(path): end})))
                except ValidationError as error:
                    raise ValueError(f"{key_path}: {end!r} is not possible: {error.errors()[0]['msg']}") from None
            if not dimension.holds(own):
                raise ValueError(
                    f"{key_path}: the recipe's own value for {contestant}, {own!r}, cannot be drawn from it, and the "
                    "recipe as it is takes part as trial 0: widen the range"
                )

    @property
    def seed(self) -> int:
        """The seed of the tuning, and of a training where there is one: the first."""
        return self.seeds[0]

    def of_seed(self, seed: int) -> Self:
        """The settings of the replicates with this seed alone. Raises UserError where it is none of `seeds`."""
        if seed not in self.seeds:
            raise UserError(f"--seed {seed}: seeds in params.yaml are {', '.join(map(str, self.seeds))}.")
        return self.model_copy(update={"seeds": [seed]})

    def model(self, contestant: str) -> ModelSettings:
        """The network and the recipe of a contestant. Raises UserError where there is no contestant of that name."""
        if contestant not in self.models:
            raise UserError(
                f"models.{contestant}: no such contestant in params.yaml; there are {', '.join(self.models)}."
            )
        return self.models[contestant]
