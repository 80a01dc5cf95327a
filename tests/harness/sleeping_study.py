"""A study whose trials train nothing: they sleep and report an invented curve. Also a worker of it, as a process."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from optuna.exceptions import TrialPruned
from optuna.trial import Trial

from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.nested import merge
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.data.dataset import DatasetInfo, SplitInfo
from vit_vs_cnn.tuning import storage
from vit_vs_cnn.tuning.storage import open_storage
from vit_vs_cnn.tuning.study import TuningStudy, load_study, number_of, open_study
from vit_vs_cnn.tuning.worker import Objective, work

EPOCHS = 4
# How late the heartbeat of a living worker may be on a busy machine.
GRACE_SECONDS = 12
SPACE: dict[str, Any] = {
    "optimizer": {
        "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "weight_decay": {"type": "float", "low": 0.0, "high": 0.2},
    }
}


def tuning_settings(trials: int, **tune: Any) -> Settings:
    from factories import TINY  # a worker needs no settings, and starts in a moment

    return parse_settings(merge(TINY, {"tune": {"trials": trials, "epochs": EPOCHS, "space": SPACE, **tune}}))


def dataset_info() -> DatasetInfo:
    return DatasetInfo(
        name="tiny",
        source="digits",
        description="nothing",
        classes=("a", "b"),
        image_size=16,
        split_seed=0,
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
        splits={
            name: SplitInfo(images=4, counts=(2, 2), digest=name)
            for name in ("train", "val", "test")  # type: ignore[misc]
        },
        digest="invented",
    )


def sleeping_study(url: str, trials: int, **tune: Any) -> TuningStudy:
    return open_study(open_storage(url), tuning_settings(trials, **tune), "vit", dataset_info())


def sleeping(tuning: TuningStudy, seconds: float = 0.0, *, prunes: bool = True) -> Objective:
    """Better the nearer the rate is to 0.01; each epoch sleeps its part of `seconds`; resumes after the last report."""

    def objective(trial: Trial) -> float:
        top = 1 - abs(trial.params["optimizer.lr"] - 0.01) - trial.params["optimizer.weight_decay"]
        earlier = tuning.storage.get_trial(trial._trial_id)
        for epoch in range(len(earlier.intermediate_values) + 1, EPOCHS + 1):
            time.sleep(seconds / EPOCHS)
            trial.report(top * epoch / EPOCHS, epoch)
            trial.set_user_attr("seconds", seconds * epoch / EPOCHS)
            if prunes and epoch < EPOCHS and number_of(earlier) and trial.should_prune():
                raise TrialPruned
        trial.set_user_attr("val_loss", 1 - top)
        trial.set_user_attr("val_accuracy", top)
        return top

    return objective


if __name__ == "__main__":
    _, url, name, seconds, together = sys.argv
    storage.HEARTBEAT_SECONDS, storage.GRACE_SECONDS = 1, GRACE_SECONDS
    study = load_study(open_storage(url), name)
    Path(f"ready-{os.getpid()}").touch()
    while len(list(Path().glob("ready-*"))) < int(together):
        time.sleep(0.01)
    work(study, sleeping(study, float(seconds), prunes=False))
