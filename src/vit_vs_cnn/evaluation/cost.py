"""What a trained model costs to use: FLOPs, latency, throughput, memory."""

import resource
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vit_vs_cnn.evaluation.predict import batch_predict
from vit_vs_cnn.evaluation.results import Speed

_ROUNDS = 5
# Of one measurement in one round; the second limit is for models whose fewest calls take too long.
_SECONDS = 0.1
_MOST_SECONDS = 5.0
_FEWEST_CALLS = 10
_WARM_UP_CALLS = 3
# Of all batches: where one takes long, as a large model's does on a CPU, there are fewer rounds.
_SECONDS_OF_BATCHES = 120.0


def measure_speed(
    programs: Mapping[str, nn.Module], images: NDArray[np.uint8], batch_size: int, device: torch.device
) -> dict[str, Speed]:
    """Speed of exported programs on `device`, on uint8 images (N, H, W, 3) that are repeated where they are few.

    The programs take turns, for up to five rounds, so that whatever else the machine does affects all of them. Latency
    (one image) and throughput (batches of `batch_size`) are end to end: from uint8 in the host's memory through
    resizing, normalisation, network and softmax to probabilities in the host's memory.
    """
    batch = np.resize(images, (batch_size, *images.shape[1:]))

    def seconds(program: nn.Module, count: int) -> float:
        start = time.perf_counter()
        batch_predict(program, batch[:count], count, device)
        return time.perf_counter() - start

    for program in programs.values():
        for _ in range(_WARM_UP_CALLS):
            seconds(program, 1)
    seconds_of_round = sum(seconds(program, batch_size) for program in programs.values())
    latencies: dict[str, list[list[float]]] = {name: [] for name in programs}
    batches: dict[str, list[list[float]]] = {name: [] for name in programs}
    for _ in range(int(np.clip(_SECONDS_OF_BATCHES / seconds_of_round, 1, _ROUNDS))):
        for name, program in programs.items():
            latencies[name].append(_repeat(partial(seconds, program, 1), _FEWEST_CALLS))
            batches[name].append(_repeat(partial(seconds, program, batch_size), 1))
    return {name: _speed(latencies[name], batches[name], batch_size) for name in programs}


def count_flops(program: nn.Module, image: NDArray[np.uint8], device: torch.device) -> int:
    """Floating-point operations of the forward pass for one image (1, H, W, 3), as PyTorch counts them.

    Matrix products, convolutions and attention count, a multiplication and an addition as two; the rest is small.
    """
    with FlopCounterMode(display=False) as counter:
        batch_predict(program, image, 1, device)
    return int(counter.get_total_flops())


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used, in megabytes (10⁶ bytes).

    On a GPU what PyTorch had allocated there; on a CPU the largest resident size of the whole process since it started,
    Python and its libraries included, so it compares models on one machine only.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes.
    return largest / 1e6 if sys.platform == "darwin" else largest * 1024 / 1e6


def _repeat(call: Callable[[], float], fewest: int) -> list[float]:
    """Seconds of each call: at least `fewest`, and as many as fit the time there is."""
    seconds = [call()]
    while sum(seconds) < _SECONDS or (len(seconds) < fewest and sum(seconds) < _MOST_SECONDS):
        seconds.append(call())
    return seconds


def _speed(latencies: list[list[float]], batches: list[list[float]], batch_size: int) -> Speed:
    milliseconds = [1e3 * float(np.median(of_round)) for of_round in latencies]
    per_second = [batch_size / float(np.median(of_round)) for of_round in batches]
    return Speed(
        latency_p50_ms=float(np.median(milliseconds)),
        latency_p50_ms_low=min(milliseconds),
        latency_p50_ms_high=max(milliseconds),
        latency_p95_ms=1e3 * float(np.percentile(np.concatenate(latencies), 95)),
        throughput_images_per_second=float(np.median(per_second)),
        throughput_images_per_second_low=min(per_second),
        throughput_images_per_second_high=max(per_second),
    )
