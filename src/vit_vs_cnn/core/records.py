"""Strict JSON records on disk, and digests of content."""

import hashlib
import os
import re
import threading
from glob import escape
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from vit_vs_cnn.core.errors import UserError


class Record(BaseModel):
    """A frozen model that is stored as a JSON file; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def write(self, path: Path, *, exclude_none: bool = False) -> None:
        """Write the record to `path` in one atomic step."""
        write_atomically(path, self.model_dump_json(indent=2, exclude_none=exclude_none) + "\n")

    @classmethod
    def read(cls, path: Path, remedy: str) -> Self:
        """Read the record at `path`. Raises UserError ending in `remedy` where it is missing, damaged or not valid."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            problem = "does not exist"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        except ValidationError as error:
            is_json = all(found["type"] != "json_invalid" for found in error.errors())
            problem = "was written by another version" if is_json else "is damaged"
        raise UserError(f"{path}: {problem}; {remedy}.")


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old or the new content, never a part of it.

    Of several that write it at once the last one's stays.
    """
    for left in path.parent.glob(f"{escape(path.name)}.*.draft"):
        writer = re.fullmatch(r"\.(\d+)\.\d+\.draft", left.name.removeprefix(path.name))
        if writer and not _is_running(int(writer[1])):
            left.unlink(missing_ok=True)  # of a process that was killed here
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def digest_of(content: bytes) -> str:
    """A content digest (32 hex digits, BLAKE2b)."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def numbers_of(record: BaseModel, exclude: set[str] | None = None) -> dict[str, float]:
    """The numeric fields of a record by name, without text, None and those in `exclude`."""
    values: dict[str, Any] = record.model_dump(exclude=exclude)
    return {key: value for key, value in values.items() if isinstance(value, int | float)}
