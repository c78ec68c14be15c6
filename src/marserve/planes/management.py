"""What a door may ask about models: register, scale, describe, set the default, unregister."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from marserve.errors import BadRequest, JobTimeout, LoadError, MethodNotAllowed, ServeError, ShuttingDown, about
from marserve.models.model import House, ModelVersion, OpenedArchive, VersionConfig
from marserve.models.registry import Registry
from marserve.wire.frames import MOST_JOBS

log = logging.getLogger("marserve.management")

#: Shortest timeout that a model-config may ask for, seconds: 0 would end every worker in its first batch.
LEAST_TIMEOUT = 0.001

#: Runtimes of the old servers that no worker of ours can be.
FOREIGN_RUNTIMES = frozenset(("LSP", "python2"))
#: Keys of a model-config that TorchServe's users know and that change nothing here, with the reason.
INEFFECTIVE = {
    "parallelType": "a worker is one process",
    "parallelLevel": "a worker is one process",
    "torchrun": "a worker is one process",
    "sequenceBatching": "requests are not kept in sequences",
    "sequenceMaxIdleMSec": "requests are not kept in sequences",
    "continuousBatching": "a batch stays as it is until it is answered",
    "asyncCommunication": "a worker runs one batch at a time",
    "useJobTicket": "requests wait in the queue, up to jobQueueSize",
    "useVenv": "workers run with what is installed beside the server",
    "clientTimeoutInMills": "job_timeout counts for every model",
    "maxRetryTimeoutInSec": "a worker that keeps dying is tried again for 300 s",
}

#: Opens what an operator named: fetches, checks, unpacks. Raises ServeError.
Opener = Callable[[str], Awaitable[OpenedArchive]]


@dataclass(frozen=True, slots=True)
class Registration:
    """What somebody who registers a model asks for; None: what the archive or the settings say.

    Attributes:
        location: a name in the model store, or a URL.
        max_batch_delay, response_timeout, startup_timeout: seconds.
    """

    location: str
    model_name: str | None = None
    handler: str | None = None
    runtime: str | None = None
    batch_size: int | None = None
    max_batch_delay: float | None = None
    initial_workers: int | None = None
    response_timeout: float | None = None
    startup_timeout: float | None = None


class ManagementPlane:
    """Changes what is served."""

    def __init__(
        self,
        registry: Registry,
        house: House,
        opener: Opener,
        defaults: VersionConfig,
        *,
        is_open: bool,
        unregister_timeout: float,
    ) -> None:
        self.registry = registry
        self._house = house
        self._opener = opener
        self._defaults = defaults
        self._is_open = is_open
        self._unregister_timeout = unregister_timeout
        self._numbers = count(9000)
        self._background: set[asyncio.Task[None]] = set()

    async def register(self, wanted: Registration, *, wait: bool, at_startup: bool = False) -> ModelVersion:
        """Open an archive, add it as a version, and start its workers.

        Args:
            wait: return only when the workers can answer, and leave nothing behind when they cannot.

        Raises:
            MethodNotAllowed: registering is switched off.
            ModelNotFound, BadRequest, ArchiveError, Conflict: it is not registered.
            LoadError, OutOfMemory: its workers cannot start; it is not registered any more.
        """
        if not self._is_open and not at_startup:
            raise MethodNotAllowed("Registering models is switched off.", "Set enable_model_api=true to allow it.")
        archive = await self._opener(wanted.location)
        name = wanted.model_name or archive.manifest.model_name
        if not name:
            nameless = BadRequest(f"{wanted.location} does not name its model.", "Give a model_name.")
            nameless.fault = "nameless"
            raise nameless
        if "/" in name:  # no path of the management address could mean it: it could never be unregistered
            raise BadRequest(f"The model name {name!r} holds a slash.", "Give a model_name without one.")
        if not (wanted.handler or archive.manifest.handler):
            raise about(LoadError(f"{wanted.location} names no handler.", "Give a handler."), name)
        version = self._add(name, wanted, archive, at_startup)
        config = version.config
        if config.min_workers > 0:
            version.scale(config.min_workers, config.max_workers)
            if wait:
                await self._wait_or_undo(version)
            else:
                self._in_background(self._wait_or_undo(version, keep=True))
        self._house.observer.version_changed(version)
        return version

    def _add(self, name: str, wanted: Registration, archive: OpenedArchive, at_startup: bool) -> ModelVersion:
        found = archive.manifest.version or "1.0"
        self.registry.check_free(name, found)
        config = resolve(self._defaults, archive, wanted, at_startup)
        if config.min_workers > 0 and config.startup_timeout <= 0:
            error = LoadError(f"No worker of {name} can load within 0 s.", "Give a startup_timeout, or no workers.")
            raise about(error, name, found)
        version = ModelVersion(name, found, archive, config, self._house, self._numbers)
        version.loaded_at_startup = at_startup
        self.registry.add(version)
        return version

    async def _wait_or_undo(self, version: ModelVersion, keep: bool = False) -> None:
        """Wait for a new version's workers; take it out again when they cannot start, unless ``keep``."""
        try:
            await version.pool.wait_ready(version.config.min_workers)
        except ServeError as error:
            if not isinstance(error, ShuttingDown):  # who unregisters a version, or stops the server, knows why
                log.error("%s:%s cannot be served: %s", version.name, version.version, error)
            if keep:
                return
            model = self.registry.models.get(version.name)
            if model is not None and model.versions.get(version.version) is version:
                self._take_out(version)
                self._remove_download(version)
            await version.pool.close()
            raise about(error, version.name, version.version) from None

    def _take_out(self, version: ModelVersion) -> None:
        """Remove a version that never served, the default of its siblings or not."""
        model = self.registry.models[version.name]
        del model.versions[version.version]
        if not model.versions:
            del self.registry.models[version.name]
        elif model.default is version:
            model.default = next(iter(model.versions.values()))

    def _in_background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def scale(
        self, name: str, version: str | None, min_workers: int, max_workers: int, *, wait: bool
    ) -> ModelVersion:
        """Set the number of workers of a version.

        Raises:
            ModelNotFound, VersionNotFound: there is no such version.
            BadRequest: the numbers make no sense.
            LoadError, OutOfMemory: (when ``wait``) the new workers cannot start; those that run go on.
        """
        if max_workers < min_workers:
            raise BadRequest("max_worker cannot be less than min_worker.")
        found = self.registry.find(name, version)
        if min_workers < 0:
            negative = BadRequest(f"min_worker is {min_workers}; it must be 0 or more.")
            negative.fault = "negative"
            raise negative
        found.scale(min_workers, max_workers)
        if wait:
            try:
                await found.pool.wait_ready(min_workers)
                await found.pool.wait_until(lambda: len(found.pool.workers) <= found.pool.target)
            except ServeError as error:
                raise about(error, name, version) from None
        return found

    def set_default(self, name: str, version: str) -> None:
        """Make a version the one that requests without a version get.

        Raises:
            ModelNotFound, VersionNotFound: there is no such version.
        """
        self.registry.set_default(name, version)
        self._house.observer.version_changed(self.registry.find(name, version))

    async def unregister(self, name: str, version: str | None) -> ModelVersion:
        """Take a version out: nothing new reaches it, what it has accepted is answered, its workers end.

        Raises:
            MethodNotAllowed: it is switched off.
            ModelNotFound, VersionNotFound: there is no such version.
            Forbidden: it is the default and others exist.
            JobTimeout: its workers did not end in time; they are ended by force.
        """
        if not self._is_open:
            raise MethodNotAllowed("Unregistering models is switched off.", "Set enable_model_api=true to allow it.")
        found = self.registry.remove(name, version)
        try:
            async with asyncio.timeout(self._unregister_timeout):
                await found.pool.drain(self._unregister_timeout)
        except TimeoutError:
            error = JobTimeout(f"Timed out while cleaning resources: {name}", "Its workers have been ended by force.")
            found.pool.kill_all(error)
            raise about(error, name, found.version) from None
        finally:
            self._remove_download(found)
        return found

    def _remove_download(self, gone: ModelVersion) -> None:
        """Remove what was downloaded for a version, unless another one came from it too."""
        download = gone.archive.download
        if download and all(version.archive.download != download for version in self.registry):
            Path(download).unlink(missing_ok=True)

    def list_models(self, limit: int, offset: int) -> tuple[list[ModelVersion], int | None]:
        """Return a page of default versions, sorted by name, and the offset of the next page.

        There is a next offset also when the page ends exactly at the last model, as clients of both old servers
        have it.
        """
        names = sorted(self.registry.models)
        page = [self.registry.models[name].default for name in names[offset : offset + limit]]
        end = offset + limit
        return page, (end if end <= len(names) else None)

    def describe(self, name: str, version: str | None) -> list[ModelVersion]:
        """Return one version: the default for None; or all of them for "all".

        Raises:
            ModelNotFound, VersionNotFound: there is no such version.
        """
        if version == "all":
            return list(self.registry.model(name).versions.values())
        return [self.registry.find(name, version)]

    async def close(self) -> None:
        """End what is still waiting in the background."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)


def resolve(defaults: VersionConfig, archive: OpenedArchive, wanted: Registration, at_startup: bool) -> VersionConfig:
    """Return how a version is served: the registration wins, then the archive's model-config, then the settings."""
    config = archive.config
    workers = wanted.initial_workers
    if workers is None:
        workers = _whole(config, "minWorkers", defaults.min_workers)
    most = max(workers, _whole(config, "maxWorkers", workers))
    delay = wanted.max_batch_delay
    if delay is None:
        delay = _number(config, "maxBatchDelay", defaults.max_batch_delay * 1000.0) / 1000.0
    gpu_ids = defaults.gpu_ids
    if config.get("deviceType") == "cpu":
        gpu_ids = ()
    elif isinstance(config.get("deviceIds"), list):
        asked = tuple(one for one in config["deviceIds"] if isinstance(one, int))  # type: ignore[attr-defined]
        gpu_ids = asked if set(asked) <= set(defaults.gpu_ids) else gpu_ids
    runtime = wanted.runtime or archive.manifest.runtime
    if runtime in FOREIGN_RUNTIMES:
        raise BadRequest(f"Workers of the runtime {runtime} cannot be started.", "Pack the archive for python3.")
    for key, why in ineffective(archive):
        log.warning("%s: %s has no effect: %s.", archive.location, key, why)
    batch_size = wanted.batch_size or _whole(config, "batchSize", defaults.batch_size, least=1)
    if batch_size > MOST_JOBS:
        raise BadRequest(f"A batch size of {batch_size} is too large.", f"The most is {MOST_JOBS}.")
    queue_size = _whole(config, "jobQueueSize", defaults.queue_size, least=1)
    if queue_size < batch_size:
        log.warning(
            "%s: its queue of %d never fills a batch of %d; raise job_queue_size.",
            archive.location,
            queue_size,
            batch_size,
        )
    return replace(
        defaults,
        min_workers=workers,
        max_workers=most,
        batch_size=batch_size,
        max_batch_delay=delay,
        response_timeout=wanted.response_timeout
        or _number(config, "responseTimeout", defaults.response_timeout, LEAST_TIMEOUT),
        startup_timeout=_number(config, "startupTimeout", defaults.startup_timeout, LEAST_TIMEOUT)
        if wanted.startup_timeout is None
        else wanted.startup_timeout,
        queue_size=queue_size,
        handler=wanted.handler or archive.manifest.handler,
        runtime=runtime,
        gpu_ids=gpu_ids,
    )


def ineffective(archive: OpenedArchive) -> list[tuple[str, str]]:
    """Return what an archive asks for in vain, with the reason: silence is what users resent most."""
    found = [(key, why) for key, why in INEFFECTIVE.items() if archive.config.get(key)]
    if archive.manifest.requirements_file and not archive.python:
        found.append(("the requirements file", "install_py_dep_per_model is off"))
    return found


def _whole(config: object, key: str, default: int, least: int = 0) -> int:
    return int(_number(config, key, default, least, is_whole=True))


def _number(config: object, key: str, default: float, least: float = 0, is_whole: bool = False) -> float:
    """Return a number of a model-config; what is no such number is told about, and the default counts."""
    value = config.get(key) if isinstance(config, dict) else None
    if value is None:
        return default
    is_number = isinstance(value, int if is_whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not value >= least:  # also when it is no number by its own account: .nan
        what = "whole number" if is_whole else "number"
        log.warning(
            "model-config.yaml: %s is %r, which is no %s from %g on; %g counts.", key, value, what, least, default
        )
        return default
    return float(value)
