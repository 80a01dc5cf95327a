"""One training on several devices, of one node or more: Fabric starts a process for each; they share every batch."""

import copy
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from multiprocessing.queues import SimpleQueue

import torch
from lightning_fabric import Fabric
from torch.multiprocessing.spawn import ProcessException

from vit_vs_cnn.core.errors import TransientError, UserError
from vit_vs_cnn.training.checkpoint import Checkpoint
from vit_vs_cnn.training.loop import Trainer
from vit_vs_cnn.training.results import Epoch
from vit_vs_cnn.training.setup import TrainingJob, make_fabric, use_deterministic_algorithms


def train_in_processes(job: TrainingJob, checkpoint: Checkpoint, on_epoch: Callable[[Epoch], None]) -> None:
    """Train in a process for each device of the plan; `on_epoch` is called in this one.

    With the same batches the losses are those of one process, but for rounding. Raises what `Trainer.run` raises, and
    TransientError where another node does not come or stops.
    """
    fabric = make_fabric(job.plan)
    context = torch.multiprocessing.get_context("spawn")
    messages: SimpleQueue[Epoch | UserError] = context.SimpleQueue()
    with ThreadPoolExecutor(1) as executor:
        # Fabric waits for the processes; meanwhile this thread reads their messages.
        run = partial(_train_and_report, job=job, checkpoint=checkpoint, messages=messages)
        launched = executor.submit(fabric.launch, run)
        try:
            for message in _messages_until(launched, messages):
                if isinstance(message, UserError):
                    raise message
                on_epoch(message)
        except BaseException:
            for process in context.active_children():
                process.terminate()
            raise
        try:
            launched.result()
        except ProcessException as error:
            if job.plan.nodes == 1:
                raise
            raise TransientError(
                f"train.nodes: the training over {job.plan.nodes} nodes stopped, one of them did not come or was lost "
                f"({_last_line(error)}): start it again on each, it continues after its last finished epoch."
            ) from None


def _last_line(error: Exception) -> str:
    """What the process said last, without a place in PyTorch's sources; PyTorch passes on the traceback above it."""
    return re.sub(r"\[/\S+\] ", "", str(error).strip().splitlines()[-1]).partition(". ")[0][:200]


def _messages_until(done: "Future[None]", messages: "SimpleQueue[Epoch | UserError]") -> Iterator[Epoch | UserError]:
    # A last message from here would wait for ever for the lock that a process had when it was killed.
    while not (done.done() and messages.empty()):
        if messages.empty():
            wait([done], timeout=0.1)
        else:
            yield messages.get()


def _train_and_report(
    fabric: Fabric, job: TrainingJob, checkpoint: Checkpoint, messages: "SimpleQueue[Epoch | UserError]"
) -> None:
    use_deterministic_algorithms(job.plan)
    # PyTorch sends tensors as shared memory, and each process needs weights of its own.
    own = replace(job, network=copy.deepcopy(job.network))
    try:
        Trainer(fabric, own).run(checkpoint, messages.put)
    except UserError as error:
        messages.put(error)
        raise
