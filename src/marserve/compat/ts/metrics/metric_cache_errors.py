"""What goes wrong with declared metrics and the file that declares them."""

from marserve.service.metrics import MetricsCacheKeyError, MetricsCacheTypeError, MetricsCacheValueError

__all__ = [
    "GeneralMetricsCacheError",
    "MetricsCacheIOError",
    "MetricsCacheKeyError",
    "MetricsCachePyYamlError",
    "MetricsCacheTypeError",
    "MetricsCacheValueError",
]


class GeneralMetricsCacheError(Exception):
    """Whatever has no class of its own."""


class MetricsCacheIOError(OSError):
    """The file cannot be read."""


class MetricsCachePyYamlError(ValueError):
    """The file is no YAML."""
