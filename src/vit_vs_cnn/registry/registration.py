"""Registration: each contestant's best replicate becomes a version of the registered model, the best one challenger.

A version has tags with numbers for the gate and the tables, and a model card for people.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from vit_vs_cnn.config.load import with_tuned
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import markdown_text
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.evaluation.contestants import Contestant, read_contestant
from vit_vs_cnn.evaluation.results import Evaluation
from vit_vs_cnn.registry.audit import looks_at, open_audit_log
from vit_vs_cnn.registry.challenger import VAL_DIGEST, challenge, validation_tags
from vit_vs_cnn.registry.signing import signature_tags
from vit_vs_cnn.registry.versions import TEST_DIGEST, Registry, registered_name, registry_errors
from vit_vs_cnn.tracking.lineage import lineage_tags
from vit_vs_cnn.tracking.run import read_ref
from vit_vs_cnn.training.results import selection_score

# MLflow keeps 5,000 characters of a description: of many classes the card has those with the lowest recall.
_MOST_CLASSES = 20
_OF_ALL_SEEDS = ("seeds", "accuracy_mean", "accuracy_std")


@dataclass(frozen=True)
class Looks:
    """How often the test images were looked at before: by versions measured on them, and by decisions of the gate."""

    versions: int
    decisions: int


@dataclass(frozen=True)
class Registration:
    """The version of each contestant; the best by validation, None where it is not challenger; and why, in words."""

    versions: dict[str, int]
    challenger: str | None
    reason: str


def register(settings: Settings, info: DatasetInfo) -> Registration:
    """Make each contestant's chosen replicate a version; the best by validation challenges the present challenger.

    A model that is registered already keeps its version. Raises UserError where the store is unreachable or does not
    have the training runs yet.
    """
    lineage = lineage_tags()
    contestants = [read_contestant(settings, name) for name in settings.models]
    best = max(contestants, key=lambda contestant: selection_score(contestant.chosen.summary, settings.select_by)).name
    versions: dict[str, int] = {}
    with registry_errors("when it answers, run `vit-vs-cnn sync` and then `dvc repro register`"):
        registry = Registry(registered_name(settings.data.name))
        registry.create()
        looks = _looks_before(registry, info)
        for contestant in contestants:
            folder = trained(contestant.name, contestant.chosen.seed)
            tags = _version_tags(folder / "model", info, contestant, lineage) | signature_tags(folder / "model")
            card = write_card(with_tuned(settings, contestant.name), contestant, info, lineage, looks)
            version = versions[contestant.name] = registry.add(contestant.name, read_ref(folder), tags, card)
            # Of a version that was known these may have changed: other seeds were trained since.
            registry.tag(version, {tag: tags[tag] for tag in _OF_ALL_SEEDS if tag in tags})
        with open_audit_log(registry) as log:
            is_challenger, reason = challenge(registry, log, versions[best], settings.select_by)
    return Registration(versions, best if is_challenger else None, reason)


def _looks_before(registry: Registry, info: DatasetInfo) -> Looks:
    digest, versions = info.splits["test"].digest, registry.versions()
    with open_audit_log(registry) as log:
        decisions = looks_at(digest, log.decisions(), versions)
    return Looks(sum(version.test_digest == digest for version in versions), decisions)


def _version_tags(model: Path, info: DatasetInfo, contestant: Contestant, lineage: Mapping[str, str]) -> dict[str, str]:
    """The tags of a version, whose exported model is in the folder `model`; numbers are JSON.

    What is measured is of the chosen replicate; `accuracy_mean` and `accuracy_std` are over all of the contestant.
    """
    chosen, cost = contestant.chosen, contestant.cost
    summary, metrics = chosen.summary, chosen.evaluation.metrics
    numbers = {
        "accuracy": metrics.accuracy,
        "accuracy_low": metrics.accuracy_low,
        "accuracy_high": metrics.accuracy_high,
        "seed": chosen.seed,
        "seeds": len(contestant.replicates),
        "accuracy_mean": contestant.accuracy,
        "accuracy_std": contestant.mean.deviation,
        "balanced_accuracy": metrics.balanced_accuracy,
        "macro_f1": metrics.macro_f1,
        "nll": metrics.negative_log_likelihood,
        **validation_tags(summary),
        "refit": summary.refit or None,
        "calibration_error": metrics.expected_calibration_error,
        "latency_p95_ms": cost.latency_p95_ms,
        "size_mb": sum(path.stat().st_size for path in model.rglob("*") if path.is_file()) / 1e6,
        "parameters": cost.parameters,
    }
    return {
        **{tag: json.dumps(number) for tag, number in numbers.items() if number is not None},
        "timm": summary.timm,
        "select_by": summary.select_by,
        "device": summary.device,
        "data.digest": info.digest,
        VAL_DIGEST: info.splits["val"].digest,
        TEST_DIGEST: info.splits["test"].digest,
        "data.image_size": str(info.image_size),
        **lineage,
    }


def write_card(
    settings: Settings, contestant: Contestant, info: DatasetInfo, lineage: Mapping[str, str], looks: Looks
) -> str:
    """The model card of a contestant's chosen replicate in Markdown, from what the stages recorded."""
    evaluation = contestant.chosen.evaluation
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["plain"] = markdown_text
    template = environment.from_string((files("vit_vs_cnn.registry") / "card.md.j2").read_text(encoding="utf-8"))
    classes = evaluation.per_class[evaluation.per_class["images"] > 0].sort_values("recall", kind="stable")
    return template.render(
        name=registered_name(settings.data.name),
        contestant=contestant,
        model=settings.model(contestant.name),
        info=info,
        summary=contestant.chosen.summary,
        evaluation=evaluation,
        cost=contestant.cost,
        classes=classes.head(_MOST_CLASSES).to_dict("records"),
        confusions=_confusions(evaluation),
        lineage=lineage,
        looks=looks,
    )


def _confusions(evaluation: Evaluation) -> list[tuple[str, str, int]]:
    """The three most frequent confusions: true class, predicted class, images."""
    counts = [
        (label, predicted, int(count))
        for label, row in zip(evaluation.classes, evaluation.confusion, strict=True)
        for predicted, count in zip(evaluation.classes, row, strict=True)
        if label != predicted and count
    ]
    return sorted(counts, key=lambda confusion: -confusion[2])[:3]
