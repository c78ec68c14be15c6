"""The metrics that services report themselves: read from their reports, summed up, and kept within bounds."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator

from prometheus_client.core import Metric

from marserve.metrics.catalog import ANY, COUNTER, GAUGE, HISTOGRAM
from marserve.metrics.histogram import Histogram

log = logging.getLogger("marserve.metrics")

#: Most metrics, and most label sets of one metric, of all services together. A service that puts a request's id
#: into a dimension would fill the server's memory and that of everybody who reads its metrics.
MOST_METRICS = 500
MOST_LABEL_SETS = 200
#: Names of the server's own metrics begin so; a service must not pass for them.
OURS = "marserve_"

_Labels = tuple[tuple[str, str], ...]


class ServiceMetric:
    """One metric that services report, with its values by label set."""

    __slots__ = ("kind", "name", "unit", "values")

    def __init__(self, name: str, kind: str, unit: str) -> None:
        self.name = name
        self.kind = kind
        self.unit = unit
        self.values: dict[_Labels, float | Histogram] = {}

    def add(self, labels: _Labels, value: float) -> None:
        """Take one reported value: counters add up, gauges keep the last."""
        if self.kind == HISTOGRAM:
            found = self.values.setdefault(labels, Histogram(ANY))
            assert isinstance(found, Histogram)
            found.add((value,))
        elif self.kind == COUNTER:
            before = self.values.get(labels, 0.0)
            assert isinstance(before, float)
            self.values[labels] = before + value
        else:
            self.values[labels] = value

    def family(self) -> Metric:
        """Return the metric as it is exposed."""
        # The library writes the suffix of counters itself.
        name = self.name.removesuffix("_total") if self.kind == COUNTER else self.name
        metric = Metric(name, f"Reported by services, unit: {self.unit}.", self.kind)
        for labels, value in self.values.items():
            named = dict(labels)
            if isinstance(value, Histogram):
                counts, total = value.read()
                for bound, count in counts:
                    metric.add_sample(f"{self.name}_bucket", {**named, "le": bound}, count)
                metric.add_sample(f"{self.name}_count", named, counts[-1][1])
                metric.add_sample(f"{self.name}_sum", named, total)
            else:
                metric.add_sample(self.name, named, value)
        return metric


class ServiceMetrics:
    """Everything that services have reported."""

    def __init__(self) -> None:
        self._metrics: dict[str, ServiceMetric] = {}
        self._told: set[str] = set()

    def take(self, model: str, version: str, reports: bytes) -> int:
        """Take reports, one JSON object a line, as ``service/metrics.py`` drains them.

        Returns how many were dropped; the log says why, once.
        """
        dropped = 0
        for line in reports.splitlines():
            why = self._take_one(model, version, line)
            if why:
                dropped += 1
                self._tell(f"{model}:{version} reports a metric that is not exposed: {why}")
        return dropped

    def _take_one(self, model: str, version: str, line: bytes) -> str:
        """Take one report; return why not, "" when it was taken."""
        try:
            report = json.loads(line)
            name, value, kind = str(report["name"]), float(report["value"]), str(report["type"])
            dimensions = {str(key): str(label) for key, label in dict(report["dimensions"]).items()}
            unit = str(report["unit"])
        except (ValueError, KeyError, TypeError):
            return "the report cannot be read."
        if kind not in (COUNTER, GAUGE, HISTOGRAM):
            return f"{name} is a {kind}; it must be a {COUNTER}, a {GAUGE} or a {HISTOGRAM}."
        exposed = exposed_name(name, kind)
        if exposed.startswith(OURS):
            return f"{name} begins with {OURS}, as the server's own names do; give it another name."
        if kind == COUNTER and not value >= 0:
            return f"the counter {name} was given {value:g}; counters only rise."
        metric = self._metrics.get(exposed)
        if metric is None:
            if len(self._metrics) >= MOST_METRICS:
                return f"{name} is one more than the {MOST_METRICS} that may be reported."
            metric = self._metrics[exposed] = ServiceMetric(exposed, kind, unit)
        if metric.kind != kind:
            return f"{name} is a {kind} here and was a {metric.kind} before."
        # "le" is the label of a histogram's buckets.
        labels = {"_le" if key == "le" else _valid(key): label for key, label in dimensions.items()}
        key = tuple(sorted({**labels, "model": model, "version": version}.items()))
        if key not in metric.values and len(metric.values) >= MOST_LABEL_SETS:
            return f"{name} has more than {MOST_LABEL_SETS} different dimensions; none may be unique to a request."
        metric.add(key, value)
        return ""

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told and len(self._told) < MOST_METRICS:
            self._told.add(sentence)
            log.warning("%s", sentence)

    def forget(self, keep: Collection[tuple[str, str]]) -> None:
        """Forget what versions other than these have reported."""
        for metric in list(self._metrics.values()):
            metric.values = {key: value for key, value in metric.values.items() if _version_of(key) in keep}
            if not metric.values:
                del self._metrics[metric.name]

    def families(self) -> Iterator[Metric]:
        """Yield every metric as it is exposed."""
        for metric in list(self._metrics.values()):
            yield metric.family()


def _version_of(labels: _Labels) -> tuple[str, str]:
    named = dict(labels)
    return named["model"], named["version"]


def exposed_name(name: str, kind: str) -> str:
    """Return the name under which a service's metric is exposed: its own, in the letters that Prometheus allows."""
    exposed = _valid(name)
    return exposed + "_total" if kind == COUNTER and not exposed.endswith("_total") else exposed


def _valid(name: str) -> str:
    valid = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"_{valid}" if not valid or valid[0].isdigit() else valid
