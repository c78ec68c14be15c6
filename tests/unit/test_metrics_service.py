"""The metrics that services report themselves."""

import json

import pytest
from metrics_fakes import VERSION, Version, samples

from marserve.metrics import service
from marserve.metrics.collector import Collector
from marserve.service.metrics import MetricsStore

REPORT = {"name": "Size", "value": 1.0, "unit": "Bytes", "type": "gauge", "dimensions": {}, "requests": "id"}


def told(*reports: dict, version=VERSION, collector: Collector | None = None) -> Collector:
    collector = collector or Collector()
    for report in reports:
        collector.metrics_reported(version, json.dumps({**REPORT, **report}).encode() + b"\n")
    collector.flush()
    return collector


def test_what_a_service_adds_is_exposed_under_its_own_name() -> None:
    store = MetricsStore(model_name="m")
    store.add_counter("Requests", 2)
    store.add_counter("Requests", 3)
    store.add_time("PredictionTime", 12.5)
    store.add_time("PredictionTime", 7.5)
    store.add_metric("Image size", 640, unit="pixels")
    collector = Collector()
    collector.metrics_reported(VERSION, store.drain())
    collector.flush()

    found = samples(collector)

    labels = ("m", "1.0", "Model", "m")
    assert found["Requests_total", *labels] == 5
    assert found["PredictionTime", *labels] == 7.5
    assert found["Image_size", *labels] == 640


def test_a_histogram_of_a_service_has_buckets() -> None:
    found = samples(told({"type": "histogram", "value": 3.0}, {"type": "histogram", "value": 70.0}))

    assert found["Size_bucket", "m", "1.0", "5.0"] == 1
    assert found["Size_bucket", "m", "1.0", "+Inf"] == 2
    assert found["Size_sum", "m", "1.0"] == 73.0


def test_versions_that_report_the_same_name_are_told_apart() -> None:
    collector = told({"value": 1.0})
    told({"value": 2.0}, version=Version(name="n", version="1.0"), collector=collector)

    found = samples(collector)

    assert (found["Size", "m", "1.0"], found["Size", "n", "1.0"]) == (1.0, 2.0)


def test_a_dimension_cannot_pass_for_another_model_or_for_a_bucket() -> None:
    found = samples(told({"dimensions": {"model": "x", "le": "9", "2nd": "y"}, "type": "histogram"}))

    assert found["Size_sum", "m", "1.0", "y", "9"] == 1.0


@pytest.mark.parametrize(
    ("report", "why"),
    [
        ({"name": "marserve_requests_total", "type": "counter"}, "begins with marserve_"),
        ({"type": "summary"}, "must be a counter"),
        ({"type": "counter", "value": -1}, "counters only rise"),
        ({"value": "many"}, "cannot be read"),
        ({"dimensions": 3}, "cannot be read"),
    ],
)
def test_what_cannot_be_exposed_is_counted_and_told_once(report: dict, why: str, caplog) -> None:
    collector = told(report, report)

    assert samples(collector)["marserve_service_reports_dropped_total", "m", "1.0"] == 2
    (record,) = caplog.records
    assert why in record.getMessage()
    assert not [key for key in samples(collector) if key[0].startswith("Size")]


def test_a_line_that_is_no_report_costs_only_itself() -> None:
    collector = Collector()
    collector.metrics_reported(VERSION, b"\xff{\n" + json.dumps(REPORT).encode() + b"\n[]\n")
    collector.flush()

    found = samples(collector)

    assert found["Size", "m", "1.0"] == 1.0
    assert found["marserve_service_reports_dropped_total", "m", "1.0"] == 2


def test_one_name_has_one_kind() -> None:
    collector = told({"type": "gauge"}, {"type": "histogram"})

    assert samples(collector)["marserve_service_reports_dropped_total", "m", "1.0"] == 1


def test_neither_dimensions_nor_names_can_fill_the_memory(monkeypatch) -> None:
    monkeypatch.setattr(service, "MOST_METRICS", 3)
    monkeypatch.setattr(service, "MOST_LABEL_SETS", 2)
    by_request = [{"dimensions": {"request": str(number)}} for number in range(10)]
    by_name = [{"name": f"name{number}"} for number in range(10)]

    collector = told(*by_request, *by_name)

    own = [key for key in samples(collector) if not key[0].startswith("marserve_")]
    assert len([key for key in own if key[0] == "Size"]) == 2
    assert len({key[0] for key in own}) == 3
    assert samples(collector)["marserve_service_reports_dropped_total", "m", "1.0"] == 16


def test_a_label_set_that_is_known_goes_on_when_there_is_no_room_for_more(monkeypatch) -> None:
    monkeypatch.setattr(service, "MOST_LABEL_SETS", 1)

    found = samples(told({"value": 1.0}, {"dimensions": {"a": "b"}}, {"value": 5.0}))

    assert found["Size", "m", "1.0"] == 5.0


def test_what_a_version_reported_goes_with_it() -> None:
    collector = told({})
    collector.forget(keep=())

    assert not [key for key in samples(collector) if key[0] == "Size"]
