"""The tracked run of a whole study; each trial is a run below it."""

from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.tracking.run import TrackedRun
from vit_vs_cnn.tuning.result import StudyResult
from vit_vs_cnn.tuning.study import TuningStudy


def record_question(tracked: TrackedRun, tuning: TuningStudy, info: DatasetInfo) -> None:
    """Record what is searched, on what data."""
    settings = tuning.settings
    space = {
        path: dimension.model_dump(exclude_defaults=True)
        for path, dimension in settings.space(tuning.contestant).items()
    }
    tracked.log_params(
        {
            "space": {path: ", ".join(f"{key} {value}" for key, value in each.items()) for path, each in space.items()},
            "epochs": tuning.epochs,
            "data_fraction": settings.tune.data_fraction,
            "sampler": settings.tune.sampler.name,
            "pruner": settings.tune.pruner.name,
            "seed": settings.seed,
            **settings.model(tuning.contestant).model_dump(),
        }
    )
    tracked.set_tags({"study": tuning.name, "data.digest": info.digest})
    tracked.log_dataset(info, "train", "training")
    tracked.log_dataset(info, "val", "validation")


def record_found(tracked: TrackedRun, found: StudyResult) -> None:
    """Record the best values, the gain with both curves, counts and times."""
    numbers = found.summary.model_dump(exclude={"study"})
    tracked.log_metrics({key: float(value) for key, value in numbers.items() if value is not None})
    tracked.set_tags({f"best.{path}": str(value) for path, value in found.values.items()})
    for name, trial in (("recipe", found.recipe), ("best", found.best)):
        for epoch, value in sorted(trial.intermediate_values.items()):
            tracked.log_metrics({f"{name}_val_accuracy_by_epoch": value}, step=epoch)
