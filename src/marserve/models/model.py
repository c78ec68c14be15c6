"""One model version: its archive, its configuration, its queue and its pool."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from marserve.archive.manifest import Manifest
from marserve.archive.signature import Signature
from marserve.batching.batcher import BatchPolicy
from marserve.batching.queue import JobQueue
from marserve.models.routes import Route
from marserve.observer import Observer
from marserve.supervisor.crowd import Crowd
from marserve.supervisor.forking import Forker, Spawning, spawned, why_not_forked
from marserve.supervisor.gate import Gate
from marserve.supervisor.parallel import Parallel, device_group
from marserve.supervisor.pool import Pool, PoolSettings
from marserve.supervisor.process import Starter

log = logging.getLogger("marserve.pool")


@dataclass(frozen=True, slots=True)
class OpenedArchive:
    """An archive that lies unpacked and checked.

    Attributes:
        location: what was asked for, as it is shown to the operator.
        folder: where it lies unpacked.
        digest: SHA-256 of the archive file, "" for a folder that is used in place and for what was unpacked for it.
        manifest, signature: as read; the signature is None when the archive has none.
        config: the whole model-config.yaml, {} when there is none.
        python: interpreter of the environment that has what it requires; "" for the server's own.
        is_alone: whether nothing of the server's packages is in that environment.
        download: file that was downloaded for it and is removed with it; "" for none.
        own_folder: what was unpacked for it alone and is removed with it; "" for nothing.
    """

    location: str
    folder: str
    digest: str
    manifest: Manifest
    signature: Signature | None
    config: Mapping[str, object] = field(default_factory=dict)
    python: str = ""
    is_alone: bool = False
    download: str = ""
    own_folder: str = ""


@dataclass(frozen=True, slots=True)
class VersionConfig:
    """How one version is served: what the archive, the registration and the settings say, resolved.

    Attributes:
        min_workers, max_workers: the number of workers is ``min_workers``; the other is what was asked for.
        batch_size, max_batch_delay: see ``batching.batcher.BatchPolicy``; seconds.
        response_timeout, startup_timeout: seconds.
        retry_timeout: how long a worker that keeps dying is tried again, seconds.
        client_timeout: seconds after which a client has gone, and its job is not run any more; 0: never.
        has_job_tickets: whether jobs are accepted only while a worker waits for one.
        queue_size: most jobs that wait.
        handler: entry point.
        runtime: as the manifest names it; for the operator alone.
        thread_count: threads that a service may use for one batch; 0 shares the cores out among the workers.
        gpu_ids: devices that workers are given in turn; empty: CPU.
        parallel: whether a worker is several processes, or has several devices.
        worker_start: ``fork`` where the version is fit for it, or ``spawn``.
        routes: paths that ask its model, beside those of the server.
    """

    min_workers: int = 1
    max_workers: int = 1
    batch_size: int = 1
    max_batch_delay: float = 0.0
    response_timeout: float = 120.0
    startup_timeout: float = 120.0
    retry_timeout: float = 300.0
    client_timeout: float = 0.0
    has_job_tickets: bool = False
    queue_size: int = 100
    handler: str = ""
    runtime: str = "python"
    thread_count: int = 0
    gpu_ids: tuple[int, ...] = ()
    parallel: Parallel = Parallel()
    worker_start: str = "spawn"
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class House:
    """What every version needs from the server that it lives in.

    Attributes:
        starter, gate, crowd, observer: see their rooms.
        pool: settings that all pools share.
        load: what every worker is told when it loads, whatever the model.
        job_deadline: longest time from a request's arrival to the start of its answer, seconds.
        by_hand: where workers are started by who develops their service; then none is ended for taking its time.
    """

    starter: Spawning
    gate: Gate
    crowd: Crowd
    observer: Observer
    pool: PoolSettings
    load: Mapping[str, object]
    job_deadline: float = 120.0
    by_hand: Starter | None = None


class ModelVersion:
    """A version that is served, or on its way there or gone."""

    def __init__(
        self,
        name: str,
        version: str,
        archive: OpenedArchive,
        config: VersionConfig,
        house: House,
        numbers: Iterator[int],
    ) -> None:
        # Lifetime of the version
        self.name = name
        self.version = version
        self.archive = archive
        self.config = config
        self.loaded_at_startup = False
        self.is_restored = False
        self.job_deadline = min(house.job_deadline, config.client_timeout or house.job_deadline)
        self._house = house
        policy = BatchPolicy(config.batch_size, config.max_batch_delay)
        self.queue = JobQueue(config.queue_size, policy)
        settings = replace(
            house.pool,
            response_timeout=config.response_timeout if house.by_hand is None else math.inf,
            startup_timeout=config.startup_timeout if house.by_hand is None else math.inf,
            python=archive.python or None,
            environment=_without_places(house.pool.environment) if archive.is_alone else house.pool.environment,
            parallel=config.parallel,
            restart=replace(house.pool.restart, window=config.retry_timeout),
            has_tickets=config.has_job_tickets,
            # What waits behind a running batch is not looked at when its deadline comes.
            works_ahead=not config.client_timeout,
        )
        self.pool = Pool(
            f"{name}:{version}",
            self,
            self.queue,
            self._load,
            settings,
            self._starter(),
            house.gate,
            house.observer,
            numbers,
            house.crowd,
        )
        #: GPUs by number of the worker, which keeps them when it is replaced
        self._gpus: dict[int, tuple[int, ...]] = {}

    def __repr__(self) -> str:
        return f"<ModelVersion {self.name}:{self.version} {self.pool.state} {self.queue!r}>"

    def _starter(self) -> Starter:
        """Return what starts the workers; why they are not forked is told, where they were to be."""
        house, config = self._house, self.config
        if house.by_hand is not None:
            return house.by_hand
        if config.worker_start == "spawn":
            return house.starter
        name = f"{self.name}:{self.version}"
        why = why_not_forked(config.parallel, self.archive.python, config.gpu_ids, house.pool.pinning is not None)
        if why:
            log.info("%s", spawned(name, why))
            return house.starter
        return Forker(name, house.starter, house.gate)

    def _load(self, number: int) -> dict[str, object]:
        """Return what one worker is told to load."""
        config, parallel = self.config, self.config.parallel
        gpus = self.gpus_of(number)
        # Who has several sees no others, and counts them from 0; a rank takes its own.
        gpu_id = (0 if parallel.level else gpus[0]) if gpus else None
        threads = config.thread_count or max(1, (os.cpu_count() or 1) // max(1, config.min_workers))
        return {
            **self._house.load,
            "model_name": self.name,
            "model_version": self.version,
            "folder": self.archive.folder,
            "handler": config.handler,
            "envelope": self._house.load.get("envelope") or self.archive.manifest.envelope,
            "batch_size": config.batch_size,
            "gpu_id": gpu_id,
            "devices": list(gpus) if parallel.level else [],
            "is_fanned_out": parallel.is_fanned_out,
            "thread_count": parallel.thread_count if parallel.has_ranks else threads,
            "config": dict(self.archive.config),
            "worker": number,
        }

    def gpus_of(self, number: int) -> tuple[int, ...]:
        """Return the GPUs of a worker, none for the CPU; new workers get them in turn."""
        config = self.config
        if not config.gpu_ids:
            return ()
        group = device_group(config.gpu_ids, max(1, config.parallel.level), len(self._gpus))
        return self._gpus.setdefault(number, group)

    def scale(self, min_workers: int, max_workers: int) -> None:
        """Set the number of workers; returns at once, ``pool.wait_ready`` waits."""
        self.config = replace(self.config, min_workers=min_workers, max_workers=max_workers)
        self.pool.scale(min_workers)


def _without_places(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of workers without what would show them the server's packages."""
    return {name: value for name, value in environment.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
