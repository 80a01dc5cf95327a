"""The commands around the pipeline: local services, retention, unsent records, and what a machine lacks."""

import json
import sys
from dataclasses import asdict

import click

from vit_vs_cnn.cli.options import json_option

_port = click.IntRange(1, 65535)


@click.command(epilog="\b\nExample:\n  vit-vs-cnn up --prefect-port 4300")
@click.option("--prefect-port", default=4200, show_default=True, type=_port, help="Port of Prefect's server and pages.")
@click.option("--mlflow-port", default=5000, show_default=True, type=_port, help="Port of MLflow's pages.")
@click.option("--worker-port", default=8080, show_default=True, type=_port, help="Port of the worker's health check.")
@click.option(
    "--optuna-port", default=8081, show_default=True, type=_port, help="Port of Optuna's dashboard, if it is installed."
)
@click.option(
    "--limit", default=4, show_default=True, type=click.IntRange(1), help="Flow runs that the worker runs at once."
)
def up(prefect_port: int, mlflow_port: int, worker_port: int, optuna_port: int, limit: int) -> None:
    """Start Prefect, MLflow and a worker on this machine, until Ctrl-C."""
    from vit_vs_cnn.orchestration.local_services import Ports
    from vit_vs_cnn.orchestration.local_services import up as start

    start(Ports(prefect_port, mlflow_port, worker_port, optuna_port), limit, click.echo)


@click.command(epilog="\b\nExample:\n  vit-vs-cnn clean --days 7")
@click.option("--days", type=click.FloatRange(0), help="Keep what is younger; default: flow.keep_days in params.yaml.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(days: float | None, yes: bool) -> None:
    """Remove old workspaces, checkpoints, downloads and runs in MLflow, and cached data that nothing refers to.

    A run in MLflow stays while a registered version, a workspace or the project's own results need it. In a store other
    than mlruns/mlflow.db all of them stay.
    """
    from vit_vs_cnn.config.load import project_settings
    from vit_vs_cnn.core.errors import UserError
    from vit_vs_cnn.orchestration.retention import find_old, remove_old

    old = find_old(project_settings().flow.keep_days if days is None else days)
    cached = (
        "DVC's cache stays as it is, because other projects may use it: `dvc gc` is yours to run"
        if old.cached is None
        else f"and of DVC's cache what nothing refers to then, {old.cached / 1e6:.1f} MB"
    )
    click.echo(
        f"what is older than {old.days:g} days: {len(old.workspaces)} workspaces, {len(old.checkpoints)} checkpoints, "
        f"{len(old.downloads)} downloads, {len(old.runs.run_ids)} runs in MLflow, {old.size / 1e6:.1f} MB; {cached}."
    )
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("there is nobody to ask whether to remove it: `vit-vs-cnn clean --yes` removes it.")
        if not click.confirm("Remove it?"):
            return
    cache_mb = remove_old(old)
    click.echo(
        "removed"
        + ("; DVC's cache was left as it is." if cache_mb is None else f", and {cache_mb:.1f} MB of DVC's cache.")
    )


@click.command(
    epilog="\b\nExample:\n  export PREFECT_API_URL=http://server:4200/api\n"
    "  VIT_VS_CNN_GIT_URL=https://git.example.com/you/project.git vit-vs-cnn deploy"
)
def deploy() -> None:
    """Set up Prefect's server for workers on other machines.

    Creates or updates on the server of PREFECT_API_URL the work pool `remote`, the deployment `vit-vs-cnn/remote`, and
    the automation that ends runs whose worker was killed. Its runs clone VIT_VS_CNN_GIT_URL, branch
    VIT_VS_CNN_GIT_BRANCH (default: main).
    """
    from vit_vs_cnn.orchestration.remote import POOL
    from vit_vs_cnn.orchestration.remote import deploy as deploy_remote

    api = deploy_remote()
    click.echo(f"deployed vit-vs-cnn/remote to {api}; a worker for it: prefect worker start --pool {POOL}")


@click.command()
def sync() -> None:
    """Deliver to MLflow what is pending because it was unreachable."""
    from vit_vs_cnn.tracking.delivery import sync as deliver_pending

    delivered, pending = deliver_pending()
    click.echo(f"{delivered} runs delivered, {pending} pending.")


@click.command(epilog="\b\nExample:\n  vit-vs-cnn doctor --fix")
@click.option("--fix", is_flag=True, help="Remove the workspaces of runs whose process was killed.")
@json_option
def doctor(fix: bool, as_json: bool) -> None:
    """Check Python, packages, device, disk, DVC, runs, tracking store and downloads; say what a failure means."""
    from vit_vs_cnn.cli.doctor import checks, render
    from vit_vs_cnn.config.load import project_settings
    from vit_vs_cnn.orchestration.retention import remove_dead_runs

    if fix:
        for name in remove_dead_runs(project_settings().flow.keep_days):
            click.echo(f"fixed  run {name}: its workspace is removed; started again it continues", err=as_json)
    results = checks()
    click.echo(json.dumps([asdict(result) for result in results], indent=2) if as_json else render(results))
    if any(not result.ok and result.required for result in results):
        sys.exit(1)
