"""``ModelHandler``: three steps and their times. Archives carry copies of it; those that do not get this one."""

from __future__ import annotations

import time
from typing import Any, Dict, List

from marserve.service.context import Context

#: Metric of each step.
_TIMES = (("preprocess", "PreprocessTime"), ("inference", "InferenceTime"), ("postprocess", "PostprocessTime"))


class ModelHandler:
    """Runs ``preprocess``, ``inference`` and ``postprocess`` after each other.

    Attributes:
        initialized: whether ``initialize`` has been called.
        error: free for subclasses, as in the original.
    """

    def __init__(self) -> None:
        self.error: Any = None
        self.initialized = False
        self._context: Any = None
        self._batch_size = 0

    def initialize(self, context: Context) -> None:
        """Keep the context, and the most requests that a batch has."""
        self._context = context
        self._batch_size = int(context.system_properties["batch_size"])
        self.initialized = True

    def preprocess(self, batch: List[Dict[str, Any]]) -> Any:
        """Return what the model takes, for a batch that may be smaller than the largest."""
        return None

    def inference(self, model_input: Any) -> Any:
        """Return what the model gives."""
        return None

    def postprocess(self, inference_output: Any) -> List[Any]:
        """Return one answer a request."""
        return ["OK"] * len(self._context.request_ids)

    def handle(self, data: List[Dict[str, Any]], context: Context) -> List[Any]:
        """Run the three steps; what one of them raises is the error of the request."""
        value: Any = data
        for step, metric in _TIMES:
            began = time.perf_counter()
            value = getattr(self, step)(value)
            context.metrics.add_time(metric, round((time.perf_counter() - began) * 1000, 2))
        answers: List[Any] = value
        return answers
