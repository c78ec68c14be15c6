"""Measures of the host, each appended to ``system_metrics`` by a function of its own."""

from __future__ import annotations

import logging
from types import FunctionType, ModuleType
from typing import List

from .dimension import Dimension
from .metric import Metric

#: What was measured, in order.
system_metrics: List[Metric] = []
dimension = [Dimension("Level", "Host")]

_MB, _GB = 1024**2, 1024**3


def _measured(name: str, value: float, unit: str) -> None:
    system_metrics.append(Metric(name, value, unit, dimension))


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


def collect_all(mod: ModuleType) -> None:
    """Call every public function of ``mod`` that measures, and log what is in ``system_metrics``."""
    for name, function in sorted(vars(mod).items()):
        if isinstance(function, FunctionType) and name != "collect_all" and not name.startswith("_"):
            function()
    for metric in system_metrics:
        logging.info("%s", metric)
    logging.info("")
