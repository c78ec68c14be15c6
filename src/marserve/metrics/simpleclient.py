"""Values of one metric by its labels, and their text as Prometheus' old Java client wrote it.

That text differs from today's: each label ends with a comma, numbers are Java's doubles, counters have no suffix.
Scripts match it letter for letter. Source: simpleclient 0.9.0, as TorchServe 0.12 has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from decimal import Decimal

from marserve.metrics.catalog import COUNTER, GAUGE
from marserve.metrics.definitions import Definition
from marserve.metrics.histogram import Histogram

#: Upper bounds of every histogram's buckets.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

#: The values of a metric's labels, in the order of its dimensions.
Labels = tuple[str, ...]


class Family:
    """One metric with its values.

    Attributes:
        values: by labels; a number, or a histogram.
        owners: the model that a label set belongs to, by labels; none for what is the host's.
    """

    __slots__ = ("_add", "_heads", "_names", "definition", "name", "owners", "values")

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.name = valid_name(definition.name)
        self.values: dict[Labels, float | Histogram] = {}
        self.owners: dict[Labels, str] = {}
        self._names = [valid_name(dimension) for dimension in definition.dimensions]
        self._heads: dict[Labels, str] = {}
        adds: dict[str, Callable[[Labels, Sequence[float]], None]] = {COUNTER: self._rise, GAUGE: self._replace}
        self._add = adds.get(definition.kind, self._observe)

    def add(self, labels: Labels, values: Sequence[float], owner: str = "") -> None:
        """Take values, one at least: counters add up, gauges keep the last, histograms count all."""
        self._add(labels, values)
        if owner:
            self.owners[labels] = owner

    def _rise(self, labels: Labels, values: Sequence[float]) -> None:
        before = self.values.get(labels, 0.0)
        assert not isinstance(before, Histogram)
        self.values[labels] = before + sum(values)

    def _replace(self, labels: Labels, values: Sequence[float]) -> None:
        self.values[labels] = values[-1]

    def _observe(self, labels: Labels, values: Sequence[float]) -> None:
        histogram = self.values.setdefault(labels, Histogram(BOUNDS))
        assert isinstance(histogram, Histogram)
        histogram.add(values)

    def forget(self, labels: Labels) -> None:
        """Forget one label set."""
        self.values.pop(labels, None)
        self.owners.pop(labels, None)
        self._heads.pop(labels, None)

    def keep(self, models: Collection[str]) -> None:
        """Forget the label sets of other models."""
        for labels in [labels for labels, owner in self.owners.items() if owner not in models]:
            self.forget(labels)

    def text(self, names: Collection[str] = ()) -> str:
        """Return the metric as it is exposed.

        Args:
            names: of samples, the only ones to give; all when there is none.
        """
        samples = [line for name, line in self._samples() if not names or name in names]
        if names and not samples:
            return ""
        kind, unit = self.definition.kind, self.definition.unit
        return (
            f"# HELP {self.name} Torchserve prometheus {kind} metric with unit: {unit}\n"
            f"# TYPE {self.name} {kind}\n" + "".join(samples)
        )

    def _samples(self) -> Iterator[tuple[str, str]]:
        for labels, value in self.values.items():
            shown = self._shown(labels)
            if not isinstance(value, Histogram):
                yield self.name, f"{self.name}{_braced(shown)} {java_double(value)}\n"
                continue
            counts, total = value.read()
            for bound, count in counts:
                line = f'{self.name}_bucket{{{shown}le="{bound}",}} {java_double(count)}\n'
                yield f"{self.name}_bucket", line
            yield f"{self.name}_count", f"{self.name}_count{_braced(shown)} {java_double(counts[-1][1])}\n"
            yield f"{self.name}_sum", f"{self.name}_sum{_braced(shown)} {java_double(total)}\n"

    def _shown(self, labels: Labels) -> str:
        shown = self._heads.get(labels)
        if shown is None:
            pairs = zip(self._names, labels, strict=True)
            shown = self._heads[labels] = "".join(f'{name}="{label.translate(_ESCAPES)}",' for name, label in pairs)
        return shown


def _braced(shown: str) -> str:
    return f"{{{shown}}}" if shown else ""


def valid_name(name: str) -> str:
    """Return a name in the letters that Prometheus allows."""
    valid = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"_{valid}" if not valid or valid[0].isdigit() else valid


def java_double(value: float) -> str:
    """Return a number as Java's ``Double.toString`` does: ``3.0``, ``1.25E7``."""
    value = float(value)
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    if value != value or value in (float("inf"), float("-inf")):
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    mantissa = "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{digits[0]}.{mantissa}E{int(exponent) + len(digits) - 1}"
