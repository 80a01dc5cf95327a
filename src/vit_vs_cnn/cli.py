"""The command `vit-vs-cnn`: one sub-command per stage, and what a person needs around them."""

import errno
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import click

from vit_vs_cnn.errors import PassingError, RunFailed, UserError
from vit_vs_cnn.failure import Failure, leave_failure

if TYPE_CHECKING:
    from vit_vs_cnn.config import Settings

USER_MISTAKE = 2
_MACHINE_REFUSES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}

_EPILOG = """\b
Examples:
  vit-vs-cnn run --preset demo               the whole pipeline on the packaged digits, two minutes
  vit-vs-cnn run --preset cpu --set data.source=folder --set data.name=pets --set data.path=pets.zip
  dvc repro                                  the experiment of params.yaml, in place
  vit-vs-cnn doctor                          what this machine lacks, if anything
"""

_preset = click.option("--preset", metavar="NAME", help="Lay presets/NAME.yaml over params.yaml.")
_overrides = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting, e.g. train.epochs=3; repeatable.",
)


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="vit-vs-cnn")
def commands() -> None:
    """ViT or CNN? A measured answer on your own images, and a registered model at the end."""


def _stage(name: str, summary: str) -> None:
    """A sub-command that runs a stage for the whole experiment, in the project folder."""

    @commands.command(name, help=summary, epilog=f"\b\nExample:\n  vit-vs-cnn {name}")
    def _run() -> None:
        _stage_function(name)(_settings())


def _model_stage(name: str, summary: str) -> None:
    """A sub-command that runs a stage for one contestant, in the project folder."""

    @commands.command(name, help=summary, epilog=f"\b\nExample:\n  vit-vs-cnn {name} vit")
    @click.argument("contestant")
    def _run(contestant: str) -> None:
        settings = _settings()
        settings.model(contestant)
        _stage_function(name)(settings, contestant)


_stage("prepare", "Read, check, split and store the images.")
_stage("eda", "Look at the training images: figures and the numbers behind them.")
_model_stage("train", "Train CONTESTANT; killed and started again it goes on where it was.")
_model_stage("evaluate", "Measure CONTESTANT on the test split.")
_model_stage("explain", "Show what CONTESTANT looks at.")
_stage("compare", "Compare the contestants: statistics, charts, report.")
_stage("register", "Make the trained contestants versions of the registered model.")


@commands.command(
    epilog="\b\nExamples:\n  vit-vs-cnn tune vit\n  OPTUNA_STORAGE=postgresql://… vit-vs-cnn tune vit --join"
)
@click.argument("contestant")
@click.option("--join", is_flag=True, help="Work on the study that is going on, beside its other workers.")
def tune(contestant: str, join: bool) -> None:
    """Search for a better recipe of CONTESTANT, a key of models: in params.yaml.

    The search is as large as tune: in params.yaml says. With --join this machine works on the study that is going on in
    OPTUNA_STORAGE (default: mlruns/optuna.db), whatever its settings are, until it has all its trials.
    """
    settings = _settings()
    if join:
        from vit_vs_cnn.stages.tune import join as join_study

        join_study(contestant)
    else:
        settings.model(contestant)
        _stage_function("tune")(settings, contestant)


@commands.command(epilog="\b\nExample:\n  vit-vs-cnn run --preset cpu --set train.epochs=3 --name quick")
@_preset
@_overrides
@click.option("--name", metavar="NAME", help="Name of the run and of its DVC experiment; the same name continues it.")
@click.option("--stage", "stages", metavar="STAGE", multiple=True, help="Run this stage and what it needs; repeatable.")
@click.option("--force", metavar="STAGE", multiple=True, help="Run this stage though nothing changed; repeatable.")
@click.option("--in-place", is_flag=True, help="Run params.yaml as it stands, in the working tree.")
def run(
    preset: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    stages: tuple[str, ...],
    force: tuple[str, ...],
    in_place: bool,
) -> None:
    """Run the pipeline with changed parameters in a workspace of its own.

    The working tree is not touched; the result appears in `dvc exp show`. Done work is not repeated.
    """
    from vit_vs_cnn.orchestration.artifacts import has_comparison
    from vit_vs_cnn.orchestration.local_run import run_here
    from vit_vs_cnn.runs import Request
    from vit_vs_cnn.summary import run_summary

    finished = run_here(Request(preset, overrides, name, stages, force, in_place))
    if not stages and has_comparison(finished.workspace):
        click.echo(run_summary(finished))


