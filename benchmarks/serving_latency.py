"""How fast is the exported model compared with the eager network that it was exported from?

    python benchmarks/serving_latency.py --registry digits --model champion
    python benchmarks/serving_latency.py --batch 1 --batch 256 --repeats 50

Both get the same uint8 images and give the same probabilities, on the CPU. They take turns, call by call, so that a
busy machine slows both alike; medians are reported.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch

from vit_vs_cnn.registry.loading import load_registered
from vit_vs_cnn.registry.versions import resolve_model_name


@click.command()
@click.option("--registry", help="The registered model, or its data set; default: the only one there is.")
@click.option("--model", "alias", default="champion", help="Alias or version.")
@click.option("--batch", "batches", default=(1, 32, 256), multiple=True, help="A size of batch; repeatable.")
@click.option("--repeats", default=30, help="Calls of each, after three to warm up.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the results to this file too.")
def main(registry: str | None, alias: str, batches: tuple[int, ...], repeats: int, file: Path | None) -> None:
    """Measure latency and throughput of the registered model against the eager network."""
    name = resolve_model_name(registry, None)
    model = load_registered(name, alias)
    program, eager = model.program.cpu(), model.rebuilt
    results = []
    click.echo(f"{name} version {model.version} ({model.contestant}), {torch.get_num_threads()} threads")
    click.echo("batch  exported ms  eager ms  exported images/s  eager images/s  exported/eager time")
    for batch in batches:
        shape = (batch, model.image_size, model.image_size, 3)
        images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        exported_s: list[float] = []
        eager_s: list[float] = []
        with torch.inference_mode():
            torch.testing.assert_close(program(images), eager.probabilities(images), atol=1e-5, rtol=0)
            for turn in range(repeats + 3):
                for call, seconds in ((program, exported_s), (eager.probabilities, eager_s)):
                    spent = _time(call, images)
                    if turn >= 3:
                        seconds.append(spent)
        exported, other = median(exported_s), median(eager_s)
        click.echo(
            f"{batch:>5}  {1000 * exported:>11.2f}  {1000 * other:>8.2f}  {batch / exported:>17,.0f}  "
            f"{batch / other:>14,.0f}  {exported / other:>19.2f}"
        )
        results.append({"batch": batch, "exported_s": exported, "eager_s": other})
    if file:
        file.write_text(json.dumps({"model": name, "version": model.version, "results": results}, indent=2) + "\n")


def _time(call: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> float:
    started = time.perf_counter()
    call(images)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
