"""The commands of the pipeline: one per stage, and `run` for all of them."""

import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from vit_vs_cnn.cli.options import json_option, names_in, quiet_option, verbose_option
from vit_vs_cnn.core.start_up import sleep_while_waiting_where_busy, without_collecting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vit_vs_cnn.config.schema import Settings
    from vit_vs_cnn.orchestration.request import Request
    from vit_vs_cnn.orchestration.workspace import PipelineRun

_SEED_HELP = "One of seeds: in params.yaml; default: the first."

_preset = click.option(
    "--preset",
    metavar="NAME",
    help="Apply presets/NAME.yaml on top of params.yaml.",
    shell_complete=names_in("presets"),
)
_overrides = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting, e.g. train.epochs=3; repeatable.",
)


def _stage(name: str, summary: str) -> click.Command:
    """A sub-command that runs a stage of the whole experiment in the project folder."""

    def run_stage() -> None:
        settings = _project_settings()
        _stage_module(name).run(settings)

    return click.Command(name, callback=run_stage, help=summary, epilog=f"\b\nExample:\n  vit-vs-cnn {name}")


def _stage_of_contestant(name: str, summary: str) -> click.Command:
    """A sub-command that runs a stage of one contestant."""

    def run_stage(contestant: str) -> None:
        settings = _project_settings(contestant)
        _stage_module(name).run(settings, contestant)

    params: list[click.Parameter] = [click.Argument(["contestant"])]
    epilog = f"\b\nExample:\n  vit-vs-cnn {name} vit"
    return click.Command(name, callback=run_stage, params=params, help=summary, epilog=epilog)


def _stage_of_replicate(name: str, summary: str) -> click.Command:
    """A sub-command that runs a stage of one replicate of a contestant."""

    def run_stage(contestant: str, seed: int | None) -> None:
        settings = _project_settings(contestant)
        _stage_module(name).run(settings, contestant, settings.seed if seed is None else seed)

    option = click.Option(["--seed"], type=int, help=_SEED_HELP)
    epilog = f"\b\nExample:\n  vit-vs-cnn {name} vit --seed 1"
    return click.Command(
        name, callback=run_stage, params=[click.Argument(["contestant"]), option], help=summary, epilog=epilog
    )


def _stage_module(name: str) -> Any:
    sleep_while_waiting_where_busy()
    with without_collecting():
        return import_module(f"vit_vs_cnn.stages.{name}")


def _project_settings(contestant: str | None = None) -> "Settings":
    from vit_vs_cnn.config.load import project_settings

    settings = project_settings()
    if contestant is not None:
        settings.model(contestant)
    return settings


@click.command(
    epilog="\b\nExamples:\n  vit-vs-cnn tune vit\n  OPTUNA_STORAGE=postgresql://… vit-vs-cnn tune vit --join"
)
@click.argument("contestant")
@click.option("--seed", type=int, help=_SEED_HELP)
@click.option("--join", is_flag=True, help="Work on the active study, beside its other workers.")
def tune(contestant: str, seed: int | None, join: bool) -> None:
    """Search for a better recipe of CONTESTANT, a key of models: in params.yaml.

    The search is as large as tune: in params.yaml says. With --join this machine works on the active study in
    OPTUNA_STORAGE (default: mlruns/optuna.db), whatever its settings are, until it has all its trials.
    """
    settings = _project_settings(contestant)
    if join:
        from vit_vs_cnn.tuning.search import join_search

        join_search(contestant)
    else:
        _stage_module("tune").run(settings if seed is None else settings.of_seed(seed), contestant)


