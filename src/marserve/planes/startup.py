"""What is loaded at start: what ``load_models`` names, or what a snapshot had."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from marserve.archive.store import list_store
from marserve.config.kinds import ALL, ModelChoice
from marserve.config.versions import VersionEntry
from marserve.errors import ServeError
from marserve.models.model import ModelVersion
from marserve.planes.inference import InferencePlane
from marserve.planes.management import ManagementPlane
from marserve.planes.resolving import Registration

log = logging.getLogger("marserve.server")

#: How many models are loaded at once.
LOAD_AT_ONCE = 4


def chosen(choices: Sequence[ModelChoice], store: Path | None) -> list[Registration]:
    """Return the registrations of what ``load_models`` names."""
    if list(choices) == [ModelChoice("", ALL)] and store is not None:
        return [Registration(archive.name) for archive in list_store(store)]
    return [Registration(choice.location, choice.name or None) for choice in choices if choice.location]


def remembered(entries: Sequence[VersionEntry]) -> list[Registration]:
    """Return the registrations of what a snapshot had."""
    return [
        Registration(
            entry.archive,
            entry.model,
            handler=entry.handler or None,
            runtime=entry.runtime or None,
            batch_size=entry.batch_size,
            max_batch_delay=entry.max_batch_delay,
            initial_workers=entry.min_workers,
            response_timeout=entry.response_timeout,
            startup_timeout=entry.startup_timeout,
            entry=entry,
        )
        for entry in entries
    ]


async def load(
    wanted: Sequence[Registration], management: ManagementPlane, inference: InferencePlane
) -> list[VersionEntry]:
    """Load models; one that fails is told about and keeps the others from nothing.

    Returns:
        What a snapshot had and could not be loaded.
    """
    free = asyncio.Semaphore(LOAD_AT_ONCE)

    async def one(registration: Registration) -> ModelVersion | None:
        name = registration.model_name or registration.location
        async with free:
            try:
                version = await management.register(registration, wait=True, at_startup=True)
            except ServeError as error:
                log.error("%s could not be loaded: %s", name, error)
                inference.startup_failures[name] = error.message
                return None
            except Exception as error:  # unseen, it would end the start-up, and nobody would ever be ready
                log.exception("%s could not be loaded", name)
                inference.startup_failures[name] = f"{type(error).__name__}: {error}"
                return None
        log.info("%s is ready.", name)
        return version

    loaded = list(zip(wanted, await asyncio.gather(*map(one, wanted)), strict=True))
    await _set_defaults(loaded, management)
    return [registration.entry for registration, version in loaded if version is None and registration.entry]


async def _set_defaults(
    loaded: Sequence[tuple[Registration, ModelVersion | None]], management: ManagementPlane
) -> None:
    """Make the default versions those of the snapshot, else the first named.

    They were loaded side by side, so that the first in the registry is the one whose archive was read fastest.
    """

    def is_stronger(position: int) -> tuple[bool, int]:
        entry = loaded[position][0].entry
        return entry is not None and entry.is_default, -position

    for position in sorted(range(len(loaded)), key=is_stronger):  # the last one of a name stays
        version = loaded[position][1]
        if version is not None:
            with contextlib.suppress(ServeError):  # somebody has unregistered it by now
                await management.set_default(version.name, version.version)
