"""A histogram that is cheap to add to: values gather in a list and are counted into buckets many at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client.utils import floatToGoString

#: Values that gather before they are counted. Sorting many at once costs a third of a look-up for each of them.
_GATHERED = 512


class Histogram:
    """Counts of values by bucket, and their sum.

    Args:
        bounds: upper bounds of the buckets, ascending, themselves inside; one bucket more takes the rest.
    """

    __slots__ = ("_counts", "_gathered", "_sum", "bounds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._gathered: list[float] = []
        self._sum = 0.0

    def add(self, values: Iterable[float]) -> None:
        """Add values."""
        self._gathered.extend(values)
        if len(self._gathered) >= _GATHERED:
            self._count()

    def _count(self) -> None:
        values = sorted(self._gathered)
        self._gathered.clear()
        self._sum += sum(values)
        counts = self._counts
        below = 0
        for index, bound in enumerate(self.bounds):
            upto = bisect_right(values, bound, below)
            counts[index] += upto - below
            below = upto
        counts[-1] += len(values) - below

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Return how many values were at most each bound, ``+Inf`` last, and the sum of all values."""
        if self._gathered:
            self._count()
        names = (*map(floatToGoString, self.bounds), "+Inf")
        return list(zip(names, accumulate(self._counts), strict=True)), self._sum
