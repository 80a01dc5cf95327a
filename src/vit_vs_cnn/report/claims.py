"""Claims about Vision Transformers and CNNs, each put to the test by a rule on what was measured here.

They are those of the report that this project grew out of (its sections 3.2, 5.3, 5.4 and 6), and are heard elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vit_vs_cnn.core.console import between, points, points_between
from vit_vs_cnn.evaluation.contestants import Contestant
from vit_vs_cnn.evaluation.corruptions import CLEAN
from vit_vs_cnn.evaluation.faithfulness import Faithfulness
from vit_vs_cnn.evaluation.metrics import is_near_chance
from vit_vs_cnn.evaluation.pairs import PairedComparison
from vit_vs_cnn.evaluation.replicates import compare_replicates
from vit_vs_cnn.evaluation.robustness import Robustness
from vit_vs_cnn.report.answer import listed
from vit_vs_cnn.report.comparison import Comparison

Verdict = Literal["holds here", "does not hold here", "cannot be told from this", "not measured here"]

# A network with less of its operations in attention is no transformer, one with more no CNN.
LEAST_ATTENTION, _MOST_ATTENTION = 0.05, 0.001
# A patch embedding by one linear projection is a convolution too, of about a hundredth of the operations.
HYBRID_FROM = 0.05
# A claimed ratio holds where the measured one is within this factor of it.
_NEAR = 1.5
# Ratios of cost nearer to 1 are no difference.
_NO_DIFFERENCE = 1.1
# The corruption and severity in which parts of the image, each half as wide as it, change places.
_FAR_APART = ("patches_shuffled", 1)
# Training images of what people call a small set.
SMALL = 10_000

MORE_ACCURATE = "ViTs are more accurate than CNNs."
SLOWER_EPOCHS = "A ResNet trains 3 times as fast per epoch."
MORE_PARAMETERS = "A ViT has 8 times the parameters of a ResNet."
MORE_COMPUTE = "ViTs need more compute."
MORE_DATA = "ViTs need more data: they are behind on small sets and catch up with more."
INDUCTIVE_BIAS = "Lack of inductive bias makes ViTs data-hungry."
LARGE_SETS = "ViTs excel on large sets."
SMALL_SETS = "For small sets take a CNN."
EFFICIENCY = "For efficiency take a CNN."
REAL_TIME = "For real time take a CNN."
LONG_RANGE = "ViTs are for where long-range dependencies matter."
EXPLANATIONS = "ViTs are for where explanations are needed."
ATTENTION = "Attention is harder to interpret than feature maps."
_STUDY = "vit-vs-cnn study with a copy of studies/data.yaml for these images measures others"


@dataclass(frozen=True)
class Claim:
    """A claim, the measure that decides it, what was measured here, and the verdict by rule."""

    text: str
    measure: str
    measured: str
    verdict: Verdict


def judge_claims(
    comparison: Comparison, maps: Mapping[str, Mapping[str, Faithfulness]], measured: Mapping[str, Robustness]
) -> list[Claim]:
    """Put every claim to the test of the best transformer and the best CNN; none without them.

    `maps` are how faithful each kind of map of each contestant is, `measured` what each is worth under shift.
    """
    contestants = {one.name: one for one in comparison.contestants}
    operations = {
        name: (shares.get("attention", 0.0), shares.get("convolutions", 0.0))
        for name, one in contestants.items()
        if (shares := one.chosen.summary.operation_shares)
    }
    roles = best_of_each(operations, {name: one.accuracy for name, one in contestants.items()})
    if roles is None:
        return []
    vit, cnn = (contestants[name] for name in roles)
    lead = _lead(vit, cnn, comparison.pair(vit.name, cnn.name))
    return [
        _more_accurate(vit, cnn, lead),
        _ratio_of_seconds(vit, cnn),
        _parameters(vit, cnn),
        _more_compute(vit, cnn),
        *_more_data(vit, lead),
        _small_sets(vit, cnn, lead),
        _efficiency(vit, cnn, lead),
        _real_time(vit, cnn),
        _long_range(vit, cnn, measured),
        *_explanations(vit, cnn, maps),
    ]


def best_of_each(
    operations: Mapping[str, tuple[float, float]], accuracies: Mapping[str, float]
) -> tuple[str, str] | None:
    """The most accurate transformer and the most accurate CNN, None without both.

    `operations` are the shares that each has in attention and in convolutions. A hybrid, with convolutions in front of
    its attention, is taken only where no transformer is without them.
    """
    transformers = [name for name, (attention, _) in operations.items() if attention >= LEAST_ATTENTION]
    plain = [name for name in transformers if operations[name][1] < HYBRID_FROM]
    cnns = [name for name, (attention, _) in operations.items() if attention <= _MOST_ATTENTION]
    if not transformers or not cnns:
        return None
    return max(plain or transformers, key=accuracies.__getitem__), max(cnns, key=accuracies.__getitem__)


@dataclass(frozen=True)
class _Lead:
    """How much more accurate the transformer is, in words; who is better by more than chance, or if both are equal."""

    text: str
    better: str | None
    is_equal: bool


def _lead(vit: Contestant, cnn: Contestant, pair: PairedComparison) -> _Lead:
    """What their pair says; two that learned next to nothing say nothing of what others would learn."""
    sign = 1 if pair.first == vit.name else -1
    low, high = sorted((sign * pair.low, sign * pair.high))
    difference = f"{points(sign * pair.difference, sign=True)} points ({points_between(low, high)})"
    text = f"{difference}{of_trainings(len(vit.replicates))}"
    if is_near_chance(max(vit.accuracy, cnn.accuracy), len(vit.chosen.evaluation.classes)):
        return _Lead(f"{text}; both hardly better than chance", better=None, is_equal=False)
    return _Lead(text, pair.better, pair.verdict == "equal")


def of_trainings(count: int) -> str:
    """What to add to a measure of so many trainings of each: that it is of one."""
    return ", in this one training of each" if count == 1 else ""


def verdict_of(*, holds: bool, refuted: bool) -> Verdict:
    """The verdict where what was measured shows that a claim holds, that it does not, or neither."""
    if holds:
        return "holds here"
    return "does not hold here" if refuted else "cannot be told from this"


def ratio_verdict(ratio: float, lowest: float, highest: float, claimed: float) -> Verdict:
    """Whether a ratio is near a claimed one; a range of ratios that is partly near it decides nothing."""
    near = [claimed / _NEAR <= value <= claimed * _NEAR for value in (lowest, ratio, highest)]
    return verdict_of(holds=all(near), refuted=not any(near) and (lowest > claimed or highest < claimed))


def _is_better(name: str, lead: _Lead) -> Verdict:
    """Whether a contestant is better; that both are practically equal refutes it."""
    return verdict_of(holds=lead.better == name, refuted=lead.better is not None or lead.is_equal)


def _more_accurate(vit: Contestant, cnn: Contestant, lead: _Lead) -> Claim:
    measured = f"{vit.name} minus {cnn.name}: {lead.text}"
    return Claim(MORE_ACCURATE, "difference of test accuracy, with its interval", measured, _is_better(vit.name, lead))


def _ratio_of_seconds(vit: Contestant, cnn: Contestant) -> Claim:
    slow, fast = ([replicate.summary.seconds_per_epoch for replicate in one.replicates] for one in (vit, cnn))
    ratio = vit.seconds_per_epoch / cnn.seconds_per_epoch
    return slower_epochs(vit.name, cnn.name, ratio, (min(slow) / max(fast), max(slow) / min(fast)))


def slower_epochs(vit: str, cnn: str, ratio: float, spread: tuple[float, float]) -> Claim:
    """Judge the ratio of seconds per epoch; `spread` is the range of the ratios of single trainings."""
    shown = "" if spread[0] == spread[1] else f" ({spread[0]:.1f} to {spread[1]:.1f} by training)"
    measured = f"{vit} takes {ratio:.1f} times as long as {cnn}{shown}"
    return Claim(SLOWER_EPOCHS, "ratio of seconds per epoch", measured, ratio_verdict(ratio, *spread, 3))


def _parameters(vit: Contestant, cnn: Contestant) -> Claim:
    return more_parameters(vit.name, cnn.name, vit.cost.parameters / cnn.cost.parameters)


def more_parameters(vit: str, cnn: str, ratio: float) -> Claim:
    """Judge the ratio of parameters."""
    measured = f"{vit} has {ratio:.1f} times as many as {cnn}"
    return Claim(MORE_PARAMETERS, "ratio of parameters", measured, ratio_verdict(ratio, ratio, ratio, 8))


def _more_compute(vit: Contestant, cnn: Contestant) -> Claim:
    operations, seconds = vit.cost.flops / cnn.cost.flops, vit.seconds_per_epoch / cnn.seconds_per_epoch
    least, most = sorted((operations, seconds))
    return Claim(
        MORE_COMPUTE,
        "ratios of operations for one image, and of seconds per epoch",
        f"{operations:.1f} and {seconds:.1f} times those of {cnn.name}",
        verdict_of(holds=least > _NO_DIFFERENCE, refuted=most < _NO_DIFFERENCE),
    )


def _more_data(vit: Contestant, lead: _Lead) -> list[Claim]:
    measured = f"at {vit.chosen.summary.train_images:,} training images: {lead.text}; {_STUDY}"
    measure = "how the difference changes with the number of training images"
    cause = f"{measure}, for a ViT and for a hybrid, which has convolutions in front of its attention"
    hybrid = f"{_STUDY}; with a hybrid among the contestants its table has both"
    return [
        Claim(MORE_DATA, measure, measured, "not measured here"),
        Claim(INDUCTIVE_BIAS, cause, hybrid, "not measured here"),
        Claim(LARGE_SETS, measure, measured, "not measured here"),
    ]


def _small_sets(vit: Contestant, cnn: Contestant, lead: _Lead) -> Claim:
    images = vit.chosen.summary.train_images
    measure = f"difference of test accuracy with at most {SMALL:,} training images"
    if images > SMALL:
        return Claim(SMALL_SETS, measure, f"{images:,} training images are no small set; {_STUDY}", "not measured here")
    measured = f"{images:,} training images, {vit.name} minus {cnn.name}: {lead.text}"
    return Claim(SMALL_SETS, measure, measured, _is_better(cnn.name, lead))


def _efficiency(vit: Contestant, cnn: Contestant, lead: _Lead) -> Claim:
    """Whoever needs fewer operations is more efficient, unless the other is more accurate for it: that is a choice."""
    ratio = vit.cost.flops / cnn.cost.flops
    return Claim(
        EFFICIENCY,
        "operations for one image, at an accuracy that is no worse",
        f"{vit.name} needs {ratio:.1f} times the operations of {cnn.name}; accuracy: {lead.text}",
        verdict_of(
            holds=ratio > _NO_DIFFERENCE and (lead.better == cnn.name or lead.is_equal),
            refuted=ratio < 1 / _NO_DIFFERENCE and (lead.better == vit.name or lead.is_equal),
        ),
    )


def _real_time(vit: Contestant, cnn: Contestant) -> Claim:
    latencies = (
        f"{one.name} {one.cost.latency_p50_ms:.1f} ms ({one.cost.latency_p50_ms_low:.1f} to "
        f"{one.cost.latency_p50_ms_high:.1f})"
        for one in (vit, cnn)
    )
    return Claim(
        REAL_TIME,
        "median latency for one image, with the lowest and highest of a round",
        f"{', '.join(latencies)} on {cnn.cost.device}",
        verdict_of(
            holds=cnn.cost.latency_p50_ms_high < vit.cost.latency_p50_ms_low,
            refuted=vit.cost.latency_p50_ms_high < cnn.cost.latency_p50_ms_low,
        ),
    )


def _long_range(vit: Contestant, cnn: Contestant, measured: Mapping[str, Robustness]) -> Claim:
    """A network that relies on what lies far apart loses by far places changing theirs (Naseer et al. 2021).

    Of images that all are right on: elsewhere whoever is more accurate has more to lose.
    """
    measure = (
        "images lost when their four quarters change places, of those that every training is right on: whoever uses "
        "what lies far apart loses more"
    )
    known = np.logical_and.reduce([measured[one.name].correct[CLEAN, 0].all(axis=0) for one in (vit, cnn)])
    if not known.any():
        return Claim(LONG_RANGE, measure, "there is no such image", "not measured here")
    kept = {one.name: measured[one.name].correct[_FAR_APART][:, known] for one in (vit, cnn)}
    groups = vit.chosen.evaluation.predictions.group_codes
    groups = None if groups is None else groups[measured[vit.name].positions][known]
    confidence = vit.chosen.evaluation.metrics.confidence
    excess = compare_replicates(kept[cnn.name], kept[vit.name], confidence, groups)
    found = " and ".join(f"{name} loses {points(1 - float(right.mean()))} %" for name, right in kept.items())
    return Claim(
        LONG_RANGE,
        measure,
        f"of {int(known.sum()):,} images {found}, a difference of {points(excess.value, sign=True)} points "
        f"({points_between(excess.low, excess.high)}){of_trainings(len(vit.replicates))}",
        verdict_of(holds=excess.low > 0, refuted=excess.high < 0),
    )


def _explanations(vit: Contestant, cnn: Contestant, maps: Mapping[str, Mapping[str, Faithfulness]]) -> list[Claim]:
    """Of two claims that contradict each other: whose map is better by both areas, and by both better than random."""
    measure = (
        f"attention rollout of {vit.name} against Grad-CAM of {cnn.name} on the same images: deletion AUC (lower is "
        "better) and insertion AUC (higher is better), each minus that of random orders"
    )
    attention, features = maps[vit.name].get("rollout"), maps[cnn.name].get("gradcam")
    if attention is None or features is None:
        missing = f"{vit.name} has no attention rollout" if attention is None else f"{cnn.name} has no Grad-CAM"
        return [Claim(text, measure, missing, "not measured here") for text in (EXPLANATIONS, ATTENTION)]
    deletion, insertion = attention.difference_from(features)
    differences = ", ".join(
        f"{name} {value:+.3f} ".replace("-", "−") + f"({between(low, high, 3)})"
        for name, (value, low, high) in (("deletion", deletion), ("insertion", insertion))
    )
    proven = {one.name: quality.verdict == "better_than_random" for one, quality in ((vit, attention), (cnn, features))}
    weak = [name for name, is_proven in proven.items() if not is_proven]
    of = f"{len(attention.random)} images, of the chosen training of each"
    measured = f"{vit.name} minus {cnn.name}, {of}: {differences}"
    measured += f"; not better than random by both: {listed(weak)}" if weak else ""
    attention_is_better = proven[vit.name] and deletion[2] < 0 < insertion[1]
    features_are_better = proven[cnn.name] and insertion[2] < 0 < deletion[1]
    return [
        Claim(EXPLANATIONS, measure, measured, verdict_of(holds=attention_is_better, refuted=features_are_better)),
        Claim(ATTENTION, measure, measured, verdict_of(holds=features_are_better, refuted=attention_is_better)),
    ]
