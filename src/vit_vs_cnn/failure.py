"""How a stage's own sentence gets past DVC, which only passes on that the stage failed."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FAILURE_VARIABLE = "VIT_VS_CNN_FAILURE"


@dataclass(frozen=True)
class Failure:
    """Why a stage failed; `may_pass` where trying again later can help."""

    sentence: str
    may_pass: bool


def leave_failure(failure: Failure) -> None:
    """Write the failure into the file that the process which started this one asked for, if it did."""
    wanted = os.environ.get(FAILURE_VARIABLE)
    if wanted:
        Path(wanted).write_text(json.dumps(asdict(failure)), encoding="utf-8")


def find_failure(file: Path) -> Failure | None:
    """What a stage left in `file`, None if it left nothing."""
    return Failure(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
