"""Histograms count every value once, whatever the size of the portions that it comes in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marserve.metrics.histogram import Histogram

BOUNDS = (1.0, 2.0, 4.0)


@given(st.lists(st.lists(st.floats(-1.0, 6.0), max_size=700), max_size=4))
def test_it_counts_as_one_would_by_hand(portions: list[list[float]]) -> None:
    histogram = Histogram(BOUNDS)
    for portion in portions:
        histogram.add(portion)

    counts, total = histogram.read()

    values = [value for portion in portions for value in portion]
    expected = [sum(value <= bound for value in values) for bound in (*BOUNDS, float("inf"))]
    assert [count for _, count in counts] == expected
    assert total == pytest.approx(sum(values), abs=1e-6)


def test_reading_twice_gives_the_same_and_bounds_are_named_as_prometheus_does() -> None:
    histogram = Histogram((0.25, 1.0))
    histogram.add((0.25, 7.0))

    assert histogram.read() == ([("0.25", 1), ("1.0", 1), ("+Inf", 2)], 7.25)
    assert histogram.read() == ([("0.25", 1), ("1.0", 1), ("+Inf", 2)], 7.25)
