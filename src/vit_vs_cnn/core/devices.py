"""What the machine computes with, without importing PyTorch."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def accelerators() -> list[str]:
    """The CUDA devices that this process may use, by the names that CUDA_VISIBLE_DEVICES takes; none: the CPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    answer = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(index) for index in range(len(answer.stdout.splitlines()))] if answer.returncode == 0 else []


@cache  # a plan asks for every stage, and the file is long where there are many cores
def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies matrices in bf16 (AVX-512 BF16 or AMX); False where Linux does not say so."""
    try:
        return not _BF16_FLAGS.isdisjoint(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return False
