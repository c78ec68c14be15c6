"""What the host and its GPUs are doing, read off the loop: a few files, and ``nvidia-smi`` where there is one.

Source of names and units: the system metrics of TorchServe and Multi Model Server.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

log = logging.getLogger("marserve.metrics")

MEBIBYTE, GIBIBYTE = 2**20, 2**30
#: Seconds over which the first look measures the processors; a later one measures since the look before.
FIRST_LOOK = 0.1
#: Longest time that the driver's tool may take, seconds.
PATIENCE = 5.0
_QUERY = ("--query-gpu=index,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")

_USAGE_QUERY = ("--query-gpu=index,utilization.gpu,utilization.memory,memory.used", "--format=csv")


class HostValue(NamedTuple):
    """One value; ``device`` is the index of the GPU that it is of, "" for the host."""

    name: str
    value: float
    device: str = ""


class HostWatch:
    """Reads the host time after time; every reading is made in a thread of its own.

    Args:
        told: called in the loop with each reading.
        interval: seconds between two readings.
    """

    def __init__(self, told: Callable[[list[HostValue]], None], interval: float) -> None:
        self._told = told
        self._interval = interval
        self._smi = shutil.which("nvidia-smi")
        self._cpu: tuple[float, float] | None = None

    async def run(self) -> None:
        """Read until cancelled, at once for the first time."""
        while True:
            self._told(await asyncio.to_thread(self.read))
            await asyncio.sleep(self._interval)

    def read(self) -> list[HostValue]:
        """Return what there is now. It takes a tenth of a second the first time, and runs a program for GPUs."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
        return [
            HostValue("CPUUtilization", self._cpu_percent()),
            HostValue("MemoryUsed", memory.used / MEBIBYTE),
            HostValue("MemoryAvailable", memory.available / MEBIBYTE),
            HostValue("MemoryUtilization", memory.percent),
            HostValue("DiskUsage", disk.used / GIBIBYTE),
            HostValue("DiskUtilization", disk.percent),
            HostValue("DiskAvailable", disk.free / GIBIBYTE),
            *self._gpus(),
        ]

    def _cpu_percent(self) -> float:
        """Return how busy the processors were since the last look; the library remembers that by thread alone."""
        if self._cpu is None:
            self._cpu = _cpu_seconds()
            time.sleep(FIRST_LOOK)
        before, self._cpu = self._cpu, _cpu_seconds()
        busy, total = (now - then for now, then in zip(self._cpu, before, strict=True))
        return round(100.0 * max(0.0, busy) / total, 1) if total > 0 else 0.0

    def _gpus(self) -> list[HostValue]:
        if self._smi is None:
            return []
        try:
            done = subprocess.run(
                [self._smi, *_QUERY], capture_output=True, text=True, timeout=PATIENCE, check=True, errors="replace"
            )
            return [value for line in done.stdout.splitlines() for value in gpu_values(line)]
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            log.warning("There are no metrics of GPUs from now on: %s", error)
            self._smi = None
            return []


def gpu_usage() -> dict[str, str]:
    """Return what the driver's tool says of each GPU, by index, in TorchServe's words; {} where it says nothing.

    It runs a program, for some tenths of a second.
    """
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return {}
    try:
        done = subprocess.run(
            [smi, *_USAGE_QUERY], capture_output=True, text=True, timeout=PATIENCE, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("The usage of GPUs is not known: %s", error)
        return {}
    names, *rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return {
        row[0]: " ".join(f"{name}::{value}" for name, value in zip(names[1:], row[1:], strict=False)) for row in rows
    }


def _cpu_seconds() -> tuple[float, float]:
    """Return the seconds that all processors were busy, and those that there were, since the host started."""
    spent = psutil.cpu_times()
    total = spent.user + spent.system + getattr(spent, "nice", 0.0) + getattr(spent, "irq", 0.0)
    total += getattr(spent, "softirq", 0.0) + getattr(spent, "steal", 0.0)
    return total, total + spent.idle + getattr(spent, "iowait", 0.0)


def gpu_values(line: str) -> list[HostValue]:
    """Return the values of a line ``index, utilization, memory used, memory total``, in percent and MiB.

    Raises:
        ValueError: the line says something else.
    """
    device, *shown = [cell.strip() for cell in line.split(",")]
    if len(shown) != 3:
        raise ValueError(f"nvidia-smi wrote {line!r}, which is no line of four values.")
    if any("N/A" in cell or "Not Supported" in cell for cell in shown):
        return []  # a part of a GPU, or one that does not tell
    utilization, used, total = map(float, shown)
    return [
        HostValue("GPUMemoryUtilization", used / total * 100.0 if total else 0.0, device),
        HostValue("GPUMemoryUsed", used, device),
        HostValue("GPUUtilization", utilization, device),
    ]
