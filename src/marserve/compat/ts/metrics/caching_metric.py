"""``CachingMetric``: a metric that is declared once and updated often."""

from marserve.service.metrics import Metric as CachingMetric

__all__ = ["CachingMetric"]
