"""What a server holds in memory: its own pages, those of its family, and whether torch is among them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil


def figures_at_rest(process: psutil.Process) -> dict[str, float]:
    """Return resident bytes of the process and of it with all that it has started, and whether torch is loaded.

    ``family`` counts pages that processes share once for each of them. ``has_torch`` is 1.0 or 0.0, and left out
    where the system does not show which libraries a process has mapped.
    """
    own = process.memory_info().rss
    family = own + sum(child.memory_info().rss for child in process.children(recursive=True))
    figures = {"resident": float(own), "family": float(family)}
    maps = Path(f"/proc/{process.pid}/maps")
    if maps.is_file():
        figures["has_torch"] = float(maps_torch(maps.read_text(errors="replace")))
    return figures


def maps_torch(maps: str) -> bool:
    """Tell whether the text of ``/proc/…/maps`` names one of torch's own libraries: they come with its import."""
    return any("/torch/lib/" in line or "libtorch" in line for line in maps.splitlines())


def proportional(processes: Iterable[int]) -> float:
    """Return the bytes that processes hold together, a page that several share counted once; 0 where none is shown.

    Args:
        processes: ids; one that has gone holds nothing.
    """
    held = 0
    for process in processes:
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        held += pss(text)
    return float(held)


def pss(rollup: str) -> int:
    """Return the proportional set size, bytes, that the text of ``/proc/…/smaps_rollup`` tells."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
