"""How often the answers about several trainings of two contestants are right: tables in Markdown, by simulation.

    python benchmarks/replicates.py

An image has an ease for all networks, one more for each contestant and one more for each training (normal, of variance
0.75, 0.10 and 0.15). A training has its own level; their variance is a ratio of the variance by images of one pair,
but no training's deviation is more than half of the error rate. Of unequal contestants one has 95 % of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

from record import json_option, mlflow_option, publish
from vit_vs_cnn.evaluation.replicates import (
    ChanceModel,
    TrainingChance,
    chance_model,
    mean_accuracy,
)

CONFIDENCE, TAIL, MARGIN, SEED = 0.95, 0.025, 0.01, 0
SEEDS = (1, 2, 3, 5, 10)
ROUNDS = {60: 20_000, 300: 10_000, 1_000: 5_000, 10_000: 2_000}
ACCURACIES = (0.75, 0.92, 0.98)
RATIOS = (0.1, 1.0, 10.0)
DIFFERENCES = (0.0, 0.01, 0.03)
SHARED, OWN, RESIDUAL = 0.75, 0.10, 0.15
UNEQUAL, RESAMPLES = 0.95, 500
GROUPS, IMAGES_OF_GROUP = (20, 50, 200), 5

Shares = NDArray[np.float64]
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(81)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Scenario:
    """Two contestants: the accuracy of the first, the difference, variance of training to images, shared equally?"""

    accuracy: float
    ratio: float
    difference: float
    equal: bool

    def levels(self, images: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where on the scale of ease each stands, and the deviation of its trainings there."""
        variance = self.ratio * _divided(self.accuracy, SHARED) / images
        first = variance * (0.5 if self.equal else UNEQUAL)
        return _level(self.accuracy, first), _level(self.accuracy - self.difference, variance - first)


