"""``KServev2Envelope``: version 2 of KServe's protocol, tensors with a name, shape and type."""

from __future__ import annotations

import json
from typing import Any, Dict, List

from .base import BaseEnvelope, body_of, dealt

_SIZES = ("8", "16", "32", "64")
#: numpy's names of types by KServe's.
_TYPES = {
    "BOOL": "bool",
    **{kind + size: kind.lower() + size for kind in ("UINT", "INT") for size in _SIZES},
    **{"FP" + size: "float" + size for size in _SIZES[1:]},
    "BYTES": "object",
}
_NAMES = {name: kind for kind, name in _TYPES.items()}


class KServev2Envelope(BaseEnvelope):
    """Gives the handler the tensors of all requests: dicts whose ``data`` is in nested lists of their shape.

    ``context.input_names`` holds their names.
    """

    def __init__(self, handle_fn: Any) -> None:
        super().__init__(handle_fn)
        self._bodies: List[Dict[str, Any]] = []

    def parse_input(self, data: List[Any]) -> List[Dict[str, Any]]:
        """Return the tensors."""
        bodies = [body_of(row) for row in data]
        self._bodies = [json.loads(body) if isinstance(body, (bytes, bytearray)) else body for body in bodies]
        tensors = [_shaped(tensor) for body in self._bodies for tensor in body["inputs"]]
        self.context.input_names = [tensor["name"] for tensor in tensors]
        if (self._bodies[0].get("id") or "").strip():
            self.context.input_request_id = self._bodies[0]["id"]
        return tensors

    def format_output(self, data: List[Any]) -> List[Dict[str, Any]]:
        """Return an answer for each request; results take the names of its inputs."""
        answers = []
        for index, results in enumerate(dealt(data, [len(body["inputs"]) for body in self._bodies])):
            body = self._bodies[index]
            if len(results) > len(body["inputs"]):
                raise ValueError(f"{len(results)} outputs, and {len(body['inputs'])} inputs to name them by.")
            model = self.context.manifest["model"]
            asked_id = (body.get("id") or "").strip()
            answers.append(
                {
                    "id": body["id"] if asked_id else self.context.get_request_id(index),
                    "model_name": model.get("modelName"),
                    "model_version": model.get("modelVersion"),
                    "outputs": [_output(each["name"], result) for each, result in zip(body["inputs"], results)],
                }
            )
        for name in ("input_names", "input_request_id"):
            self.context.__dict__.pop(name, None)
        return answers


def _shaped(tensor: Dict[str, Any]) -> Dict[str, Any]:
    """Return a tensor with its data in the tensor's shape; of BYTES the first element."""
    import numpy as np

    if tensor["datatype"] == "BYTES":
        return {**tensor, "data": tensor["data"][0]}
    return {**tensor, "data": np.array(tensor["data"]).reshape(tensor["shape"]).tolist()}


def _output(name: str, result: Any) -> Dict[str, Any]:
    import numpy as np

    values = np.array(result).flatten()
    kind = _NAMES.get(str(values.dtype), "BYTES")
    return {"name": name, "datatype": kind, "data": values.tolist(), "shape": list(values.shape)}
