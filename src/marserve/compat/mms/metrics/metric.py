"""``Metric``: one value of a metric that a handler keeps itself; ``mms.service.emit_metrics`` reports it."""

from __future__ import annotations

import socket
import time
from typing import Dict, Optional, Sequence

from marserve.service.metrics import UNITS

from .dimension import Dimension
from .unit import Units

MetricUnit = Units()


class Metric:
    """A value with its unit and dimensions.

    Args:
        unit: ``ms``, ``percent``, ``count``, ``MB``, … or a word of one's own.
        metric_method: ``counter`` makes ``update`` add up; else the last value counts.
    """

    def __init__(
        self,
        name: str,
        value: float,
        unit: str,
        dimensions: Sequence[Dimension],
        request_id: Optional[str] = None,
        metric_method: Optional[str] = None,
    ) -> None:
        self.name = name
        self.value = value
        self.unit = UNITS.get(unit, unit)
        self.dimensions = dimensions
        self.request_id = request_id
        self.metric_method = metric_method

    def update(self, value: float) -> None:
        """Add ``value``, or take it in the place of what was there."""
        self.value = self.value + value if self.metric_method == "counter" else value

    def __str__(self) -> str:
        dimensions = ",".join(map(str, self.dimensions))
        line = (
            f"{self.name}.{self.unit}:{self.value}|#{dimensions}|#hostname:{socket.gethostname()},{int(time.time())}"
        )
        return f"{line},{self.request_id}" if self.request_id else line

    def to_dict(self) -> Dict[str, object]:
        """Return it as its parts by name."""
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": self.dimensions,
            "Timestamp": int(time.time()),
            "HostName": socket.gethostname(),
            "RequestId": self.request_id,
        }
