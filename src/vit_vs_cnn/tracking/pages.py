"""Where MLflow's pages show runs."""

import os
from collections.abc import Sequence

from vit_vs_cnn.tracking.outbox import RunRef
from vit_vs_cnn.tracking.store import tracking_server
from vit_vs_cnn.tracking.views import TRAINING_PAGES, view_address, view_key

# Set by `vit-vs-cnn up`, whose pages show a store that is a file.
MLFLOW_UI_VARIABLE = "VIT_VS_CNN_MLFLOW_UI"


def pages_address() -> str | None:
    """The address of MLflow's pages; None where no server is known."""
    return tracking_server() or os.environ.get(MLFLOW_UI_VARIABLE)


def run_page(ref: RunRef) -> str | None:
    """The address of the run's page; None where no server is known, or the store does not have the run yet."""
    address = pages_address()
    return f"{address}/#/runs/{ref.run_id}?{TRAINING_PAGES}" if address and ref.run_id else None


def comparison_page(trainings: Sequence[RunRef], address: str | None = None) -> str | None:
    """The page that opens with accuracy, loss and cost of these trainings, on the server at `address` or the known one.

    None where there is no server, or the store does not have the runs yet.
    """
    address = address or pages_address()
    experiment_id = next((training.experiment_id for training in trainings if training.experiment_id), None)
    keys = [training.key for training in trainings]
    return f"{address}{view_address(experiment_id, view_key(keys))}" if address and experiment_id else None
