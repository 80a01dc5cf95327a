"""The commands of the pipeline: one per stage, and `run` for all of them."""

from collections.abc import Callable
from importlib import import_module

import click

from vit_vs_cnn.cli.project import project_settings

_preset = click.option("--preset", metavar="NAME", help="Lay presets/NAME.yaml over params.yaml.")
_overrides = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting, e.g. train.epochs=3; repeatable.",
)


def _stage(name: str, summary: str) -> click.Command:
    """A sub-command that runs a stage for the whole experiment, in the project folder."""

    @click.command(name, help=summary, epilog=f"\b\nExample:\n  vit-vs-cnn {name}")
    def _run() -> None:
        _stage_function(name)(project_settings())

    return _run


def _model_stage(name: str, summary: str) -> click.Command:
    """A sub-command that runs a stage for one contestant, in the project folder."""

    @click.command(name, help=summary, epilog=f"\b\nExample:\n  vit-vs-cnn {name} vit")
    @click.argument("contestant")
    def _run(contestant: str) -> None:
        settings = project_settings()
        settings.model(contestant)
        _stage_function(name)(settings, contestant)

    return _run


@click.command(
    epilog="\b\nExamples:\n  vit-vs-cnn tune vit\n  OPTUNA_STORAGE=postgresql://… vit-vs-cnn tune vit --join"
)
@click.argument("contestant")
@click.option("--join", is_flag=True, help="Work on the study that is going on, beside its other workers.")
def tune(contestant: str, join: bool) -> None:
    """Search for a better recipe of CONTESTANT, a key of models: in params.yaml.

    The search is as large as tune: in params.yaml says. With --join this machine works on the study that is going on in
    OPTUNA_STORAGE (default: mlruns/optuna.db), whatever its settings are, until it has all its trials.
    """
    settings = project_settings()
    if join:
        from vit_vs_cnn.tuning.search import join_search

        join_search(contestant)
    else:
        settings.model(contestant)
        _stage_function("tune")(settings, contestant)


@click.command(epilog="\b\nExample:\n  vit-vs-cnn run --preset cpu --set train.epochs=3 --name quick")
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
    from vit_vs_cnn.orchestration.local_run import run_here
    from vit_vs_cnn.orchestration.workspace import Request

    finished = run_here(Request(preset, overrides, name, stages, force, in_place))

    from vit_vs_cnn.cli.summary import run_summary
    from vit_vs_cnn.orchestration.artifacts import has_comparison

    if not stages and has_comparison(finished.workspace):
        click.echo(run_summary(finished))


@click.command(epilog="\b\nExample:\n  vit-vs-cnn params --preset cpu --set seed=1")
@_preset
@_overrides
def params(preset: str | None, overrides: tuple[str, ...]) -> None:
    """Print params.yaml with a preset and changes laid over it, checked."""
    from vit_vs_cnn.config.load import dump, merged_params, settings_of
    from vit_vs_cnn.core.paths import project_root
    from vit_vs_cnn.orchestration.workspace import check_models

    merged = merged_params(project_root(), preset, overrides)
    check_models(settings_of(merged))
    click.echo(dump(merged), nl=False)


def _stage_function(name: str) -> Callable[..., None]:
    function: Callable[..., None] = import_module(f"vit_vs_cnn.stages.{name}").run
    return function


STAGES = (
    _stage("prepare", "Read, check, split and store the images."),
    _stage("eda", "Look at the training images: figures and the numbers behind them."),
    _model_stage("train", "Train CONTESTANT; killed and started again it goes on where it was."),
    _model_stage("evaluate", "Measure CONTESTANT on the test split."),
    _model_stage("explain", "Show what CONTESTANT looks at."),
    _stage("compare", "Compare the contestants: statistics, charts, report."),
    _stage("register", "Make the trained contestants versions of the registered model."),
)
