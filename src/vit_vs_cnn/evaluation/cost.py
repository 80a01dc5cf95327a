"""What a trained model costs to use: parameters, FLOPs, latency, throughput, memory."""

import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from vit_vs_cnn.evaluation.predict import batch_predict
from vit_vs_cnn.evaluation.results import Cost
from vit_vs_cnn.models.trained import TrainedModel

_SECONDS = 0.5
_FEWEST_CALLS = 20
_FEWEST_BATCHES = 2
_WARM_UP_CALLS = 3
# Where a call takes so long, as a large model's batch does on a CPU, its warm-up is a small part of it.
_MOST_SECONDS = 10.0


def measure_cost(
    trained: TrainedModel,
    images: NDArray[np.uint8],
    batch_size: int,
    device: torch.device,
    device_name: str,
    seconds_per_epoch: float,
) -> Cost:
    """Cost of a model that is on `device`, on uint8 images (N, H, W, 3) that are repeated where they are few.

    Latency (one image) and throughput (batches of `batch_size`) are end to end: from uint8 in the host's memory
    through resizing, normalisation, network and softmax to probabilities in the host's memory.
    """
    batch = np.resize(images, (batch_size, *images.shape[1:]))

    def predict(count: int) -> NDArray[np.float32]:
        return batch_predict(trained.probabilities, batch[:count], count, device)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds_of_one = _seconds_of_calls(lambda: predict(1), _FEWEST_CALLS, _WARM_UP_CALLS)
    seconds_of_batch = _seconds_of_calls(lambda: predict(batch_size), _FEWEST_BATCHES, warm_up=1)
    p50, p95 = np.percentile(seconds_of_one, [50, 95])
    return Cost(
        parameters=sum(weights.numel() for weights in trained.network.parameters()),
        flops=count_flops(trained, batch[:1], device),
        seconds_per_epoch=seconds_per_epoch,
        latency_p50_ms=1e3 * float(p50),
        latency_p95_ms=1e3 * float(p95),
        throughput_images_per_second=batch_size / float(np.median(seconds_of_batch)),
        peak_memory_mb=peak_memory_mb(device),
        device=device_name,
        input_size=trained.preprocess.input_size,
    )


def count_flops(trained: TrainedModel, image: NDArray[np.uint8], device: torch.device) -> int:
    """Floating-point operations of the forward pass for one image (1, H, W, 3), as PyTorch counts them.

    Matrix products, convolutions and attention count, a multiplication and an addition as two; the rest is small.
    """
    with FlopCounterMode(display=False) as counter:
        batch_predict(trained.probabilities, image, 1, device)
    return int(counter.get_total_flops())


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used, in megabytes (10⁶ bytes).

    On a GPU what PyTorch had allocated there since its counter was reset; on a CPU the largest resident size of the
    whole process since it started, Python and its libraries included, so it compares models on one machine only.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes.
    return largest / 1e6 if sys.platform == "darwin" else largest * 1024 / 1e6


def _seconds_of_calls(call: Callable[[], object], fewest: int, warm_up: int) -> list[float]:
    """Seconds of each call after the warm-up: at least `fewest`, and as many as fit the time there is.

    `call` must wait for the device, as bringing the answer to the host does.
    """
    seconds: list[float] = []
    while sum(seconds) < _MOST_SECONDS and (len(seconds) < warm_up + fewest or sum(seconds[warm_up:]) < _SECONDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[warm_up:] or seconds
