"""Who is challenger: the version that is best on validation, as far as it is the same validation."""

from vit_vs_cnn.config.gate import SelectBy
from vit_vs_cnn.registry.audit import AuditLog, Decision
from vit_vs_cnn.registry.versions import CHALLENGER, Registry, Version
from vit_vs_cnn.training.results import TrainingSummary, score_text

# The tag of a version that identifies the validation images its epoch was chosen on.
VAL_DIGEST = "data.val_digest"


def validation_tags(summary: TrainingSummary) -> dict[str, float | None]:
    """A training's scores on validation as tags of its version, by `select_by`; None where it recorded none."""
    return {
        "val_accuracy": summary.val_accuracy,
        "val_balanced_accuracy": summary.val_balanced_accuracy,
        "val_macro_f1": summary.val_macro_f1,
        "val_nll": summary.val_loss,
    }


def challenge(registry: Registry, log: AuditLog, number: int, select_by: SelectBy) -> tuple[bool, str]:
    """Make the version challenger where there is none, or where it is better than it on the same validation images.

    Returns whether it is challenger now, and why or why not in a sentence; both outcomes are recorded.
    """
    version, current = registry.version(number), registry.aliases().get(CHALLENGER)
    subject = f"version {number} ({version.contestant})"
    if current == number:
        return True, f"{subject} is {CHALLENGER} already"
    decision = Decision(action="registered", alias=CHALLENGER, previous_version=current, version=number)
    if current is None:
        log.move(decision.model_copy(update={"reason": f"{version.contestant} is the best by validation"}))
        return True, f"{subject} is {CHALLENGER}, the first one"
    better, reason = _is_better(version, registry.version(current), select_by)
    if better:
        log.move(decision.model_copy(update={"reason": reason}))
        return True, f"{subject} is {CHALLENGER}: {reason}"
    passed_over = decision.model_copy(update={"action": "passed over", "reason": reason})
    facts = (passed_over.action, number, current)
    if facts not in [(known.action, known.version, known.previous_version) for known in log.decisions()]:
        log.record(passed_over)
    promote = f"vit-vs-cnn registry promote {number} --registry {registry.name}"
    advice = f"`{promote}` has the gate judge it all the same"
    return False, f"{CHALLENGER} stays version {current}: {reason}; {advice}"


def _is_better(version: Version, current: Version, select_by: SelectBy) -> tuple[bool, str]:
    """Whether `version` is better than `current` on the same validation images, and the reason in words."""
    if not _same_validation(version, current):
        return False, f"it was not chosen on the validation images of version {version.number}"
    scores = [_score(one, select_by) for one in (version, current)]
    if scores[0] is None or scores[1] is None:
        return False, f"version {current.number} did not record {select_by} on validation"
    texts = [
        score_text(score, select_by).strip() + (" (of the first fit)" if one.tags.get("refit") else "")
        for one, score in zip((version, current), scores, strict=True)
        if score is not None
    ]
    better = scores[0] > scores[1]
    compared = "better" if better else "no better"
    return better, f"{compared} than version {current.number} on the same validation images, {texts[0]} to {texts[1]}"


def _same_validation(one: Version, other: Version) -> bool:
    """Whether two versions were validated on the same images; earlier releases recorded the whole data set only."""
    tags = [tag for tag in (VAL_DIGEST, "data.digest") if tag in one.tags and tag in other.tags]
    return bool(tags) and one.tags[tags[0]] == other.tags[tags[0]]


def _score(version: Version, select_by: SelectBy) -> float | None:
    """The version's score on validation, higher is better; None where it has none."""
    score = version.metric(f"val_{select_by}")
    return -score if score is not None and select_by == "nll" else score
