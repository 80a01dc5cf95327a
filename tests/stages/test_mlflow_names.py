"""What the stages log in MLflow has the names of docs/mlflow.md."""

import re

from mlflow import MlflowClient

from factories import REPOSITORY
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.paths import trained
from vit_vs_cnn.data.dataset import DatasetInfo
from vit_vs_cnn.stages import cost, evaluate, explain, robustness, train
from vit_vs_cnn.tracking.run import read_ref
from vit_vs_cnn.tracking.store import tracking_uri


def metrics_of_a_training() -> set[str]:
    page = (REPOSITORY / "docs/mlflow.md").read_text()
    section = page[page.index("## Metrics") : page.index("## Parameters")]
    rows = re.findall(r"^\| (`.*`) \| training", section, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_a_contestants_run_has_the_metrics_of_the_page_once(settings: Settings, prepared: DatasetInfo) -> None:
    train.run(settings, "vit", 0)
    evaluate.run(settings, "vit", 0)
    robustness.run(settings, "vit")
    explain.run(settings, "vit")
    cost.run(settings.model_copy(update={"models": {"vit": settings.models["vit"]}}))
    client = MlflowClient(tracking_uri())
    run_id = read_ref(trained("vit", 0)).run_id
    assert run_id is not None
    run = client.get_run(run_id)
    on_a_gpu = {name for name in metrics_of_a_training() if "gpu_0" in name}
    # Three classes have no top five.
    assert run.data.metrics.keys() | on_a_gpu | {"test/top5_accuracy"} == metrics_of_a_training()
    by_epoch = ("train/", "val/", "time/", "system/")
    steps = {name: [value.step for value in client.get_metric_history(run_id, name)] for name in run.data.metrics}
    assert {name for name, values in steps.items() if values == [1, 2]} == {
        name for name in steps if name.startswith(by_epoch)
    }
    assert all(len(values) == 1 for name, values in steps.items() if not name.startswith(by_epoch))
    logged = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    linked = {metric.key: metric.dataset_name for metric in logged.metrics}
    assert {name: linked.get(name) for name in steps if name.startswith("test/")} == {
        name: "tiny-test" for name in steps if name.startswith("test/")
    }
