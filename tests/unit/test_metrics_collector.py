"""What the collector makes of the jobs that it hears of."""

import asyncio
import logging
import re
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as some
from metrics_fakes import VERSION, Version, ended, samples

from marserve.batching.job import Job
from marserve.errors import Cancelled, HandlerFault, NoWorker, QueueFull, VersionNotFound, about
from marserve.logs import Lines
from marserve.metrics import collector as collecting
from marserve.metrics.collector import BUSY, IDLE, LOT, SLICE, Collector
from marserve.metrics.series import VersionSeries


class FakeLoop:
    """Keeps what is to be called, and when."""

    def __init__(self) -> None:
        self.planned: list[tuple[float, object]] = []

    def call_later(self, delay, what):
        self.planned.append((delay, what))
        return SimpleNamespace(cancel=self.planned.clear)

    def call_soon(self, what):
        return self.call_later(0.0, what)

    def run_next(self) -> float:
        delay, what = self.planned.pop(0)
        what()
        return delay


def test_a_lot_of_jobs_is_counted_as_soon_as_it_is_there_and_the_rest_by_the_timer() -> None:
    collector = Collector()
    collector.jobs_ended([ended() for _ in range(LOT - 1)])
    before = dict(collector.series)
    collector.jobs_ended([ended(), ended()])

    assert not before
    assert collector.series["m", "1.0"].codes == {200: LOT + 1}
    collector.jobs_ended([ended()])
    assert collector.series["m", "1.0"].codes == {200: LOT + 1}
    collector.flush()
    assert collector.series["m", "1.0"].codes == {200: LOT + 2}


def test_a_lot_that_cannot_be_counted_costs_nobody_an_answer(caplog) -> None:
    collector = Collector()

    collector.jobs_ended([ended(version=object()) for _ in range(LOT)])
    collector.jobs_ended([ended()])
    collector.flush()

    assert "could not be counted" in caplog.text
    assert samples(collector)["marserve_requests_total", "m", "1.0", "200"] == 1


def test_jobs_are_counted_by_status_and_error() -> None:
    collector = Collector()
    for job in (
        ended(status=200),
        ended(status=200),
        ended(status=503, error=HandlerFault("no")),
        ended(status=0, error=Cancelled("gone")),
    ):
        collector.jobs_ended([job])
    collector.flush()

    found = samples(collector)

    assert found["marserve_requests_total", "m", "1.0", "200"] == 2
    assert found["marserve_requests_total", "m", "1.0", "503"] == 1
    assert found["marserve_requests_total", "m", "1.0", "499"] == 1
    assert found["marserve_errors_total", "m", "1.0", "HandlerFault"] == 1
    assert found["marserve_errors_total", "m", "1.0", "Cancelled"] == 1


def test_times_are_measured_between_the_stamps_of_a_job() -> None:
    collector = Collector()
    spans = (0.01, 0.02, 0.03, 0.4, 0.05, 0.06)
    collector.jobs_ended([ended(arrived=10.0, sent=10.2, done=11.0, spans=spans, size=70)])
    collector.flush()

    found = samples(collector)

    def total(name: str, *labels: str) -> float:
        return found[f"{name}_sum", "m", "1.0", *labels]

    assert total("marserve_request_seconds") == pytest.approx(1.0)
    assert total("marserve_queue_seconds") == pytest.approx(0.2)
    assert total("marserve_step_seconds", "wait") == pytest.approx(0.01)
    assert total("marserve_step_seconds", "inference") == pytest.approx(0.4)
    assert total("marserve_step_seconds", "encode") == pytest.approx(0.06)
    assert total("marserve_step_seconds", "wire") == pytest.approx(0.8 - 0.57)
    assert found["marserve_request_bytes_total", "m", "1.0"] == 70
    assert found["marserve_request_seconds_bucket", "m", "1.0", "1.0"] == 1
    assert found["marserve_request_seconds_bucket", "m", "1.0", "0.5"] == 0


