"""The text of the old Java client."""

import pytest

from marserve.metrics.definitions import Definition
from marserve.metrics.simpleclient import Family, java_double


def family(kind: str, name: str = "Requests2XX", unit: str = "Count") -> Family:
    return Family(Definition(name, kind, unit, ("Level", "Hostname")))


def test_a_counter_adds_up_and_its_labels_end_with_a_comma() -> None:
    counter = family("counter")
    counter.add(("Host", "h"), (1.0, 1.0))
    counter.add(("Host", "h"), (1.0,))

    assert counter.text() == (
        "# HELP Requests2XX Torchserve prometheus counter metric with unit: Count\n"
        "# TYPE Requests2XX counter\n"
        'Requests2XX{Level="Host",Hostname="h",} 3.0\n'
    )


def test_a_gauge_keeps_the_last_value() -> None:
    gauge = family("gauge")
    gauge.add(("Host", "h"), (1.0, 7.5))

    assert gauge.text().endswith('Requests2XX{Level="Host",Hostname="h",} 7.5\n')


def test_a_histogram_has_the_java_clients_buckets() -> None:
    histogram = family("histogram", "MyHist")
    histogram.add(("Host", "h"), (3.5, 0.01))

    lines = histogram.text().splitlines()[2:]

    assert lines[0] == 'MyHist_bucket{Level="Host",Hostname="h",le="0.005",} 0.0'
    assert lines[1] == 'MyHist_bucket{Level="Host",Hostname="h",le="0.01",} 1.0'
    assert lines[11] == 'MyHist_bucket{Level="Host",Hostname="h",le="5.0",} 2.0'
    assert lines[-3:] == [
        'MyHist_bucket{Level="Host",Hostname="h",le="+Inf",} 2.0',
        'MyHist_count{Level="Host",Hostname="h",} 2.0',
        'MyHist_sum{Level="Host",Hostname="h",} 3.51',
    ]


def test_names_choose_samples_and_a_metric_without_one_is_left_out() -> None:
    histogram = family("histogram", "MyHist")
    histogram.add(("Host", "h"), (1.0,))

    assert histogram.text(("MyHist_sum",)).splitlines()[2:] == ['MyHist_sum{Level="Host",Hostname="h",} 1.0']
    assert histogram.text(("Other",)) == ""


def test_a_metric_without_values_is_described_all_the_same() -> None:
    assert family("gauge").text().count("\n") == 2


def test_odd_names_and_labels_become_valid() -> None:
    odd = Family(Definition("My Size", "gauge", "B", ("a-b",)))
    odd.add(('say "x"\n\\',), (1.0,))

    assert odd.text().splitlines()[2] == 'My_Size{a_b="say \\"x\\"\\n\\\\",} 1.0'


def test_what_belongs_to_a_model_goes_with_it() -> None:
    gauge = family("gauge")
    gauge.add(("Host", "h"), (1.0,))
    gauge.add(("m", "h"), (1.0,), "m")
    gauge.add(("n", "h"), (1.0,), "n")

    gauge.keep({"n"})

    assert set(gauge.values) == {("Host", "h"), ("n", "h")}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3, "3.0"),
        (0.0, "0.0"),
        (0.001, "0.001"),
        (9999999.5, "9999999.5"),
        (12345678.5, "1.23456785E7"),
        (1e7, "1.0E7"),
        (-2.5e9, "-2.5E9"),
        (0.00025, "2.5E-4"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_numbers_are_javas(value: float, shown: str) -> None:
    assert java_double(value) == shown
