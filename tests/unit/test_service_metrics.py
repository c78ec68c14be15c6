"""What a service reports reaches the server once, with unit, kind, dimensions and requests."""

import enum
import json
from collections import namedtuple

import pytest

from marserve.service import metrics
from marserve.service.metrics import (
    MOST_KNOWN,
    Metric,
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricsStore,
    use_store,
)

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
            "unit": "Count",
            "type": "counter",
            "dimensions": {"Stage": "x", "ModelName": "m", "Level": "Model"},
            "requests": "a,b",
        }
    ]
    assert store.drain() == b""


def test_default_dimensions_stand_behind_the_authors_and_do_not_replace_them(store):
    store.add_counter("Calls", 2, dimensions=[Dimension("Stage", "x"), Dimension("Level", "Mine")])
    (line,) = drained(store)
    assert list(line["dimensions"].items()) == [("Stage", "x"), ("Level", "Mine"), ("ModelName", "m")]


def test_the_ids_of_the_running_batch_may_be_read(store):
    assert store.request_ids == {0: "a", 1: "b"}
    store.request_ids = lambda: {0: "c"}
    assert store.request_ids == {0: "c"}
    store.set_request_ids("d")
    assert store.request_ids == {0: "d"}


def test_metrics_that_the_server_declares_can_be_got(store):
    store.declare([["histogram", "Sizes", "kB", ["Kind"]]])
    store.get_metric("Sizes", "histogram").add_or_update(4, ["png"])
    (line,) = drained(store)
    assert (line["unit"], line["dimensions"]) == ("Kilobytes", {"Kind": "png"})
    store.declare(None)


@pytest.mark.parametrize(
    ("call", "unit", "kind", "requests"),
    [
        (lambda s: s.add_time("x", 1, 1), "Milliseconds", "gauge", "b"),
        (lambda s: s.add_time("x", 1, 0, "s"), "Seconds", "gauge", "a"),
        (lambda s: s.add_size("x", 1), "Megabytes", "gauge", "a,b"),
        (lambda s: s.add_size("x", 1, None, "kB"), "Kilobytes", "gauge", "a,b"),
        (lambda s: s.add_percent("x", 1, 7), "Percent", "gauge", "a,b"),
        (lambda s: s.add_error("x", 1), "unit", "counter", ""),
        (lambda s: s.add_error("x", "no such label"), "unit", "counter", ""),
        (lambda s: s.add_metric("x", 1, 0, "images"), "images", "gauge", "a"),
        (lambda s: s.add_metric("x", value=1, unit="images"), "images", "gauge", "a,b"),
        (lambda s: s.add_metric("x", 1, "images"), "images", "counter", "a,b"),
        (lambda s: s.add_metric("x", 1, "images", 1), "images", "counter", "b"),
        (lambda s: s.add_metric("x", 1, unit="ms", idx=1, metric_type="gauge"), "Milliseconds", "gauge", "b"),
        (lambda s: s.add_time("x", 1, metric_type=MetricTypes.HISTOGRAM), "Milliseconds", "histogram", "a,b"),
    ],
)
def test_each_report_has_its_unit_and_kind(store, call, unit, kind, requests):
    call(store)
    (line,) = drained(store)
    assert (line["unit"], line["type"], line["requests"], line["value"]) == (unit, kind, requests, 1.0)


def test_what_has_been_reported_can_be_got(store):
    store.add_counter("Calls", 1)
    store.unnamed_kind = "counter"
    store.add_metric("Sizes", value=2, unit="kB")
    store.get_metric("Calls").add_or_update(3, ["mine", "Model"])
    store.get_metric("Sizes", "counter").add_or_update(4, ["mine", "Model"])
    assert [(line["name"], line["value"], line["unit"]) for line in drained(store)] == [
        ("Calls", 1.0, "Count"),
        ("Sizes", 2.0, "Kilobytes"),
        ("Calls", 3.0, "Count"),
        ("Sizes", 4.0, "Kilobytes"),
    ]
    for number in range(2 * MOST_KNOWN):
        store.add_counter(f"c{number}", 1)
    assert len(store.cache["counter"]) == MOST_KNOWN


def test_the_kind_where_none_is_named_is_that_of_the_server_it_was_written_for(store):
    store.add_metric("x", 1, unit="images")
    store.unnamed_kind = "counter"
    store.add_metric(name="x", value=1, unit="images", idx=0)
    assert [line["type"] for line in drained(store)] == ["gauge", "counter"]


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
    metric.update(5, "r2", [Dimension("Size", "big")])
    assert [(m["value"], m["dimensions"], m["requests"]) for m in drained(store)] == [
        (3.0, {"Kind": "png"}, "r1"),
        (4.0, {"Kind": "jpeg"}, ""),
        (5.0, {"Size": "big"}, "r2"),
    ]
    with pytest.raises(MetricsCacheKeyError, match="counter 'Images'"):
        store.get_metric("Images")
    with pytest.raises(MetricsCacheTypeError, match="use counter, gauge or histogram"):
        store.add_metric_to_cache("Images", "count", [], "sum")


def test_a_metric_that_is_declared_otherwise_replaces_the_one_before(store):
    before = store.add_metric_to_cache("Images", "count", ["Kind"])
    after = store.add_metric_to_cache("Images", "count", ["Kind", "Size"])

    assert after is not before
    assert store.get_metric("Images") is after


@pytest.mark.parametrize(
    ("value", "dimensions", "said"), [(1, [], "got 0 values"), (-1, ["png"], "counters only rise")]
)
def test_a_value_that_does_not_fit_is_told_and_costs_no_request(store, caplog, value, dimensions, said):
    store.add_metric_to_cache("Images", "count", ["Kind"]).add_or_update(value, dimensions)

    assert said in caplog.text
    assert store.drain() == b""


def test_an_error_is_of_the_service(store):
    store.add_error("Broken", 1)

    assert drained(store)[0]["dimensions"] == {"Level": "Error"}


def test_a_metric_without_a_store_reports_to_the_service_of_the_process(store, monkeypatch):
    monkeypatch.setattr(metrics, "_stores", [])
    use_store(store)

    Metric("Images", "ms", ["Kind"]).add_or_update(1, ["png"])

    assert drained(store)[0]["unit"] == "Milliseconds"


def test_a_single_id_is_a_batch_of_one():
    store = MetricsStore("one", "m")
    store.add_counter("x", 1)

    assert drained(store)[0]["requests"] == "one"


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