def test_a_batch_is_counted_once_even_over_the_end_of_a_slice() -> None:
    collector = Collector()
    for size in (SLICE - 2, 4):  # the second batch does not fit into the first slice
        spans = tuple([0.001] * 6)
        for _ in range(size):
            collector.jobs_ended([ended(spans=spans, batch_size=size)])
    while collector.flush():
        pass

    found = samples(collector)

    assert found["marserve_batch_size_count", "m", "1.0"] == 2
    assert found["marserve_batch_size_sum", "m", "1.0"] == SLICE + 2
    assert found["marserve_step_seconds_count", "m", "1.0", "inference"] == 2
    assert found["marserve_request_seconds_count", "m", "1.0"] == SLICE + 2


def test_a_job_that_no_worker_had_counts_in_no_step_and_no_queue() -> None:
    collector = Collector()
    collector.jobs_ended([ended(status=503, error=NoWorker("none"), sent=0.0, spans=(), batch_size=0)])
    collector.flush()

    found = samples(collector)

    assert found["marserve_queue_seconds_count", "m", "1.0"] == 0
    assert found["marserve_batch_size_count", "m", "1.0"] == 0
    assert found["marserve_request_seconds_count", "m", "1.0"] == 1


def test_versions_are_told_apart() -> None:
    collector = Collector()
    other = Version(name="m", version="2.0")
    for version in (VERSION, other, VERSION):
        collector.jobs_ended([ended(version=version)])
    collector.flush()

    found = samples(collector)

    assert found["marserve_requests_total", "m", "1.0", "200"] == 2
    assert found["marserve_requests_total", "m", "2.0", "200"] == 1


def test_what_a_version_refuses_at_once_is_its_error_and_what_nobody_serves_is_not() -> None:
    collector = Collector()
    for error in (
        about(QueueFull("full"), "m", "1.0"),
        about(VersionNotFound("none"), "m", "made-up"),
        None,
    ):
        collector.request_answered("ip", "POST", "/predictions/m", 503, 0.1, error)
    collector.flush()

    found = samples(collector)

    assert found["marserve_errors_total", "m", "1.0", "QueueFull"] == 1
    assert not [key for key in found if "made-up" in key]
    assert found["marserve_http_requests_total", "503"] == 3


def test_a_version_that_is_gone_is_told_once_more_and_then_forgotten() -> None:
    collector = Collector()
    collector.jobs_ended([ended()])
    collector.flush()
    before = samples(collector)

    collector.forget(keep=())

    assert ("marserve_requests_total", "m", "1.0", "200") in before
    assert ("marserve_requests_total", "m", "1.0", "200") not in samples(collector)


def test_one_turn_of_the_timer_takes_one_slice_and_the_rest_follows_at_once() -> None:
    collector, loop = Collector(), FakeLoop()
    collector.start(loop)  # type: ignore[arg-type]
    for _ in range(SLICE + 1):
        collector.request_answered("ip", "GET", "/ping", 200, 0.1)

    delays = [loop.run_next() for _ in range(4)]

    # idle until the first look, the second slice at once, then again soon, then at leisure
    assert delays == [IDLE, 0.0, BUSY, IDLE]
    assert samples(collector)["marserve_http_requests_total", "200"] == SLICE + 1


def test_stopping_counts_what_is_left_and_ends_the_timer() -> None:
    collector, loop = Collector(), FakeLoop()
    collector.start(loop)  # type: ignore[arg-type]
    for _ in range(2 * SLICE + 1):
        collector.jobs_ended([ended()])

    collector.stop()

    assert loop.planned == []
    assert samples(collector)["marserve_requests_total", "m", "1.0", "200"] == 2 * SLICE + 1


