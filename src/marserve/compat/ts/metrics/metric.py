"""``Metric``: one value of a metric, as handlers older than ``CachingMetric`` make it."""

from __future__ import annotations

import socket
import time
from typing import Dict, Optional, Sequence

from marserve.service import metrics

from .dimension import Dimension
from .metric_type_enum import MetricTypes
from .unit import Units

MetricUnit = Units()


class Metric:
    """A counter with its value; ``update`` and ``reset`` report to the service of this process."""

    def __init__(
        self,
        name: str,
        value: float,
        unit: str,
        dimensions: Sequence[Dimension],
        request_id: Optional[str] = None,
        metric_method: Optional[str] = None,
    ) -> None:
        self.metric_type = MetricTypes.COUNTER
        self.dimensions = dimensions
        self.dimension_names = [dimension.name for dimension in dimensions]
        self.dimension_values = [dimension.value for dimension in dimensions]
        self._declared = metrics.Metric(name, unit, self.dimension_names, self.metric_type)
        self.name = name
        self.unit = self._declared.unit
        self.metric_method = metric_method
        self.value = value
        self.request_id = request_id

    def update(self, value: float) -> None:
        """Report ``value``."""
        self._declared.add_or_update(value, self.dimension_values, self.request_id)

    def reset(self) -> None:
        """Report 0."""
        self.update(0)

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
