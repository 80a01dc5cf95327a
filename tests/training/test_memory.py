"""What training does with the memory of the process."""

import ctypes
import subprocess
import sys

import pytest

# Prints how many pages the kernel hands out for a tensor of 64 MB that is made and freed again and again, in the end.
PAGES_OF_A_TENSOR = """
import resource, torch
from vit_vs_cnn.training.device import make_fabric
if {kept}:
    make_fabric(torch.device("cpu"), "32-true")
for _ in range(50):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(*, kept: bool) -> int:
    code = PAGES_OF_A_TENSOR.format(kept=kept)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(answer.stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc returns memory so eagerly"
)
def test_on_a_cpu_the_memory_of_freed_tensors_is_there_for_the_next_step() -> None:
    assert pages(kept=True) < 100
    assert pages(kept=False) > 10_000
