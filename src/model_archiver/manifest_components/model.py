"""``Model``: the part of a manifest that tells of the model."""

from __future__ import annotations

import json
import os


class Model:
    """What the manifest says; files are given by path, and it holds the last part. None for what it leaves out."""

    def __init__(
        self,
        model_name: str,
        serialized_file: str | None,
        handler: str,
        model_file: str | None = None,
        model_version: str | None = None,
        extensions: dict[str, object] | None = None,
        requirements_file: str | None = None,
        config_file: str | None = None,
    ) -> None:
        self.model_name = model_name
        self.serialized_file = os.path.basename(serialized_file) if serialized_file else None
        self.model_file = model_file
        self.model_version = model_version
        self.extensions = extensions
        self.handler = os.path.basename(handler)
        self.requirements_file = requirements_file
        self.config_file = os.path.basename(config_file) if config_file else None
        self.model_dict = self.__to_dict__()

    def __to_dict__(self) -> dict[str, object]:
        """Return it as the manifest holds it."""
        named = {
            "serializedFile": self.serialized_file,
            "handler": self.handler,
            "modelFile": os.path.basename(self.model_file or ""),
            "modelVersion": self.model_version,
            "extensions": self.extensions,
            "requirementsFile": os.path.basename(self.requirements_file or ""),
            "configFile": self.config_file,
        }
        return {"modelName": self.model_name, **{key: value for key, value in named.items() if value}}

    def __str__(self) -> str:
        return json.dumps(self.model_dict)

    __repr__ = __str__
