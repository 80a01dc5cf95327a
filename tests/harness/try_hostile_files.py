"""Prepare hostile archives and decode hostile images in this process, and say as JSON what became of them.

`python -m harness.try_hostile_files FOLDER COUNT SEED` draws them, after an archive of several very large files.
"""

import json
import resource
import shutil
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Literal

from harness.hostile_files import hostile_archive, hostile_image, large_files
from vit_vs_cnn.config.data import DataSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.pixels import decode_image, reason_of
from vit_vs_cnn.data.prepare import prepare


def main(folder: Path, count: int, seed: int) -> dict[str, Any]:
    outcomes, failures, slowest = Counter[str](), [], 0.0
    for number in range(count):
        random, start = Random(f"{seed}-{number}"), time.process_time()
        place, outside = folder / "place", folder / "outside"
        (place / "in").mkdir(parents=True)
        outside.mkdir()
        try:
            if number % 2:
                outcomes[_decode(hostile_image(random))] += 1
            else:
                archive = (hostile_archive if number else large_files)(random, place / "in")
                outcomes[_prepare(archive, place, random.choice(("fail", "skip")))] += 1
        except Exception:
            failures.append(f"{seed}-{number}: {traceback.format_exc()}")
        written = [str(path) for path in (*outside.iterdir(), *place.iterdir()) if path.name not in ("in", "out")]
        failures += [f"{seed}-{number}: wrote {path}" for path in written]
        slowest = max(slowest, time.process_time() - start)
        shutil.rmtree(place)
        shutil.rmtree(outside)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"outcomes": outcomes, "failures": failures, "slowest": slowest, "peak_mb": peak}


def _decode(content: bytes) -> str:
    """As `predict` does: any exception is the reason why the file has no prediction."""
    try:
        assert decode_image(content, 16).shape == (16, 16, 3)
    except Exception as error:
        return "image not readable" if "\n" not in reason_of(error) else "image refused in lines"
    return "image decoded"


def _prepare(path: Path, place: Path, on_bad: Literal["fail", "skip"]) -> str:
    settings = DataSettings(source="folder", name="hostile", path=str(path), image_size=16, on_bad=on_bad)
    try:
        prepare(settings, place / "out")
    except UserError:
        return "archive refused"
    return "archive prepared"


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
