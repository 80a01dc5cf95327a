"""What the gate decides about models that are truly better, equal or worse: tables in Markdown, by simulation.

    python benchmarks/gate_power.py

A table of counts is drawn for each round: images that only the challenger is right on, and images that only the
champion is right on. The bootstrap and the point losses of earlier releases stand beside today's rules.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from record import json_option, mlflow_option, publish
from vit_vs_cnn.config.gate import GateSettings
from vit_vs_cnn.evaluation.paired_difference import POWER, images_needed
from vit_vs_cnn.evaluation.significance import class_losses, holm, tango_score

CONFIDENCE = 0.95
QUANTILE = float(norm.ppf((1 + CONFIDENCE) / 2))
SEED = 0
ROUNDS = 10_000
BOOTSTRAP_ROUNDS, RESAMPLES = 2_000, 1_000
CLASS_ROUNDS = 2_000
GATE = GateSettings()

IMAGES = (100, 359, 1_000, 2_000, 5_000, 10_000)
# The share of images that only one of two equal models is right on.
DISCORDANT = (0.02, 0.10)
GAINS = (0.03, 0.01, 0.0, -0.01, -0.02, -0.05)
# A loss of the whole margin, where the challenger alone is right on no image: images, share that only one is right on.
AT_MARGIN = [(images, 0.0) for images in (20, 60, 100, 150, 359, 1_000, 2_000, 10_000)]
AT_MARGIN += [(images, share) for images in (100, 359, 1_000, 10_000) for share in (0.02, 0.10)]
# Classes, images of each, share of images that only the one and that only the other model is right on.
EQUAL_CLASSES = [(10, 36, 0.01), (10, 36, 0.02), (5, 40, 0.05), (37, 100, 0.05), (100, 100, 0.10), (10, 1_000, 0.0)]
LOST_CLASS = [(classes, 100, share) for classes in (2, 10, 37) for share in (0.0, 0.01, 0.02, 0.05)]
CLASS_LOSS = 0.15
AT_CLASS_MARGIN = [(10, images, share) for images in (100, 400, 1_000, 5_000) for share in (0.01, 0.05)]

Counts = NDArray[np.int64]


@click.command()
@json_option
@mlflow_option
def main(file: Path | None, to_mlflow: bool) -> None:
    """Print how often the gate passes, refuses or is undecided, for models whose true difference is known."""
    rng = np.random.default_rng(SEED)
    tables = ("accuracy", "margin", "classes", "lost class", "class at margin", "needed")
    results: dict[str, Any] = {table: {} for table in tables}
    margin = f"{100 * GATE.margin:g}"

    print(f"Accuracy beside the champion, margin {margin} points: passes / undecided / worse, in per cent of rounds;")
    print("in brackets what the bootstrap of earlier releases let pass.\n")
    _print_row("images", "divide two equal models", *(_points(gain) for gain in GAINS))
    _print_row(*["---"] * (2 + len(GAINS)))
    for images in IMAGES:
        for share in DISCORDANT:
            cells = [_accuracy_rates(rng, images, share, gain) for gain in GAINS]
            results["accuracy"][f"{images} images {share:g}"] = dict(zip(map(str, GAINS), cells, strict=True))
            _print_row(
                f"{images:,}",
                f"{100 * share:g} %",
                *(f"{_percent(passes, undecided, worse)} ({_percent(old)})" for passes, undecided, worse, old in cells),
            )

    print("\nA true loss of exactly the margin, which 2.5 % of rounds may pass:\n")
    _print_row("images", "challenger alone right on", "passes, %", "the bootstrap, %")
    _print_row(*["---"] * 4)
    for images, share in AT_MARGIN:
        passes, _, _, old = _rates(*_draw(rng, ROUNDS, images, share / 2, share / 2 + GATE.margin), images, rng)
        results["margin"][f"{images} images {share:g}"] = [passes, old]
        _print_row(f"{images:,}", f"{50 * share:g} %", _percent(passes), _percent(old))

    margin = f"{100 * GATE.class_margin:g}"
    print(f"\nEvery class beside the champion, margin {margin} points: refused, in per cent of rounds.\n")
    _print_row(
        "classes × images",
        "only one right, per side",
        "the models",
        "refused, %",
        "by point losses, %",
        "beyond the margin, %",
    )
    _print_row(*["---"] * 6)
    for key, settings, loss in (("classes", EQUAL_CLASSES, 0.0), ("lost class", LOST_CLASS, CLASS_LOSS)):
        for classes, images, share in settings:
            rates = _class_rates(rng, classes, images, share, loss)
            results[key][f"{classes} x {images} {share:g}"] = rates
            kind = f"one class loses {100 * loss:g} points" if loss else "equal"
            _print_row(f"{classes} × {images:,}", f"{100 * share:g} %", kind, *map(_percent, rates))

    print(f"\nOne of the classes truly loses exactly {margin} points: refused, in per cent of rounds.\n")
    _print_row("classes × images", "only one right, per side", "refused, %", "beyond the margin, %")
    _print_row(*["---"] * 4)
    # With draws of its own, so that the tables around it keep theirs.
    own_rng = np.random.default_rng(SEED)
    for classes, images, share in AT_CLASS_MARGIN:
        refused, _, beyond = _class_rates(own_rng, classes, images, share, GATE.class_margin)
        results["class at margin"][f"{classes} x {images} {share:g}"] = [refused, beyond]
        _print_row(f"{classes} × {images:,}", f"{100 * share:g} %", _percent(refused), _percent(beyond))

    print(f"\nImages that, by the gate's own estimate, let an equal model pass in {100 * POWER:g} % of rounds:\n")
    _print_row("divide two equal models", "images", "passes, %")
    _print_row(*["---"] * 3)
    for share in (0.0, 0.005, *DISCORDANT):
        images = images_needed(share, GATE.margin, CONFIDENCE, of_shares=True)
        passes, *_ = _rates(*_draw(rng, ROUNDS, images, share / 2, share / 2), images, rng)
        results["needed"][f"{share:g}"] = [images, passes]
        _print_row(f"{100 * share:g} %", f"{images:,}", _percent(passes))
    publish("gate-power", results, file, to_mlflow=to_mlflow)


def _accuracy_rates(
    rng: np.random.Generator, images: int, share: float, gain: float
) -> tuple[float, float, float, float]:
    """Rates of passing, undecided, worse, and of passing the bootstrap, of a model that is truly `gain` better.

    Equal models are divided by `share` of the images, half of them on each side; a gain comes on top of its side.
    """
    own, others = share / 2 + max(gain, 0.0), share / 2 + max(-gain, 0.0)
    return _rates(*_draw(rng, ROUNDS, images, own, others), images, rng)


def _draw(rng: np.random.Generator, rounds: int, images: int, own: float, others: float) -> tuple[Counts, Counts]:
    counts = rng.multinomial(images, [own, others, 1 - own - others], size=rounds)
    return counts[:, 0], counts[:, 1]


def _rates(own: Counts, others: Counts, images: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    # An interval's low end lies above −margin where the score at −margin does above the quantile.
    passes = tango_score(own, others, images, -GATE.margin) >= QUANTILE
    worse = ~passes & (tango_score(own, others, images, 0.0) < -QUANTILE)
    undecided = ~passes & ~worse
    return float(passes.mean()), float(undecided.mean()), float(worse.mean()), _bootstrap_rate(own, others, images, rng)


def _bootstrap_rate(own: Counts, others: Counts, images: int, rng: np.random.Generator) -> float:
    """How often the percentile bootstrap of earlier releases passed."""
    own, others = own[:BOOTSTRAP_ROUNDS], others[:BOOTSTRAP_ROUNDS]
    drawn_own = rng.binomial(images, own[:, None] / images, (len(own), RESAMPLES))
    rest = np.where(own < images, others / np.maximum(images - own, 1), 0.0)
    drawn_others = rng.binomial(images - drawn_own, np.minimum(rest, 1.0)[:, None])
    low = np.quantile((drawn_own - drawn_others) / images, (1 - CONFIDENCE) / 2, axis=1)
    return float((low >= -GATE.margin).mean())


def _class_rates(rng: np.random.Generator, classes: int, images: int, share: float, loss: float) -> list[float]:
    """How often a class refuses, of which the first truly loses `loss`.

    By today's rule, by the point losses of earlier releases, and by testing against the margin with Tango's score.
    """
    of_class = np.full(classes, images)
    own, others = np.full(classes, share), np.full(classes, share)
    others[0] += loss
    refused = np.zeros(3)
    for _ in range(CLASS_ROUNDS):
        only_own = rng.binomial(of_class, own)
        only_others = rng.binomial(of_class - only_own, others / (1 - own))
        losses, p_values = class_losses(only_own, only_others, of_class)
        beyond = losses > GATE.class_margin + 1e-9
        by_margin = holm(norm.cdf(tango_score(only_own, only_others, of_class, -GATE.class_margin)))
        by_rule = [(beyond & (p_values < 1 - CONFIDENCE)).any(), beyond.any(), min(by_margin) < 1 - CONFIDENCE]
        refused += np.array(by_rule, float)
    return [float(share) for share in refused / CLASS_ROUNDS]


def _percent(*shares: float) -> str:
    return " / ".join(f"{100 * share:.1f}" if 0 < share < 0.1 else f"{100 * share:.0f}" for share in shares)


def _points(gain: float) -> str:
    return f"{100 * gain:+g} points".replace("-", "−") if gain else "equal"


def _print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
