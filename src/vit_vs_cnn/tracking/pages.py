"""Where MLflow's pages show runs."""

import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from vit_vs_cnn.core.paths import state_dir
from vit_vs_cnn.tracking.outbox import RunRef
from vit_vs_cnn.tracking.store import tracking_server
from vit_vs_cnn.tracking.views import TRAINING_PAGES, view_address, view_key

# Where `make ui` and `vit-vs-cnn up` have MLflow's pages.
USUAL_PAGES = "http://127.0.0.1:5000"
_SECONDS_TO_CONNECT = 1.0


def running_pages_file() -> Path:
    """The file with the address of the pages that `vit-vs-cnn up` shows a store with that is a file, while it runs."""
    return state_dir() / "mlflow.url"


def pages_address() -> str | None:
    """The address of MLflow's pages; None where no server is known."""
    return tracking_server() or _running_pages()


def _running_pages() -> str | None:
    """The address of the pages of `vit-vs-cnn up`, None where it does not run or was killed."""
    path = running_pages_file()
    address = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not address:
        return None
    place = urlsplit(address)
    try:
        socket.create_connection((str(place.hostname), place.port or 80), _SECONDS_TO_CONNECT).close()
    except OSError:
        return None
    return address


def run_page(ref: RunRef, address: str | None = None) -> str | None:
    """The address of the run's page, on the server at `address` or the known one.

    None where there is no server, or the store does not have the run yet.
    """
    address = address or pages_address()
    return f"{address}/#/runs/{ref.run_id}?{TRAINING_PAGES}" if address and ref.run_id else None


def comparison_page(trainings: Sequence[RunRef], address: str | None = None) -> str | None:
    """The page that opens with accuracy, loss and cost of these trainings, on the server at `address` or the known one.

    None where there is no server, or the store does not have the runs yet.
    """
    address = address or pages_address()
    experiment_id = next((training.experiment_id for training in trainings if training.experiment_id), None)
    keys = [training.key for training in trainings]
    return f"{address}{view_address(experiment_id, view_key(keys))}" if address and experiment_id else None
