"""The metrics address."""

from metrics_fakes import ended
from prometheus_client.parser import text_string_to_metric_families
from served_fakes import FakeWorker, Served

from marserve.supervisor.lifecycle import WorkerState


def values(answer) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_it_tells_of_every_version_that_is_served_as_it_is_now() -> None:
    served = Served()
    version = served.add(workers=2)
    version.pool.workers.append(FakeWorker(state=WorkerState.LOADING))
    version.pool.workers[0].in_flight_count = 3
    version.pool.restart_count = 1

    answer = served.ask("GET", "/metrics")

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = values(answer)
    assert found["marserve_workers", "m", "ready", "1.0"] == 2
    assert found["marserve_workers", "m", "loading", "1.0"] == 1
    assert found["marserve_wanted_workers", "m", "1.0"] == 2
    assert found["marserve_in_flight_batches", "m", "1.0"] == 3
    assert found["marserve_worker_restarts_total", "m", "1.0"] == 1
    assert found["marserve_queue_limit_jobs", "m", "1.0"] == 100


def test_it_counts_what_has_ended_a_moment_ago() -> None:
    served = Served()
    version = served.add()
    for _ in range(1000):
        served.collector.jobs_ended([ended(version=version)])

    found = values(served.ask("GET", "/metrics"))

    assert found["marserve_requests_total", "200", "m", "1.0"] == 1000


def test_a_version_that_is_gone_is_told_of_once_more() -> None:
    served = Served()
    version = served.add()
    served.collector.jobs_ended([ended(version=version)])
    served.ask("DELETE", "/models/m")

    served.ask("GET", "/metrics?name[]=marserve_info")  # tells nothing of it
    first, second = (values(served.ask("GET", "/metrics")) for _ in range(2))

    assert ("marserve_requests_total", "200", "m", "1.0") in first
    assert ("marserve_requests_total", "200", "m", "1.0") not in second


def test_names_may_be_chosen() -> None:
    served = Served()
    served.add()

    found = values(served.ask("GET", "/metrics?name[]=marserve_info&name[]=marserve_queue_jobs"))

    assert {key[0] for key in found} == {"marserve_info", "marserve_queue_jobs"}
