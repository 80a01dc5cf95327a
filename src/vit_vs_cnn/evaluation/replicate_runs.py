"""The replicates of a contestant in MLflow: their training runs become children of one run with their means."""

import pandas as pd

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.core.records import numbers_of
from vit_vs_cnn.evaluation.contestants import Contestant, Replicate
from vit_vs_cnn.evaluation.results import Metrics
from vit_vs_cnn.tracking.names import contestant_params, prefixed_metrics
from vit_vs_cnn.tracking.run import add_to_run, read_ref, start_run
from vit_vs_cnn.training.results import summary_metrics


def record_replicates(settings: Settings, contestant: Contestant) -> None:
    """Record means, the accuracy's interval, and deviations as `…_std` of replicates; nothing of a single one.

    A longer list of seeds that begins with the same one continues the same run.
    """
    if len(contestant.replicates) == 1:
        return
    folders = [trained(contestant.name, replicate.seed) for replicate in contestant.replicates]
    key = f"{read_ref(folders[0]).key}-replicates"
    metrics = pd.DataFrame([_metrics(replicate) for replicate in contestant.replicates])
    params = contestant_params(settings, contestant.name)
    del params["seed"]
    with start_run(settings, "replicates", contestant.name, key) as tracked:
        tracked.log_params(params)
        tracked.set_tags({"seeds": [replicate.seed for replicate in contestant.replicates]})
        tracked.log_metrics({str(name): float(value) for name, value in metrics.mean().items()})
        tracked.log_metrics({f"{name}_std": float(value) for name, value in metrics.std().items()})
        tracked.log_metrics({"test/accuracy_low": contestant.mean.low, "test/accuracy_high": contestant.mean.high})
    for folder in folders:
        with add_to_run(folder) as child:
            child.set_parent(key)


def _metrics(replicate: Replicate) -> dict[str, float]:
    # The mean of intervals is no interval of the mean.
    bounds = {name for name in Metrics.model_fields if name.endswith(("_low", "_high"))}
    measured = numbers_of(replicate.evaluation.metrics, bounds | {"confidence", "peak_memory_mb"})
    return summary_metrics(replicate.summary) | prefixed_metrics("test", measured)
