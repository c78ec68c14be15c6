"""Measures of the host, each appended to ``system_metrics`` by a function of its own."""

from types import ModuleType

from ts.metrics.system_metrics import collect_all as _collect_all
from ts.metrics.system_metrics import (
    cpu_utilization,
    dimension,
    disk_available,
    disk_used,
    disk_utilization,
    memory_available,
    memory_used,
    memory_utilization,
    system_metrics,
)

__all__ = [
    "collect_all",
    "cpu_utilization",
    "dimension",
    "disk_available",
    "disk_used",
    "disk_utilization",
    "memory_available",
    "memory_used",
    "memory_utilization",
    "system_metrics",
]


def collect_all(mod: ModuleType) -> None:
    """Call every public function of ``mod`` that measures, and log what is in ``system_metrics``."""
    _collect_all(mod, None)
