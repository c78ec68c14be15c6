"""``JSONEnvelope``: ``{"instances": […]}`` in, ``{"predictions": […]}`` out, as TensorFlow Serving has it."""

from __future__ import annotations

import base64
import json
from typing import Any, List

from .base import BaseEnvelope, body_of, dealt


class JSONEnvelope(BaseEnvelope):
    """Gives the handler the instances of all requests as one batch.

    Subclasses in the wild override ``_from_json`` and ``_to_json``, each for one request.
    """

    def __init__(self, handle_fn: Any) -> None:
        super().__init__(handle_fn)
        self._lengths: List[int] = []

    def parse_input(self, data: List[Any]) -> List[Any]:
        """Return the instances; ``{"b64": text}`` stands for bytes, as an instance or as one of its values."""
        opened = [self._from_json(row) for row in data]
        self._lengths = [len(instances) for instances in opened]
        return [instance for instances in opened for instance in instances]

    def _from_json(self, data: Any) -> List[Any]:
        body = body_of(data) or data
        if isinstance(body, (bytes, bytearray, str)):
            body = json.loads(body)
        return [_with_bytes(instance) for instance in body["instances"]]

    def format_output(self, data: List[Any]) -> List[Any]:
        """Return a JSON text for each request."""
        return [self._to_json(results) for results in dealt(data, self._lengths)]

    def _to_json(self, output: List[Any]) -> Any:
        return json.dumps({"predictions": output})


def _with_bytes(instance: Any) -> Any:
    if not isinstance(instance, dict):
        return instance
    if list(instance) == ["b64"]:
        return base64.b64decode(instance["b64"])
    return {
        name: _with_bytes(value) if isinstance(value, dict) and list(value) == ["b64"] else value
        for name, value in instance.items()
    }
