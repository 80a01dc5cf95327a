"""Learning curves: error over training images as a power law, and where the curves of two contestants cross."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from vit_vs_cnn.core.console import two_digits
from vit_vs_cnn.evaluation.clusters import Groups

Floats = NDArray[np.float64]

# With fewer sizes than this the level that the error does not fall below cannot be told from the exponent.
SIZES_FOR_A_LEVEL = 4
# Further than this from what was measured a curve says nothing.
MOST_TIMES_EXTRAPOLATED = 100
DRAWS = 400
_GRID = 600
_STEEPEST = 4.0
_SEED = 20_240_601


@dataclass(frozen=True)
class PowerLaw:
    """The error a·n^−b + c of a training on n images (Hestness et al. 2017, arXiv 1712.00409)."""

    a: float
    b: float
    c: float

    def error(self, images: Floats | float) -> Floats:
        """The expected error after training on so many images."""
        return np.asarray(self.a * np.asarray(images, float) ** -self.b + self.c)


@dataclass(frozen=True)
class Crossing:
    """From how many images on `second` is ahead of `first`, which is so with the fewest.

    `overtakings` are read from what was measured: who gets ahead, and between which two sizes. `images` is where the
    curves cross, between these sizes, or beyond the largest where nobody overtakes; infinite: never in the range looked
    at, nan: the curves say otherwise than the measured order. `low` and `high` are its interval by the bootstrap; a
    `low` of the smallest number looked at means that or fewer. `fits`: the order at the largest size is that measured.
    """

    first: str
    second: str
    overtakings: tuple[tuple[str, float, float], ...]
    images: float
    low: float
    high: float
    fits: bool


@dataclass(frozen=True)
class LearningCurves:
    """The fitted curve of each contestant, and as many curves of bootstrap draws.

    `errors` (M,) were measured after training on `images` (M,), which rise.
    """

    images: Floats
    errors: dict[str, Floats]
    curves: dict[str, PowerLaw]
    draws: dict[str, list[PowerLaw]]

    def band(self, contestant: str, images: Floats, confidence: float) -> tuple[Floats, Floats]:
        """The interval of a contestant's error at each of `images`."""
        errors = np.stack([curve.error(images) for curve in self.draws[contestant]])
        tail = (1 - confidence) / 2
        return np.quantile(errors, tail, axis=0), np.quantile(errors, 1 - tail, axis=0)

    def exponent(self, contestant: str, confidence: float) -> tuple[float, float]:
        """The interval of the exponent b of a contestant's curve."""
        low, high = np.quantile(
            [curve.b for curve in self.draws[contestant]], [(1 - confidence) / 2, (1 + confidence) / 2]
        )
        return float(low), float(high)


def fit_power_law(images: Floats, errors: Floats) -> PowerLaw:
    """Fit a power law to errors (M,) at numbers of images (M,), M at least 2, with equal relative weight.

    The level c is fitted from SIZES_FOR_A_LEVEL sizes on; it is 0 with fewer. An error that does not fall has b = 0.
    """
    slope, intercept = np.polyfit(np.log(images), np.log(errors), 1)
    b = float(np.clip(-slope, 0.0, _STEEPEST))
    # With the exponent clipped the best factor is another one.
    a = math.exp(float(intercept)) if b == -slope else math.exp(float(np.mean(np.log(errors) + b * np.log(images))))
    if len(images) < SIZES_FOR_A_LEVEL:
        return PowerLaw(a, b, 0.0)

    def law(n: Floats, log_a: float, b: float, c: float) -> Floats:
        return np.asarray(np.log(np.exp(log_a) * n**-b + c))

    least = float(errors.min())
    bounds = ([-np.inf, 0.0, 0.0], [np.inf, _STEEPEST, least])
    start = (math.log(a), min(b + 0.1, _STEEPEST), 0.5 * least)
    try:
        (log_a, b, c), _ = curve_fit(law, images, np.log(errors), start, bounds=bounds, max_nfev=500)
    except RuntimeError:  # it did not converge
        return PowerLaw(a, b, 0.0)
    return PowerLaw(math.exp(log_a), float(b), float(c))


def fit_curves(
    images: Floats, correct: Mapping[str, Sequence[NDArray[np.bool_]]], groups: Groups | None = None
) -> LearningCurves:
    """Fit every contestant, from whether its trainings (S, N) at each of `images` (M,) are right on the same N images.

    The bootstrap draws test images (whole groups, where they are known), the same for all contestants and sizes, and
    adds the chance of training, by the deviation of seeds, where there are several.
    """
    rng = np.random.default_rng(_SEED)
    test_images = next(iter(correct.values()))[0].shape[1]
    weights = _image_weights(test_images, groups, rng)
    errors, curves, draws = {}, {}, {}
    for contestant, of_sizes in correct.items():
        means = np.stack([trainings.mean(axis=0) for trainings in of_sizes])
        errors[contestant] = 1 - means.mean(axis=1)
        curves[contestant] = fit_power_law(images, _above_zero(errors[contestant], test_images))
        drawn = _above_zero(1 - weights @ means.T, test_images)
        drawn = drawn * np.exp(_training_noise(of_sizes, test_images, rng))
        draws[contestant] = [fit_power_law(images, np.minimum(row, 1.0)) for row in drawn]
    return LearningCurves(images, errors, curves, draws)


