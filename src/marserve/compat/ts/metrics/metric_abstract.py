"""``MetricAbstract``: what every declared metric is."""

from marserve.service.metrics import Metric as MetricAbstract

__all__ = ["MetricAbstract"]
