"""The commands that use the registered model: `predict` for files, `serve` over HTTP."""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vit_vs_cnn.cli.options import registry_option

if TYPE_CHECKING:
    from vit_vs_cnn.serving.predict import Format

_model = click.option(
    "--model", default="champion", show_default=True, metavar="ALIAS|VERSION", help="Alias or version of the model."
)


@click.command(
    epilog="\b\nExamples:\n  vit-vs-cnn predict photo.jpg scans/\n"
    "  vit-vs-cnn predict --format csv --model challenger scans/ > predictions.csv"
)
@click.argument("paths", metavar="IMAGE_OR_FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@_model
@registry_option
@click.option("--format", "kind", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
def predict(paths: tuple[Path, ...], model: str, given: str | None, kind: "Format") -> None:
    """Predict the class of each image, with its probability.

    Takes image files of any size and mode, and folders of them. Files that cannot be read are reported and skipped.
    """
    from tqdm import tqdm

    from vit_vs_cnn.core.console import bar_options, printable
    from vit_vs_cnn.core.errors import UserError
    from vit_vs_cnn.data.sources.source import Unreadable
    from vit_vs_cnn.registry.loading import load_registered
    from vit_vs_cnn.serving.predict import Formatter, image_files, predict_files

    total = sum(1 for _ in image_files(paths))
    if not total:
        raise UserError(f"{', '.join(map(str, paths))}: no files there.")
    name = _registered_model(given)
    loaded = load_registered(name, model)
    formatter = Formatter(kind, loaded.classes)
    # A file's name need not be UTF-8: it is printed as the bytes that it is.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    if formatter.header:
        click.echo(formatter.header)
    predicted = 0
    results = predict_files(loaded, image_files(paths))
    for result in tqdm(results, total=total, desc="predicting", unit=" images", **bar_options()):
        if isinstance(result, Unreadable):
            tqdm.write(f"{printable(result.name)}: {result.reason}", file=sys.stderr)
        else:
            tqdm.write(formatter.line(result), file=sys.stdout)
            predicted += 1
    if not predicted:
        raise UserError(f"none of the {total} files could be read as an image.")


@click.command(epilog="\b\nExample:\n  vit-vs-cnn serve --port 8000\n  curl -F image=@photo.jpg localhost:8000/predict")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: any free one.")
@click.option(
    "--allowed-hosts",
    metavar="NAME,…",
    help="The host names under which it may be asked; default: localhost on loopback, any on another address.",
)
@_model
@registry_option
@click.option("--max-mb", default=16, show_default=True, type=click.IntRange(1, 1024), help="Size of a request.")
@click.option("--max-images", default=64, show_default=True, type=click.IntRange(1), help="Images in a request.")
@click.option("--max-seconds", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Time of a request.")
@click.option("--max-waiting", default=256, show_default=True, type=click.IntRange(1), help="Images in the queue.")
def serve(
    host: str,
    port: int,
    allowed_hosts: str | None,
    model: str,
    given: str | None,
    max_mb: int,
    max_images: int,
    max_seconds: float,
    max_waiting: int,
) -> None:
    """Serve the model over HTTP, with a page for people at /, until Ctrl-C.

    It follows the alias: when that moves, new requests get the new model, and none fails.
    """
    from vit_vs_cnn.serving.app import serve as start
    from vit_vs_cnn.serving.uploads import ServerLimits

    limits = ServerLimits(max_mb * 2**20, max_images, seconds=max_seconds, queue=max_waiting)
    hosts = [name.strip() for name in allowed_hosts.split(",")] if allowed_hosts else []
    start(_registered_model(given), model, host, port, limits, hosts)


def _registered_model(given: str | None) -> str:
    """The name of the registered model: the one given, that of the project's data set, or the only one there is."""
    from vit_vs_cnn.config.load import read_settings
    from vit_vs_cnn.core.errors import UserError
    from vit_vs_cnn.core.paths import PARAMS, project_root
    from vit_vs_cnn.registry.versions import resolve_model_name

    if given:
        return resolve_model_name(given, None)
    try:
        root = project_root()
    except UserError:
        return resolve_model_name(None, None)
    return resolve_model_name(None, read_settings(root / PARAMS).data.name)
