"""A histogram that is cheap to add to: values come many at a time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.utils import floatToGoString


class Histogram:
    """Counts of values by bucket, and their sum.

    Args:
        bounds: upper bounds of the buckets, ascending, themselves inside; one bucket more takes the rest.
    """

    __slots__ = ("_counts", "_sum", "bounds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, values: Sequence[float]) -> None:
        """Add values."""
        if not values:
            return
        self._sum += sum(values)
        if max(values) <= self.bounds[0]:  # most steps of a quick service; sorting takes three times as long
            self._counts[0] += len(values)
            return
        values = sorted(values)
        index = bisect_left(self.bounds, values[0])
        below = 0
        for bound in self.bounds[index:]:
            upto = bisect_right(values, bound, below)
            self._counts[index] += upto - below
            below = upto
            if below == len(values):
                return
            index += 1
        self._counts[-1] += len(values) - below

    def add_same(self, value: float, times: int) -> None:
        """Add one value several times."""
        self._sum += value * times
        self._counts[bisect_left(self.bounds, value)] += times

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Return how many values were at most each bound, ``+Inf`` last, and the sum of all values."""
        names = (*map(floatToGoString, self.bounds), "+Inf")
        return list(zip(names, accumulate(self._counts), strict=True)), self._sum
