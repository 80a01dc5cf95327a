"""Who leads under which corruption."""

import numpy as np
import pytest

from factories import robustness_results
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.evaluation.corruptions import CLEAN, CORRUPTIONS
from vit_vs_cnn.evaluation.replicates import compare_replicates
from vit_vs_cnn.evaluation.shift import compare_under_shift


def test_the_winner_is_ahead_of_every_other_by_more_than_chance() -> None:
    measured = {
        "vit": robustness_results({CLEAN: 3, "blur": 150, "noise": 10, "shear": 200}),
        "resnet": robustness_results({CLEAN: 6, "blur": 60, "noise": 60, "shear": 11}),
        "third": robustness_results({CLEAN: 9, "blur": 200, "noise": 70, "shear": 10}),
    }
    results = {result.corruption: result for result in compare_under_shift(measured, 0.95)}
    assert list(results) == [CLEAN, *(corruption.name for corruption in CORRUPTIONS)]
    blur, noise, shear = (results[name] for name in ("blur", "noise", "shear"))
    assert [(lead.leader, lead.other) for lead in blur.leads] == [("resnet", "vit"), ("resnet", "third")]
    assert blur.leads[0].difference == pytest.approx(0.3)
    assert blur.leads[0].low < 0.3 < blur.leads[0].high
    assert blur.order == ["resnet", "vit", "third"]
    assert blur.accuracies["vit"].value == pytest.approx(0.5)
    assert (blur.winner, noise.winner) == ("resnet", "vit")
    # The third is far ahead of the one that is best on clean images, but not of the next best.
    assert [(lead.other, lead.is_significant) for lead in shear.leads] == [("resnet", False), ("vit", True)]
    assert shear.winner is None
    assert results["jpeg"].winner is None


def test_severities_of_the_same_images_are_no_more_evidence_than_one() -> None:
    measured = {"vit": robustness_results({"blur": 60}), "resnet": robustness_results({"blur": 40})}
    lead = compare_under_shift(measured, 0.95)[2].leads[0]
    # Both are wrong on the same images at all severities.
    first, second = (measured[name].correct["blur", 1] for name in ("resnet", "vit"))
    alone = compare_replicates(first, second, 0.95, np.arange(300))
    assert (lead.low, lead.high) == pytest.approx((alone.low, alone.high), abs=0.003)
    assert lead.p_value == pytest.approx(alone.p_value)


def test_many_corruptions_make_one_small_lead_less_certain() -> None:
    measured = {"vit": robustness_results({"blur": 47}), "resnet": robustness_results({"blur": 40})}
    blur = compare_under_shift(measured, 0.95)[2].leads[0]
    assert blur.p_value < 0.05 < blur.adjusted_p_value
    assert not blur.is_significant


def test_groups_widen_the_interval() -> None:
    measured = {"vit": robustness_results({"blur": 60}), "resnet": robustness_results({"blur": 40})}
    by_image, by_group = (
        compare_under_shift(measured, 0.95, groups)[2].leads[0] for groups in (None, np.arange(300) // 10)
    )
    assert by_group.high - by_group.low > 1.5 * (by_image.high - by_image.low)


def test_replicates_that_differ_widen_the_interval() -> None:
    stable = {"vit": robustness_results({"blur": 60}), "resnet": robustness_results({"blur": 40})}
    varying = {
        "vit": robustness_results({"blur": 60}, seeds=(0, 1, 2), more_errors=(-40, 0, 40)),
        "resnet": robustness_results({"blur": 40}, seeds=(0, 1, 2), more_errors=(-30, 0, 30)),
    }
    certain, uncertain = (compare_under_shift(measured, 0.95)[2].leads[0] for measured in (stable, varying))
    assert uncertain.difference == pytest.approx(certain.difference)
    assert certain.is_significant
    assert not uncertain.is_significant


def test_one_alone_has_no_lead() -> None:
    results = compare_under_shift({"vit": robustness_results({})}, 0.95)
    assert all(result.winner is None and result.leads == [] for result in results)
    assert results[0].accuracies["vit"].value == 1.0


def test_contestants_measured_on_other_images_are_not_compared() -> None:
    measured = {"vit": robustness_results({}), "resnet": robustness_results({}, images=200)}
    with pytest.raises(UserError, match="robustness/resnet: was measured on other images or corruptions than vit"):
        compare_under_shift(measured, 0.95)


def test_differences_in_likelihood_and_calibration_are_paired_by_image() -> None:
    measured = {"vit": robustness_results({"blur": 60}), "resnet": robustness_results({"blur": 40})}
    by_image, by_group = (compare_under_shift(measured, 0.95, groups)[2] for groups in (None, np.arange(300) // 10))
    assert by_image.nll is not None
    assert by_image.ece is not None
    # On 20 images of 300 the loss is 0.1 instead of 2; all have the confidence 0.9.
    assert by_image.nll.value == pytest.approx(-1.9 * 20 / 300)
    assert by_image.nll.low < by_image.nll.value < by_image.nll.high < 0
    assert by_image.ece.value == pytest.approx(abs(0.9 - 260 / 300) - abs(0.9 - 240 / 300))
    assert by_image.ece.low < by_image.ece.value < by_image.ece.high
    assert by_group.nll is not None
    assert by_group.ece is not None
    assert by_group.nll.high - by_group.nll.low > 1.5 * (by_image.nll.high - by_image.nll.low)
    assert by_group.ece.value == pytest.approx(by_image.ece.value)
    assert by_group.ece.high - by_group.ece.low > by_image.ece.high - by_image.ece.low
    of_one_group = compare_under_shift(measured, 0.95, np.zeros(300, np.int64))[2]
    assert of_one_group.nll is not None
    assert of_one_group.ece is not None
    assert (of_one_group.nll.low, of_one_group.nll.high) == (-np.inf, np.inf)
    assert (of_one_group.ece.low, of_one_group.ece.high) == (-np.inf, np.inf)


def test_trainings_that_differ_widen_the_differences_in_likelihood_and_calibration() -> None:
    alike, varying = (
        compare_under_shift(
            {
                name: robustness_results({"blur": errors}, seeds=(0, 1, 2), more_errors=more)
                for name, errors in (("vit", 60), ("resnet", 40))
            },
            0.95,
        )[2]
        for more in ((0, 0, 0), (-30, 0, 30))
    )
    for same, other in ((alike.nll, varying.nll), (alike.ece, varying.ece)):
        assert same is not None
        assert other is not None
        assert other.high - other.low > 1.5 * (same.high - same.low)
    # The chance of training is that of accuracies, which losses of 0.1 and 2 stretch by 1.9.
    assert varying.nll is not None
    assert varying.nll.low < 0 < varying.nll.high