@commands.command(epilog="\b\nExample:\n  vit-vs-cnn up --prefect-port 4300")
@click.option("--prefect-port", default=4200, show_default=True, help="Port of Prefect's server and pages.")
@click.option("--mlflow-port", default=5000, show_default=True, help="Port of MLflow's pages.")
@click.option("--worker-port", default=8080, show_default=True, help="Port where the worker says that it is well.")
@click.option("--optuna-port", default=8081, show_default=True, help="Port of Optuna's dashboard, if it is installed.")
@click.option("--limit", default=4, show_default=True, help="Flow runs that the worker runs at once.")
def up(prefect_port: int, mlflow_port: int, worker_port: int, optuna_port: int, limit: int) -> None:
    """Start Prefect, MLflow and a worker on this machine, until Ctrl-C."""
    from vit_vs_cnn.orchestration.up import Ports
    from vit_vs_cnn.orchestration.up import up as start

    start(Ports(prefect_port, mlflow_port, worker_port, optuna_port), limit, click.echo)


@commands.command(epilog="\b\nExample:\n  vit-vs-cnn clean --days 7")
@click.option("--days", type=float, help="Keep what is younger; default: flow.keep_days in params.yaml.")
def clean(days: float | None) -> None:
    """Remove old flow runs, isolated workspaces and checkpoints, and cached data that nothing refers to."""
    from vit_vs_cnn.orchestration.housekeeping import apply_retention
    from vit_vs_cnn.orchestration.prefect_server import ServerForARun

    keep = _settings().flow.keep_days if days is None else days
    server = ServerForARun()
    server.wait()
    removed = apply_retention(server.api, keep)
    click.echo(
        f"removed what is older than {keep:g} days: {removed.flow_runs} flow runs, {removed.workspaces} workspaces, "
        f"{removed.checkpoints} checkpoints; {removed.cache_mb:.1f} MB of the cache."
    )


@commands.command(epilog="\b\nExample:\n  vit-vs-cnn params --preset cpu --set seed=1")
@_preset
@_overrides
def params(preset: str | None, overrides: tuple[str, ...]) -> None:
    """Print params.yaml with a preset and changes laid over it, checked."""
    from vit_vs_cnn.layout import project_root
    from vit_vs_cnn.params import dump, merged_params, settings_of
    from vit_vs_cnn.runs import check_models

    merged = merged_params(project_root(), preset, overrides)
    check_models(settings_of(merged))
    click.echo(dump(merged), nl=False)


@commands.command()
def sync() -> None:
    """Send to MLflow what could not be sent while it was away."""
    from vit_vs_cnn.tracking.run import sync as send_what_is_left

    sent, waiting = send_what_is_left()
    click.echo(f"{sent} runs sent, {waiting} still waiting.")


@commands.command(epilog="\b\nExample:\n  vit-vs-cnn doctor --fix")
@click.option("--fix", is_flag=True, help="Remove the workspaces of runs whose process was killed.")
def doctor(fix: bool) -> None:
    """Check Python, packages, device, disk, DVC, runs, tracking store and downloads; say what a failure means."""
    from vit_vs_cnn.doctor import checks, mend, render

    if fix:
        for done in mend():
            click.echo(f"mended  {done}")

    results = checks()
    click.echo(render(results))
    if any(not result.ok and result.required for result in results):
        sys.exit(1)


def main() -> None:
    """The entry point: a user's mistake is one sentence and exit code 2."""
    try:
        commands(standalone_mode=False)
    except click.exceptions.Abort:
        _fail("stopped; the same command continues.", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        leave_failure(Failure(str(error), may_pass=isinstance(error, PassingError)))
        _fail(f"error: {error}", USER_MISTAKE)
    except RunFailed as error:
        _fail(f"error: {error}", 1)
    except OSError as error:
        if error.errno not in _MACHINE_REFUSES:
            raise
        sentence = f"{error.filename or 'a file'} cannot be written: {error.strerror}."
        leave_failure(Failure(sentence, may_pass=False))
        _fail(f"error: {sentence}", USER_MISTAKE)


def _fail(sentence: str, code: int) -> None:
    click.echo(sentence, err=True)
    sys.exit(code)


def _settings() -> "Settings":
    from vit_vs_cnn.config import read_settings
    from vit_vs_cnn.layout import PARAMS, project_root

    os.chdir(project_root())
    return read_settings(PARAMS)


def _stage_function(name: str) -> Callable[..., None]:
    function: Callable[..., None] = import_module(f"vit_vs_cnn.stages.{name}").run
    return function
