"""The machine's accelerators, without importing PyTorch."""

import os
import shutil
import subprocess


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
