"""The text of the metrics address."""

from metrics_fakes import VERSION, Version, ended, samples
from prometheus_client.parser import text_string_to_metric_families

import marserve
from marserve.errors import HandlerFault
from marserve.metrics.catalog import CATALOG
from marserve.metrics.collector import Collector
from marserve.metrics.exposition import Reading, pieces

READING = Reading("m", "1.0", 3, 100, 2, {"ready": 1, "loading": 2}, 3, 4)


def filled() -> Collector:
    collector = Collector()
    other = Version(name="n", version="2.0")
    for version in (VERSION, other):
        collector.jobs_ended([ended(version=version, status=500, error=HandlerFault("no"))])
    collector.request_answered("ip", "GET", "/ping", 200, 0.001)
    collector.metrics_reported(VERSION, b"no report\n")
    collector.flush()
    return collector


def test_what_is_served_is_read_when_somebody_asks() -> None:
    found = samples(Collector(), [READING])

    assert found["marserve_queue_jobs", "m", "1.0"] == 3
    assert found["marserve_queue_limit_jobs", "m", "1.0"] == 100
    assert found["marserve_in_flight_batches", "m", "1.0"] == 2
    assert found["marserve_workers", "m", "1.0", "loading"] == 2
    assert found["marserve_wanted_workers", "m", "1.0"] == 3
    assert found["marserve_worker_restarts_total", "m", "1.0"] == 4


def test_it_holds_every_row_of_the_catalogue_with_its_kind_and_labels_and_no_other() -> None:
    text = b"".join(pieces(filled(), [READING])).decode()

    families = {}
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        assert name not in families, "a metric stands in two places"
        families[name] = family
    assert list(families) == list(CATALOG)
    for name, family in families.items():
        row = CATALOG[name]
        assert (family.type, family.documentation) == (row.kind, row.meaning)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(row.labels)


def test_a_histogram_has_the_bounds_of_its_row() -> None:
    found = samples(filled())

    for row in CATALOG.values():
        if row.bounds:
            bounds = {key[-1] for key in found if key[0] == f"{row.name}_bucket"}
            assert {float(bound) for bound in bounds} == {*row.bounds, float("inf")}


def test_only_what_is_asked_for_is_given() -> None:
    names = ("marserve_requests_total", "marserve_request_seconds_sum", "marserve_batch_size")

    found = samples(filled(), [READING], names)

    assert {key[0] for key in found} == {
        "marserve_requests_total",
        "marserve_request_seconds_sum",
        "marserve_batch_size_bucket",
        "marserve_batch_size_count",
        "marserve_batch_size_sum",
    }


def test_a_label_cannot_break_the_text() -> None:
    collector = Collector()
    collector.jobs_ended([ended(version=Version(name='a"b\n\\c', version="1.0"))])
    collector.flush()

    assert samples(collector)["marserve_requests_total", 'a"b\n\\c', "1.0", "200"] == 1


def test_the_version_of_the_server_is_told() -> None:
    assert samples(Collector())["marserve_info", marserve.__version__] == 1
