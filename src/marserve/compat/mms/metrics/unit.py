"""The units of metrics and their full names."""

from ts.metrics.unit import Units

__all__ = ["Units"]
