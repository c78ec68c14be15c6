"""The kinds of metrics."""

import enum

from marserve.service.metrics import COUNTER, GAUGE, HISTOGRAM


class MetricTypes(str, enum.Enum):
    """A counter only rises, a gauge holds its last value, a histogram counts values by size.

    Texts too, so that ``context.metrics.cache[MetricTypes.GAUGE]`` finds what was declared.
    """

    COUNTER = COUNTER
    GAUGE = GAUGE
    HISTOGRAM = HISTOGRAM
