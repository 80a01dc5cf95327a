"""prepare: data/prepared/ with the arrays of each split, dataset.json and checks.json."""

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.prepare import prepare
from vit_vs_cnn.tracking.run import start_run


def run(settings: Settings) -> None:
    """Decode, split, check and write the data; say what the checks found."""
    prepared = prepare(settings.data, PREPARED)
    with start_run(settings, "prepare") as tracked:
        tracked.set_tags({"data.digest": prepared.info.digest})
        tracked.log_params({"data": settings.data.model_dump()})
        tracked.log_metrics({f"data/images_{split}": part.images for split, part in prepared.info.splits.items()})
        for file in ("dataset.json", "checks.json"):
            tracked.log_artifact(PREPARED / file)
    sizes = ", ".join(f"{split} {info.images:,}" for split, info in prepared.info.splits.items())
    print(f"{prepared.info.description}: {len(prepared.info.classes)} classes; {sizes} images")
    for finding in prepared.checks.findings:
        print(f"{finding.severity}: {finding.sentence}")
