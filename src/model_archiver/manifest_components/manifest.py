"""``Manifest``: an archive's ``MANIFEST.json``, and the runtimes that it may name."""

from __future__ import annotations

import json
from enum import Enum

from marserve.archive.packing import torchserve_manifest

from .model import Model


class RuntimeType(Enum):
    """What runs a handler."""

    PYTHON = "python"
    PYTHON3 = "python3"
    LSP = "LSP"


class Manifest:
    """A manifest; as text it is the JSON that an archive holds.

    Args:
        runtime: a value of ``RuntimeType``; another one raises ValueError.
    """

    def __init__(self, runtime: str, model: Model) -> None:
        self.runtime = RuntimeType(runtime)
        self.model = model
        self.manifest_dict = torchserve_manifest(self.runtime.value, model.__to_dict__())
        self.creation_time = self.manifest_dict["createdOn"]
        self.archiver_version = self.manifest_dict["archiverVersion"]

    def __to_dict__(self) -> dict[str, object]:
        """Return it as the archive holds it."""
        return dict(self.manifest_dict)

    def __str__(self) -> str:
        return json.dumps(self.manifest_dict, indent=2)

    __repr__ = __str__
