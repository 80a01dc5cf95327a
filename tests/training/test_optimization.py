"""The learning rate from step to step, and which optimizer changes which parameter."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.scheduler import CosineLRScheduler

from vit_vs_cnn.config.schema import OptimizerSettings, Recipe, ScheduleSettings
from vit_vs_cnn.training.optimization import learning_rate, set_learning_rate

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
    # The last update itself is one step of the schedule away, never more than a line would be.
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
