"""Does bf16 train faster than fp32 on this hardware? The measurement behind `train.precision: auto`.

    python benchmarks/precision.py --preset cpu --repeats 5
    python benchmarks/precision.py --preset demo --images 4096

Images per second of an epoch of this project, for every contestant of a preset, on synthetic pixels, in 32-true and in
bf16-mixed. They take turns; `of 32-true` is the median of the ratios within a turn, with the lowest and the highest.
"""

from dataclasses import replace
from pathlib import Path
from statistics import median

import click

from record import json_option, mlflow_option, publish
from synthetic import synthetic_images, synthetic_job, train_copy
from vit_vs_cnn.config.load import merged_params, settings_of
from vit_vs_cnn.core.console import table
from vit_vs_cnn.core.paths import project_root
from vit_vs_cnn.training.setup import Precision, make_plan

PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed")


@click.command()
@click.option("--preset", help="A preset; default: params.yaml as it is.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option("--images", default=2048, show_default=True, type=click.IntRange(256), help="Images of an epoch.")
@click.option("--repeats", default=3, show_default=True, help="How often each precision is measured.")
@json_option
@mlflow_option
def main(
    preset: str | None, overrides: tuple[str, ...], images: int, repeats: int, file: Path | None, to_mlflow: bool
) -> None:
    """Measure images per second in fp32 and in bf16 for each contestant of a preset."""
    settings = settings_of(merged_params(project_root(), preset, overrides))
    chosen = make_plan(settings.train.model_copy(update={"precision": "auto"}))
    train = synthetic_images(images, settings.data.image_size)
    rates: dict[str, dict[str, list[float]]] = {}
    rows = [["contestant", "precision", "images/s", "lowest", "highest", "of 32-true", "lowest", "highest"]]
    for contestant in settings.models:
        job = synthetic_job(settings, contestant, train, epochs=2)
        rates[contestant] = {precision: [] for precision in PRECISIONS}
        for _ in range(repeats):
            for precision in PRECISIONS:
                # The first epoch warms up.
                _, epoch = train_copy(replace(job, plan=replace(job.plan, precision=precision)))
                rates[contestant][precision].append(epoch.images_per_second)
        base = rates[contestant][PRECISIONS[0]]
        for name, measured in rates[contestant].items():
            ratios = [rate / other for rate, other in zip(measured, base, strict=True)]
            speed = [f"{value:,.0f}" for value in (median(measured), min(measured), max(measured))]
            ratio = [f"{value:.2f}" for value in (median(ratios), min(ratios), max(ratios))]
            rows.append([contestant, name, *speed, *ratio])
    click.echo(f"{chosen.device_name}: `auto` is {chosen.precision} here\n\n{table(rows, text_columns=2)}")
    publish("precision", {"device": chosen.device_name, "images_per_second": rates}, file, to_mlflow=to_mlflow)


if __name__ == "__main__":
    main()
