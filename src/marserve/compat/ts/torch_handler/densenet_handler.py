"""``DenseNetHandler``: tensors in, written by ``torch.save``, and the model's output as one tensor out."""

from __future__ import annotations

import io
import time
from typing import Any, Dict, List

import torch

from ..utils.util import list_classes_from_module
from .base_handler import BaseHandler

__all__ = ["DenseNetHandler", "list_classes_from_module"]


class DenseNetHandler(BaseHandler):
    """Answers a request whose body is a saved tensor with the model's output, saved the same way."""

    def handle(self, data: List[Dict[str, Any]], context: Any) -> Any:
        """Return a list with the output for the batch, which has one request."""
        began = time.perf_counter()
        self.context = context
        bodies: List[Any] = [row.get("data") or row.get("body") for row in data]
        # Tensors alone: a body is the client's, and unpickling anything else would run its code.
        tensors = [torch.load(io.BytesIO(body), weights_only=True) for body in bodies]
        output = self.inference(torch.stack(tensors))
        spent = round((time.perf_counter() - began) * 1000, 2)
        context.metrics.add_time("HandlerTime", spent, None, "ms")
        return [output]