@click.command(epilog="\b\nExample:\n  vit-vs-cnn run --preset cpu --set train.epochs=3 --name quick")
@_preset
@_overrides
@click.option(
    "--name", default="", metavar="NAME", help="Name of the run and of its DVC experiment; the same name continues it."
)
@click.option("--stage", "stages", metavar="STAGE", multiple=True, help="Run this stage and what it needs; repeatable.")
@click.option("--force", metavar="STAGE", multiple=True, help="Run this stage even if nothing changed; repeatable.")
@click.option("--in-place", is_flag=True, help="Run params.yaml as it stands, in the working tree.")
@click.option("--dry-run", is_flag=True, help="Only say which stages would run and why, and about how long they take.")
@quiet_option
@verbose_option
@json_option
def run(
    preset: str | None,
    overrides: tuple[str, ...],
    name: str,
    stages: tuple[str, ...],
    force: tuple[str, ...],
    in_place: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run the pipeline with changed parameters in an isolated workspace.

    The working tree is not touched; the result appears in `dvc exp show`. Done work is not repeated. With --json, the
    result is one JSON object on stdout, and the lines for people are on stderr.
    """
    from vit_vs_cnn.cli.init import ensure_repository
    from vit_vs_cnn.orchestration.request import Request

    ensure_repository(dry_run=dry_run)
    request = Request(preset or "", overrides, name, stages, force, in_place)
    if dry_run:
        from vit_vs_cnn.orchestration.preview import preview

        plan = preview(request)
        click.echo(json.dumps(plan.record(), indent=2) if as_json else "\n".join(plan.lines()))
        return
    from vit_vs_cnn.orchestration.preview import finished_run

    finished = finished_run(request)
    if finished is None:
        finished = _run_flow(request, quiet=quiet, verbose=verbose, to_stderr=as_json)

    from vit_vs_cnn.cli.outcome import run_record, run_summary
    from vit_vs_cnn.orchestration.artifacts import has_comparison

    if not stages and has_comparison(finished.workspace):
        click.echo(run_summary(finished), err=as_json)
    if as_json:
        click.echo(json.dumps(run_record(finished), indent=2))


@click.command(epilog="\b\nExample:\n  vit-vs-cnn params --preset cpu --set 'seeds=[1]'")
@_preset
@_overrides
def params(preset: str | None, overrides: tuple[str, ...]) -> None:
    """Print params.yaml with a preset and changes laid over it, checked."""
    from vit_vs_cnn.config.load import dump, merged_params, settings_of
    from vit_vs_cnn.core.paths import project_root
    from vit_vs_cnn.orchestration.request import check_models

    merged = merged_params(project_root(), preset, overrides)
    check_models(settings_of(merged))
    click.echo(dump(merged), nl=False)


def _run_flow(request: "Request", **shown: bool) -> "PipelineRun":
    """Run the pipeline's flow in this process.

    Raises UserError with the stage's own sentence where it left one, RunError where a stage failed otherwise.
    """
    from vit_vs_cnn.orchestration.request import check_models, read_request
    from vit_vs_cnn.orchestration.workspace import PipelineRun

    _, settings = read_request(request)
    result = run_flow("pipeline", asdict(request), settings, lambda: check_models(settings), **shown)
    assert isinstance(result, PipelineRun)
    return result


def run_flow(
    name: str,
    parameters: "Mapping[str, Any]",
    settings: "Settings",
    check: "Callable[[], object]",
    *,
    quiet: bool = False,
    verbose: bool = False,
    to_stderr: bool = False,
) -> Any:
    """Run the flow of flows/<name>.py in this process, shown on this terminal, with a Prefect server around it.

    `check` is called while the server starts; `quiet` shows warnings only, `verbose` all that stages say. Returns the
    result of the flow run. Raises the UserError or RunError that it ends with, and RunError where it did not complete
    for another reason.
    """
    from vit_vs_cnn.core.errors import RunError, UserError
    from vit_vs_cnn.core.paths import main_root
    from vit_vs_cnn.orchestration.dead_runs import process_tag, report_dead_runs
    from vit_vs_cnn.orchestration.prefect_server import RunServer, prefect_settings
    from vit_vs_cnn.orchestration.progress import Level, shown_on_terminal

    server = RunServer(settings.flow.keep_days)
    # Prefect reads its settings when it is imported; the terminal shows the stages' lines, not Prefect's.
    os.environ.update(prefect_settings())
    os.environ.update({"PREFECT_API_URL": server.api, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"})
    # The imports and the check take as long as the server takes to start: side by side.
    with without_collecting():
        from prefect import tags
        from prefect.flows import load_flow_from_entrypoint

        flow: Any = load_flow_from_entrypoint(f"{main_root()}/flows/{name}.py:{name}")
        check()
    server.wait()
    report_dead_runs(server.api)
    level = Level.VERBOSE if verbose else Level.QUIET if quiet else Level.NORMAL
    with shown_on_terminal(level, sys.stderr if to_stderr else sys.stdout), tags(process_tag()):
        state: Any = flow(**parameters, return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, UserError | RunError):
        raise result
    if not state.is_completed():
        raise RunError(f"the flow run ended as {state.name}: {state.message}")
    return result


STAGES = (
    _stage("prepare", "Read, check, split and store the images."),
    _stage("eda", "Look at the training images: figures and the numbers behind them."),
    _stage_of_replicate("train", "Train CONTESTANT; a training that was killed resumes."),
    _stage_of_replicate("evaluate", "Measure CONTESTANT on the test split."),
    _stage_of_contestant("robustness", "Measure CONTESTANT on corrupted and shifted test images."),
    _stage("cost", "Measure what the contestants' models cost to use, in turns."),
    _stage_of_contestant("explain", "Show what CONTESTANT looks at."),
    _stage("compare", "Compare the contestants: statistics, charts, report."),
    _stage("register", "Make the trained contestants versions of the registered model."),
)
