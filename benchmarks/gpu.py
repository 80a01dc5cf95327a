"""Everything about this project that needs a GPU, in parts: is it correct there, and how fast is it?

    make bench-gpu                                           all parts, for 40 minutes at most
    python benchmarks/gpu.py --data cifar10-images.tar.gz    the recipes of the presets on this copy of CIFAR-10
    python benchmarks/gpu.py --part correctness --part throughput-scratch
    python benchmarks/gpu.py --smoke                         every part on the CPU, in less than a minute

Beside the host's own PyTorch (2.11 or newer) it needs this package and these with what they bring, and neither MLflow
nor DVC, Prefect or Optuna:

    pip install --no-deps -e .
    pip install timm lightning-fabric pydantic ruamel.yaml click tqdm filelock psutil pandas scipy scikit-learn

A part writes build/bench-gpu/<part>.json when it ends, and is skipped where that file exists. It takes nine minutes at
most and all of them 40: then no further part starts, and the same command continues with the rest, a throughput after
its last finished contestant and an accuracy after its last epoch. results.json and results.md have all finished parts.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

FOLDER = Path("build/bench-gpu")
SCRIPTS = Path(__file__).parent
SECONDS_OF_A_PART = 540
MINUTES = 40.0
SMOKE_SIZE = ("--images", "256", "--repeats", "1", "--loop", "limit", "--loop", "project", "--loop", "timm")
# Of the reference experiment and of the preset `matched`: no weights are downloaded.
RANDOM_WEIGHTS = ("--set", "models.vit.pretrained=false", "--set", "models.resnet.pretrained=false")
# `debug` has the networks and batches of `demo`.
PRESETS = sorted({path.stem for path in (SCRIPTS.parent / "presets").glob("*.yaml")} - {"debug"})
# Those that are trained to their accuracy, and with how many seeds.
TRAINED = {"airbench94": 3, "scratch": 1}


@dataclass(frozen=True)
class Part:
    """One script and its arguments; `data` where it trains on the images of --data."""

    name: str
    script: str
    arguments: tuple[str, ...]
    data: bool = False

    def command(self, file: Path, data: Path | None) -> list[str]:
        """The command that writes the results of this part to `file`."""
        of_data = ("--set", "data.source=folder", "--set", f"data.path={data}") if self.data and data else ()
        return [sys.executable, str(SCRIPTS / self.script), *self.arguments, *of_data, "--json", str(file)]


def parts(*, smoke: bool) -> tuple[Part, ...]:
    """All parts in the order in which they run: what is wrong is found before anything is timed."""
    if smoke:
        return (
            Part("correctness", "correctness.py", ("--device", "cpu")),
            Part("throughput-demo", "throughput.py", (*_throughput("demo"), *SMOKE_SIZE)),
            Part("accuracy-demo", "time_to_accuracy.py", _accuracy("demo", seeds=1, epochs=1)),
        )
    return (
        Part("correctness", "correctness.py", ("--device", "cuda")),
        Part("throughput-reference", "throughput.py", _throughput(None)),
        *(Part(f"throughput-{preset}", "throughput.py", _throughput(preset)) for preset in PRESETS),
        *(
            Part(
                f"accuracy-{preset}{'-compiled' if compiled else ''}",
                "time_to_accuracy.py",
                _accuracy(preset, seeds=seeds, compiled=compiled),
                data=True,
            )
            for preset, seeds in TRAINED.items()
            for compiled in (False, True)
        ),
    )


def _throughput(preset: str | None) -> tuple[str, ...]:
    at_224_px = preset in (None, "matched")
    return (
        *(("--preset", preset) if preset else ()),
        *(RANDOM_WEIGHTS if at_224_px else ()),
        *("--images", "4096" if at_224_px else "16384", "--no-tracking"),
    )


def _accuracy(preset: str, *, seeds: int, epochs: int | None = None, compiled: bool = False) -> tuple[str, ...]:
    changes = [*([f"train.epochs={epochs}"] if epochs else []), *(["train.compile=true"] if compiled else [])]
    return ("--preset", preset, "--seeds", str(seeds), *(word for change in changes for word in ("--set", change)))


@click.command()
@click.option("--part", "names", multiple=True, help="Only this part; repeatable. Default: all.")
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path, resolve_path=True),
    help="Folder or archive with CIFAR-10's images.",
)
@click.option("--smoke", is_flag=True, help="Small versions of all parts on the CPU, to see that they run.")
@click.option("--folder", default=FOLDER, show_default=True, type=click.Path(path_type=Path), help="Of the results.")
@click.option("--minutes", default=MINUTES, show_default=True, help="For how long parts run before the rest waits.")
def main(names: tuple[str, ...], data: Path | None, smoke: bool, folder: Path, minutes: float) -> None:
    """Run the parts one after the other, each in a process, and write what they found as JSON and Markdown."""
    if not smoke and not torch.cuda.is_available():
        sys.exit("error: PyTorch sees no CUDA device here; --smoke runs small versions of all parts on the CPU.")
    known = parts(smoke=smoke)
    unknown = set(names) - {part.name for part in known}
    if unknown:
        sys.exit(f"error: --part {min(unknown)}: there is no such part; there are {', '.join(p.name for p in known)}.")
    chosen = [part for part in known if not names or part.name in names]
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * minutes
    unfinished = [part.name for part in chosen if not _run(part, folder, data, deadline, smoke=smoke)]
    _write_results(folder, known)
    click.echo(f"{folder / 'results.md'}")
    if unfinished:
        over = f"{minutes:g} minutes are over" if time.monotonic() >= deadline else "not everything is finished"
        sys.exit(f"{over}: the same command continues with {', '.join(unfinished)}.")


def _run(part: Part, folder: Path, data: Path | None, deadline: float, *, smoke: bool) -> bool:
    """Run a part until `deadline` unless its results are there; whether it needs to be run no more."""
    file, draft = folder / f"{part.name}.json", folder / f"{part.name}.draft"
    if file.is_file():
        click.echo(f"{part.name}: skipped, {file} exists")
        return True
    if part.data and data is None:
        click.echo(f"{part.name}: skipped, it needs --data")
        return True
    start = time.monotonic()
    seconds = min(SECONDS_OF_A_PART, deadline - start)
    if seconds <= 0:
        return False
    click.echo(f"{part.name}: {' '.join(part.command(file, data))}")
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if smoke else {}
    try:
        subprocess.run(part.command(draft, data), env=os.environ | hidden, timeout=seconds, check=True)
    except subprocess.TimeoutExpired:
        click.echo(f"{part.name}: stopped after {seconds:.0f} s", err=True)
        return False
    except subprocess.CalledProcessError as error:
        click.echo(f"{part.name}: ended with exit code {error.returncode}", err=True)
        return False
    draft.rename(file)
    click.echo(f"{part.name}: {time.monotonic() - start:.0f} s")
    return True


def _write_results(folder: Path, known: Sequence[Part]) -> None:
    found = {part.name: folder / f"{part.name}.json" for part in known}
    results = {name: json.loads(path.read_text()) for name, path in found.items() if path.is_file()}
    machine = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU",
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "python": platform.python_version(),
    }
    (folder / "results.json").write_text(json.dumps({"machine": machine, **results}, indent=2) + "\n")
    lines = [", ".join(f"{key} {value}" for key, value in machine.items())]
    for name, result in results.items():
        lines += ["", f"## {name}", "", "| what | value |", "| --- | --- |"]
        lines += [f"| {path} | {_shown(value)} |" for path, value in _leaves(result)]
    (folder / "results.md").write_text("\n".join(lines) + "\n")


def _leaves(results: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in results.items():
        leaves += _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return leaves


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "never"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
