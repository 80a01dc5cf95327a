"""The load of the machine, under the names that MLflow's own monitor uses."""

import psutil


class SystemMeter:
    """Reads the load since the last reading; it needs no thread and costs microseconds."""

    def __init__(self) -> None:
        psutil.cpu_percent()
        self._process = psutil.Process()

    def read(self) -> dict[str, float]:
        """CPU and GPU use in per cent, memory in megabytes; GPU values where there is one."""
        memory = psutil.virtual_memory()
        values = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / 1e6,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_megabytes": self._process.memory_info().rss / 1e6,
        }
        return values | _gpu()


def _gpu() -> dict[str, float]:
    import torch

    if not torch.cuda.is_available():
        return {}
    values = {"system/gpu_0_memory_usage_megabytes": torch.cuda.max_memory_allocated() / 1e6}
    try:
        values["system/gpu_0_utilization_percentage"] = float(torch.cuda.utilization())
    except (ModuleNotFoundError, RuntimeError):
        return values  # NVIDIA's management library is not installed: memory is what can be told
    return values
