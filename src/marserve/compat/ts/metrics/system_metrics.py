"""Measures of the host, each appended to ``system_metrics`` by a function of its own."""

from __future__ import annotations

import logging
from types import FunctionType, ModuleType
from typing import List, Optional

from .dimension import Dimension
from .metric import Metric

#: What was measured, in order.
system_metrics: List[Metric] = []
dimension = [Dimension("Level", "Host")]

_MB, _GB = 1024**2, 1024**3


def _measured(name: str, value: float, unit: str, device: Optional[int] = None) -> None:
    where = dimension if device is None else [*dimension, Dimension("device_id", device)]
    system_metrics.append(Metric(name, value, unit, where))


def cpu_utilization() -> None:
    """Measure the use of the processors, percent."""
    import psutil

    _measured("CPUUtilization", psutil.cpu_percent(), "percent")


def memory_used() -> None:
    """Measure the memory in use, MB."""
    import psutil

    _measured("MemoryUsed", psutil.virtual_memory().used / _MB, "MB")


def memory_available() -> None:
    """Measure the memory that is left, MB."""
    import psutil

    _measured("MemoryAvailable", psutil.virtual_memory().available / _MB, "MB")


def memory_utilization() -> None:
    """Measure the memory in use, percent."""
    import psutil

    _measured("MemoryUtilization", psutil.virtual_memory().percent, "percent")


def disk_used() -> None:
    """Measure what is used of the root disk, GB."""
    import psutil

    _measured("DiskUsage", psutil.disk_usage("/").used / _GB, "GB")


def disk_utilization() -> None:
    """Measure what is used of the root disk, percent."""
    import psutil

    _measured("DiskUtilization", psutil.disk_usage("/").percent, "percent")


def disk_available() -> None:
    """Measure what is left of the root disk, GB."""
    import psutil

    _measured("DiskAvailable", psutil.disk_usage("/").free / _GB, "GB")


def gpu_utilization(num_of_gpu: int) -> None:
    """Measure memory and use of each GPU, with NVIDIA's library; nothing for ``num_of_gpu`` 0."""
    if num_of_gpu <= 0:
        return
    import pynvml  # type: ignore[import-not-found,unused-ignore]

    pynvml.nvmlInit()
    for index in range(pynvml.nvmlDeviceGetCount()):
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        _measured("GPUMemoryUtilization", 100 * memory.used / memory.total, "percent", index)
        _measured("GPUMemoryUsed", memory.used / _MB, "MB", index)
        _measured("GPUUtilization", pynvml.nvmlDeviceGetUtilizationRates(device).gpu, "percent", index)


def collect_all(mod: ModuleType, num_of_gpu: Optional[int]) -> None:
    """Call every public function of ``mod`` that measures, and log what is in ``system_metrics``."""
    for name, function in sorted(vars(mod).items()):
        if not isinstance(function, FunctionType) or name == "collect_all" or name.startswith("_"):
            continue
        if name == "gpu_utilization":
            function(num_of_gpu or 0)
        else:
            function()
    for metric in system_metrics:
        logging.info("%s", metric)
    logging.info("")
