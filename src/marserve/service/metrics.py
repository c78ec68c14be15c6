"""The metrics that a service reports: collected while a batch runs, handed to the server with its answers.

Names, argument orders and units are those of TorchServe's ``ts.metrics`` and Multi Model Server's
``mms.metrics``. A call costs one tuple; text is made once a batch, by ``drain``.
"""

from __future__ import annotations

import copy
import json
import logging
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

log = logging.getLogger(__name__)

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
#: Most metrics of a kind that ``get_metric`` finds because they were reported; names have no end.
MOST_KNOWN = 1000

#: Full names of units; what is not here is a unit of the author's own.
UNITS: Dict[Optional[str], str] = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "MB": "Megabytes",
    "GB": "Gigabytes",
    "kB": "Kilobytes",
    "B": "Bytes",
    "": "unit",
    None: "unit",
}
_TIME_UNITS = ("ms", "s")
_SIZE_UNITS = ("MB", "kB", "GB", "B")

#: What TorchServe declares for services where no file does: lists of kind, name, unit, dimensions.
DECLARED = [[GAUGE, name, "ms", ["ModelName", "Level"]] for name in ("HandlerTime", "PredictionTime")]

#: Dimensions as a service gives them: objects with ``name`` and ``value``.
Dimensions = Optional[Sequence[object]]
RequestIds = Union[Mapping[int, str], Callable[[], Mapping[int, str]]]


class MetricsCacheKeyError(KeyError):
    """A metric that was not declared, or a definition that lacks a key."""


class MetricsCacheTypeError(TypeError):
    """A name, unit or kind of the wrong type."""


class MetricsCacheValueError(ValueError):
    """A value that a metric cannot take."""


class Record(NamedTuple):
    """One report, as it waits for ``drain``.

    Attributes:
        request: position of the request in its batch, its id, "" for none, or None for the whole batch.
    """

    name: str
    value: float
    unit: str
    kind: str
    request: Union[int, str, None]
    dimensions: Dict[str, str]


class Metric:
    """A metric that a service declares once and updates often.

    Args:
        metric_name: the metric's name.
        unit: its unit; short names of ``UNITS`` are spelled out.
        dimension_names: names that ``add_or_update`` gets the values for, in this order.
        metric_type: ``counter``, ``gauge`` or ``histogram``, or an enumeration's member with that value.
        store: where the values go; None for the store of the process's service.
    """

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Optional[Sequence[str]] = None,
        metric_type: object = COUNTER,
        store: Optional[MetricsStore] = None,
    ) -> None:
        self.metric_name = metric_name
        self.unit = UNITS.get(unit, unit)
        self.dimension_names = list(dimension_names or ())
        self.metric_type = metric_type
        self._store = store

    def add_or_update(
        self, value: float, dimension_values: Optional[Sequence[object]] = (), request_id: Optional[str] = None
    ) -> None:
        """Report a value; one that does not fit the declaration is told in the log, and the request goes on."""
        values = dimension_values or ()
        if len(values) != len(self.dimension_names):
            log.error(
                "Metric %s was not updated: it has the dimensions %s, and got %d values for them.",
                self.metric_name,
                self.dimension_names,
                len(values),
            )
            return
        kind = _kind(self.metric_type)
        if kind == COUNTER and value < 0:
            log.error("Metric %s was not updated: counters only rise, and it got %s.", self.metric_name, value)
            return
        store = process_store() if self._store is None else self._store
        named = dict(zip(self.dimension_names, map(str, values)))
        store.store.append(Record(self.metric_name, float(value), self.unit, kind, request_id or "", named))

    def update(
        self, value: float, request_id: Union[str, Sequence[object], None] = None, dimensions: Dimensions = None
    ) -> None:
        """Report a value under other dimensions than were declared, as objects with ``name`` and ``value``.

        Values in the place of the request's id are those of the declared dimensions.
        """
        if isinstance(request_id, (list, tuple)):
            self.add_or_update(value, request_id)
            return
        self.dimension_names = [str(getattr(each, "name", each)) for each in dimensions or ()]
        values = [getattr(each, "value", "") for each in dimensions or ()]
        self.add_or_update(value, values, None if request_id is None else str(request_id))


