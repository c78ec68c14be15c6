"""A model version as the management door describes it: the old servers' members, and what our own dialect adds.

Source: TorchServe 0.12 and Multi Model Server 1.1, ``GET /models/{model}``; order and names are theirs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import psutil

from marserve.doors.http.dialects import Dialect
from marserve.errors import ServeError
from marserve.metrics.system import gpu_usage
from marserve.models.model import ModelVersion
from marserve.supervisor.lifecycle import WorkerState
from marserve.supervisor.worker import Autopsy, Worker

#: Processes whose memory is read in one go: each costs some 30 microseconds of the loop.
_AT_ONCE = 16

#: What TorchServe tells of features that a version can have there; the values are those of a version without them.
_WITHOUT_FEATURES: dict[str, object] = {
    "stateful": False,
    "sequenceMaxIdleMSec": 0,
    "sequenceTimeoutMSec": 0,
    "maxNumSequence": 0,
    "maxSequenceJobQueueSize": 0,
}


class Seen(NamedTuple):
    """What was read of the machine for a description: resident bytes by process, and usage by GPU."""

    memory: Mapping[int, int]
    gpus: Mapping[str, str]


async def describe(versions: list[ModelVersion], dialect: Dialect) -> object:
    """Return versions as the dialect describes them: a list, or one object for the first."""
    workers = [worker for version in versions for worker in version.pool.workers]
    memory = await _memory([pid for worker in workers for pid in worker.pids])
    usage: dict[str, str] = {}
    if any(version.config.gpu_ids for version in versions):
        usage = await asyncio.to_thread(gpu_usage)
    entry = {"native": _native, "torchserve": _torchserve, "mms": _mms}[dialect.name]
    entries = [entry(version, Seen(memory, usage)) for version in versions]
    return entries if dialect.describes_list else entries[0]


async def _memory(pids: list[int]) -> dict[int, int]:
    """Return the resident memory of processes, bytes; 0 for one that is gone."""
    found: dict[int, int] = {}
    for number, pid in enumerate(pids, 1):
        try:
            found[pid] = psutil.Process(pid).memory_info().rss if pid else 0
        except psutil.Error:
            found[pid] = 0
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return found


def _mms(version: ModelVersion, seen: Seen) -> dict[str, object]:
    config, manifest = version.config, version.archive.manifest
    return {
        "modelName": version.name,
        "modelVersion": version.version if manifest.names_version else None,
        "modelUrl": version.archive.location,
        "engine": manifest.engine_name or None,
        "runtime": config.runtime,
        "minWorkers": config.min_workers,
        "maxWorkers": config.max_workers,
        "batchSize": config.batch_size,
        "maxBatchDelay": _plain(config.max_batch_delay * 1000.0),
        "loadedAtStartup": version.loaded_at_startup,
        "workers": [_mms_worker(version, worker, seen) for worker in version.pool.workers],
    }


def _torchserve(version: ModelVersion, seen: Seen) -> dict[str, object]:
    config = version.config
    found = {**_mms(version, seen), "modelVersion": version.version}
    loaded_at_startup = found.pop("loadedAtStartup")
    for member in ("engine", "workers"):
        del found[member]
    return {
        **found,
        "responseTimeout": _plain(config.response_timeout),
        "startupTimeout": _plain(config.startup_timeout),
        "maxRetryTimeoutInSec": _plain(config.retry_timeout),
        "clientTimeoutInMills": _plain(config.client_timeout * 1000.0),
        "parallelType": config.parallel.kind,
        "parallelLevel": config.parallel.level,
        "deviceType": "gpu" if config.gpu_ids else "cpu",
        "deviceIds": list(config.gpu_ids) or None,
        "continuousBatching": False,
        "useJobTicket": config.has_job_tickets,
        "useVenv": version.archive.config.get("useVenv") is True,
        **_WITHOUT_FEATURES,
        # Of what a snapshot brings back, TorchServe says that it came later.
        "loadedAtStartup": loaded_at_startup and not version.is_restored,
        "workers": [_old_worker(version, worker, seen) for worker in version.pool.workers],
        "jobQueueStatus": {
            "remainingCapacity": max(0, version.queue.bound - len(version.queue)),
            "pendingRequests": len(version.queue),
        },
    }


def _native(version: ModelVersion, seen: Seen) -> dict[str, object]:
    pool, archive = version.pool, version.archive
    return {
        **_torchserve(version, seen),
        "loadedAtStartup": version.loaded_at_startup,
        "workers": [_worker(version, worker, seen) for worker in pool.workers],
        "state": str(pool.state),
        "handler": version.config.handler,
        "routes": [str(route) for route in version.config.routes] or None,
        "digest": archive.digest or None,
        "signature": archive.signature.raw if archive.signature is not None else None,
        "restarts": pool.restart_count,
        "lastDeath": _death(pool.last_autopsy),
        "lastError": _error(pool.failure or pool.setback),
    }


def _old_worker(version: ModelVersion, worker: Worker, seen: Seen) -> dict[str, object]:
    started = datetime.fromtimestamp(worker.started_at).isoformat(timespec="milliseconds")
    return {
        "id": str(worker.number),
        # Local time with a "Z", as both old servers write it.
        "startTime": f"{started}Z",
        "status": "READY" if worker.state is WorkerState.READY else "UNLOADING",
        "memoryUsage": sum(seen.memory.get(pid, 0) for pid in worker.pids),
        "pid": worker.pid,
        "gpu": bool(version.config.gpu_ids),
        "gpuUsage": _gpu_usage(version.gpus_of(worker.number), seen.gpus),
    }


def _gpu_usage(gpus: Sequence[int], usage: Mapping[str, str]) -> str:
    """Return how busy a worker's GPUs are. They are numbered among the visible ones, the driver knows all."""
    visible = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    told = []
    for gpu in gpus:
        index = visible[gpu] if gpu < len(visible) and visible[gpu].isdigit() else str(gpu)
        told.append(f"gpuId::{gpu} {usage[index]}" if index in usage else "N/A")
    return ", ".join(told) or "N/A"


def _mms_worker(version: ModelVersion, worker: Worker, seen: Seen) -> dict[str, object]:
    told = _old_worker(version, worker, seen)
    return {name: told[name] for name in ("id", "startTime", "status", "gpu", "memoryUsage")}


def _worker(version: ModelVersion, worker: Worker, seen: Seen) -> dict[str, object]:
    state = "busy" if worker.state is WorkerState.READY and worker.in_flight_count else str(worker.state)
    return {
        **_old_worker(version, worker, seen),
        "startTime": datetime.fromtimestamp(worker.started_at, UTC).isoformat(timespec="milliseconds"),
        "state": state,
        # Not 0, which os.kill() and the shell's kill take for the process group of whoever calls them.
        "pid": worker.pid or None,
        "inFlightBatches": worker.in_flight_count,
    }


def _death(autopsy: Autopsy | None) -> dict[str, object] | None:
    if autopsy is None:
        return None
    return {"reason": autopsy.reason, "jobs": list(autopsy.job_ids) or None, "log": list(autopsy.log) or None}


def _error(error: ServeError | None) -> dict[str, object] | None:
    if error is None:
        return None
    traceback = str(getattr(error, "traceback", ""))
    return {
        "type": error.kind,
        "message": error.message,
        "hint": error.hint or None,
        "traceback": traceback.splitlines() or None,
    }


def _plain(number: float) -> float:
    """Return a number without a fraction as an integer: clients of the old servers parse nothing else."""
    whole = round(number)
    return whole if abs(number - whole) < 1e-6 else number