def test_a_job_that_cannot_be_counted_does_not_end_the_counting(caplog) -> None:
    collector, loop = Collector(), FakeLoop()
    collector.start(loop)  # type: ignore[arg-type]
    collector.jobs_ended([ended(version=object())])
    loop.run_next()
    collector.jobs_ended([ended()])
    loop.run_next()

    assert samples(collector)["marserve_requests_total", "m", "1.0", "200"] == 1
    assert "could not be counted" in caplog.text


def test_it_runs_on_a_real_loop() -> None:
    async def run() -> Collector:
        collector = Collector()
        counted = asyncio.Event()
        loop = asyncio.get_running_loop()
        flush = collector.flush

        def noting() -> bool:
            has_more = flush()
            if collector.series:
                counted.set()
            return has_more

        collector.flush = noting  # type: ignore[method-assign]
        collector.start(loop)
        collector.jobs_ended([ended()])
        await counted.wait()
        collector.stop()
        return collector

    assert samples(asyncio.run(run()))["marserve_requests_total", "m", "1.0", "200"] == 1


def test_access_lines_of_a_slice_are_written_in_one_go(caplog) -> None:
    collector = Collector(has_access_log=True)
    collector.jobs_ended([ended(arrived=1.0, done=1.0021, status=200)])
    collector.jobs_ended([ended(arrived=1.0, done=1.5, status=0, error=Cancelled("gone"))])
    collector.request_answered("192.0.2.8", "GET", "/ping", 200, 0.0004)

    with caplog.at_level(logging.INFO, collecting.access_log.name):
        collector.stop()

    (record,) = caplog.records
    assert record.getMessage().splitlines() == [
        '192.0.2.7 "POST /predictions/m?x=1" 200 2.1',
        '192.0.2.7 "POST /predictions/m?x=1" 499 500.0',
        '192.0.2.8 "GET /ping" 200 0.4',
    ]


def test_access_lines_are_written_a_slice_at_a_time(caplog) -> None:
    collector, loop = Collector(has_access_log=True), FakeLoop()
    collector.start(loop)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, collecting.access_log.name):
        collector.jobs_ended([ended() for _ in range(LOT)])
        collector.jobs_ended([ended()])
        for _ in range(2 * SLICE + 1):
            collector.request_answered("ip", "GET", "/ping", 200, 0.1)
        while loop.run_next() != BUSY:
            pass
    assert [len(record.getMessage().splitlines()) for record in caplog.records] == [LOT + 1 + SLICE, SLICE, 1]


def test_each_request_has_a_line_of_its_own_whoever_asked_for_what_before(caplog) -> None:
    collector = Collector(has_access_log=True)
    for target, client, status in (
        (b"/predictions/a?x=%41%d", ("10.0.0.1", 1), 200),
        (b"/predictions/a?x=%41%d", ("10.0.0.1", 2), 200),
        (b"/predictions/a?x=%41%d", ("10.0.0.2", 1), 200),
        (b"/predictions/a?x=%41%d", ("10.0.0.2", 1), 503),
        (b"/predictions/b", ("10.0.0.2", 1), 503),
        (b"/predictions/b", "", 503),
    ):
        collector.jobs_ended([ended(target=target, client=client, status=status, arrived=1.0, done=1.02)])

    with caplog.at_level(logging.INFO, collecting.access_log.name):
        collector.stop()

    assert caplog.records[0].getMessage().splitlines() == [
        '10.0.0.1 "POST /predictions/a?x=%41%d" 200 20.0',
        '10.0.0.1 "POST /predictions/a?x=%41%d" 200 20.0',
        '10.0.0.2 "POST /predictions/a?x=%41%d" 200 20.0',
        '10.0.0.2 "POST /predictions/a?x=%41%d" 503 20.0',
        '10.0.0.2 "POST /predictions/b" 503 20.0',
        '- "POST /predictions/b" 503 20.0',
    ]


#: Batches that come back one after the other: for each, what became of its jobs.
BATCHES = some.lists(
    some.lists(some.sampled_from(["good", "bad", "gone", "unsent"]), min_size=1, max_size=4), max_size=9
)


