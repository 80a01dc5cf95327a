"""Options that several commands share, and what a shell completes."""

from collections.abc import Callable
from pathlib import Path

import click

quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print only warnings and the result.")
verbose_option = click.option("--verbose", "-v", is_flag=True, help="Print all that the stages say.")
registry_option = click.option(
    "--registry",
    "given",
    metavar="NAME",
    help="The registered model or its data set; default: that of params.yaml, or the only one there is.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def names_in(folder: str) -> Complete:
    """What a shell completes with: the names of the YAML files in `folder` of the project, none outside a project."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
        from vit_vs_cnn.core.errors import UserError
        from vit_vs_cnn.core.paths import project_root

        try:
            files: list[Path] = sorted((project_root() / folder).glob(f"{incomplete}*.yaml"))
        except UserError:
            return []
        return [file.stem for file in files]

    return complete
