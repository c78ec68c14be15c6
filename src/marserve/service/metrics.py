"""The metrics that a service reports: collected while a batch runs, handed to the server with its answers.

Names, argument orders and units are those of TorchServe's ``ts.metrics`` and Multi Model Server's
``mms.metrics``. A call costs one tuple; text is made once a batch, by ``drain``.
"""

from __future__ import annotations

import json
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

_TIME_UNITS = {"ms": "Milliseconds", "s": "Seconds"}
_SIZE_UNITS = {"MB": "Megabytes", "kB": "Kilobytes", "GB": "Gigabytes", "B": "Bytes"}

#: Dimensions as a service gives them: objects with ``name`` and ``value``.
Dimensions = Optional[Sequence[object]]
RequestIds = Union[Mapping[int, str], Callable[[], Mapping[int, str]]]
_Record = Tuple[str, float, str, str, Union[int, str, None], Dict[str, str]]


class Metric:
    """A metric that a service declares once and updates often.

    Args:
        store: where the values go.
        name: the metric's name.
        unit: its unit, as text.
        dimension_names: names that ``add_or_update`` gets the values for, in this order.
        kind: ``counter``, ``gauge`` or ``histogram``.
    """

    def __init__(self, store: MetricsStore, name: str, unit: str, dimension_names: Sequence[str], kind: str) -> None:
        self.metric_name = name
        self.unit = unit
        self.dimension_names = list(dimension_names)
        self.metric_type = kind
        self._store = store

    def add_or_update(
        self, value: float, dimension_values: Sequence[str] = (), request_id: Optional[str] = None
    ) -> None:
        """Report a value.

        Raises:
            ValueError: there are not as many values of dimensions as names.
        """
        if len(dimension_values) != len(self.dimension_names):
            raise ValueError(
                f"Metric {self.metric_name!r} has the dimensions {self.dimension_names}, "
                f"got {len(dimension_values)} values for them."
            )
        dimensions = dict(zip(self.dimension_names, map(str, dimension_values)))
        self._store.store.append(
            (self.metric_name, float(value), self.unit, self.metric_type, request_id, dimensions)
        )

    update = add_or_update


class MetricsStore:
    """Collects what a service reports.

    Args:
        request_ids: the ids of the running batch by position, or a function that returns them.
        model_name: dimension ``ModelName`` of every metric that declares none itself.

    Attributes:
        store: what was reported and not yet drained.
        cache: the declared metrics by kind and name.
    """

    def __init__(self, request_ids: RequestIds = (lambda: {}), model_name: str = "") -> None:
        self.model_name = model_name
        self.store: List[_Record] = []
        self.cache: Dict[Tuple[str, str], Metric] = {}
        self._request_ids = request_ids

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
        self, name: str, value: float = 1, dimensions: Dimensions = None, metric_type: object = COUNTER
    ) -> None:
        """Add ``value`` to a count of errors."""
        self._add(name, value, "count", metric_type, None, dimensions)

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
        self._add(name, value, _unit(unit, _TIME_UNITS, "time"), metric_type, idx, dimensions)

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
        self._add(name, value, _unit(unit, _SIZE_UNITS, "size"), metric_type, idx, dimensions)

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
    ) -> Optional[Metric]:
        """Report a value of any unit, or declare a metric.

        Multi Model Server reports: ``(name, value, idx, unit, dimensions)``; its guide passes the unit as third,
        which works too. TorchServe declares: ``(name, unit, dimension_names, metric_type)`` and gets the metric.
        """
        if isinstance(value, str):
            names = idx if isinstance(idx, (list, tuple)) else ()
            return self.add_metric_to_cache(name, value, names, unit or COUNTER)
        if isinstance(idx, str) and unit is None:
            idx, unit = None, idx
        self._add(name, value, str(unit or "unit"), GAUGE, idx if isinstance(idx, int) else None, dimensions)
        return None

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: object = COUNTER,
    ) -> Metric:
        """Declare a metric; declaring it again gives the same one."""
        key = (_kind(metric_type), metric_name)
        if key not in self.cache:
            self.cache[key] = Metric(self, metric_name, unit, dimension_names, key[0])
        return self.cache[key]

    def get_metric(self, metric_name: str, metric_type: object = COUNTER) -> Metric:
        """Return a declared metric.

        Raises:
            KeyError: it was not declared.
        """
        key = (_kind(metric_type), metric_name)
        if key not in self.cache:
            raise KeyError(f"No {key[0]} {metric_name!r} was declared; add_metric_to_cache declares one.")
        return self.cache[key]

    def drain(self) -> bytes:
        """Return what was reported since the last call, one JSON object a line, and forget it; b"" for nothing.

        The fields are ``name``, ``value``, ``unit``, ``type``, ``dimensions`` and ``requests``: the id of the
        request that the report named, or the ids of the whole batch joined by commas.
        """
        if not self.store:
            return b""
        records, self.store = self.store, []
        ids = self._request_ids() if callable(self._request_ids) else self._request_ids
        lines = []
        for name, value, unit, kind, idx, dimensions in records:
            requests = ",".join(ids.values()) if idx is None else ids.get(idx, "") if isinstance(idx, int) else idx
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
        named = {"ModelName": self.model_name, "Level": "Model"}
        for dimension in dimensions or ():
            named[str(getattr(dimension, "name", dimension))] = str(getattr(dimension, "value", ""))
        self.store.append((name, float(value), unit, _kind(kind), idx, named))


def _unit(unit: str, units: Mapping[str, str], what: str) -> str:
    """Return a unit's full name; a wrong one is refused where it is written, as the old servers do."""
    full = units.get(unit)
    if full is None:
        raise ValueError(f"Unit {unit!r} is none of a {what}: use one of {', '.join(units)}.")
    return full


def _kind(kind: object) -> str:
    """Return a metric's kind as text; ``ts.metrics`` has an enumeration for it."""
    return str(getattr(kind, "value", kind)).lower()