@given(BATCHES, some.integers(1, 5))
def test_however_jobs_are_cut_into_portions_each_counts_once_and_so_does_each_batch(batches, portion) -> None:
    jobs = [job for outcomes in batches for job in _batch(outcomes)]
    series = VersionSeries()
    for at in range(0, len(jobs), portion):
        series.add(jobs[at : at + portion])

    sent = [job for job in jobs if job.sent]
    firsts = list({id(job.spans): job for job in jobs if job.spans}.values())
    assert series.codes == Counter(job.status or 499 for job in jobs)
    assert series.kinds == Counter(job.error.kind for job in jobs if job.error)
    assert series.bytes == sum(job.size for job in jobs)
    for histogram, values in (
        (series.request, [job.done - job.arrived for job in jobs]),
        (series.queue, [job.sent - job.arrived for job in sent]),
        (series.batch_wait, [job.filled - job.arrived for job in sent]),
        (series.batch_size, [job.batch_size for job in firsts]),
        (series.steps[0], [job.done - job.sent - sum(job.spans) for job in firsts]),
        *((series.steps[step + 1], [job.spans[step] for job in firsts]) for step in range(6)),
    ):
        counts, total = histogram.read()
        assert counts[-1][1] == len(values)
        assert total == pytest.approx(sum(values), abs=1e-9)


def _batch(outcomes: list[str]) -> list[Job]:
    spans = tuple([0.001] * 6)
    made = {
        "good": {"status": 200, "spans": spans},
        "bad": {"status": 500, "error": HandlerFault("no"), "spans": spans},
        "gone": {"status": 0, "error": Cancelled("gone"), "spans": ()},
        "unsent": {"status": 503, "error": QueueFull("full"), "spans": (), "sent": 0.0},
    }
    jobs = [ended(batch_size=len(outcomes), **made[outcome]) for outcome in outcomes]  # type: ignore[arg-type]
    for job in jobs:
        job.filled = job.arrived + 0.01 * (len(jobs) > 1)
    return jobs


def test_a_request_that_cannot_be_read_has_a_line_too() -> None:
    unreadable = collecting._Answered(("192.0.2.7", 42), "", "", 400, 0.001, None)

    assert collecting._line(unreadable) == '192.0.2.7 "- -" 400 1.0'
    assert collecting._old_line(unreadable) == '/192.0.2.7:42 "GET /bad-request HTTP/1.1" 400 1'


def test_a_description_has_no_line_of_its_own_in_an_old_servers_log() -> None:
    asked, described = ended(client=("192.0.2.7", 42)), ended(client="", target=b"")
    described.method = b""

    ((_, lines),) = collecting._old_runs([described, asked], [])
    assert len(lines) == 1
    assert collecting._old_runs([described], []) == []


def test_the_lines_of_an_old_servers_log_come_in_the_order_of_the_answers() -> None:
    jobs = [ended(target=b"/1", done=1.0), ended(target=b"/3", done=3.0)]
    others = [collecting._Answered("", "GET", f"/{at}", 200, 0.1, None, done=float(at)) for at in (2, 4)]

    ((_, lines),) = collecting._old_runs(jobs, others)

    assert re.findall(r"/(\d) HTTP", " ".join(lines)) == ["1", "2", "3", "4"]


def test_without_an_access_log_no_line_is_made(caplog) -> None:
    collector = Collector()
    collector.jobs_ended([ended()])

    with caplog.at_level(logging.INFO):
        collector.stop()

    assert not caplog.records


def test_an_access_line_has_a_bounded_length_and_a_client_without_an_address() -> None:
    job = ended(target=b"/" + b"x" * 100_000, client="")

    line = str(Lines(collecting._job_runs([job])))

    assert line.startswith('- "POST /x')
    assert len(line) < 2000
