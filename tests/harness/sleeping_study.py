"""A study whose trials train nothing: they sleep and report a made-up curve. Also a worker of it, as a process."""

import sys
import time
from pathlib import Path
from typing import Any

from optuna.trial import Trial, TrialState

from factories import TINY
from vit_vs_cnn.config.load import parse_settings
from vit_vs_cnn.config.schema import Settings, merge
from vit_vs_cnn.data.dataset import DatasetInfo, SplitInfo
from vit_vs_cnn.tuning.claims import Claims, Ended
from vit_vs_cnn.tuning.storage import StudyStorage
from vit_vs_cnn.tuning.study import TuningStudy, load_study, open_study
from vit_vs_cnn.tuning.worker import Objective, work

EPOCHS = 4
SPACE: dict[str, Any] = {
    "optimizer": {
        "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "weight_decay": {"type": "float", "low": 0.0, "high": 0.2},
    }
}


def tuning_settings(trials: int, **tune: Any) -> Settings:
    return parse_settings(merge(TINY, {"tune": {"trials": trials, "epochs": EPOCHS, "space": SPACE, **tune}}))


def info() -> DatasetInfo:
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
        digest="made up",
    )


def made_up(address: str, trials: int, **tune: Any) -> TuningStudy:
    return open_study(StudyStorage(address), tuning_settings(trials, **tune), "vit", info())


def sleeping(tuning: TuningStudy, seconds: float, *, prunes: bool = True) -> Objective:
    """Better the nearer the rate is to 0.01; every epoch sleeps its part of `seconds`."""

    def objective(trial: Trial) -> Ended:
        top = 1 - abs(trial.params["optimizer.lr"] - 0.01) - trial.params["optimizer.weight_decay"]
        value = 0.0
        for epoch in range(1, EPOCHS + 1):
            time.sleep(seconds / EPOCHS)
            value = top * epoch / EPOCHS
            if epoch not in tuning.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
                trial.report(value, epoch)
            if prunes and epoch < EPOCHS and trial.number and trial.should_prune():
                return Ended(TrialState.PRUNED, facts={"epochs": epoch, "seconds": seconds * epoch / EPOCHS})
        return Ended(TrialState.COMPLETE, value, {"epochs": EPOCHS, "seconds": seconds, "val_loss": 1 - value})

    return objective


if __name__ == "__main__":
    _, storage, name, seconds = sys.argv
    study = load_study(StudyStorage(storage), name)
    Path(f"{name}.begun").touch()
    work(Claims(study), sleeping(study, float(seconds), prunes=False))
