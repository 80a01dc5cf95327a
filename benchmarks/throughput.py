"""How far is the project's training loop from what the machine can do, and how far ahead of the usual loops?

    python benchmarks/throughput.py --preset cpu --repeats 3
    python benchmarks/throughput.py --preset demo --images 4096 --json throughput.json

Images per second of forward, backward and step, for every contestant of a preset, on synthetic pixels:

    limit        the bare step of the recipe, again and again on one resident batch
    compiled     the same through torch.compile, once it has compiled
    graphs       the same as CUDA graphs (mode "reduce-overhead"), on a GPU only
    project      an epoch of this project, augmented as the recipe says
    tracked      the same, tracked in MLflow
    notebook     PIL transforms, DataLoader of 2 processes, batches of 32, `.item()` after every step
    torchvision  the usual script: random crop and flip in a DataLoader of 2 processes, batches of 128
    timm         timm's own loader and its usual step

All train the same network in the same precision from the same start. They take turns, and the median of the repeats
counts; `of limit` is the median of the ratios within a turn, which a machine that slows down meanwhile does not change.
The peak is a matrix product of the same precision, measured in the same run. With --json the same command continues
after the last finished contestant of a run that was killed.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from PIL import Image
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from record import Draft, json_option, mlflow_option, own_tracking_store, publish
from synthetic import MEAN, STD, synthetic_images, synthetic_job, train_copy
from vit_vs_cnn.config.load import merged_params, settings_of
from vit_vs_cnn.core.paths import project_root
from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.tracking.run import TrackedRun, start_run
from vit_vs_cnn.training.checkpoint import fingerprint
from vit_vs_cnn.training.device import choose_device
from vit_vs_cnn.training.optimization import create_optimizer
from vit_vs_cnn.training.results import Epoch, epoch_metrics
from vit_vs_cnn.training.setup import TrainingJob, fastest_attention, make_fabric

WORKERS = 2

Loop = Callable[[TrainingJob], float]


@click.command()
@click.option("--preset", help="A preset; default: params.yaml as it is.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable.")
@click.option("--images", default=2048, show_default=True, type=click.IntRange(256), help="Images of a loop.")
@click.option("--repeats", default=3, show_default=True, help="How often each loop is measured.")
@click.option("--tracking/--no-tracking", default=True, help="Whether to measure the tracked loop: it needs MLflow.")
@click.option("--loop", "names", multiple=True, help="This loop beside the limit; repeatable. Default: all.")
@json_option
@mlflow_option
def main(
    preset: str | None,
    overrides: tuple[str, ...],
    images: int,
    repeats: int,
    tracking: bool,
    names: tuple[str, ...],
    file: Path | None,
    to_mlflow: bool,
) -> None:
    """Measure images per second of several training loops for each contestant of a preset."""
    settings = settings_of(merged_params(project_root(), preset, overrides))
    train, device = synthetic_images(images, settings.data.image_size), choose_device(settings.train)
    loops = {
        name: loop
        for name, loop in LOOPS.items()
        if (name in (names or LOOPS) or name == "limit")
        and (tracking or name != "tracked")
        and (device.type == "cuda" or name != "graphs")
    }
    draft, results = Draft(file), {}
    with tempfile.TemporaryDirectory() as folder, own_tracking_store(folder):
        for name in settings.models:
            job = synthetic_job(settings, name, train, epochs=2)
            key = f"{name} {fingerprint(job)} {train.images.shape} {repeats} {list(loops)}"
            results[name] = draft.get(key) or _measure(job, loops, repeats)
            draft.add(key, results[name])
            _show(name, results[name])
    publish("throughput", results, file, to_mlflow=to_mlflow)
    draft.remove()


def _measure(job: TrainingJob, loops: dict[str, Loop], repeats: int) -> dict[str, Any]:
    plan, peaks = job.plan, []
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(repeats):
        peaks.append(_matrix_product_flops(plan.device, plan.precision))
        for name, loop in loops.items():
            rates[name].append(loop(job))
    return {
        "timm": job.model.timm,
        "pixels": job.preprocess.input_size,
        "batch": job.model.recipe.batch_size,
        "device": plan.device_name,
        "precision": plan.precision,
        "flops_per_image": _flops_per_image(job),
        "matrix_product_flops": median(peaks),
        "images_per_second": rates,
    }


def _show(name: str, of: dict[str, Any]) -> None:
    flops, peak, rates = of["flops_per_image"], of["matrix_product_flops"], of["images_per_second"]
    click.echo(
        f"\n{name}: {of['timm']}, {of['pixels']} px, batches of {of['batch']}, "
        f"{of['precision']} on {of['device']}; {flops / 1e6:,.0f} MFLOPs per image forward and backward, "
        f"matrix product {peak / 1e9:,.0f} GFLOP/s"
    )
    click.echo("loop         images/s    lowest   highest  of limit  of peak")
    for loop, repeated in rates.items():
        middle = median(repeated)
        of_limit = median(rate / limit for rate, limit in zip(repeated, rates["limit"], strict=True))
        click.echo(
            f"{loop:<11}  {middle:>8,.0f}  {min(repeated):>8,.0f}  {max(repeated):>8,.0f}  {of_limit:>8.2f}  "
            f"{middle * flops / peak:>7.1%}"
        )


def _bare(job: TrainingJob, compile_mode: str | None = None) -> float:
    batch = min(job.model.recipe.batch_size, len(job.train))
    device = job.plan.device
    inputs = torch.randn(batch, 3, job.preprocess.input_size, job.preprocess.input_size, device=device)
    inputs, labels = inputs.to(memory_format=torch.channels_last), torch.zeros(batch, dtype=torch.long, device=device)
    # The step's copy of the network keeps the attention that the project would choose.
    with fastest_attention(job.network, job.plan):
        step = _step(job, compile_mode=compile_mode)
    steps = max(2, len(job.train) // batch)
    step(inputs, labels)
    start = _now(device)
    for _ in range(steps):
        step(inputs, labels)
    return steps * batch / (_now(device) - start)


def _tracked(job: TrainingJob) -> float:
    with start_run(job.settings, "benchmark", job.contestant) as run:
        return _epoch(job, run)


def _epoch(job: TrainingJob, run: TrackedRun | None) -> float:
    """What the trainer says of its epoch, with the time that the tracking of an epoch takes."""
    seconds = [0.0]

    def track(epoch: Epoch) -> None:
        start = time.perf_counter()
        if run is not None:
            run.log_metrics(epoch_metrics(epoch), step=epoch.epoch)
        seconds.append(time.perf_counter() - start)

    # The first epoch warms up.
    _, epoch = train_copy(job, track)
    images, batch = len(job.train), job.model.recipe.batch_size
    trained = images // batch * batch or images
    return trained / (trained / epoch.images_per_second + seconds[2])


def _notebook(job: TrainingJob) -> float:
    steps = [transforms.Resize(job.preprocess.input_size), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
    loader = DataLoader(_Pictures(job.train, transform), batch_size=32, shuffle=True, num_workers=WORKERS)
    return _rate_of(job, loader, reads_loss=True)


def _torchvision(job: TrainingJob) -> float:
    side = job.preprocess.input_size
    steps = [transforms.RandomCrop(side, padding=side // 8), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    if side != job.info.image_size:
        steps.insert(0, transforms.Resize(side))
    transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
    loader = DataLoader(_Pictures(job.train, transform), batch_size=128, shuffle=True, num_workers=WORKERS)
    return _rate_of(job, loader, reads_loss=False)


def _timm(job: TrainingJob) -> float:
    device = job.plan.device
    pictures: Any = _Pictures(job.train, None)
    loader: Any = create_loader(
        pictures,
        input_size=(3, job.preprocess.input_size, job.preprocess.input_size),
        batch_size=128,
        is_training=True,
        hflip=0.5,
        mean=MEAN,
        std=STD,
        num_workers=WORKERS,
        device=device,
        persistent_workers=False,
        use_prefetcher=device.type == "cuda",
    )
    return _rate_of(job, loader, reads_loss=False)


LOOPS: dict[str, Loop] = {
    "limit": _bare,
    "compiled": partial(_bare, compile_mode="default"),
    "graphs": partial(_bare, compile_mode="reduce-overhead"),
    "project": partial(_epoch, run=None),
    "tracked": _tracked,
    "notebook": _notebook,
    "torchvision": _torchvision,
    "timm": _timm,
}


def _rate_of(job: TrainingJob, loader: Iterable[Any], *, reads_loss: bool) -> float:
    """Images per second of an epoch of `loader`, from its start, processes included, to its last step."""
    device, seen = job.plan.device, 0
    step, side = _step(job, plain=True), job.preprocess.input_size
    step(torch.zeros(8, 3, side, side, device=device), torch.zeros(8, dtype=torch.long, device=device))
    start = _now(device)
    for images, labels in loader:
        loss = step(images.to(device), labels.to(device))
        if reads_loss:
            loss.item()
        seen += len(labels)
    return seen / (_now(device) - start)


def _step(
    job: TrainingJob, *, plain: bool = False, compile_mode: str | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """One training step; `plain` is AdamW, as the usual scripts have it, else the recipe's optimizer and clipping."""
    plan, recipe = job.plan, job.model.recipe
    fabric = make_fabric(plan)
    network = copy.deepcopy(job.network).to(plan.device).train()
    if not plain:
        network = network.to(memory_format=torch.channels_last)
    made = create_optimizer_v2(network, opt="adamw", lr=1e-4) if plain else create_optimizer(network, recipe, "recipe")
    stepped: Any = torch.compile(network, mode=compile_mode) if compile_mode else network
    stepper, optimizer = fabric.setup(stepped, made)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        loss = functional.cross_entropy(stepper(images).float(), labels)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        if recipe.clip_grad and not plain:
            fabric.clip_gradients(stepper, optimizer, max_norm=recipe.clip_grad, error_if_nonfinite=False)
        optimizer.step()
        return loss

    return step


def _flops_per_image(job: TrainingJob) -> float:
    """Forward and backward, as PyTorch counts them: matrix products and convolutions."""
    network: nn.Module = copy.deepcopy(job.network).cpu()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 3, job.preprocess.input_size, job.preprocess.input_size)).sum().backward()
    return float(counter.get_total_flops()) / 2


def _matrix_product_flops(device: torch.device, precision: str) -> float:
    side = 8192 if device.type == "cuda" else 2048
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)
    matrix, fastest = torch.randn(side, side, device=device).to(kind), float("inf")
    for _ in range(5):
        start = _now(device)
        matrix @ matrix
        fastest = min(fastest, _now(device) - start)
    return float(2 * side**3) / fastest


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class _Pictures(Dataset[tuple[Any, int]]):
    """The images as PIL pictures, each through `transform`, which the loader may set."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], Any] | None) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        picture = Image.fromarray(self.split.images[index])
        return (self.transform(picture) if self.transform else picture), int(self.split.labels[index])


if __name__ == "__main__":
    main()
