"""Where does the time of an epoch go?

    python benchmarks/profile_epoch.py --preset cpu --steps 20
    python benchmarks/profile_epoch.py --preset demo --trace traces/

PyTorch's profiler over a part of an epoch, on synthetic pixels, for every contestant of a preset: the operators that
take most of the time by themselves, without what they call. On a GPU it is the time of the GPU that counts. With
--trace the whole story is written for chrome://tracing or Perfetto.
"""

from pathlib import Path
from typing import Any

import click
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from record import json_option, mlflow_option, publish
from synthetic import synthetic_images, synthetic_job, train_copy
from vit_vs_cnn.config.load import merged_params, settings_of
from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.paths import project_root


@click.command()
@click.option("--preset", help="A preset; default: params.yaml as it is.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option("--steps", default=20, show_default=True, help="Steps that are profiled, after as many to warm up.")
@click.option("--top", default=15, show_default=True, help="Operators that are shown.")
@click.option("--trace", type=click.Path(path_type=Path), help="Write the traces into this folder.")
@json_option
@mlflow_option
def main(
    preset: str | None,
    overrides: tuple[str, ...],
    steps: int,
    top: int,
    trace: Path | None,
    file: Path | None,
    to_mlflow: bool,
) -> None:
    """Profile a part of an epoch of every contestant of a preset."""
    settings = settings_of(merged_params(project_root(), preset, overrides))
    results = {name: _profile(settings, name, steps, top, trace) for name in settings.models}
    publish("profile_epoch", results, file, to_mlflow=to_mlflow)


def _profile(settings: Settings, name: str, steps: int, top: int, trace: Path | None) -> dict[str, Any]:
    model = settings.model(name)
    images = synthetic_images(steps * model.recipe.batch_size, settings.data.image_size)
    job = synthetic_job(settings, name, images, epochs=2)
    on_gpu = job.plan.device.type == "cuda"
    profiler = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])])
    # Begins after the first epoch, which warms up.
    history = train_copy(job, lambda row: profiler.start() if row.epoch == 1 else None)
    profiler.stop()
    if trace:
        trace.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(trace / f"{name}.json"))
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    microseconds = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event.count)
        for event in profiler.key_averages()
        if event.device_type == kind
    }
    total = sum(duration for duration, _ in microseconds.values())
    longest = sorted(microseconds.items(), key=lambda item: -item[1][0])[:top]
    click.echo(
        f"\n{name}: {model.timm}, {steps} steps of {model.recipe.batch_size}, {job.plan.precision} on "
        f"{job.plan.device_name}, {history[-1].images_per_second:,.0f} images/s under the profiler"
    )
    rows = [
        (key, f"{count:,}", f"{duration / 1e3:,.1f}", f"{duration / total:.1%}") for key, (duration, count) in longest
    ]
    click.echo(table([("operator", "calls", "own ms", "share"), *rows]))
    return {
        key: {"ms": duration / 1e3, "share": duration / total, "calls": count} for key, (duration, count) in longest
    }


if __name__ == "__main__":
    main()
