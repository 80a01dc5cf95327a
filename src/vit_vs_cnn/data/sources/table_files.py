"""Tables of any common format, CSV, TSV, JSON Lines and Parquet, as named columns of cells."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vit_vs_cnn.core.errors import UserError, first_line

SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Table:
    """A table: its path within the data, its columns by name, and what Hugging Face's metadata say about them.

    `cells` gives the N cells of a column. Where a column holds the images themselves (`embedded`), its cells are names
    made of the table's and the row's, and `images` gives their contents in the order of the rows. `class_names` are
    the names of the integers in a column.
    """

    name: str
    columns: tuple[str, ...]
    cells: Callable[[str], list[Any]]
    embedded: tuple[str, ...] = ()
    images: Callable[[str], Iterator[bytes]] = lambda _: iter(())
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)


def is_table(name: str) -> bool:
    """Whether a file of this name is a table, by its suffix."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def read_table(name: str, source: Path | bytes) -> Table:
    """Read the table `name` from a file or from its content. Raises UserError where it is damaged."""
    suffix = PurePosixPath(name).suffix.lower()
    try:
        if suffix == ".parquet":
            return _parquet(name, source)
        text = (source if isinstance(source, bytes) else source.read_bytes()).decode("utf-8-sig")
        return _json_lines(name, text) if suffix in (".jsonl", ".ndjson") else _csv(name, text, suffix)
    except UnicodeDecodeError:
        raise UserError(f"{name}: is not UTF-8: save the table with that encoding.") from None
    except (csv.Error, OSError) as error:
        raise UserError(f"{name}: cannot be read as a table ({error}): write it again.") from None


def _csv(name: str, text: str, suffix: str) -> Table:
    first = text[: text.find("\n")] if "\n" in text else text
    delimiter = "\t" if suffix == ".tsv" else max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    header = [column.strip() for column in next(lines, [])]
    rows = []
    for row in lines:
        if row and len(row) != len(header):
            raise UserError(f"{name}: line {lines.line_num} has {len(row)} cells and the first has {len(header)}.")
        if row:
            rows.append(row)
    if len(set(header)) < len(header):
        raise UserError(f"{name}: has two columns of one name ({', '.join(header)}): rename one.")
    return Table(name, tuple(header), lambda column: [row[header.index(column)] for row in rows])


def _json_lines(name: str, text: str) -> Table:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            row = json.loads(line) if line.strip() else {}
        except json.JSONDecodeError as error:
            raise UserError(f"{name}: line {number} is not JSON ({error.msg}).") from None
        if not isinstance(row, dict):
            raise UserError(f'{name}: line {number} is not an object, such as {{"file_name": …, "label": …}}.')
        if row:
            rows.append(row)
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return Table(name, columns, lambda column: [row.get(column) for row in rows])


def _parquet(name: str, source: Path | bytes) -> Table:
    # The import takes a tenth of a second that other tables need not spend.
    import pyarrow as pa
    from pyarrow import parquet

    @contextmanager
    def intact() -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{name}: is damaged or no Parquet ({first_line(error)}): copy it again.") from None

    with intact():
        file = parquet.ParquetFile(io.BytesIO(source) if isinstance(source, bytes) else source, memory_map=True)
    schema = file.schema_arrow
    # Hugging Face stores an image as {bytes, path}; others as plain bytes.
    structs = [
        part.name for part in schema if pa.types.is_struct(part.type) and part.type.get_field_index("bytes") >= 0
    ]
    plain = [part.name for part in schema if pa.types.is_binary(part.type) or pa.types.is_large_binary(part.type)]

    def cells(column: str) -> list[Any]:
        if column in (*structs, *plain):
            return [f"{name}#{row}" for row in range(file.metadata.num_rows)]
        with intact():
            cells: list[Any] = file.read([column]).column(column).to_pylist()
        return cells

    def images(column: str) -> Iterator[bytes]:
        wanted = [f"{column}.bytes" if column in structs else column]
        with intact():
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=wanted):
                values = batch.column(0).field("bytes") if column in structs else batch.column(0)
                for value in values:
                    yield value.as_py() or b""

    return Table(name, tuple(schema.names), cells, (*structs, *plain), images, _class_names(schema.metadata))


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """The names of the classes that Hugging Face's `datasets` writes beside a Parquet schema, by column."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {column: tuple(feature["names"]) for column, feature in features.items() if "names" in feature}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
