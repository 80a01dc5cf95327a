"""prepare: data/prepared/ with the arrays of each split, dataset.json and checks.json."""

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import printable
from vit_vs_cnn.core.paths import PREPARED
from vit_vs_cnn.data.prepare import prepare
from vit_vs_cnn.tracking.run import start_run


def run(settings: Settings) -> None:
    """Decode, split, check and write the data; say what the checks found."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        # At once, also where a parent process reads along: the work may take long.
        print(printable(line), flush=True)

    info, checks = prepare(settings.data, PREPARED, say)
    with start_run(settings, "prepare") as tracked:
        tracked.set_tags({"data.digest": info.digest})
        tracked.log_params({"data": settings.data.model_dump(exclude={"class_names"})})
        tracked.log_metrics({f"data/images_{split}": part.images for split, part in info.splits.items()})
        for file in ("dataset.json", "checks.json"):
            tracked.log_artifact(PREPARED / file)
        sizes = ", ".join(f"{split} {part.images:,}" for split, part in info.splits.items())
        found = f"{info.description}: {len(info.classes)} classes; {sizes} images"
        tracked.describe(found)
        tracked.describe_experiment(info)
    print(printable(found))
    for note in checks.notes:
        if f"note: {note}" not in said:
            print(printable(f"note: {note}"))
    for finding in checks.findings:
        print(printable(f"{finding.severity}: {finding.sentence}"))