@click.command()
@click.option("--speed", default=1.0, show_default=True, help="How many times fewer rounds.")
@json_option
@mlflow_option
def main(speed: float, file: Path | None, to_mlflow: bool) -> None:
    """Print coverage, errors and power of the answers about several trainings."""
    rng = np.random.default_rng(SEED)
    scenarios = [
        Scenario(accuracy, ratio, difference, equal)
        for accuracy in ACCURACIES
        for ratio in RATIOS
        for difference, equal in [*((difference, True) for difference in DIFFERENCES), (0.0, False)]
    ]
    rounds = {images: max(100, int(count / speed)) for images, count in ROUNDS.items()}
    models = {images: _models(rng, images, count, scenarios) for images, count in rounds.items()}
    counts = ", ".join(f"{count:,} of {images:,} images" for images, count in rounds.items())
    divided = _percent(_divided(0.92, SHARED + OWN), _divided(0.92, SHARED))
    print(
        f"Rounds of each scenario: {counts}. Two trainings of one / of two, 92 %, are divided by {divided} % of images."
    )
    results = {
        "coverage": _print_coverage(models),
        "better under equality": _print_errors(models),
        "answers": _print_answers(models),
        "bootstrap": _print_bootstrap(rounds[1_000]),
        "mean accuracy": _print_mean_accuracy(rounds[1_000] // 5),
        "groups": _print_groups(rounds[1_000] // 5),
    }
    publish("replicates", results, file, to_mlflow=to_mlflow)


Models = Mapping[tuple[Scenario, int], ChanceModel]


def _print_coverage(models: Mapping[int, Models]) -> dict[str, list[float]]:
    print("\n95 % intervals that hold the true difference, %: the lowest of 3 accuracies × 4 pairs of contestants:\n")
    return _print_grid(models, lambda scenario, model: _holds(model, scenario.difference).mean(), min)


def _print_errors(models: Mapping[int, Models]) -> dict[str, list[float]]:
    print("\nTruly equal contestants of which one is called better, %: the highest of 3 accuracies × 2 pairs:\n")
    return _print_grid(
        models, lambda scenario, model: np.nan if scenario.difference else 1 - _holds(model, 0.0).mean(), np.nanmax
    )


def _print_grid(models: Mapping[int, Models], rate: Any, worst: Any) -> dict[str, list[float]]:
    _print_row("images", "training : images", *_names(SEEDS))
    _print_row(*["---"] * (2 + len(SEEDS)))
    results = {}
    for images, of_images in models.items():
        for ratio in RATIOS:
            cells = [
                worst(
                    [
                        rate(key[0], model)
                        for key, model in of_images.items()
                        if (key[0].ratio, key[1]) == (ratio, seeds)
                    ]
                )
                for seeds in SEEDS
            ]
            results[f"{images} images {ratio:g}"] = [float(cell) for cell in cells]
            _print_row(f"{images:,}", _ratio(ratio), *map(_percent, cells))
    return results


def _print_answers(models: Mapping[int, Models]) -> dict[str, list[float]]:
    print("\nAccuracy 92 %, margin 1 point: one is better / practically equal, % (the others are undecided):\n")
    _print_row("true difference", "images", "training : images", *_names(SEEDS))
    _print_row(*["---"] * (3 + len(SEEDS)))
    results = {}
    for difference in DIFFERENCES:
        for images, of_images in list(models.items())[1:]:
            for ratio in RATIOS[:2]:
                cells = []
                for seeds in SEEDS:
                    model = of_images[Scenario(0.92, ratio, difference, equal=True), seeds]
                    better = ~_holds(model, 0.0)
                    cells += [better.mean(), (model.is_settled(MARGIN, TAIL) & ~better).mean()]
                results[f"{difference:g} {images} images {ratio:g}"] = [float(cell) for cell in cells]
                pairs = [f"{_percent(*cells[at : at + 2])}" for at in range(0, len(cells), 2)]
                _print_row(f"{100 * difference:g} points", f"{images:,}", _ratio(ratio), *pairs)
    return results


def _print_bootstrap(rounds: int) -> dict[str, list[float]]:
    print("\nDifferences of two mean accuracies that only training makes vary: intervals that hold the truth, %:\n")
    _print_row("interval", *_names(SEEDS[2:]))
    _print_row(*["---"] * (1 + len(SEEDS[2:])))
    rng = np.random.default_rng(SEED)
    results: dict[str, list[float]] = {"percentile bootstrap of seeds": [], "t quantiles by seeds": []}
    for seeds in SEEDS[2:]:
        accuracies = rng.normal(size=(2, rounds, seeds))
        drawn = [of_one[:, rng.integers(0, seeds, (RESAMPLES, seeds))].mean(axis=-1) for of_one in accuracies]
        low, high = np.quantile(drawn[0] - drawn[1], [TAIL, 1 - TAIL], axis=1)
        results["percentile bootstrap of seeds"].append(float(((low <= 0) & (high >= 0)).mean()))
        chances = tuple(TrainingChance(of_one.var(axis=1, ddof=1), 0.0, seeds - 1, seeds) for of_one in accuracies)
        model = ChanceModel(accuracies[0].mean(axis=1) - accuracies[1].mean(axis=1), 0.0, 0.0, 1.0, np.inf, chances)
        results["t quantiles by seeds"].append(float(_holds(model, 0.0).mean()))
    for name, shares in results.items():
        _print_row(name, *map(_percent, shares))
    return results


def _print_mean_accuracy(rounds: int) -> dict[str, list[float]]:
    print(f"\nIntervals of one's mean accuracy that hold it, %: the lowest of 3 accuracies ({rounds:,} rounds):\n")
    _print_row("images", "training : images", *_names(SEEDS))
    _print_row(*["---"] * (2 + len(SEEDS)))
    rng, results = np.random.default_rng(SEED), {}
    for images in (60, 300, 1_000):
        for ratio in RATIOS:
            held = np.zeros((len(ACCURACIES), len(SEEDS)))
            for row, accuracy in enumerate(ACCURACIES):
                level = _level(accuracy, ratio * accuracy * (1 - accuracy) / images)
                for first, _ in _draw(rng, images, rounds, [(level, level)]):
                    for column, seeds in enumerate(SEEDS):
                        found = [mean_accuracy(correct[:seeds], CONFIDENCE) for correct in first]
                        held[row, column] += sum(mean.low <= accuracy <= mean.high for mean in found)
            results[f"{images} images {ratio:g}"] = cells = [float(cell) for cell in held.min(axis=0) / rounds]
            _print_row(f"{images:,}", _ratio(ratio), *map(_percent, cells))
    return results


def _print_groups(rounds: int) -> dict[str, list[float]]:
    print(f"\nEqual contestants, 75 %, 1 : 1, {IMAGES_OF_GROUP} alike images per group ({rounds:,} rounds), held, %:\n")
    _print_row("groups", "by", *_names(SEEDS))
    _print_row(*["---"] * (2 + len(SEEDS)))
    rng, results = np.random.default_rng(SEED), {}
    for count in GROUPS:
        groups, images = np.repeat(np.arange(count), IMAGES_OF_GROUP), count * IMAGES_OF_GROUP
        held = np.zeros((2, len(SEEDS)))
        levels = Scenario(0.75, 1.0, 0.0, equal=True).levels(images)
        for pair in _draw(rng, images, rounds, [levels], IMAGES_OF_GROUP):
            for first, second in zip(*pair, strict=True):
                for column, seeds in enumerate(SEEDS):
                    for row, codes in enumerate((None, groups)):
                        held[row, column] += _holds(chance_model(first[:seeds], second[:seeds], codes), 0.0)
        for row, name in zip(held / rounds, ("images", "groups"), strict=True):
            results[f"{count} groups by {name}"] = [float(cell) for cell in row]
            _print_row(f"{count}", name, *map(_percent, row))
    return results


def _models(rng: np.random.Generator, images: int, rounds: int, scenarios: list[Scenario]) -> Models:
    """The model of each scenario and number of seeds with arrays (rounds,), as chance_model has them of one round."""
    moments: dict[tuple[Scenario, int], list[Any]] = {}
    levels = [scenario.levels(images) for scenario in scenarios]
    for at, pair in enumerate(_draw(rng, images, rounds, levels)):
        for seeds in SEEDS:
            accuracies = [correct[:, :seeds].sum(axis=-1, dtype=np.uint32) / images for correct in pair]
            first, second = (correct[:, :seeds].sum(axis=1, dtype=np.uint8).astype(np.float32) for correct in pair)
            products = [
                np.einsum("rn,rn->r", *factors).astype(np.float64) / images / seeds**2
                for factors in ((first, first), (second, second), (first, second))
            ]
            moments.setdefault((scenarios[at % len(scenarios)], seeds), []).append((*accuracies, *products))
            if at < len(scenarios):
                model = _model(images, *accuracies, *products)
                one = chance_model(pair[0][0, :seeds], pair[1][0, :seeds])
                np.testing.assert_allclose(model.squared_reach(0.02, TAIL)[0], one.squared_reach(0.02, TAIL), rtol=1e-6)
    return {key: _model(images, *map(np.concatenate, zip(*parts, strict=True))) for key, parts in moments.items()}


def _model(images: int, first: Shares, second: Shares, own: Shares, other: Shares, both: Shares) -> ChanceModel:
    """From accuracies (R, S), and means over images of squares and product of the shares of right trainings (R,)."""
    seeds, means = first.shape[1], (first.mean(axis=1), second.mean(axis=1))
    difference = means[0] - means[1]
    of_one_pair = images * (means[0] + means[1] - 2 * both - difference**2)
    of_means = images * (own + other - 2 * both - difference**2)
    trainings = []
    for accuracies, mean, square in ((first, means[0], own), (second, means[1], other)):
        if seeds > 1:
            variance = accuracies.var(axis=1, ddof=1)
            residual = (seeds / (seeds - 1) * (mean - square) - variance) / (images - 1)
            trainings.append(TrainingChance(variance, residual, seeds - 1, seeds))
    counted = images * (of_one_pair + 1) / (of_means + 1)
    return ChanceModel(difference, means[0] - both, means[1] - both, counted, np.inf, tuple(trainings))


def _draw(
    rng: np.random.Generator, images: int, rounds: int, levels: list[Any], images_of_group: int = 1
) -> Iterator[list[NDArray[np.bool_]]]:
    """Who is right, bool (R, S, N) of each contestant, of all levels in turn on the same images, in parts."""
    part, seeds = max(1, 1_000_000 // images), max(SEEDS)

    def ease(variance: float, *shape: int) -> Any:
        return np.float32(np.sqrt(variance)) * rng.standard_normal(shape, dtype=np.float32)

    for count in [part] * (rounds // part) + [rounds % part] * (rounds % part > 0):
        drawn = images // images_of_group
        shared = ease(SHARED, count, 1, drawn)
        eases = [shared + ease(OWN, count, 1, drawn) for _ in range(2)]
        eases = [np.repeat(own, images_of_group, axis=2) + ease(RESIDUAL, count, seeds, images) for own in eases]
        trainings = rng.standard_normal((2, count, seeds))
        for pair in levels:
            yield [
                own > -(level + deviation * training).astype(np.float32)[..., None]
                for own, training, (level, deviation) in zip(eases, trainings, pair, strict=True)
            ]


def _level(accuracy: float, variance: float) -> tuple[float, float]:
    """The level and the deviation of trainings with this mean accuracy and variance of accuracy, as far as can be."""

    def excess(deviation: float) -> float:
        shares = norm.cdf(norm.ppf(accuracy) * np.sqrt(1 + deviation**2) + deviation * NODES)
        return float(np.square(shares - accuracy) @ WEIGHTS) - min(variance, ((1 - accuracy) / 2) ** 2)

    deviation = float(brentq(excess, 0.0, 5.0))
    return float(norm.ppf(accuracy) * np.sqrt(1 + deviation**2)), deviation


def _divided(accuracy: float, shared: float) -> float:
    """The share of the images that one of two networks is right on alone, which share so much of the ease."""
    both = multivariate_normal.cdf([norm.ppf(accuracy)] * 2, cov=[[1, shared], [shared, 1]])
    return float(2 * (accuracy - both))


def _holds(model: ChanceModel, difference: float) -> Any:
    return (model.difference - difference) ** 2 <= model.squared_reach(difference, TAIL)


def _names(seeds: tuple[int, ...]) -> list[str]:
    return [f"{count} seed{'s' if count > 1 else ''}" for count in seeds]


def _ratio(ratio: float) -> str:
    return f"{max(ratio, 1):g} : {max(1 / ratio, 1):g}"


def _percent(*shares: float) -> str:
    return " / ".join(f"{100 * share:.1f}" for share in shares)


def _print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
