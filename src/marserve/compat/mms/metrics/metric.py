"""``Metric``: one value of a metric that a handler keeps itself; ``mms.service.emit_metrics`` reports it."""

from ts.metrics.metric import Metric as _Reporting

from .unit import Units

MetricUnit = Units()


class Metric(_Reporting):  # type: ignore[misc]
    """A value with its unit and dimensions, which nobody is told of before it is emitted.

    With the ``metric_method`` ``counter``, ``update`` adds up; else the last value counts.
    """

    value: float

    def update(self, value: float) -> None:
        """Add ``value``, or take it in the place of what was there."""
        self.value = self.value + value if self.metric_method == "counter" else value
