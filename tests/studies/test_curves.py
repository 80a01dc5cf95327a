import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vit_vs_cnn.studies.curves import (
    MOST_TIMES_EXTRAPOLATED,
    crossing_sentence,
    find_crossing,
    fit_curves,
    fit_power_law,
)

SIZES = np.array([100.0, 300.0, 1000.0, 3000.0])


def trainings(
    errors: NDArray[np.float64], seeds: int = 2, images: int = 1000, seed: int = 0
) -> list[NDArray[np.bool_]]:
    """At each size, trainings that are wrong on the hardest images, with an error that varies by a tenth."""
    rng = np.random.default_rng(seed)
    difficulty = rng.random(images)
    return [
        np.stack([difficulty > error * factor for factor in rng.normal(1, 0.1, seeds)]) for error in errors.tolist()
    ]


@given(a=st.floats(0.5, 20), b=st.floats(0.05, 1.5), sizes=st.integers(2, 3))
def test_a_power_law_is_found_again(a: float, b: float, sizes: int) -> None:
    images = SIZES[:sizes]
    law = fit_power_law(images, a * images**-b)
    assert (law.a, law.b, law.c) == (pytest.approx(a), pytest.approx(b), 0.0)


@given(a=st.floats(0.5, 20), b=st.floats(0.3, 1.0), level=st.floats(0.01, 0.1))
def test_a_level_that_the_error_does_not_fall_below_is_found_from_four_sizes_on(
    a: float, b: float, level: float
) -> None:
    law = fit_power_law(SIZES, a * SIZES**-b + level)
    np.testing.assert_allclose(law.error(SIZES), a * SIZES**-b + level, rtol=0.02)
    assert law.c == pytest.approx(level, abs=0.02)


@given(errors=st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=4))
def test_no_curve_rises_with_images_and_none_is_negative(errors: list[float]) -> None:
    law = fit_power_law(SIZES[: len(errors)], np.array(errors))
    values = law.error(np.geomspace(10, 1e6, 50))
    assert (np.diff(values) <= 1e-12).all()
    assert (values >= 0).all()


def test_where_two_curves_cross_lies_in_its_interval() -> None:
    # 20·n^−0.6 and 3·n^−0.35 are level at (20/3)^4 = 1,975 images.
    laws = {"cnn": 3 * SIZES**-0.35, "vit": 20 * SIZES**-0.6}
    curves = fit_curves(SIZES, {name: trainings(law, seeds=8, seed=len(name)) for name, law in laws.items()})
    crossing = find_crossing(curves, "vit", "cnn", 0.95)
    assert (crossing.first, crossing.second) == ("cnn", "vit")
    assert crossing.low < 1975 < crossing.high
    assert crossing.low < crossing.images < crossing.high
    assert find_crossing(curves, "cnn", "vit", 0.95) == crossing
    low, high = curves.band("cnn", SIZES, 0.95)
    assert (low < curves.curves["cnn"].error(SIZES)).all()
    assert (high > curves.curves["cnn"].error(SIZES)).all()


def test_curves_that_do_not_meet_never_cross_and_those_that_meet_far_away_may() -> None:
    parallel = fit_curves(SIZES[:3], {"a": trainings(1 * SIZES[:3] ** -0.3), "b": trainings(3 * SIZES[:3] ** -0.3)})
    assert find_crossing(parallel, "a", "b", 0.95).high == math.inf
    # 6·n^−0.5 and 2·n^−0.35 are level at 3^(1/0.15) = 1,517 images, beyond the largest of 300.
    sizes = np.array([30.0, 100.0, 300.0])
    far = fit_curves(sizes, {"a": trainings(2 * sizes**-0.35), "b": trainings(6 * sizes**-0.5)})
    crossing = find_crossing(far, "a", "b", 0.95)
    assert 300 < crossing.images < MOST_TIMES_EXTRAPOLATED * 300
    assert crossing.low < 1517 < crossing.high


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        # The fitted line of a is below that of b at all three sizes.
        (
            [0.5, 0.3, 0.28],
            [0.49, 0.4, 0.27],
            "By the measured means a overtakes b between 450 and 4,505 images, b overtakes a between 4,505 and 45,049 "
            "images. The curves do not fit well enough to be extended.",
        ),
        # The fitted line of b ends below that of a.
        (
            [0.5, 0.4, 0.279],
            [0.6, 0.401, 0.28],
            "No crossing between 450 and 45,049 images. The curves do not fit well enough to be extended.",
        ),
        # The fitted lines cross between the other two sizes.
        (
            [0.4, 0.3, 0.1],
            [0.5, 0.16, 0.09],
            "By the measured means b overtakes a between 450 and 4,505 images.",
        ),
    ],
)
def test_within_the_measured_sizes_the_order_is_that_of_the_means(
    a: list[float], b: list[float], sentence: str
) -> None:
    hard = np.arange(1000) / 1000
    correct = {name: [(hard >= error)[None] for error in errors] for name, errors in (("a", a), ("b", b))}
    curves = fit_curves(np.array([450.0, 4505.0, 45049.0]), correct)
    assert crossing_sentence(find_crossing(curves, "a", "b", 0.95), curves) == sentence
    assert crossing_sentence(find_crossing(curves, "b", "a", 0.95), curves) == sentence


def test_one_seed_has_the_chance_of_images_only_and_more_make_the_interval_wider() -> None:
    errors = 3 * SIZES**-0.35
    widths = []
    for seeds in (1, 2):
        curves = fit_curves(SIZES, {"a": trainings(errors, seeds)})
        low, high = curves.band("a", SIZES, 0.95)
        widths.append(float((high - low).mean()))
    assert widths[0] < widths[1]


def test_whole_groups_are_drawn() -> None:
    correct = {"a": trainings(np.array([0.3, 0.2, 0.1]), seeds=1, images=600)}
    groups = np.arange(600) // 60
    ordered = {"a": [np.sort(found, axis=1) for found in correct["a"]]}  # a group is right or wrong as a whole
    by_image, by_group = (fit_curves(SIZES[:3], ordered, codes).band("a", SIZES[:3], 0.95) for codes in (None, groups))
    assert (by_group[1] - by_group[0] > 2 * (by_image[1] - by_image[0])).all()


def test_perfect_contestants_have_curves_too() -> None:
    correct = {name: [np.ones((2, 50), np.bool_)] * 3 for name in ("a", "b")}
    crossing = find_crossing(fit_curves(SIZES[:3], correct), "a", "b", 0.95)
    assert crossing.images == math.inf


def test_the_exponent_has_the_interval_of_the_draws() -> None:
    errors = 2.0 * SIZES**-0.4
    curves = fit_curves(SIZES, {"one": trainings(errors), "other": trainings(errors, seeds=8)})
    (low, high), (lowest, highest) = curves.exponent("one", 0.95), curves.exponent("one", 0.99)
    assert lowest < low < curves.curves["one"].b < high < highest
