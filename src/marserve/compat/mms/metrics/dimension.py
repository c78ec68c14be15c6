"""A dimension of a metric: a name and a value."""

from ts.metrics.dimension import Dimension

__all__ = ["Dimension"]