def find_crossing(curves: LearningCurves, one: str, other: str, confidence: float) -> Crossing:
    """Where the contestant that is behind with the fewest images gets ahead of the other.

    The order within the measured sizes is that of the measured errors; the curves say where between two sizes it
    changes, and what comes after the largest, where they have the same order.
    """
    images, laws = curves.images, curves.curves
    order = np.sign(curves.errors[other] - curves.errors[one])  # 1 where `one` is ahead
    told = np.flatnonzero(order)
    first, second = (one, other) if not len(told) or order[told[0]] > 0 else (other, one)
    overtakings = tuple(
        (one if order[upper] > 0 else other, float(images[lower]), float(images[upper]))
        for lower, upper in pairwise(told.tolist())
        if order[lower] != order[upper]
    )
    largest = float(images[-1])
    fits = not len(told) or float(laws[other].error(largest) - laws[one].error(largest)) * order[told[-1]] > 0
    start = float(images[0]) if overtakings else largest
    grid = np.geomspace(start, MOST_TIMES_EXTRAPOLATED * largest, _GRID)

    def level(leading: PowerLaw, trailing: PowerLaw) -> float:
        below = np.flatnonzero(trailing.error(grid) < leading.error(grid))
        return float(grid[below[0]]) if len(below) else math.inf

    drawn = [level(*pair) for pair in zip(curves.draws[first], curves.draws[second], strict=True)]
    tail = (1 - confidence) / 2
    low = float(np.quantile(drawn, tail, method="lower"))
    high = float(np.quantile(drawn, 1 - tail, method="higher"))
    crossing = level(laws[first], laws[second])
    as_measured = fits
    if overtakings:
        (_, lower, upper), *more = overtakings
        as_measured = not more and lower < crossing <= upper
    return Crossing(first, second, overtakings, crossing if as_measured else math.nan, low, high, bool(fits))


def crossing_sentence(crossing: Crossing, curves: LearningCurves) -> str:
    """Where one contestant overtakes the other, or that none does."""
    first, second, measured = crossing.first, crossing.second, (curves.images[0], curves.images[-1])
    start = measured[0] if crossing.overtakings else measured[1]
    interval = f"{_number(crossing.low)}{' or fewer' if crossing.low <= start else ''} to {_number(crossing.high)}"
    unfit = "" if crossing.fits else " The curves do not fit well enough to be extended."
    if crossing.overtakings and not math.isnan(crossing.images):
        return f"{second} overtakes {first} at about {_number(crossing.images)} images ({interval}).{unfit}"
    if crossing.overtakings:
        changes = [
            f"{ahead} overtakes {first if ahead == second else second} between {lower:,.0f} and {upper:,.0f} images"
            for ahead, lower, upper in crossing.overtakings
        ]
        return f"By the measured means {', '.join(changes)}.{unfit}"
    none = f"No crossing between {measured[0]:,.0f} and {measured[1]:,.0f} images"
    if not crossing.fits:
        return f"{none}.{unfit}"
    if math.isfinite(crossing.images):
        return (
            f"{none}. {second} would draw level with {first} at about {_number(crossing.images)} images ({interval}), "
            "if the curves continue."
        )
    earliest = f" (at {_number(crossing.low)} at the earliest)" if math.isfinite(crossing.low) else ""
    if crossing.low <= start:
        earliest = " (curves that fit as well meet within the measured sizes)"
    return (
        f"{none}, and {second} would not draw level with {first} within {MOST_TIMES_EXTRAPOLATED} times as "
        f"many{earliest}, if the curves continue."
    )


def _number(images: float) -> str:
    """A number of images to two digits; infinity is never."""
    return two_digits(images) if math.isfinite(images) else "never"


def _above_zero(errors: Floats, images: int) -> Floats:
    """Errors of which a logarithm can be taken: half an image at least."""
    return np.maximum(errors, 0.5 / images)


def _image_weights(images: int, groups: Groups | None, rng: np.random.Generator) -> Floats:
    """The share of each image in each draw, float (DRAWS, N)."""
    codes = np.arange(images) if groups is None else groups
    units = int(codes.max()) + 1
    counts = rng.multinomial(units, np.full(units, 1 / units), DRAWS)[:, codes].astype(float)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _training_noise(of_sizes: Sequence[NDArray[np.bool_]], images: int, rng: np.random.Generator) -> Floats:
    """What another set of seeds would change in the logarithm of the mean error, float (DRAWS, M).

    The deviation is pooled over the sizes, as few seeds at one size say little; Student's t says how little they do.
    """
    logs = [np.log(_above_zero(1 - trainings.mean(axis=1), images)) for trainings in of_sizes]
    degrees = sum(len(log) - 1 for log in logs)
    if degrees == 0:
        return np.zeros((DRAWS, len(of_sizes)))
    deviation = math.sqrt(sum(float(np.square(log - log.mean()).sum()) for log in logs) / degrees)
    seeds = np.array([len(log) for log in logs])
    noise = rng.standard_t(degrees, (DRAWS, len(of_sizes)))
    return np.asarray(np.clip(deviation * noise / np.sqrt(seeds), -3.0, 3.0))
