"""One training on several devices: Fabric starts a process for each, and they share every batch."""

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.queues import SimpleQueue

import torch
from lightning_fabric import Fabric
from torch import nn

from vit_vs_cnn.config.schema import ModelSettings, TrainSettings
from vit_vs_cnn.core.errors import UserError
from vit_vs_cnn.data.dataset import Split
from vit_vs_cnn.data.loader import ResidentImages
from vit_vs_cnn.models.preprocess import Preprocess
from vit_vs_cnn.training.checkpoint import CheckpointFile
from vit_vs_cnn.training.device import make_fabric
from vit_vs_cnn.training.loop import Result, Trainer, finished
from vit_vs_cnn.training.plan import Plan
from vit_vs_cnn.training.results import Epoch


@dataclass(frozen=True)
class Job:
    """All that a process needs to train; it is pickled on its way."""

    name: str
    model: ModelSettings
    budget: TrainSettings
    seed: int
    plan: Plan
    network: nn.Module
    preprocess: Preprocess
    num_classes: int
    train: Split
    val: Split
    checkpoint: CheckpointFile
    quiet: bool


def train_job(fabric: Fabric, job: Job, on_epoch: Callable[[Epoch], None]) -> Result:
    """Train in this process, alone or as one of several."""
    trainer = Trainer(
        fabric, job.plan, job.network, job.preprocess, job.num_classes, job.model, job.budget, job.seed, job.name,
        quiet=job.quiet,
    )  # fmt: skip
    train, val = (ResidentImages(split, fabric.device) for split in (job.train, job.val))
    return trainer.run(train, val, job.checkpoint, on_epoch)


def train_in_processes(job: Job, on_epoch: Callable[[Epoch], None]) -> Result:
    """Train in a process for each device of the plan; `on_epoch` is called in this one.

    With the same batches the losses are those of one process, but for rounding. Raises what `train_job` raises.
    """
    fabric = make_fabric(job.plan.device, job.plan.precision, job.plan.devices)
    context = torch.multiprocessing.get_context("spawn")
    news: SimpleQueue[Epoch | UserError] = context.SimpleQueue()
    with ThreadPoolExecutor(1) as launcher:
        # Fabric waits for the processes, and somebody must listen to them meanwhile.
        ended = launcher.submit(fabric.launch, partial(_train_and_tell, job=job, news=news))
        try:
            for each in _until(ended, news):
                if isinstance(each, UserError):
                    raise each
                on_epoch(each)
        except BaseException:
            for process in context.active_children():
                process.terminate()
            raise
        ended.result()
    return finished(job.checkpoint)


def _until(ended: "Future[None]", news: "SimpleQueue[Epoch | UserError]") -> Iterator[Epoch | UserError]:
    # A last message from here would wait for ever for the lock that a process had when it was killed.
    while not (ended.done() and news.empty()):
        if news.empty():
            wait([ended], timeout=0.1)
        else:
            yield news.get()


def _train_and_tell(fabric: Fabric, job: Job, news: "SimpleQueue[Epoch | UserError]") -> None:
    # PyTorch sends tensors as shared memory, and each process needs weights of its own.
    own = replace(job, network=copy.deepcopy(job.network))
    try:
        train_job(fabric, own, news.put)
    except UserError as error:
        news.put(error)
        raise
