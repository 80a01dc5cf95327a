"""The command `data`: a look at a source of images before anything is trained."""

import re
import shlex
import unicodedata
from pathlib import Path

import click


@click.command(
    epilog="\b\nExamples:\n  vit-vs-cnn data photos/\n  vit-vs-cnn data brain-tumour.zip\n"
    "  vit-vs-cnn data scans/ --set data.class_level=2\n"
    "  vit-vs-cnn data scans/ --set data.splits.train=2023 --set data.splits.test=2024"
)
@click.argument("path")
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change one setting below data; repeatable."
)
def data(path: str, overrides: tuple[str, ...]) -> None:
    """Look at the images in PATH, a folder, tar, zip or table, as `prepare` would read them; nothing is written.

    PATH may be in an object store (s3://…): it is downloaded, once.

    Shows the images per class and split, how the folders were understood, what is passed over, and the settings that
    run the pipeline on them.
    """
    from vit_vs_cnn.config.load import parse_data_settings
    from vit_vs_cnn.core.console import printable
    from vit_vs_cnn.data.overview import class_table, group_lines, hints
    from vit_vs_cnn.data.prepare import open_source, source_at

    values = {"source": source_at(path), "name": data_name(path), "path": path}
    settings = parse_data_settings(values, overrides)
    source = open_source(settings)
    lines = [f"{source.description}: {len(source.names):,} images, {len(source.classes):,} classes", ""]
    lines += [class_table(source), "", *group_lines(source), *(f"note: {note}" for note in source.notes)]
    if source.unreadable:
        first = source.unreadable[0]
        lines.append(f"note: {len(source.unreadable):,} files cannot be read, the first {first.name}: {first.reason}.")
    if source.stray:
        lines.append(f"note: {len(source.stray):,} files lie outside the class folders, the first {source.stray[0]}.")
    for kind, names in source.row_findings.items():
        if names:
            lines.append(f"note: {len(names):,} × {kind.replace('_', ' ')} in the tables, the first {names[0]}.")
    lines += [f"hint: {hint}" for hint in hints(source)]
    own = {f"data.{key}": getattr(settings, key) for key in ("source", "path", "name")}
    chosen = [*(f"{key}={value}" for key, value in own.items())]
    chosen += [override for override in overrides if override.partition("=")[0] not in own]
    lines += ["", "settings:  " + " ".join(f"--set {shlex.quote(setting)}" for setting in chosen)]
    click.echo(printable("\n".join(lines), lines=True))


def data_name(path: str) -> str:
    """A name for the data at a path, as `data.name` may be: lower-case letters, digits, `-` and `_`."""
    stem = re.sub(r"(\.tar)?\.\w{1,4}$", "", Path(path).resolve().name)
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:63] or "images"
