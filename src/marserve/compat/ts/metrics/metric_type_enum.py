"""The kinds of metrics."""

import enum

from marserve.service.metrics import COUNTER, GAUGE, HISTOGRAM


class MetricTypes(enum.Enum):
    """A counter only rises, a gauge holds its last value, a histogram counts values by size."""

    COUNTER = COUNTER
    GAUGE = GAUGE
    HISTOGRAM = HISTOGRAM
