"""``ModelService`` and ``SingleNodeService``: services with a ``signature.json``, as Multi Model Server had them."""

from __future__ import annotations

import ast
import json
import os
from typing import Any, Dict, List, Optional

from marserve.service.context import Context


class ModelService:
    """A service that reads its signature and hands the one input that it names to ``inference``."""

    def __init__(self, model_name: str, model_dir: str, manifest: Any, gpu: Optional[int] = None) -> None:
        self.ctx: Optional[Context] = None
        self._context: Optional[Context] = None
        self._signature: Dict[str, Any] = {}

    def initialize(self, context: Context) -> None:
        """Read the signature that the manifest names.

        Raises:
            ValueError: there is no such file.
        """
        self._context = context
        manifest: Any = context.manifest
        path = os.path.join(context.system_properties["model_dir"], manifest["Model"]["Signature"])
        if not os.path.isfile(path):
            raise ValueError(f"The signature file {path} is not found.")
        with open(path, encoding="utf-8") as file:
            self._signature = json.load(file)

    def inference(self, data: List[Any]) -> Any:
        """Return the answer for a list with one input."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its inference is.")

    def ping(self) -> Any:
        """Return how the service is."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is.")

    def signature(self) -> Dict[str, Any]:
        """Return the signature."""
        return self._signature

    def handle(self, data: List[Dict[str, Any]], context: Context) -> List[Any]:
        """Run the first request; its input is a form's field, or the whole body."""
        row = data[0]
        found = [row.get(key) for key in (self._signature["inputs"][0]["data_name"], "body", "data")]
        value = next((each for each in found if each is not None), None)
        if self._signature["input_type"] == "application/json" and isinstance(value, (bytes, bytearray)):
            value = ast.literal_eval(value.decode("utf-8"))
        answer = self.inference([value])
        return answer if isinstance(answer, list) else [answer]


class SingleNodeService(ModelService):
    """A service of three steps: ``_preprocess``, ``_inference``, ``_postprocess``."""

    def inference(self, data: List[Any]) -> Any:
        """Run the three."""
        return self._postprocess(self._inference(self._preprocess(data)))

    def _inference(self, data: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say what its inference is.")

    def _preprocess(self, data: Any) -> Any:
        return data

    def _postprocess(self, data: Any) -> Any:
        return data
