"""A store after its folder was moved: MLflow knows artifacts by the absolute paths of before."""

import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

_EXPERIMENT = re.compile(r"(file://.*/mlruns/artifacts)/[^/]+")
# Where MLflow 3 keeps a location.
_LOCATIONS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


def follow_move(database: Path) -> None:
    """Have a store name the folder `artifacts` beside it where it names one that does not exist any more."""
    artifacts = database.absolute().parent / "artifacts"
    if not (database.is_file() and database.stat().st_size and artifacts.is_dir()):
        return
    with closing(sqlite3.connect(database, timeout=60.0)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables.issuperset(_LOCATIONS):
            return
        places = connection.execute("SELECT artifact_location FROM experiments")
        found = [_EXPERIMENT.fullmatch(place) for (place,) in places]
        gone = {match[1] for match in found if match and not Path(unquote(urlsplit(match[1]).path)).exists()}
        for before in gone - {artifacts.as_uri()}:
            with connection:
                for table, column in _LOCATIONS.items():
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (artifacts.as_uri(), len(before) + 1, len(before) + 1, f"{before}/"),
                    )
            print(f"note: the project was moved; {database} has its artifacts in {artifacts} now.", file=sys.stderr)
