"""The gate before `champion`: rules over what was measured of a challenger, and of champions on the same images."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vit_vs_cnn.config.gate import GateSettings, SelectBy
from vit_vs_cnn.core.console import points
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.evaluation.clusters import FEWEST_GROUPS, Groups, sign_flip_p_values
from vit_vs_cnn.evaluation.metrics import share_interval
from vit_vs_cnn.evaluation.paired_difference import POWER, PairedDifference, images_needed, paired_difference
from vit_vs_cnn.evaluation.results import Predictions
from vit_vs_cnn.evaluation.significance import class_losses, holm
from vit_vs_cnn.registry.audit import RuleOutcome, State

_NAMES: dict[SelectBy, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "nll": "log-likelihood",
}


@dataclass(frozen=True)
class Evidence:
    """What was measured of one version on N test images of the classes, and its cost."""

    classes: Sequence[str]
    predictions: Predictions
    calibration_error: float
    latency_p95_ms: float
    size_mb: float


@dataclass(frozen=True)
class Judge:
    """The rules that `gate` has, and how they are decided: the metric to compare, and the confidence of intervals."""

    gate: GateSettings
    select_by: SelectBy
    confidence: float

    def outcomes(
        self, challenger: Evidence, champion: Evidence | None = None, best: Evidence | None = None
    ) -> tuple[RuleOutcome, ...]:
        """The outcome of every rule; those of comparison only where there is a champion, or a better one before it.

        All were measured on the same images in the same order. Raises UserError where a rule is about a class that the
        data do not have.
        """
        outcomes = [*self._absolute_rules(challenger), *self._recall_rules(challenger)]
        if champion is not None:
            outcomes.append(self._not_worse(challenger, champion, "the champion"))
        if best is not None:
            outcomes.append(self._not_worse(challenger, best, "the best champion so far"))
        if champion is not None:
            outcomes.append(self._no_class_worse(challenger, champion))
            if self.select_by != "nll":
                outcomes.append(self._likelihood_not_worse(challenger, champion))
        return tuple(outcomes)

    def _absolute_rules(self, challenger: Evidence) -> Iterator[RuleOutcome]:
        correct = challenger.predictions.correct
        accuracy = float(correct.mean())
        yield RuleOutcome(
            rule="accuracy",
            measured=f"{accuracy:.2%} of {len(correct):,} images",
            required=f"at least {self.gate.min_accuracy:.2%}",
            state=_state(met=accuracy >= self.gate.min_accuracy),
            value=accuracy,
        )
        for rule, value, limit, unit in (
            ("calibration error", challenger.calibration_error, self.gate.max_calibration_error, ""),
            ("latency p95", challenger.latency_p95_ms, self.gate.max_latency_p95_ms, " ms"),
            ("size", challenger.size_mb, self.gate.max_size_mb, " MB"),
        ):
            if limit is not None:
                yield RuleOutcome(
                    rule=rule,
                    measured=f"{value:.3g}{unit}",
                    required=f"at most {limit:g}{unit}",
                    state=_state(met=value <= limit),
                    value=value,
                )

    def _recall_rules(self, challenger: Evidence) -> Iterator[RuleOutcome]:
        for name, limit in self.gate.min_recall.items():
            if name not in challenger.classes:
                classes = ", ".join(challenger.classes)
                raise UserError(f"gate.min_recall: there is no class {name!r}; there are {classes}.")
            predictions = challenger.predictions
            rows = predictions.labels == challenger.classes.index(name)
            of_class, measured, recall = predictions.correct[rows], "no test image", None
            if len(of_class):
                recall = float(of_class.mean())
                groups = predictions.group_codes
                low, high = share_interval(of_class, None if groups is None else groups[rows], self.confidence)
                measured = f"{recall:.2%} of {len(of_class):,} images ({self._interval} {low:.2%} to {high:.2%})"
            yield RuleOutcome(
                rule=f"recall of {name}",
                measured=measured,
                required=f"at least {limit:.2%}",
                state=_state(met=recall is not None and recall >= limit),
                value=recall,
            )

    def _not_worse(self, challenger: Evidence, reference: Evidence, whom: str) -> RuleOutcome:
        """Non-inferiority: the paired interval of the difference lies above −margin; or below 0; or neither."""
        metric, images = _NAMES[self.select_by], len(challenger.predictions.labels)
        found = paired_difference(self.select_by, challenger.predictions, reference.predictions, self.confidence)
        margin = self.gate.nll_margin if self.select_by == "nll" else self.gate.margin
        few_groups = found.groups is not None and found.groups < FEWEST_GROUPS
        state: State = "pass" if found.low >= -margin else "fail" if found.high < 0 else "undecided"
        note = (
            f"These {images:,} test images cannot exclude a loss of {_amount(-found.low, self.select_by)} of {metric} "
            f"beside {whom}; the margin is {_amount(margin, self.select_by)}."
        )
        if few_groups:
            state = "undecided"
            note = (
                f"These {images:,} test images are of {found.groups} groups only, and {FEWEST_GROUPS} at least are "
                f"needed to compare {metric} beside {whom}."
            )
        elif margin > 0:
            needed = images_needed(found.variance, margin, self.confidence, of_shares=self.select_by != "nll")
            such = "such images" if found.groups is None else "images in such groups"
            note += f" About {needed:,} {such} would let an equal model pass {100 * POWER:g} times in 100."
        return RuleOutcome(
            rule=f"{metric} beside {whom}",
            measured=self._measured(found, self.select_by),
            required=f"interval not below {_amount(-margin, self.select_by, sign=True)}",
            state=state,
            value=found.value,
            note=note if state == "undecided" else "",
        )

    def _no_class_worse(self, challenger: Evidence, champion: Evidence) -> RuleOutcome:
        """No class is lost: a loss beyond the margin that is also more than chance fails, a loss beyond it warns."""
        margin, labels = self.gate.class_margin, challenger.predictions.labels
        own, others = challenger.predictions.correct, champion.predictions.correct
        images, only_own, only_others = (
            np.bincount(labels[chosen], minlength=len(challenger.classes))
            for chosen in (labels >= 0, own & ~others, others & ~own)
        )
        present = np.flatnonzero(images)
        losses, p_values = class_losses(only_own[present], only_others[present], images[present])
        groups = _groups_of(challenger, champion)
        if groups is not None:
            gains, rows_of = own.astype(np.int64) - others, [labels == label for label in present]
            p_values = np.array(holm([sign_flip_p_values(gains[rows], groups[rows])[1] for rows in rows_of]))
        # A small tolerance: 0.95 - 1.0 is not exactly -0.05.
        beyond = losses > margin + 1e-9
        lost = beyond & (p_values < 1 - self.confidence)
        # Of equal losses the one that is less likely to be chance.
        candidates = np.flatnonzero(lost) if lost.any() else np.arange(len(present))
        worst = max(candidates, key=lambda index: (losses[index], -p_values[index]))
        loss, p_value = float(losses[worst]), float(p_values[worst])
        chance = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
        which = "the least beyond chance" if lost.any() else "the least"
        return RuleOutcome(
            rule="every class beside the champion",
            measured=(
                f"{points(-loss, 2, sign=True)} points for {challenger.classes[present[worst]]!r}, {which} "
                f"({int(images[present[worst]]):,} images, {chance})"
            ),
            required=f"none below {points(-margin, 2, sign=True)} by more than chance (p < {1 - self.confidence:.2g})",
            state="fail" if lost.any() else "warn" if beyond.any() else "pass",
            value=-loss,
        )

    def _likelihood_not_worse(self, challenger: Evidence, champion: Evidence) -> RuleOutcome:
        """Calibration beside the champion: a loss of likelihood beyond the margin, by more than chance, fails."""
        found = paired_difference("nll", challenger.predictions, champion.predictions, self.confidence)
        margin = self.gate.nll_margin
        return RuleOutcome(
            rule="log-likelihood beside the champion",
            measured=self._measured(found, "nll"),
            required=f"not below {_amount(-margin, 'nll', sign=True)} by more than chance",
            state="fail" if found.high < -margin else "warn" if found.value < -margin else "pass",
            value=found.value,
        )

    @property
    def _interval(self) -> str:
        return f"{100 * self.confidence:g} % interval"

    def _measured(self, found: PairedDifference, metric: SelectBy) -> str:
        value, low, high = (_amount(amount, metric, sign=True) for amount in (found.value, found.low, found.high))
        method = found.method if found.groups is None else f"{found.method} by {found.groups:,} groups"
        interval = f"{self._interval} {low.split()[0]} to {high.split()[0]}"
        if not math.isfinite(found.high - found.low):
            interval = f"no {self._interval}"
        return f"{value} ({interval}, {method})"


def _groups_of(challenger: Evidence, reference: Evidence) -> Groups | None:
    """Codes of the groups of the images, which a version that was evaluated before may not have recorded."""
    own = challenger.predictions.group_codes
    return reference.predictions.group_codes if own is None else own


def _amount(value: float, metric: SelectBy, *, sign: bool = False) -> str:
    if metric == "nll":
        return f"{value:{'+' if sign else ''}.3f} nats".replace("-", "−")
    return f"{points(value, 2, sign=sign)} points"


def _state(*, met: bool) -> State:
    return "pass" if met else "fail"
