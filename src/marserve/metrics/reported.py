"""Metrics that services report, as the old servers keep them: those that are declared, or all."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from marserve.metrics.catalog import COUNTER, GAUGE, HISTOGRAM
from marserve.metrics.definitions import Definition
from marserve.metrics.service import MOST_LABEL_SETS, MOST_METRICS
from marserve.metrics.simpleclient import Family

log = logging.getLogger("marserve.metrics")

#: The dimension that every metric of a service gets besides its own.
HOST = "Hostname"


class ReportPlace(NamedTuple):
    """One label set of a metric of a service.

    Attributes:
        head, tail: of a line of the log, before and after the value; the tail lacks the requests and what follows.
    """

    family: Family
    labels: tuple[str, ...]
    model: str
    head: str
    tail: str

    def add(self, values: Sequence[float]) -> None:
        """Count values."""
        self.family.add(self.labels, values, self.model)


class ReportedMetrics:
    """Takes reports of services, for the metrics address or as lines of a log.

    Args:
        declared: what ``metrics_config`` defines, by name.
        takes_all: whether what is not declared is taken as it is reported.
        host: the name of this machine.
        is_exposed: whether values are kept for the metrics address; otherwise each becomes a line.
        number: how a line shows a number.
    """

    def __init__(
        self,
        declared: Mapping[str, Definition],
        takes_all: bool,
        host: str,
        is_exposed: bool,
        number: Callable[[float], str],
    ) -> None:
        self._takes_all = takes_all
        self._host = host
        self.is_exposed = is_exposed
        self._number = number
        self._families = {name: _family(definition) for name, definition in declared.items()}
        self._told: set[str] = set()

    def take(self, model: str, reports: bytes, timestamp: int) -> Iterator[str]:
        """Take reports, one JSON object a line, as ``service/metrics.py`` drains them; yield lines for the log.

        What cannot be taken is told in the log, once.
        """
        for line in reports.splitlines():
            try:
                report = json.loads(line)
                name, value, kind = str(report["name"]), float(report["value"]), str(report["type"])
                dimensions = {str(key): str(label) for key, label in dict(report["dimensions"]).items()}
                unit, requests = str(report["unit"]), str(report["requests"])
                host = str(report.get("host") or self._host)  # what is printed names its own
            except (ValueError, KeyError, TypeError):
                self._tell(f"{model} reports a metric that cannot be read.")
                continue
            family = self._find(model, name, Definition(name, kind, unit, tuple(dimensions)))
            place = None if family is None else self._place(model, family, dimensions, value, host)
            if place is None:
                continue
            if self.is_exposed:
                place.add((value,))
            else:
                yield f"{place.head}{self._number(value)}{place.tail}{requests or 'null'},timestamp:{timestamp}"

    def place(self, model: str, name: str, dimensions: Mapping[str, str]) -> ReportPlace | None:
        """Return where values of a metric go that the server reports itself; None where it is not declared so."""
        family = self._families.get(name)
        return None if family is None else self._place(model, family, dimensions, 0.0, self._host)

    def _place(
        self, model: str, family: Family, dimensions: Mapping[str, str], value: float, host: str
    ) -> ReportPlace | None:
        definition = family.definition
        names = definition.dimensions[:-1]
        labels = _labels(names, dimensions)
        if labels is None:
            given, wanted = ", ".join(dimensions), ", ".join(names)
            self._tell(f"{model} reports {definition.name} with the dimensions {given}, not {wanted}: it is dropped.")
            return None
        if definition.kind == COUNTER and not value >= 0:
            self._tell(f"{model} reports {value:g} for the counter {definition.name}; counters only rise.")
            return None
        key = (*labels, host)
        if self.is_exposed and key not in family.values and len(family.values) >= MOST_LABEL_SETS:
            self._tell(f"{definition.name} has more than {MOST_LABEL_SETS} different dimensions; others are dropped.")
            return None
        shown = ",".join(f"{name}:{label}" for name, label in zip(names, labels, strict=True))
        tail = f"|#{shown}|#hostname:{host},requestID:"
        return ReportPlace(family, key, model, f"{definition.name}.{definition.unit}:", tail)

    def families(self) -> Iterable[Family]:
        """Return what is exposed."""
        return list(self._families.values()) if self.is_exposed else ()

    def _find(self, model: str, name: str, reported: Definition) -> Family | None:
        family = self._families.get(name)
        if family is not None:
            return family
        if not self._takes_all:
            self._tell(
                f"{model} reports {name}, which metrics_config does not declare: it is dropped. "
                "Declare it below model_metrics, or set model_metrics_auto_detect=true."
            )
        elif reported.kind not in (COUNTER, GAUGE, HISTOGRAM):
            self._tell(f"{model} reports {name} as a {reported.kind}, which is no kind of metric: it is dropped.")
        elif len(self._families) >= MOST_METRICS:
            self._tell(f"{model} reports {name}, one metric more than the {MOST_METRICS} that are kept.")
        else:
            family = self._families[name] = _family(reported)
        return family

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told and len(self._told) < MOST_METRICS:
            self._told.add(sentence)
            log.warning("%s", sentence)


def _family(definition: Definition) -> Family:
    dimensions = tuple(name for name in definition.dimensions if name != HOST)
    return Family(Definition(definition.name, definition.kind, definition.unit, (*dimensions, HOST)))


def _labels(names: tuple[str, ...], given: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the values of the declared dimensions: by name, else by position; None when they do not fit."""
    own = {name: value for name, value in given.items() if name != HOST}
    if len(own) != len(names):
        return None
    if own.keys() == set(names):
        return tuple(own[name] for name in names)
    return tuple(own.values())
