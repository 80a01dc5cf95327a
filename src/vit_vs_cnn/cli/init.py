"""`vit-vs-cnn init`: a project of one's own from the installed package; and a repository for a folder without one."""

import shlex
import sys
from pathlib import Path

import click


@click.command(
    epilog="\b\nExamples:\n  vit-vs-cnn init pets         a new project in the folder pets\n"
    "  vit-vs-cnn init .            after an update of the package"
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Make FOLDER a project: params.yaml, dvc.yaml, presets, studies, flows, and a git repository.

    In a project that init made, bring what belongs to the package (dvc.yaml, flows, deploy/local.yaml) up to date;
    params.yaml, presets and studies stay as they are.
    """
    from vit_vs_cnn.orchestration.project import has_repository, make_project, make_repository

    folder = folder.resolve()
    is_new = make_project(folder)
    if not has_repository(folder):
        make_repository(folder)
    if is_new:
        change = f"cd {shlex.quote(str(folder))}"
        click.echo(f"{folder} is a vit-vs-cnn project now. Next:\n\n  {change}\n  vit-vs-cnn run --preset demo")
    else:
        click.echo(f"{folder} is up to date; see `git diff`, and commit it.")


def ensure_repository(*, dry_run: bool = False) -> None:
    """See that the project is a git repository, which isolated runs start from; a person is asked first.

    Raises click.Abort where the person says no, and UserError where it is none in a `dry_run`, which changes nothing.
    """
    from vit_vs_cnn.core.errors import UserError
    from vit_vs_cnn.core.paths import project_root
    from vit_vs_cnn.orchestration.project import has_repository, make_repository

    root = project_root()
    if has_repository(root):
        return
    sentence = f"{root} is no git repository of its own, which runs start from"
    if dry_run:
        raise UserError(f"{sentence}: the run would make it one, commit its files and run its stages; nothing changed.")
    if sys.stdin.isatty():
        click.confirm(f"{sentence}. Make it one and commit its files?", default=True, abort=True, err=True)
    else:
        click.echo(f"{sentence}: it is made one, and its files are committed.", err=True)
    make_repository(root)
