"""The management of a peer that runs: registering, what it says of itself, and more workers."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil

from bench.load import MeasureError
from bench.peers.commands import Launch, Mode, old_wait

#: Seconds that a peer may take to scale.
SCALE = 60.0


def register(launch: Launch) -> None:
    """Register the workload's model where that was not done at the start.

    Raises:
        MeasureError: it was refused.
    """
    name, mode = launch.workload.archive, launch.mode
    asked_for = f"url={name}.mar&model_name={name}&batch_size={mode.batch}&max_batch_delay={old_wait(mode)}"
    ask_management(launch, "POST", f"/models?{asked_for}&initial_workers={mode.workers}&synchronous=true")


def check_mode(mode: Mode, description: bytes) -> None:
    """Look at what a management door says of a model.

    Raises:
        MeasureError: it runs in another mode than the one that is measured.
    """
    found = _described(description)
    runs = Mode(len(found["workers"]), int(found["batchSize"]))
    if runs != mode:
        raise MeasureError(f"It runs as {runs}, wanted is {mode}.")


def are_ready(description: bytes, workers: int) -> bool:
    """Tell whether a management door says that so many workers are ready."""
    found = _described(description)["workers"]
    return len(found) == workers and all(worker["status"] == "READY" for worker in found)


def _described(description: bytes) -> dict[str, Any]:
    told = json.loads(description)
    described: dict[str, Any] = told[0] if isinstance(told, list) else told
    return described


def scale(launch: Launch, process: psutil.Process, workers: int) -> float:
    """Add workers to a running peer; return the seconds until all of them are there.

    Raises:
        MeasureError: it cannot, or did not in time.
    """
    began = time.perf_counter()
    _SCALERS[launch.peer.scaling](launch, process, workers)
    return time.perf_counter() - began


def _scale_by_management(launch: Launch, process: psutil.Process, workers: int) -> None:
    name = launch.workload.archive
    deadline = time.perf_counter() + SCALE
    path = f"/models/{name}?min_worker={workers}&max_worker={workers}&synchronous=true"
    ask_management(launch, "PUT", path)
    # An old server answers when its workers are connected, which is before their models are loaded.
    while not are_ready(ask_management(launch, "GET", f"/models/{name}"), workers):
        time.sleep(0.005)
        if time.perf_counter() > deadline:
            raise MeasureError(f"{workers} workers were not ready after {SCALE:g} s.")


def ask_management(launch: Launch, method: str, path: str) -> bytes:
    """Return what the management door answers.

    Raises:
        MeasureError: it is not 200.
        OSError, HTTPException: there was no answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", launch.management, timeout=SCALE)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        said = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise MeasureError(f"{method} {path} was answered with {response.status} {said[:300]!r}.")
    return said


def _scale_by_signal(launch: Launch, process: psutil.Process, workers: int) -> None:
    loaded = max(child.memory_info().rss for child in process.children())
    for _ in range(workers - launch.mode.workers):
        process.send_signal(signal.SIGTTIN)
        time.sleep(0.02)  # a second signal before the first is seen would be lost
    deadline = time.perf_counter() + SCALE
    # The arbiter says nothing to the outside: a worker that holds what the first holds has loaded its model.
    while time.perf_counter() < deadline:
        there = [child for child in process.children() if child.memory_info().rss > 0.9 * loaded]
        if len(there) >= workers:
            return
        time.sleep(0.005)
    raise MeasureError(f"{workers} workers were not there after {SCALE:g} s.")


_SCALERS: dict[str, Callable[[Launch, psutil.Process, int], None]] = {
    "management": _scale_by_management,
    "signal": _scale_by_signal,
}
