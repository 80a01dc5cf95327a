"""register: the trained contestants as versions of the data set's registered model."""

import json
from pathlib import Path

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.config.tuned import with_tuned
from vit_vs_cnn.core.paths import PREPARED, REGISTERED, evaluated, trained
from vit_vs_cnn.data.dataset import DatasetInfo, read_info
from vit_vs_cnn.evaluation.results import read_evaluation
from vit_vs_cnn.registry.card import write_card
from vit_vs_cnn.registry.registration import register
from vit_vs_cnn.registry.versions import CHALLENGER, TEST_DIGEST, Candidate, registered_name
from vit_vs_cnn.tracking.lineage import lineage_tags
from vit_vs_cnn.tracking.run import read_ref
from vit_vs_cnn.training.results import read_summary


def run(settings: Settings) -> None:
    """Register every contestant; the best by validation becomes the challenger."""
    info = read_info(PREPARED)
    name = registered_name(settings.data.name)
    candidates = [_candidate(with_tuned(settings, each), each, name, info) for each in settings.models]
    versions = register(name, candidates)
    challenger = max(candidates, key=lambda each: each.val_accuracy).contestant
    REGISTERED.mkdir(parents=True, exist_ok=True)
    record = {"name": name, "versions": versions, CHALLENGER: challenger}
    (REGISTERED / "versions.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(
        f"{name}: "
        + ", ".join(f"{contestant} is version {version}" for contestant, version in versions.items())
        + f"; {CHALLENGER} (best by validation) is {challenger}."
    )


def _candidate(settings: Settings, contestant: str, name: str, info: DatasetInfo) -> Candidate:
    summary, evaluation = read_summary(trained(contestant)), read_evaluation(evaluated(contestant))
    metrics, lineage = evaluation.metrics, lineage_tags()
    return Candidate(
        contestant=contestant,
        ref=read_ref(trained(contestant)),
        val_accuracy=summary.val_accuracy,
        metrics={
            "accuracy": metrics.accuracy,
            "accuracy_low": metrics.accuracy_low,
            "accuracy_high": metrics.accuracy_high,
            "val_accuracy": summary.val_accuracy,
            "calibration_error": metrics.expected_calibration_error,
            "latency_p95_ms": evaluation.cost.latency_p95_ms,
            "size_mb": _megabytes(trained(contestant) / "model"),
            "parameters": evaluation.cost.parameters,
        },
        tags={
            "timm": summary.timm,
            "device": summary.device,
            "data.digest": info.digest,
            TEST_DIGEST: info.splits["test"].digest,
            "data.image_size": str(info.image_size),
            **lineage,
        },
        card=write_card(name, contestant, settings, info, summary, evaluation, lineage),
    )


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
