"""optuna-dashboard over the project's studies, for its own pages; `vit-vs-cnn up` starts it."""

import click
import uvicorn
from uvicorn.middleware.wsgi import WSGIMiddleware  # type: ignore[attr-defined]

from vit_vs_cnn.core.own_pages import OwnPagesOnly
from vit_vs_cnn.core.start_up import without
from vit_vs_cnn.orchestration.prefect_server import HOST
from vit_vs_cnn.tuning.storage import open_storage, storage_url


@click.command()
@click.option("--port", required=True, type=int, help="Port of loopback.")
def main(port: int) -> None:
    """Serve the pages until SIGINT or SIGTERM."""
    # scikit-learn, of which the dashboard has its importances, imports pandas where it is there: memory for nothing.
    with without("pandas"):
        from optuna_dashboard import wsgi

    # The storage's password stays in the environment; the dashboard's own command takes it as an argument.
    application = OwnPagesOnly(WSGIMiddleware(wsgi(open_storage(storage_url()))))
    uvicorn.run(application, host=HOST, port=port, log_level="warning")


if __name__ == "__main__":
    main()
