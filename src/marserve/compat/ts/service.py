"""``Service``: an entry point, its context, and the messages in between; ``PredictionException`` for handlers."""

from __future__ import annotations

import logging
import os
import time
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from marserve.errors import PredictionException
from marserve.service.metrics import MetricsStore

from .context import Context, RequestProcessor
from .protocol.otf_message_handler import create_predict_response
from .utils.util import get_yaml_config
from .version import __version__

__all__ = ["PREDICTION_METRIC", "PredictionException", "Service", "emit_metrics"]

logger = logging.getLogger(__name__)

PREDICTION_METRIC = "PredictionTime"


class Service:
    """A loaded model as TorchServe's worker had it; marserve's own workers do without.

    Args:
        entry_point: takes rows and the context.
        metrics_cache: where metrics go, None for a store of its own.
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Optional[Mapping[str, Any]],
        entry_point: Any,
        gpu: Optional[int],
        batch_size: Optional[int],
        limit_max_image_pixels: bool = True,
        metrics_cache: Optional[MetricsStore] = None,
    ) -> None:
        config = (manifest or {}).get("model", {}).get("configFile")
        self._context = Context(
            model_name,
            model_dir,
            manifest,
            batch_size or 1,
            gpu,
            __version__,
            limit_max_image_pixels,
            metrics_cache,
            get_yaml_config(os.path.join(model_dir, config)) if config else {},
        )
        self._entry_point = entry_point

    @property
    def context(self) -> Context:
        """What the entry point is told."""
        return self._context

    @staticmethod
    def retrieve_data_for_inference(
        batch: Optional[Sequence[Mapping[str, Any]]],
    ) -> Tuple[List[RequestProcessor], List[Dict[str, Any]], Dict[int, str]]:
        """Return processors, rows and ids of a batch as ``retrieve_msg`` gives it.

        Raises:
            ValueError: there is no batch.
        """
        if batch is None:
            raise ValueError("Received invalid inputs")
        processors, rows, ids = [], [], {}
        for index, request in enumerate(batch):
            parameters = request["parameters"]
            headers = {each["name"]: {"content-type": each["contentType"]} for each in parameters}
            for header in request.get("headers") or ():
                headers[header["name"].decode("utf-8")] = header["value"].decode("utf-8")
            processors.append(RequestProcessor(headers))
            rows.append({each["name"]: each["value"] for each in parameters})
            ids[index] = request["requestId"].decode("utf-8")
        return processors, rows, ids

    def set_cl_socket(self, cl_socket: Any) -> None:
        """Set the socket of the running batch."""
        self._context.cl_socket = cl_socket

    def predict(self, batch: Optional[Sequence[Mapping[str, Any]]]) -> Optional[bytearray]:
        """Return the answer to a batch, as a message."""
        processors, rows, ids = self.retrieve_data_for_inference(batch)
        self._context.request_ids = ids
        self._context.request_processor = processors
        self._context.metrics.set_request_ids(ids)
        began = time.perf_counter()
        result, message, code = self._answer(rows)
        if result is None:
            return create_predict_response(None, ids, message, code)
        self._context.metrics.add_time(PREDICTION_METRIC, round((time.perf_counter() - began) * 1000, 2))
        return create_predict_response(result, ids, message, code, self._context)

    def _answer(self, rows: List[Dict[str, Any]]) -> Tuple[Optional[List[Any]], str, int]:
        """Return what the entry point answers, or None, with the message and status of the batch."""
        try:
            result = self._entry_point(rows, self._context)
        except PredictionException as error:
            return None, error.message, error.error_code
        except Exception as error:
            logger.warning("The entry point of %s failed.", self._context.model_name, exc_info=True)
            if isinstance(error, MemoryError) or "CUDA" in str(error):
                return None, "Out of resources", 507
            return None, "Prediction failed", 503
        if not isinstance(result, list):
            return None, "Invalid model predict output", 503
        if len(result) != len(rows):
            return None, "number of batch response mismatched", 503
        return result, "Prediction success", 200


def emit_metrics(metrics: Optional[Iterable[Any]]) -> None:
    """Report the values of ``ts.metrics.metric.Metric`` objects to the service of this process."""
    for metric in metrics or ():
        metric.update(metric.value)
