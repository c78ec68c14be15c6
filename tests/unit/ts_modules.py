"""The old import names, imported as a worker does, and small archives of models to load through them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from marserve.service.context import Context, RequestInfo
from marserve.worker.loader import COMPAT, TEMPLATES

#: The old names that tests have imported. Whoever loads an archive in this process hides them for that time, and a
#: second import would make classes of the same names that are not the same.
_KEPT: dict[str, ModuleType] = {}
#: The first parts of those names.
_OLD = ("ts", "mms", *(path.stem for path in Path(TEMPLATES).iterdir()))


def module(name: str) -> ModuleType:
    """Return the module ``ts.<name>``, the same one each time."""
    return imported(f"ts.{name}" if name else "ts")


def imported(name: str) -> ModuleType:
    """Return a module of the old servers' names, the same one each time."""
    for place in (TEMPLATES, COMPAT):
        if place not in sys.path:
            sys.path.insert(0, place)
    sys.modules.update(_KEPT)
    found = importlib.import_module(name)
    _KEPT.update({key: kept for key, kept in sys.modules.items() if key.partition(".")[0] in _OLD})
    return found


def context_of(folder: Path, *, config: dict[str, Any] | None = None, **model: str) -> Context:
    """Return the context of an archive in ``folder`` whose manifest has ``model``."""
    manifest = {"model": {"modelName": "m", "modelVersion": "1.0", **model}}
    context = Context("m", str(folder), manifest, 4, model_yaml_config=config or {})
    context.begin([RequestInfo("one")])
    return context


def asked(context: Context, *headers: bytes, count: int = 1) -> Context:
    """Begin a batch whose requests have these headers, flat."""
    context.begin([RequestInfo(f"id{index}", headers) for index in range(count)])
    return context


def reported(context: Context) -> dict[str, float]:
    """Return what the service has reported since the last time, by name."""
    found = {record.name: record.value for record in context.metrics.store}
    context.metrics.drain()
    return found
