"""``PredictionException`` for handlers, ``Service`` for tests of them, and metrics that a handler made itself."""

from __future__ import annotations

from typing import Iterable, Optional

from ts.service import PREDICTION_METRIC, PredictionException, Service

from marserve.service import metrics as reported

from .metrics.metric import Metric

__all__ = ["PREDICTION_METRIC", "PredictionException", "Service", "emit_metrics"]


def emit_metrics(metrics: Optional[Iterable[Metric]]) -> None:
    """Report the values of metrics, with their own dimensions, to the service of this process."""
    for metric in metrics or ():
        kind = reported.COUNTER if metric.metric_method == "counter" else reported.GAUGE
        declared = reported.Metric(metric.name, metric.unit, [each.name for each in metric.dimensions], kind)
        declared.add_or_update(metric.value, [each.value for each in metric.dimensions], metric.request_id)
