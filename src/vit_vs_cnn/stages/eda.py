"""eda: reports/eda/ with figures of the training images and the numbers behind them."""

import json

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import EDA, PREPARED
from vit_vs_cnn.data.checks import read_checks
from vit_vs_cnn.data.dataset import SplitName, read_info, read_split
from vit_vs_cnn.report.eda import write_eda
from vit_vs_cnn.report.figure_writer import figure_count
from vit_vs_cnn.tracking.names import prefixed_metrics
from vit_vs_cnn.tracking.run import start_run

_SPLITS: tuple[SplitName, ...] = ("train", "val")


def run(settings: Settings) -> None:
    """Look at all training images. The test split stays closed: its counts come from dataset.json."""
    splits = {split: read_split(PREPARED, split) for split in _SPLITS}
    info = read_info(PREPARED)
    write_eda(settings.recipe.augment, info, splits, read_checks(PREPARED), EDA)
    with start_run(settings, "eda") as tracked:
        tracked.log_dataset(info, "train", "analysis")
        tracked.log_metrics(prefixed_metrics("eda", json.loads((EDA / "summary.json").read_text(encoding="utf-8"))))
        tracked.log_artifact(EDA, "eda")
        found = f"{len(splits['train']):,} training images in {figure_count(EDA)} figures"
        tracked.describe(found)
    print(f"eda: {found}")
