"""``MetricsManager``: what handlers of release 0.4 report their times by; the values go to the model's metrics.

A key is the model's name, ``_`` and the metric's. Source: Multi Model Server 0.4, which made these for every model.
"""

from __future__ import annotations

from typing import Dict

from marserve.service import metrics as reported

#: Unit and kind of what a model has, by name. What 0.4 measured of the host and of its own pages, no handler reports.
_OF_A_MODEL = {
    "Prediction5XX": ("count", reported.COUNTER),
    "Prediction4XX": ("count", reported.COUNTER),
    "PredictionTotal": ("count", reported.COUNTER),
    "LatencyOverall": ("ms", reported.GAUGE),
    "LatencyInference": ("ms", reported.GAUGE),
    "LatencyPreprocess": ("ms", reported.GAUGE),
    "LatencyPostprocess": ("ms", reported.GAUGE),
}


class _Reporting:
    """A metric that is reported whenever it is updated."""

    def __init__(self, name: str) -> None:
        unit, kind = _OF_A_MODEL[name]
        self._metric = reported.Metric(name, unit, (), kind)

    def update(self, metric: float) -> None:
        """Report a value: how many more, or milliseconds."""
        self._metric.add_or_update(metric)


class _Metrics(Dict[str, _Reporting]):
    """The metrics of whatever model; handlers ask whether theirs is there before they update it."""

    def __contains__(self, key: object) -> bool:
        return str(key).rpartition("_")[2] in _OF_A_MODEL

    def __missing__(self, key: str) -> _Reporting:
        return self.setdefault(key, _Reporting(key.rpartition("_")[2]))


class MetricsManager:
    """Holds them."""

    metrics = _Metrics()
