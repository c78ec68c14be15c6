"""What a door may ask about models: register, scale, describe, set the default, unregister."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from marserve.archive.manifest import file_model_name
from marserve.config.versions import VersionEntry, entry_of
from marserve.errors import (
    BadRequest,
    Conflict,
    DownloadError,
    EnvironmentFault,
    JobTimeout,
    LoadError,
    MethodNotAllowed,
    ServeError,
    ShuttingDown,
    about,
)
from marserve.models.model import House, ModelVersion, OpenedArchive, VersionConfig
from marserve.models.registry import Registry
from marserve.planes.resolving import REGISTRATION_FIRST, Precedence, Registration, resolve, restored
from marserve.supervisor.helper import remove_folder

log = logging.getLogger("marserve.management")

#: Opens what an operator named: fetches, checks, unpacks. Raises ServeError.
Opener = Callable[[Registration], Awaitable[OpenedArchive]]


async def _nothing() -> None:
    """Do nothing."""


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
        precedence: Precedence = REGISTRATION_FIRST,
        first_worker: int = 9000,
        startup_workers: int | None = None,
        parameters: Sequence[VersionEntry] = (),
        names_after_file: bool = False,
        takes_bare: bool = False,
        first_distributed: int = 29500,
        has_versions: bool = True,
        remove: Callable[[str], Awaitable[None]] = remove_folder,
    ) -> None:
        """Change what ``registry`` holds.

        Args:
            defaults: how a version is served of which nothing else is said.
            precedence: where an archive is stronger than its registration.
            first_worker: number of the first worker.
            startup_workers: their number of workers for what is loaded at start; None for that of all.
            parameters: what the settings say of single versions.
            names_after_file: at start, make the name of an archive that names none of its file's.
            takes_bare: take an archive without a handler, as TorchServe does: its workers cannot start.
            first_distributed: number of the first worker of several processes or GPUs.
            has_versions: whether a model can have several.
            remove: removes a folder that was an archive's own.
        """
        self.registry = registry
        self._house = house
        self._opener = opener
        self._defaults = defaults
        self._startup_defaults = defaults
        if startup_workers is not None:
            self._startup_defaults = replace(defaults, min_workers=startup_workers, max_workers=startup_workers)
        self._precedence = precedence
        self._parameters = parameters
        self._names_after_file = names_after_file
        self._takes_bare = takes_bare
        self._has_versions = has_versions
        self._remove_folder = remove
        #: Called after each change that somebody asked for, and waited for.
        self.on_change: Callable[[], Awaitable[None]] = _nothing
        self._is_open = is_open
        self._unregister_timeout = unregister_timeout
        self._numbers = count(first_worker)
        self._distributed = first_distributed
        self._background: set[asyncio.Task[None]] = set()

    def check_open(self) -> None:
        """Raise ``MethodNotAllowed`` where registering is switched off."""
        if not self._is_open:
            raise MethodNotAllowed("Registering models is switched off.", "Set enable_model_api=true to allow it.")

    async def register(self, wanted: Registration, *, wait: bool, at_startup: bool = False) -> ModelVersion:
        """Open an archive, add it as a version, and start its workers.

        Args:
            wanted: its ``entry`` is a snapshot's, and stronger than everything else.
            wait: return only when the workers can answer, and leave nothing behind when they cannot.

        Raises:
            MethodNotAllowed: registering is switched off.
            ModelNotFound, BadRequest, ArchiveError, Conflict: it is not registered.
            LoadError, OutOfMemory: its workers cannot start; it is not registered any more, unless it was loaded at
                start by a server that tries again.
        """
        if not at_startup:
            self.check_open()
        archive = await self._opened(wanted)
        try:
            version = self._add(self._name_of(wanted, archive, at_startup), wanted, archive, at_startup)
        except BaseException:
            if archive.own_folder:
                await self._remove_folder(archive.own_folder)
            raise
        config = version.config
        if config.min_workers > 0:
            version.scale(config.min_workers, config.max_workers)
            if wait:
                await self._wait(version, keep=at_startup and self._house.pool.restart.repeats_failed_loads)
            else:
                self._in_background(self._wait_in_background(version))
        self._house.observer.version_changed(version)
        await self.on_change()
        return version

    async def _opened(self, wanted: Registration) -> OpenedArchive:
        """Return what is to be registered; of what fails, the log has what an old server's answer does not tell."""
        try:
            return await self._opener(wanted)
        except DownloadError as error:
            log.error("%s", error)
            raise
        except EnvironmentFault as error:
            log.error("%s: %s", wanted.location, error)
            raise about(error, wanted.model_name or error.model or file_model_name(wanted.location)) from None

    def _name_of(self, wanted: Registration, archive: OpenedArchive, at_startup: bool) -> str:
        name = wanted.model_name or archive.manifest.model_name
        if not name and at_startup and self._names_after_file:
            name = file_model_name(wanted.location)
        if not name:
            nameless = BadRequest(f"{wanted.location} does not name its model.", "Give a model_name.")
            nameless.fault = "nameless"
            raise nameless
        if "/" in name:  # no path of the management address could mean it: it could never be unregistered
            raise BadRequest(f"The model name {name!r} holds a slash.", "Give a model_name without one.")
        if not (wanted.handler or archive.manifest.handler or self._defaults.handler or self._takes_bare):
            no_handler = LoadError(f"{wanted.location} names no handler.", "Give a handler.")
            no_handler.fault = "no_handler"
            raise about(no_handler, name)
        return name

    def _add(self, name: str, wanted: Registration, archive: OpenedArchive, at_startup: bool) -> ModelVersion:
        found = archive.manifest.version or "1.0"
        if not self._has_versions and name in self.registry.models:
            raise about(Conflict(f"Model {name} is already registered.", "Unregister it first."), name, found)
        self.registry.check_free(name, found)
        defaults = self._startup_defaults if at_startup else self._defaults
        told = entry_of(self._parameters, name, found)
        if told is not None and self._precedence.registration_sets_workers and not at_startup:
            told = replace(told, min_workers=None, max_workers=None)
        config = resolve(defaults, archive, wanted, self._precedence, told)
        if wanted.entry is not None:
            config = restored(config, wanted.entry)
        if config.min_workers > 0 and config.startup_timeout <= 0:
            error = LoadError(f"No worker of {name} can load within 0 s.", "Give a startup_timeout, or no workers.")
            raise about(error, name, found)
        self.registry.check_free(name, found, config.routes)
        level = config.parallel.level
        numbers = self._distributed_numbers(level) if level else self._numbers
        version = ModelVersion(name, found, archive, config, self._house, numbers)
        version.loaded_at_startup = at_startup
        version.is_restored = wanted.entry is not None
        self.registry.add(version)
        return version

    def _distributed_numbers(self, level: int) -> Iterator[int]:
        """Yield numbers for workers of several processes or GPUs: as many apart as they have of them."""
        while True:
            number = self._distributed
            self._distributed += level
            yield number

    async def _wait_in_background(self, version: ModelVersion) -> None:
        with contextlib.suppress(ServeError):  # it is in the log
            await self._wait(version, keep=True)

    async def _wait(self, version: ModelVersion, *, keep: bool) -> None:
        """Wait for a new version's workers; take it out again when they cannot start, unless ``keep``."""
        try:
            await version.pool.wait_ready(version.config.min_workers)
        except ServeError as error:
            if not isinstance(error, ShuttingDown):  # who unregisters a version, or stops the server, knows why
                log.error("%s:%s cannot be served: %s", version.name, version.version, error)
            if not keep:
                await self._undo(version)
            raise about(error, version.name, version.version) from None

    async def _undo(self, version: ModelVersion) -> None:
        """Remove a version that never served, unless somebody else has, and end its workers."""
        if self.registry.discard(version):
            self._remove_download(version)
        await version.pool.close()
        await self._clear(version)

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
        await self.on_change()
        if wait:
            try:
                await found.pool.wait_ready(min_workers)
                await found.pool.wait_until(lambda: len(found.pool.workers) <= found.pool.target)
            except ServeError as error:
                raise about(error, name, version) from None
        return found

    async def set_default(self, name: str, version: str) -> None:
        """Make a version the one that requests without a version get.

        Raises:
            ModelNotFound, VersionNotFound: there is no such version.
        """
        self.registry.set_default(name, version)
        self._house.observer.version_changed(self.registry.find(name, version))
        await self.on_change()

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
            error.fault = "unregister"
            found.pool.kill_all(error)
            self._in_background(self._clear(found))
            raise about(error, name, found.version) from None
        else:
            await self._clear(found)
        finally:
            self._remove_download(found)
            await self.on_change()
        return found

    def _remove_download(self, gone: ModelVersion) -> None:
        """Remove what was downloaded for a version, unless another one came from it too."""
        download = gone.archive.download
        if download and all(version.archive.download != download for version in self.registry):
            Path(download).unlink(missing_ok=True)

    async def _clear(self, gone: ModelVersion) -> None:
        """Remove what was unpacked for a version, once nobody can write to it any more."""
        if gone.archive.own_folder:
            await gone.pool.wait_until(lambda: not gone.pool.workers)
            await self._remove_folder(gone.archive.own_folder)

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
