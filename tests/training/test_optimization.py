"""The learning rate from step to step, and which optimizer changes which parameter."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.scheduler import CosineLRScheduler

from vit_vs_cnn.config.recipe import OptimizerSettings, Recipe, ScheduleSettings
from vit_vs_cnn.config.schema import ModelSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.models.build import create_model
from vit_vs_cnn.training.optimization import create_optimizer, learning_rate, set_learning_rate

rates = st.floats(1e-7, 10.0)
budgets = st.tuples(st.integers(1, 30), st.integers(1, 20))


def recipe(name: str, lr: float, min_lr: float, warmup_epochs: int) -> Recipe:
    schedule = ScheduleSettings.model_validate({"name": name, "warmup_epochs": warmup_epochs, "min_lr": min_lr})
    return Recipe(optimizer=OptimizerSettings(lr=lr), schedule=schedule)


@given(st.sampled_from(["cosine", "linear"]), rates, st.just(0.0) | rates, st.integers(0, 40), budgets)
def test_after_the_warm_up_the_rate_falls_to_min_lr(
    name: str, lr: float, min_lr: float, warmup_epochs: int, budget: tuple[int, int]
) -> None:
    epochs, steps = budget
    course = [
        learning_rate(recipe(name, lr, min_lr, warmup_epochs), epochs, steps, done)
        for done in range(epochs * steps + 1)
    ]
    warmup = min(warmup_epochs, epochs // 2) * steps
    assert all(before < after for before, after in itertools.pairwise(course[:warmup]))
    assert all(before >= after for before, after in itertools.pairwise(course[warmup:]))
    assert max(course) <= lr * (1 + 1e-12)
    assert course[-1] == min(lr, min_lr)
    # The last update itself differs by one step of the schedule, never more than a line would be.
    assert course[-2] - course[-1] <= (lr - course[-1]) / (len(course) - 1 - warmup) * (1 + 1e-9)


@given(rates, st.just(0.0) | rates, st.integers(0, 40), budgets)
def test_the_cosine_is_timm_s_to_the_last_digit(
    lr: float, min_lr: float, warmup_epochs: int, budget: tuple[int, int]
) -> None:
    epochs, steps = budget
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    timm_s = CosineLRScheduler(
        optimizer,
        t_initial=epochs * steps,
        lr_min=min(lr, min_lr),
        warmup_t=min(warmup_epochs, epochs // 2) * steps,
        warmup_lr_init=lr / 100,
        t_in_epochs=False,
    )
    for done in range(epochs * steps + 1):
        timm_s.step_update(done)
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(recipe("cosine", lr, min_lr, warmup_epochs), epochs, steps, done) == expected


def test_a_line_after_two_epochs_of_warm_up() -> None:
    course = [learning_rate(recipe("linear", 1.0, 0.2, 2), 4, 2, done) for done in range(9)]
    assert course == pytest.approx([0.01, 0.2575, 0.505, 0.7525, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_the_rate_of_every_group_is_set() -> None:
    parameters = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 3.0}], lr=1.0)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


NETWORKS = {
    "vit": ModelSettings(
        timm="vit_tiny_patch16_224", args={"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    ),
    "resnet": ModelSettings(timm="resnet10t", args={"channels": [8, 8, 16, 16], "stem_width": 8}),
    "distilled": ModelSettings(
        timm="deit_tiny_distilled_patch16_224",
        args={"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2},
    ),
    "airbench": ModelSettings(timm="airbench94", args={"widths": [8, 8, 8]}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_muon_changes_the_same_parameters_whatever_the_number_of_classes(name: str) -> None:
    routes = []
    for classes in (2, 3, 4, 10):
        network = create_model(NETWORKS[name], classes, 32)
        optimizer = create_optimizer(network, Recipe(optimizer=OptimizerSettings(name="muon")), "recipe")
        output = network(torch.randn(2, 3, 32, 32))
        output.square().sum().backward()
        optimizer.step()
        states = {path: optimizer.state[parameter] for path, parameter in network.named_parameters()}
        routes.append({path for path, state in states.items() if state.get("use_muon")})
    matrices = {path for path, parameter in network.named_parameters() if parameter.ndim in (2, 4)}
    assert routes == [matrices - {"head.weight", "head_dist.weight", "fc.weight", "whiten.weight"}] * 4


def optimizer_with(**settings: Any) -> torch.optim.Optimizer:
    recipe = Recipe(optimizer=OptimizerSettings(**settings))
    return create_optimizer(create_model(NETWORKS["resnet"], 3, 32), recipe, "models.resnet.recipe")


def test_further_arguments_reach_the_optimizer() -> None:
    arguments: dict[str, Any] = {"ns_steps": 3, "betas": [0.8, 0.9], "fallback_lr_scale": 0.5}
    for group in optimizer_with(name="nmuon", args=arguments).param_groups:
        assert (group["ns_steps"], group["betas"], group["fallback_lr_scale"]) == (3, (0.8, 0.9), 0.5)
        assert group["nesterov"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"args": {"ns_steps": 3}}, r"optimizer\.args: adamw cannot be set up: .*ns_steps"),
        ({"args": {"betas": [0.9, 2.0]}}, r"optimizer\.args: adamw cannot be set up: Invalid beta"),
        ({"args": {"lr": 0.1}}, r"optimizer\.args: adamw cannot be set up: .*'lr'"),
        ({"name": "sgd", "args": {"betas": [0.9, 0.9]}}, r"optimizer\.args: sgd has no argument betas\."),
        ({"args": {"filter_bias_and_bn": False}}, r"optimizer\.args: adamw has no argument filter_bias_and_bn\."),
    ],
)
def test_an_argument_that_an_optimizer_does_not_take_is_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=rf"^models\.resnet\.recipe\.{sentence}"):
        optimizer_with(**settings)


@pytest.mark.parametrize("optimizer_name", ["adamw", "muon"])
@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (
            ModelSettings(timm="vit_tiny_patch16_224", args={"embed_dim": 24, "depth": 2}),
            ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.bias", "head.weight"),
        ),
        (
            ModelSettings(timm="airbench96", args={"widths": [8, 8]}),
            ("whiten.bias", "groups.0.conv1.weight", "groups.1.norm3.bias", "head.weight"),
        ),
    ],
)
def test_layer_decay_lowers_the_rate_from_the_classifier_down(
    model: ModelSettings, layers: tuple[str, ...], optimizer_name: str
) -> None:
    network = create_model(model, 3, 32)
    recipe = Recipe(optimizer=OptimizerSettings(name=optimizer_name), layer_decay=0.5)
    optimizer = create_optimizer(network, recipe, "recipe")
    set_learning_rate(optimizer, 0.8)
    rates = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert [rates[network.get_parameter(layer)] for layer in layers] == pytest.approx([0.1, 0.2, 0.4, 0.8])
