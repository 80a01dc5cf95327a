"""How often 95 % intervals hold the truth where images come in groups: by images, and by groups; by simulation.

    python benchmarks/group_intervals.py

Each round draws a test set of people with five photographs each. Every person is easier or harder for both models and
for each, so their photographs are right or wrong together. Beside them stand as many independent images.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from record import json_option, mlflow_option, publish
from vit_vs_cnn.config.gate import SelectBy
from vit_vs_cnn.evaluation.calibration import (
    calibration_error_interval,
    expected_calibration_error,
    reliability_table,
)
from vit_vs_cnn.evaluation.clusters import sign_flip_p_values
from vit_vs_cnn.evaluation.metrics import share_interval
from vit_vs_cnn.evaluation.paired_difference import paired_difference
from vit_vs_cnn.evaluation.results import Predictions

CONFIDENCE = 0.95
SEED = 0
IMAGES_OF_GROUP = 5
GROUPS = (20, 50, 200)
CLASSES = 4
# Logits of the true class: where the models stand, and how much of their spread is the person's, shared and own.
LEVELS = (3.2, 2.7)
PERSON, OWN, IMAGE = 1.8, 1.8, 1.0
TRUTH_GROUPS = 100_000
# A challenger that loses this margin truly, in whole persons mostly; the gate may let 2.5 % of such pass.
MARGIN = 0.02
PAIRED: tuple[SelectBy, ...] = ("accuracy", "balanced_accuracy", "macro_f1", "nll")

Pair = tuple[Predictions, Predictions]


@click.command()
@click.option("--rounds", default=2000, show_default=True, help="Simulated test sets of each size.")
@json_option
@mlflow_option
def main(rounds: int, file: Path | None, to_mlflow: bool) -> None:
    """Print how many per cent of the intervals hold the true value, by images and by groups."""
    rng = np.random.default_rng(SEED)
    truth = _truth(rng)
    results: dict[str, list[float]] = {}
    print(f"95 % intervals of test sets with {IMAGES_OF_GROUP} correlated images per group that hold the truth, %:\n")
    _print_row("interval", "groups", "by images", "by groups", "independent images, by images")
    _print_row(*["---"] * 5)
    for count in GROUPS:
        covered: dict[str, list[NDArray[np.bool_]]] = {}
        alone = _rounds(rng, count * IMAGES_OF_GROUP, rounds, images_of_group=1)
        for pair, independent in zip(_rounds(rng, count, rounds), alone, strict=True):
            for name, interval in _intervals().items():
                ends = np.array([interval(*_ungrouped(pair)), interval(*pair), interval(*_ungrouped(independent))])
                covered.setdefault(name, []).append((ends[:, 0] <= truth[name]) & (truth[name] <= ends[:, 1]))
        for name, held in covered.items():
            results[f"{name} {count} groups"] = shares = [float(share) for share in np.mean(held, axis=0)]
            _print_row(name, f"{count}", *(f"{100 * share:.1f}" for share in shares))
    print("\nTwo models that are truly equal are told apart (p < 0.05), % of rounds:\n")
    _print_row("groups", "McNemar, by images", "sign flips, by groups")
    _print_row(*["---"] * 3)
    for count in GROUPS:
        found = []
        for first, second in _rounds(rng, count, rounds, levels=(LEVELS[0], LEVELS[0])):
            differences = first.correct.astype(np.int64) - second.correct
            found.append([sign_flip_p_values(differences, groups)[0] < 0.05 for groups in (None, first.group_codes)])
        results[f"equal {count} groups"] = shares = [float(share) for share in np.mean(found, axis=0)]
        _print_row(f"{count}", *(f"{100 * share:.1f}" for share in shares))
    print(f"\nA true loss of exactly the margin ({100 * MARGIN:g} points) in whole groups, which 2.5 % may pass, %:\n")
    _print_row("groups", "champion right on", "by images", "by groups")
    _print_row(*["---"] * 4)
    for count in (50, 200, 1000):
        for share in (1.0, 0.95):
            passed = [_passes(rng, count, share) for _ in range(rounds)]
            results[f"margin {count} groups {share:g}"] = shares = [float(rate) for rate in np.mean(passed, axis=0)]
            _print_row(f"{count}", f"{100 * share:g} %", *(f"{100 * rate:.1f}" for rate in shares))
    publish("group-intervals", results, file, to_mlflow=to_mlflow)


def _intervals() -> dict[str, Callable[[Predictions, Predictions], tuple[float, float]]]:
    def calibration_error(first: Predictions, _: Predictions) -> tuple[float, float]:
        return calibration_error_interval(first.probabilities, first.labels, CONFIDENCE, first.group_codes)

    def difference(select_by: SelectBy) -> Callable[[Predictions, Predictions], tuple[float, float]]:
        def interval(first: Predictions, second: Predictions) -> tuple[float, float]:
            found = paired_difference(select_by, first, second, CONFIDENCE)
            return found.low, found.high

        return interval

    return {
        "accuracy": lambda first, _: share_interval(first.correct, first.group_codes, CONFIDENCE),
        "calibration error": calibration_error,
        **{f"difference of {select_by}": difference(select_by) for select_by in PAIRED},
    }


def _truth(rng: np.random.Generator) -> dict[str, float]:
    """The same numbers on very many groups."""
    ((first, second),) = _rounds(rng, TRUTH_GROUPS, 1)
    differences = {
        f"difference of {name}": paired_difference(name, *_ungrouped((first, second)), CONFIDENCE).value
        for name in PAIRED
    }
    error = expected_calibration_error(reliability_table(first.probabilities, first.labels))
    return {"accuracy": float(first.correct.mean()), "calibration error": error, **differences}


def _rounds(
    rng: np.random.Generator,
    count: int,
    rounds: int,
    levels: tuple[float, float] = LEVELS,
    images_of_group: int = IMAGES_OF_GROUP,
) -> Iterator[Pair]:
    groups = np.repeat(np.arange(count), images_of_group)
    names = tuple(map(str, groups))
    for _ in range(rounds):
        labels, shared = rng.integers(0, CLASSES, len(groups)), rng.normal(0, PERSON, count)
        yield tuple(  # type: ignore[misc]
            _predictions(rng, labels, groups, names, level + shared + rng.normal(0, OWN, count)) for level in levels
        )


def _predictions(
    rng: np.random.Generator,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    names: tuple[str, ...],
    ease: NDArray[np.float64],
) -> Predictions:
    logits = rng.normal(0, IMAGE, (len(labels), CLASSES))
    logits[np.arange(len(labels)), labels] += ease[groups]
    exponentials = np.exp(logits)
    probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return Predictions((), labels, probabilities.argmax(axis=1), probabilities, names)


def _ungrouped(pair: Pair) -> Pair:
    first, second = pair
    return replace(first, groups=None), replace(second, groups=None)


def _passes(rng: np.random.Generator, count: int, share: float) -> list[bool]:
    """Whether the interval lies above −margin, by images and by groups, for a challenger that loses whole groups."""
    groups = np.repeat(np.arange(count), IMAGES_OF_GROUP)
    lost, wrong = rng.random(count) < MARGIN / share, rng.random(len(groups)) >= share
    labels = np.zeros(len(groups), np.int64)
    names, even = tuple(map(str, groups)), np.ones((len(groups), 2), np.float32)
    pair = [
        Predictions((), labels, is_wrong.astype(np.int64), even, names) for is_wrong in (wrong | lost[groups], wrong)
    ]
    return [
        paired_difference("accuracy", *chosen, CONFIDENCE).low >= -MARGIN
        for chosen in (_ungrouped((pair[0], pair[1])), (pair[0], pair[1]))
    ]


def _print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
