"""`vit-vs-cnn study`: the pipeline at every point of studies/<name>.yaml, and how far it is."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from vit_vs_cnn.cli.options import json_option, names_in, quiet_option, verbose_option


class _Studies(click.Group):
    """`study NAME` is `study run NAME`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["run", *args])


@click.group(
    cls=_Studies,
    epilog="\b\nExamples:\n  vit-vs-cnn study demo\n  vit-vs-cnn study status demo\n  vit-vs-cnn study my/sizes.yaml",
)
def study() -> None:
    """Where does one overtake the other? The pipeline at every point of studies/NAME.yaml, or of a file.

    Over the size of the data, the budget and any setting: accuracy, learning curves, where they cross, who leads where.
    A study that was killed continues, a point that failed is run again, and nothing is registered.
    """


@study.command(name="run")
@click.argument("name", shell_complete=names_in("studies"))
@quiet_option
@verbose_option
def run_study(name: str, quiet: bool, verbose: bool) -> None:
    """Run every point of a study that is not up to date; the same as `study NAME`."""
    from vit_vs_cnn.cli.init import ensure_repository
    from vit_vs_cnn.cli.pipeline import run_flow
    from vit_vs_cnn.core.errors import RunError
    from vit_vs_cnn.core.paths import main_root
    from vit_vs_cnn.studies.settings import find_study, read_study, settings_at

    ensure_repository()
    root = main_root()
    path = find_study(name, root)
    settings = settings_at(read_study(path, root), {}, root)
    try:
        run_flow("study", {"study": str(path.resolve())}, settings, lambda: None, quiet=quiet, verbose=verbose)
    except RunError:  # of some points: the others have results
        _show(path.stem)
        raise
    _show(path.stem)


@study.command()
@click.argument("name", shell_complete=names_in("studies"))
@json_option
def status(name: str, as_json: bool) -> None:
    """Show what of a study is done, running and left, and about how long that will take."""
    from vit_vs_cnn.core.paths import main_root
    from vit_vs_cnn.orchestration.active_runs import active_runs
    from vit_vs_cnn.studies.plan import read_plan, study_folder
    from vit_vs_cnn.studies.results import read_results
    from vit_vs_cnn.studies.settings import find_study
    from vit_vs_cnn.studies.status import status_text, study_status

    path = find_study(name, main_root())
    folder = study_folder(main_root(), path.stem)
    results = read_results(folder, read_plan(folder))
    found = study_status(results, {run.name for run in active_runs(dead=False)})
    click.echo(json.dumps(asdict(found), indent=2) if as_json else status_text(found))


def _show(name: str) -> None:
    """Print who leads at each point, the answer and where the page is, if there are any."""
    from vit_vs_cnn.core.paths import main_root
    from vit_vs_cnn.studies.plan import study_folder
    from vit_vs_cnn.studies.publish import PAGE

    folder = study_folder(main_root(), name)
    if (folder / PAGE).is_file():
        page = folder / PAGE
        shown = page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page
        click.echo(f"\n{(folder / 'answer.txt').read_text(encoding='utf-8')}\npage    {shown}")
        click.echo(f"table   {shown.with_name('results.csv')}\nDVC     dvc exp show   (experiments: {name}-…)")
