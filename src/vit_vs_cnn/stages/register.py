"""register: the trained contestants as versions of the data set's registered model."""

import json

from vit_vs_cnn.config import Settings
from vit_vs_cnn.data.prepared import read_info
from vit_vs_cnn.evaluation.results import read_evaluation
from vit_vs_cnn.layout import PREPARED, REGISTERED, evaluated, trained
from vit_vs_cnn.tracking.lineage import lineage_tags
from vit_vs_cnn.tracking.registry import CHALLENGER, Candidate, register, registered_name
from vit_vs_cnn.tracking.run import read_ref
from vit_vs_cnn.training.outputs import read_summary


def run(settings: Settings) -> None:
    """Register every contestant; the best by validation becomes the challenger."""
    info = read_info(PREPARED)
    name = registered_name(settings.data.name)
    candidates = []
    for contestant in settings.models:
        summary = read_summary(trained(contestant))
        evaluation = read_evaluation(evaluated(contestant))
        candidates.append(
            Candidate(
                contestant=contestant,
                ref=read_ref(trained(contestant)),
                val_accuracy=summary.val_accuracy,
                metrics={
                    "accuracy": evaluation.metrics.accuracy,
                    "accuracy_low": evaluation.metrics.accuracy_low,
                    "accuracy_high": evaluation.metrics.accuracy_high,
                    "val_accuracy": summary.val_accuracy,
                    "latency_p95_ms": evaluation.cost.latency_p95_ms,
                    "parameters": evaluation.cost.parameters,
                },
                tags={"timm": summary.timm, "data.digest": info.digest, "device": summary.device, **lineage_tags()},
            )
        )
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