class MetricsStore:
    """Collects what a service reports.

    Args:
        request_ids: the ids of the running batch by position, or a function that returns them.
        model_name: dimension ``ModelName`` of every metric that declares none itself.

    Attributes:
        store: what was reported and not yet drained.
        cache: the declared metrics by name, by kind.
        unnamed_kind: what ``add_metric`` reports where nothing tells which old server's it is and no kind is named.
    """

    def __init__(self, request_ids: RequestIds = (lambda: {}), model_name: str = "") -> None:
        self.model_name = model_name
        self.store: List[Record] = []
        self.cache: Dict[str, Dict[str, Metric]] = {}
        self.unnamed_kind = GAUGE
        self.set_request_ids(request_ids)

    def for_batch(self, request_ids: RequestIds) -> MetricsStore:
        """Return a store for one of several batches that run beside each other: the same declared metrics."""
        other = copy.copy(self)
        other.store = []
        other.request_ids = request_ids
        return other

    def set_request_ids(self, request_ids: object) -> None:
        """Set the ids of the running batch; a single id, as mock contexts of tests have it, is a batch of one."""
        is_usable = callable(request_ids) or isinstance(request_ids, Mapping)
        self._request_ids: RequestIds = request_ids if is_usable else {0: str(request_ids)}  # type: ignore[assignment]

    @property
    def request_ids(self) -> Mapping[int, str]:
        """The ids of the running batch by position."""
        return self._request_ids() if callable(self._request_ids) else self._request_ids

    @request_ids.setter
    def request_ids(self, request_ids: RequestIds) -> None:
        self.set_request_ids(request_ids)

    def add_counter(
        self,
        name: str,
        value: float,
        idx: Optional[int] = None,
        dimensions: Dimensions = None,
        metric_type: object = COUNTER,
    ) -> None:
        """Add ``value`` to a count."""
        self._add(name, value, "count", metric_type, idx, dimensions)

    def add_error(
        self, name: str, value: Union[float, str] = 1, dimensions: Dimensions = None, metric_type: object = COUNTER
    ) -> None:
        """Add ``value`` to a count of errors, which is the service's and no single request's.

        A text, which Multi Model Server took too, counts as one.
        """
        number = value if isinstance(value, (int, float)) else 1
        self._report(name, number, "", metric_type, "", {"Level": "Error"}, dimensions)

    def add_time(
        self,
        name: str,
        value: float,
        idx: Optional[int] = None,
        unit: str = "ms",
        dimensions: Dimensions = None,
        metric_type: object = GAUGE,
    ) -> None:
        """Report a span of time; ``unit`` is ``ms`` or ``s``."""
        _check_unit(unit, _TIME_UNITS, "time")
        self._add(name, value, unit, metric_type, idx, dimensions)

    def add_size(
        self,
        name: str,
        value: float,
        idx: Optional[int] = None,
        unit: str = "MB",
        dimensions: Dimensions = None,
        metric_type: object = GAUGE,
    ) -> None:
        """Report a size; ``unit`` is ``MB``, ``kB``, ``GB`` or ``B``."""
        _check_unit(unit, _SIZE_UNITS, "size")
        self._add(name, value, unit, metric_type, idx, dimensions)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: Optional[int] = None,
        dimensions: Dimensions = None,
        metric_type: object = GAUGE,
    ) -> None:
        """Report a percentage."""
        self._add(name, value, "percent", metric_type, idx, dimensions)

    def add_metric(
        self,
        name: str,
        value: Union[float, str],
        idx: object = None,
        unit: object = None,
        dimensions: Dimensions = None,
        metric_type: object = None,
    ) -> Optional[Metric]:
        """Report a value of any unit, or declare a metric.

        Multi Model Server reports ``(name, value, idx, unit, dimensions)``, a gauge; TorchServe reports
        ``(name, value, unit, idx, dimensions, metric_type)``, a counter when it names no kind. Where both could be
        meant ``unnamed_kind`` counts. A text in the place of the value declares: ``(name, unit, dimension_names,
        metric_type)``.
        """
        if isinstance(value, str):
            names = idx if isinstance(idx, (list, tuple)) else ()
            return self.add_metric_to_cache(name, value, names, metric_type or unit or COUNTER)
        kind = self.unnamed_kind
        if isinstance(idx, str):
            kind = COUNTER
            idx, unit = (unit, idx) if not isinstance(unit, str) else (idx, unit)
        position = idx if isinstance(idx, int) else None
        self._add(name, value, str(unit or "unit"), metric_type or kind, position, dimensions)
        return None

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Optional[Sequence[str]] = (),
        metric_type: object = COUNTER,
    ) -> Metric:
        """Declare a metric; declaring it again in the same way gives the same one, in another way replaces it.

        Raises:
            MetricsCacheTypeError: name or unit is no text, or the kind is none.
        """
        kind = _kind(metric_type)
        if not isinstance(metric_name, str) or not isinstance(unit, str):
            raise MetricsCacheTypeError(f"A metric's name and unit are texts; got {metric_name!r} and {unit!r}.")
        if kind not in (COUNTER, GAUGE, HISTOGRAM):
            raise MetricsCacheTypeError(
                f"Metric {metric_name!r} is declared as {metric_type!r}; use {COUNTER}, {GAUGE} or {HISTOGRAM}."
            )
        metric = Metric(metric_name, unit, dimension_names, metric_type, self)
        of_kind = self.cache.setdefault(kind, {})
        present = of_kind.get(metric_name)
        if present is not None and (present.unit, present.dimension_names) == (metric.unit, metric.dimension_names):
            return present
        of_kind[metric_name] = metric
        return metric

    def get_metric(self, metric_name: str, metric_type: object = COUNTER) -> Metric:
        """Return a metric that was declared, or has been reported.

        Raises:
            MetricsCacheKeyError: it was neither.
        """
        kind = _kind(metric_type)
        metric = self.cache.get(kind, {}).get(metric_name)
        if metric is None:
            raise MetricsCacheKeyError(f"No {kind} {metric_name!r} was declared; add_metric_to_cache declares one.")
        return metric

    def cache_keys(self) -> List[str]:
        """Return the declared metrics as texts ``kind:name``."""
        return [f"{kind}:{name}" for kind, metrics in self.cache.items() for name in metrics]

    def declare(self, rows: object) -> None:
        """Declare what the server's file of definitions has for services: lists of kind, name, unit, dimensions."""
        for kind, name, unit, dimension_names in rows if isinstance(rows, list) else ():
            self.add_metric_to_cache(str(name), str(unit), list(map(str, dimension_names)), str(kind))

    def drain(self) -> bytes:
        """Return what was reported since the last call, one JSON object a line, and forget it; b"" for nothing.

        The fields are ``name``, ``value``, ``unit``, ``type``, ``dimensions`` and ``requests``: the id of the
        request that the report named, the ids of the whole batch joined by commas, or "".
        """
        if not self.store:
            return b""
        records, self.store = self.store, []
        ids = self.request_ids
        everyone = ",".join(ids.values())
        lines = []
        for name, value, unit, kind, idx, dimensions in records:
            requests = idx if isinstance(idx, str) else everyone if idx is None else ids.get(idx, everyone)
            lines.append(
                json.dumps(
                    {
                        "name": name,
                        "value": value,
                        "unit": unit,
                        "type": kind,
                        "dimensions": dimensions,
                        "requests": requests,
                    }
                )
            )
        return ("\n".join(lines) + "\n").encode()

    def _add(
        self, name: str, value: float, unit: str, kind: object, idx: Optional[int], dimensions: Dimensions
    ) -> None:
        self._report(name, value, unit, kind, idx, {"ModelName": self.model_name, "Level": "Model"}, dimensions)

    def _report(
        self,
        name: str,
        value: float,
        unit: str,
        kind: object,
        request: Union[int, str, None],
        own: Dict[str, str],
        dimensions: Dimensions,
    ) -> None:
        named = {str(getattr(each, "name", each)): str(getattr(each, "value", "")) for each in dimensions or ()}
        for dimension, told in own.items():  # behind the author's, as lines of the log have them
            named.setdefault(dimension, told)
        record = Record(name, float(value), UNITS.get(unit, unit), _kind(kind), request, named)
        self.store.append(record)
        # TorchServe's services ask for it by ``get_metric`` from now on.
        known = self.cache.setdefault(record.kind, {})
        if name not in known and len(known) < MOST_KNOWN:
            known[name] = Metric(name, unit or "unit", list(named), record.kind, self)


def _check_unit(unit: str, units: Sequence[str], what: str) -> None:
    """Refuse a wrong unit where it is written, as the old servers do."""
    if unit not in units:
        raise MetricsCacheValueError(f"Unit {unit!r} is none of a {what}: use one of {', '.join(units)}.")


def _kind(kind: object) -> str:
    """Return a metric's kind as text; ``ts.metrics`` has an enumeration for it."""
    return str(getattr(kind, "value", kind)).lower()


#: The stores of this process, the one of its service last.
_stores: List[MetricsStore] = [MetricsStore()]


def process_store() -> MetricsStore:
    """Return the store of the service that was loaded last: metrics that name none report there."""
    return _stores[-1]


def use_store(store: MetricsStore) -> None:
    """Make ``store`` the one of this process's service."""
    _stores[:] = [store]
