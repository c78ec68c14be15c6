"""``MetricEncoder``: metrics and dimensions as JSON."""

from ts.metrics.metric_encoder import MetricEncoder

__all__ = ["MetricEncoder"]
