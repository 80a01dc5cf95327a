"""tuned/<contestant>.json: what a search gained and cost, in numbers. It imports no Optuna, and so takes no time."""

from vit_vs_cnn.core.paths import tuning_summary
from vit_vs_cnn.core.records import Record


class TuningSummary(Record):
    """tuned/<contestant>.json: accuracies are fractions of the validation images, times are seconds.

    The best trial is the best by `select_by`; the accuracies are those of the recipe's trial and of this one, and
    `gain` is their difference. `at_edge` has the settings, by path, whose best value lies at an edge of its range that
    could be wider: a better one may lie beyond.
    Without a search all counts are 0 and the accuracies None; `recipe_val_accuracy` is None too where the recipe as
    it is failed. `epochs_saved` are those that pruned trials did not train, `seconds_saved` what they would have
    taken at the pace of each trial.
    """

    trials: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    epochs_per_trial: int = 0
    data_fraction: float = 1.0
    recipe_val_accuracy: float | None = None
    best_val_accuracy: float | None = None
    gain: float | None = None
    best_trial: int | None = None
    select_by: str = "accuracy"
    at_edge: tuple[str, ...] = ()
    seconds: float = 0.0
    epochs_saved: int = 0
    seconds_saved: float = 0.0
    study: str | None = None


def read_tuning_summary(contestant: str) -> TuningSummary:
    """Read the summary of a contestant. Raises UserError where it is missing or not valid."""
    return TuningSummary.read(tuning_summary(contestant), f"run `dvc repro tune@{contestant}`")
