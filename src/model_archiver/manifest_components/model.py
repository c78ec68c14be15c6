"""``Model``: the part of a manifest that tells of the model."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass


@dataclass
class Model:
    """What the manifest says; files by path, of which it holds the last part. None for what it leaves out."""

    model_name: str
    serialized_file: str | None
    handler: str
    model_file: str | None = None
    model_version: str | None = None
    extensions: dict[str, object] | None = None
    requirements_file: str | None = None
    config_file: str | None = None

    def __to_dict__(self) -> dict[str, object]:
        """Return it as the manifest holds it."""
        named = {
            "modelName": self.model_name,
            "serializedFile": os.path.basename(self.serialized_file or ""),
            "handler": os.path.basename(self.handler),
            "modelFile": os.path.basename(self.model_file or ""),
            "modelVersion": self.model_version,
            "extensions": self.extensions,
            "requirementsFile": os.path.basename(self.requirements_file or ""),
            "configFile": os.path.basename(self.config_file or ""),
        }
        return {key: value for key, value in named.items() if value}

    def __str__(self) -> str:
        return json.dumps(self.__to_dict__())
