"""Claims about ViTs and CNNs, decided by rule on what was measured."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from factories import contestant, faithfulness_of, robustness_results
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import cost_file
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.evaluation.corruptions import CLEAN
from vit_vs_cnn.evaluation.faithfulness import Faithfulness
from vit_vs_cnn.evaluation.results import read_cost
from vit_vs_cnn.report.claims import Claim, judge_claims
from vit_vs_cnn.report.comparison import read_comparison

Make = Callable[..., Settings]
ATTENTION = {"attention": 0.3, "MLPs": 0.6, "convolutions": 0.1, "other": 0.0}
CONVOLUTIONS = {"attention": 0.0, "MLPs": 0.0, "convolutions": 1.0, "other": 0.0}


@pytest.fixture(autouse=True)
def _in_a_project(prepared: DatasetInfo) -> None:
    """Every test writes into its own project."""


def claims_of(
    settings: Settings,
    vit_errors: int,
    cnn_errors: int,
    maps: dict[str, dict[str, Faithfulness]] | None = None,
    shuffled: tuple[int, int] = (0, 0),
    **costs: tuple[float, float],
) -> dict[str, Claim]:
    """The claims by their first words, of a transformer and a CNN; `costs` are fields of the cost of both."""
    for position, (name, errors, shares) in enumerate(
        (("vit", vit_errors, ATTENTION), ("resnet", cnn_errors, CONVOLUTIONS))
    ):
        seconds = costs.get("seconds_per_epoch", (1.0, 1.0))[position]
        contestant(settings, name, errors, seconds=seconds, operation_shares=shares)
        changes = {field: values[position] for field, values in costs.items()}
        read_cost(name).model_copy(update=changes).write(cost_file(name))
    measured = {
        name: robustness_results({CLEAN: 20, "patches_shuffled": 20 + lost})
        for name, lost in zip(("vit", "resnet"), shuffled, strict=True)
    }
    claims = judge_claims(read_comparison(settings), maps or {"vit": {}, "resnet": {}}, measured)
    return {" ".join(claim.text.split()[:5]).rstrip("."): claim for claim in claims}


@pytest.mark.parametrize(
    ("vit_errors", "cnn_errors", "verdict"),
    [
        (30, 90, "holds here"),
        (90, 30, "does not hold here"),
        (30, 31, "cannot be told from this"),
    ],
)
def test_who_is_more_accurate_is_decided_by_the_tests_of_the_pair(
    settings: Settings, vit_errors: int, cnn_errors: int, verdict: str
) -> None:
    claims = claims_of(settings, vit_errors, cnn_errors)
    assert claims["ViTs are more accurate than"].verdict == verdict
    opposite = {"holds here": "does not hold here", "does not hold here": "holds here"}
    assert claims["For small sets take a"].verdict == opposite.get(verdict, verdict)
    assert "64 training images, vit minus resnet: " in claims["For small sets take a"].measured
    for text in ("ViTs are more accurate than", "ViTs are for where long-range"):
        assert claims[text].measured.endswith("), in this one training of each")


def test_equal_models_refute_that_one_is_more_accurate(make_settings: Make) -> None:
    claims = claims_of(make_settings({"compare": {"margin": 0.05}}), 30, 31)
    assert claims["ViTs are more accurate than"].verdict == "does not hold here"


def test_ratios_hold_where_they_are_near_what_is_claimed(settings: Settings) -> None:
    near = claims_of(
        settings,
        30,
        30,
        seconds_per_epoch=(3.5, 1.0),
        parameters=(86_000_000, 11_000_000),
        flops=(5_000_000_000, 1_000_000_000),
    )
    assert near["A ResNet trains 3 times"].verdict == "holds here"
    assert near["A ResNet trains 3 times"].measured == "vit takes 3.5 times as long as resnet"
    assert near["A ViT has 8 times"].verdict == "holds here"
    assert near["ViTs need more compute"].verdict == "holds here"


def test_ratios_that_are_far_from_what_is_claimed_do_not_hold(settings: Settings) -> None:
    far = claims_of(settings, 30, 30, seconds_per_epoch=(1.6, 1.0), parameters=(2000, 1000))
    assert far["A ResNet trains 3 times"].verdict == "does not hold here"
    assert far["A ViT has 8 times"].measured == "vit has 2.0 times as many as resnet"
    assert far["A ViT has 8 times"].verdict == "does not hold here"


@pytest.mark.parametrize(
    ("vit", "cnn", "verdict"),
    [
        ((1.9, 2.1), (0.9, 1.1), "holds here"),
        ((0.9, 1.1), (1.9, 2.1), "does not hold here"),
        ((0.9, 1.1), (1.0, 1.2), "cannot be told from this"),
    ],
)
def test_latencies_that_overlap_decide_nothing(
    settings: Settings, vit: tuple[float, float], cnn: tuple[float, float], verdict: str
) -> None:
    claims = claims_of(settings, 30, 30, latency_p50_ms_low=(vit[0], cnn[0]), latency_p50_ms_high=(vit[1], cnn[1]))
    assert claims["For real time take a"].verdict == verdict


@pytest.mark.parametrize(
    ("rollout", "gradcam", "verdict"),
    [
        ((0.3, 0.7), (0.37, 0.63), "holds here"),
        ((0.37, 0.63), (0.3, 0.7), "does not hold here"),
        # By deletion alone.
        ((0.3, 0.63), (0.37, 0.63), "cannot be told from this"),
        # Better than the other, and no better than random orders.
        ((0.5, 0.5), (0.57, 0.43), "cannot be told from this"),
    ],
)
def test_of_two_claims_that_contradict_each_other_faithfulness_decides(
    settings: Settings, rollout: tuple[float, float], gradcam: tuple[float, float], verdict: str
) -> None:
    # The areas vary by image so much that the intervals of the two maps overlap; those of one map are paired.
    attention, features = (faithfulness_of(*areas, varying=0.1) for areas in (rollout, gradcam))
    unasked = faithfulness_of(0.1, 0.9)  # of the ViT's two maps the claims are about its attention
    claims = claims_of(
        settings, 30, 30, maps={"vit": {"gradcam": unasked, "rollout": attention}, "resnet": {"gradcam": features}}
    )
    assert claims["ViTs are for where explanations"].verdict == verdict
    opposite = {"holds here": "does not hold here", "does not hold here": "holds here"}
    assert claims["Attention is harder to interpret"].verdict == opposite.get(verdict, verdict)


def test_claims_about_explanations_show_both_areas_and_whose_map_is_no_evidence(settings: Settings) -> None:
    maps = {"vit": {"rollout": faithfulness_of(0.45, 0.5)}, "resnet": {"gradcam": faithfulness_of(0.3, 0.7)}}
    assert claims_of(settings, 30, 30, maps=maps)["Attention is harder to interpret"].measured == (
        "vit minus resnet, 8 images, of the chosen training of each: deletion +0.150 (+0.150 to +0.150), insertion "
        "−0.200 (−0.200 to −0.200); not better than random by both: vit"
    )


def test_maps_of_one_group_decide_nothing(settings: Settings) -> None:
    attention, features = (
        replace(faithfulness_of(*areas), groups=np.zeros(8, np.int64)) for areas in ((0.3, 0.7), (0.45, 0.5))
    )
    claim = claims_of(settings, 30, 30, maps={"vit": {"rollout": attention}, "resnet": {"gradcam": features}})[
        "ViTs are for where explanations"
    ]
    assert claim.verdict == "cannot be told from this"
    assert "deletion −0.150 (no interval), insertion +0.200 (no interval); not better" in claim.measured


@pytest.mark.parametrize(
    ("shuffled", "verdict"),
    [((80, 10), "holds here"), ((10, 80), "does not hold here"), ((30, 30), "cannot be told from this")],
)
def test_whoever_loses_more_by_shuffled_quarters_uses_what_lies_far_apart(
    settings: Settings, shuffled: tuple[int, int], verdict: str
) -> None:
    assert claims_of(settings, 30, 30, shuffled=shuffled)["ViTs are for where long-range"].verdict == verdict


def test_a_claim_without_a_measure_says_so(settings: Settings) -> None:
    claims = claims_of(settings, 30, 30)
    assert claims["Attention is harder to interpret"].verdict == "not measured here"
    assert claims["Attention is harder to interpret"].measured == "vit has no attention rollout"
    assert claims["Lack of inductive bias makes"].verdict == "not measured here"
    assert "vit-vs-cnn study" in claims["Lack of inductive bias makes"].measured


def test_contestants_of_one_kind_test_no_claim(settings: Settings) -> None:
    for name in settings.models:
        contestant(settings, name, 30, operation_shares=CONVOLUTIONS)
    assert judge_claims(read_comparison(settings), {}, {}) == []


def test_of_several_transformers_the_most_accurate_without_convolutions_is_tested(make_settings: Make) -> None:
    settings = make_settings({"models": {"wide": {"timm": "vit_tiny_patch16_224"}, "hybrid": {"timm": "resnet18"}}})
    plain = {"attention": 0.2, "MLPs": 0.79, "convolutions": 0.01, "other": 0.0}
    narrow = plain | {"attention": 0.4, "MLPs": 0.59}
    shares = {"vit": (60, narrow), "wide": (40, plain), "hybrid": (20, ATTENTION), "resnet": (30, CONVOLUTIONS)}
    for name, (errors, operations) in shares.items():
        contestant(settings, name, errors, operation_shares=operations)
    measured = {name: robustness_results({CLEAN: 20, "patches_shuffled": 20}) for name in shares}
    claims = judge_claims(read_comparison(settings), {name: {} for name in shares}, measured)
    assert claims[0].measured.startswith("wide minus resnet: ")


def test_two_that_learned_nothing_decide_nothing(make_settings: Make) -> None:
    claims = claims_of(make_settings({"compare": {"margin": 0.2}}), 190, 191)
    for text in ("ViTs are more accurate than", "For small sets take a"):
        assert claims[text].verdict == "cannot be told from this"
        assert claims[text].measured.endswith(", in this one training of each; both hardly better than chance")
