"""``MetricCacheAbstract``: what ``context.metrics`` is."""

from marserve.service.metrics import MetricsStore as MetricCacheAbstract

__all__ = ["MetricCacheAbstract"]
