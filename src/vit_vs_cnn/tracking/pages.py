"""Where MLflow's pages show a run."""

import os

from vit_vs_cnn.tracking.outbox import RunRef
from vit_vs_cnn.tracking.store import tracking_server

# Set by `vit-vs-cnn up`, whose pages show a store that is a file.
MLFLOW_UI_VARIABLE = "VIT_VS_CNN_MLFLOW_UI"


def run_page(ref: RunRef) -> str | None:
    """The address of the run's page; None where no server is known, or the store does not have the run yet."""
    address = tracking_server() or os.environ.get(MLFLOW_UI_VARIABLE)
    if address is None or ref.run_id is None:
        return None
    # Without its end MLflow shows its pages about language models.
    return f"{address}/#/runs/{ref.run_id}?workflowType=machine_learning"
