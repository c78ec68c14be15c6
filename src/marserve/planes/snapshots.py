"""Keeps what is served in files: at start, after each change, and at the end."""

from __future__ import annotations

import asyncio
import json
import logging
import posixpath
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

from marserve.config.properties import dump
from marserve.config.snapshot_files import write
from marserve.config.versions import VersionEntry, models_value
from marserve.models.model import ModelVersion
from marserve.models.registry import Registry

log = logging.getLogger("marserve.snapshots")

#: What a snapshot says in the place of these settings.
_REPLACED = ("load_models", "model_snapshot")


class Snapshots:
    """Writes snapshots of a registry, one at a time. That one cannot be written costs nobody his request.

    Args:
        folder: where they go; made when needed.
        written: the settings that somebody wrote, which a snapshot repeats.
        registry: what is served.
    """

    def __init__(self, folder: Path, written: Sequence[tuple[str, str]], registry: Registry) -> None:
        self._folder = folder
        self._written = [(key, text) for key, text in written if key not in _REPLACED]
        self._registry = registry
        self._turn = asyncio.Lock()
        self._is_failing = False
        #: Whether the start-up is done. A snapshot before that would have some of its models alone.
        self.is_open = False
        #: What an earlier snapshot had and could not be loaded; it is kept, so that the next start tries again.
        self.unloaded: list[VersionEntry] = []

    async def begin(self) -> None:
        """Write the first snapshot: what was to be loaded at start has been."""
        self.is_open = True
        await self._write("startup")

    async def changed(self) -> None:
        """Write one after a change."""
        await self._write("snapshot")

    async def end(self) -> None:
        """Write the last one, and no more."""
        await self._write("shutdown")
        self.is_open = False

    async def _write(self, occasion: str) -> None:
        if not self.is_open:
            return
        async with self._turn:
            entries = list(self._entries())
            loop = asyncio.get_running_loop()
            try:
                # A disk may take its time over it, and the loop has none.
                await loop.run_in_executor(
                    None, write, self._folder, occasion, lambda name: self._text(name, entries)
                )
            except OSError as error:
                if not self._is_failing:
                    log.warning(
                        "No snapshot can be written to %s (%s): a start without a configuration file will bring back "
                        "what was served before, or nothing. Said once.",
                        self._folder,
                        error.strerror or error,
                    )
                self._is_failing = True
            else:
                self._is_failing = False

    def _entries(self) -> Iterator[VersionEntry]:
        for model in list(self._registry.models.values()):
            for version in model.versions.values():
                yield entry(version, version is model.default)
        served = {(version.name, version.version) for version in self._registry}
        for unloaded in self.unloaded:
            if (unloaded.model, unloaded.version) not in served:
                yield unloaded

    def _text(self, name: str, entries: Sequence[VersionEntry]) -> str:
        snapshot = {
            "name": name,
            "modelCount": len(entries),
            "created": int(time.time() * 1000),
            "models": models_value(entries),
        }
        return dump([*self._written, ("model_snapshot", json.dumps(snapshot))])


def entry(version: ModelVersion, is_default: bool) -> VersionEntry:
    """Return what a snapshot tells of a version."""
    config, location = version.config, version.archive.location
    if location.lower().startswith(("http://", "https://")):
        # It was downloaded into the model store, under the last name of its URL.
        location = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(location).path))
    return VersionEntry(
        version.name,
        version.version,
        is_default=is_default,
        archive=location,
        min_workers=config.min_workers,
        max_workers=config.max_workers,
        batch_size=config.batch_size,
        max_batch_delay=config.max_batch_delay,
        response_timeout=config.response_timeout,
        startup_timeout=config.startup_timeout,
        runtime=config.runtime,
        handler="" if config.handler == version.archive.manifest.handler else config.handler,
    )
