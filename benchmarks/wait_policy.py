"""What do a CPU's threads cost when they spin while they wait for one another, and what when they sleep?

    python benchmarks/wait_policy.py --preset demo --repeats 3

Images per second of the project's epoch, on synthetic pixels, for every contestant of a preset: `spin` with OpenMP as
it comes, `sleep` as a stage trains that begins on a busy machine (OMP_WAIT_POLICY=PASSIVE); on the machine as it is,
and beside two busy loops for each of its cores. Each measurement is a separate process, because OpenMP reads its policy
once. They take turns; the gain is the median of the ratios within a turn.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click

from record import json_option, mlflow_option, publish
from synthetic import synthetic_images, synthetic_job, train_copy
from vit_vs_cnn.config.load import merged_params, settings_of
from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.paths import project_root

POLICIES = {"sleep": {"OMP_WAIT_POLICY": "PASSIVE"}, "spin": {}}
LOOPS_PER_CORE = {"idle": 0, "busy": 2}


@click.command()
@click.option("--preset", help="A preset; default: params.yaml as it is.")
@click.option("--images", default=1024, show_default=True, type=click.IntRange(256), help="Images of an epoch.")
@click.option("--repeats", default=3, show_default=True, help="How often each way is measured.")
@json_option
@mlflow_option
@click.option("--only", hidden=True, help="Print the rate of this contestant in this process.")
def main(preset: str | None, images: int, repeats: int, file: Path | None, to_mlflow: bool, only: str | None) -> None:
    """Measure epochs whose threads sleep and spin, on an idle and on a busy machine."""
    settings = settings_of(merged_params(project_root(), preset, []))
    if only:
        train = synthetic_images(images, settings.data.image_size)
        history = train_copy(synthetic_job(settings, only, train, epochs=3))
        click.echo(max(epoch.images_per_second for epoch in history[1:]))
        return
    rates: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(repeats):
        for load, loops in LOOPS_PER_CORE.items():
            with _busy(loops * (os.cpu_count() or 1)):
                for name in settings.models:
                    for policy, variables in POLICIES.items():
                        command = [sys.executable, *sys.argv, "--only", name]
                        kept = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
                        answer = subprocess.run(
                            command, env=kept | variables, check=True, stdout=subprocess.PIPE, text=True
                        )
                        rates.setdefault((load, name, policy), []).append(float(answer.stdout))
    rows: list[tuple[str, ...]] = [("machine", "contestant", "threads", "images/s", "lowest", "highest", "of spin")]
    for (load, name, policy), values in rates.items():
        gain = median(one / spin for one, spin in zip(values, rates[load, name, "spin"], strict=True))
        shown = [f"{value:,.0f}" for value in (median(values), min(values), max(values))]
        rows.append((load, name, policy, *shown, f"{gain:.2f}"))
    click.echo(table(rows, text_columns=3))
    publish("wait_policy", {" ".join(key): values for key, values in rates.items()}, file, to_mlflow=to_mlflow)


@contextmanager
def _busy(loops: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
