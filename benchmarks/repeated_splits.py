"""How often intervals of repeated splits hold the true difference: a table in Markdown, by simulation.

    python benchmarks/repeated_splits.py

Each round draws a data set of two classes, splits it again and again, and compares the linear discriminant with the
nearest centroid; the true difference is the mean over fresh data sets of the size of a training split.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from record import json_option, mlflow_option, publish
from vit_vs_cnn.evaluation.replicates import repeated_splits_interval

CONFIDENCE, SEED = 0.95, 0
SPLITS = (2, 3, 5, 10, 30)
IMAGES, TEST = 200, 40
FEATURES, DISTANCE = 10, 2.0


@click.command()
@click.option("--rounds", default=4000, show_default=True, help="Simulated data sets.")
@json_option
@mlflow_option
def main(rounds: int, file: Path | None, to_mlflow: bool) -> None:
    """Print how many per cent of the intervals hold the true difference."""
    rng = np.random.default_rng(SEED)
    fresh = [_difference(*_data(rng, IMAGES - TEST), *_data(rng, 20 * TEST)) for _ in range(10 * rounds)]
    truth, held = float(np.mean(fresh)), np.zeros((2, len(SPLITS)))
    for _ in range(rounds):
        features, labels = _data(rng, IMAGES)
        orders = [rng.permutation(IMAGES) for _ in range(max(SPLITS))]
        parts = [(order[TEST:], order[:TEST]) for order in orders]
        found = np.array([_difference(features[a], labels[a], features[b], labels[b]) for a, b in parts])
        for column, splits in enumerate(SPLITS):
            mean, error = found[:splits].mean(), found[:splits].std(ddof=1) / np.sqrt(splits)
            low, high = repeated_splits_interval(found[:splits], IMAGES - TEST, TEST, CONFIDENCE)
            held[:, column] += (
                abs(mean - truth) <= t.ppf((1 + CONFIDENCE) / 2, splits - 1) * error,
                low <= truth <= high,
            )
    results = dict(zip(("Student's t", "Nadeau and Bengio, one image more"), (held / rounds).tolist(), strict=True))
    print(f"{IMAGES} images, {TEST} of them for test, {rounds:,} rounds; intervals that hold the true difference, %:\n")
    _print_row("interval", *(f"{splits} splits" for splits in SPLITS))
    _print_row(*["---"] * (1 + len(SPLITS)))
    for name, shares in results.items():
        _print_row(name, *(f"{100 * share:.1f}" for share in shares))
    publish("repeated-splits", results, file, to_mlflow=to_mlflow)


def _data(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    labels = rng.random(count) < 0.5
    features = rng.normal(size=(count, FEATURES))
    features[:, 0] += DISTANCE * labels
    return features, labels


def _difference(features: Any, labels: Any, test: Any, truth: Any) -> float:
    """The accuracy on `test` of the linear discriminant less that of the nearest centroid."""
    low, high = features[~labels], features[labels]
    middle, direction = (low.mean(axis=0) + high.mean(axis=0)) / 2, high.mean(axis=0) - low.mean(axis=0)
    within = np.cov(np.concatenate([low - low.mean(axis=0), high - high.mean(axis=0)]).T)
    said = (test - middle) @ np.stack([np.linalg.solve(within, direction), direction], axis=1) > 0
    discriminant, centroid = (said == truth[:, None]).mean(axis=0)
    return float(discriminant - centroid)


def _print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
