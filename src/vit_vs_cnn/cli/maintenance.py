"""The commands around the pipeline: local services, retention, unsent records, and what a machine lacks."""

import sys

import click


@click.command(epilog="\b\nExample:\n  vit-vs-cnn up --prefect-port 4300")
@click.option("--prefect-port", default=4200, show_default=True, help="Port of Prefect's server and pages.")
@click.option("--mlflow-port", default=5000, show_default=True, help="Port of MLflow's pages.")
@click.option("--worker-port", default=8080, show_default=True, help="Port of the worker's health check.")
@click.option("--optuna-port", default=8081, show_default=True, help="Port of Optuna's dashboard, if it is installed.")
@click.option("--limit", default=4, show_default=True, help="Flow runs that the worker runs at once.")
def up(prefect_port: int, mlflow_port: int, worker_port: int, optuna_port: int, limit: int) -> None:
    """Start Prefect, MLflow and a worker on this machine, until Ctrl-C."""
    from vit_vs_cnn.orchestration.local_services import Ports
    from vit_vs_cnn.orchestration.local_services import up as start

    start(Ports(prefect_port, mlflow_port, worker_port, optuna_port), limit, click.echo)


@click.command(epilog="\b\nExample:\n  vit-vs-cnn clean --days 7")
@click.option("--days", type=float, help="Keep what is younger; default: flow.keep_days in params.yaml.")
def clean(days: float | None) -> None:
    """Remove old isolated workspaces and checkpoints, and cached data that nothing refers to."""
    from vit_vs_cnn.config.load import project_settings
    from vit_vs_cnn.orchestration.retention import apply_retention

    keep = project_settings().flow.keep_days if days is None else days
    removed = apply_retention(keep)
    shared = "; the cache is outside the project, may be shared, and was left as it is: `dvc gc` is yours to run"
    cache = shared if removed.cache_mb is None else f"; {removed.cache_mb:.1f} MB of the cache"
    click.echo(
        f"removed what is older than {keep:g} days: {removed.workspaces} workspaces, {removed.checkpoints} "
        f"checkpoints{cache}."
    )


@click.command()
def sync() -> None:
    """Deliver to MLflow what is pending because it was unreachable."""
    from vit_vs_cnn.tracking.delivery import sync as deliver_pending

    delivered, pending = deliver_pending()
    click.echo(f"{delivered} runs delivered, {pending} pending.")


@click.command(epilog="\b\nExample:\n  vit-vs-cnn doctor --fix")
@click.option("--fix", is_flag=True, help="Remove the workspaces of runs whose process was killed.")
def doctor(fix: bool) -> None:
    """Check Python, packages, device, disk, DVC, runs, tracking store and downloads; say what a failure means."""
    from vit_vs_cnn.cli.doctor import checks, render
    from vit_vs_cnn.config.load import project_settings
    from vit_vs_cnn.orchestration.retention import remove_dead_runs

    if fix:
        for name in remove_dead_runs(project_settings().flow.keep_days):
            click.echo(f"fixed  run {name}: its workspace is removed; started again it continues")
    results = checks()
    click.echo(render(results))
    if any(not result.ok and result.required for result in results):
        sys.exit(1)
