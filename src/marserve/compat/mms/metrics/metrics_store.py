"""``MetricsStore``: what ``context.metrics`` is."""

from marserve.service.metrics import MetricsStore

__all__ = ["MetricsStore"]
