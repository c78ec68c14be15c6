"""``ModelService`` and ``SingleNodeService``: services with a ``signature.json``; and two names of release 0.4."""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType
from typing import Optional

from ts.model_service.model_service import ModelService, SingleNodeService

__all__ = ["ModelService", "MultiNodesService", "SingleNodeService", "load_service"]


class MultiNodesService(ModelService):  # type: ignore[misc,unused-ignore]
    """What release 0.4 meant for services of several machines; it has nothing of its own there either."""


def load_service(path: str, name: Optional[str] = None) -> ModuleType:
    """Return the module that a service's file is, imported under the file's name or another.

    Raises:
        Exception: it cannot be imported; handlers of release 0.4 expect no narrower class.
    """
    try:
        spec = importlib.util.spec_from_file_location(name or os.path.splitext(os.path.basename(path))[0], path)
        if spec is None or spec.loader is None:
            raise ImportError("it is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:
        raise Exception(f"Error when loading service file: {path}: {error!r}") from error
    return module
