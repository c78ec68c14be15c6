"""What a service reports reaches the server once, with unit, kind, dimensions and requests."""

import enum
import json
from collections import namedtuple

import pytest

from marserve.service.metrics import MetricsStore

Dimension = namedtuple("Dimension", "name value")


class MetricTypes(enum.Enum):
    HISTOGRAM = "histogram"


@pytest.fixture
def store():
    return MetricsStore({0: "a", 1: "b"}, "m")


def drained(store):
    return [json.loads(line) for line in store.drain().splitlines()]


def test_nothing_reported_is_nothing_to_send(store):
    assert store.drain() == b""


def test_a_report_is_drained_once(store):
    store.add_counter("Calls", 2, dimensions=[Dimension("Stage", "x")])
    assert drained(store) == [
        {
            "name": "Calls",
            "value": 2.0,
            "unit": "count",
            "type": "counter",
            "dimensions": {"ModelName": "m", "Level": "Model", "Stage": "x"},
            "requests": "a,b",
        }
    ]
    assert store.drain() == b""


@pytest.mark.parametrize(
    ("call", "unit", "kind", "requests"),
    [
        (lambda s: s.add_time("x", 1, 1), "Milliseconds", "gauge", "b"),
        (lambda s: s.add_time("x", 1, 0, "s"), "Seconds", "gauge", "a"),
        (lambda s: s.add_size("x", 1), "Megabytes", "gauge", "a,b"),
        (lambda s: s.add_size("x", 1, None, "kB"), "Kilobytes", "gauge", "a,b"),
        (lambda s: s.add_percent("x", 1, 7), "percent", "gauge", ""),
        (lambda s: s.add_error("x", 1), "count", "counter", "a,b"),
        (lambda s: s.add_metric("x", 1, 0, "images"), "images", "gauge", "a"),
        (lambda s: s.add_metric("x", 1, "images"), "images", "gauge", "a,b"),  # as the guide of MMS has it
        (lambda s: s.add_time("x", 1, metric_type=MetricTypes.HISTOGRAM), "Milliseconds", "histogram", "a,b"),
    ],
)
def test_each_report_has_its_unit_and_kind(store, call, unit, kind, requests):
    call(store)
    (line,) = drained(store)
    assert (line["unit"], line["type"], line["requests"], line["value"]) == (unit, kind, requests, 1.0)


def test_a_wrong_unit_is_refused(store):
    with pytest.raises(ValueError, match="'m' is none of a time: use one of ms, s"):
        store.add_time("x", 1, unit="m")
    with pytest.raises(ValueError, match="none of a size"):
        store.add_size("x", 1, unit="mb")
    assert store.drain() == b""


def test_a_declared_metric(store):
    metric = store.add_metric("Images", "count", ["Kind"], "histogram")
    assert store.add_metric_to_cache("Images", "count", ["Kind"], "histogram") is metric
    assert store.get_metric("Images", "histogram") is metric
    metric.add_or_update(3, ["png"], "r1")
    metric.update(4, ["jpeg"])
    assert [(m["value"], m["dimensions"], m["requests"]) for m in drained(store)] == [
        (3.0, {"Kind": "png"}, "r1"),
        (4.0, {"Kind": "jpeg"}, "a,b"),
    ]
    with pytest.raises(ValueError, match=r"\['Kind'\], got 0"):
        metric.add_or_update(1)
    with pytest.raises(KeyError, match="counter 'Images'"):
        store.get_metric("Images")


def test_ids_are_asked_for_when_there_is_something_to_say():
    asked = []

    def ids():
        asked.append(1)
        return {0: "a"}

    store = MetricsStore(ids)
    store.drain()
    assert not asked
    store.add_counter("x", 1)
    assert drained(store)[0]["requests"] == "a"
