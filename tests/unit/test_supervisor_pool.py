"""A pool and its workers: nothing that it has accepted is lost or answered twice, whatever its workers do.

Workers are fake but on the real wire, time is fake and never waited for.
"""

from __future__ import annotations

import asyncio
import logging

import pytest
from pool_bench import TIMED, PoolBench, answers, errors

from marserve.batching.job import JobState
from marserve.errors import (
    Cancelled,
    HandlerFault,
    JobTimeout,
    LoadError,
    NoWorker,
    OutOfMemory,
    QueueFull,
    ShuttingDown,
    WorkerDied,
    WorkerSilent,
)
from marserve.supervisor import link as link_module
from marserve.supervisor.crowd import Crowd
from marserve.supervisor.dispatch import ALONE, AWAITED, LOOK, QUICK
from marserve.supervisor.lifecycle import RestartPolicy, VersionState
from marserve.supervisor.pool import MOST_ATTEMPTS
from marserve.supervisor.process import Exit
from marserve.supervisor.restarts import LOAD_TRIES
from marserve.testing import GOOD, HELD, FakeClock, RecordingReply, Script, in_fake_time, settle
from marserve.wire import page

KILLED = Exit(None, 9)


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    for module in TIMED:
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def bench(clock, tmp_path, caplog):
    """Make benches; what a pool logs about deaths is no noise here."""
    caplog.set_level(logging.CRITICAL + 1, "marserve")
    return lambda **options: PoolBench(clock, tmp_path, **options)


async def warmed(bench, count):
    """Let each worker answer once, so that its link keeps work ahead of it."""
    jobs = bench.submit(*[b"warm"] * count)
    for index in range(count):
        bench.worker(index).serve(await bench.worker(index).next_batch())
    await answers(jobs)


# Serving


@in_fake_time
async def test_workers_are_told_what_to_load_and_answer(clock, bench):
    house = await bench().scaled(2)

    await house.pool.wait_ready(2)
    jobs = house.submit(b"a", b"b", b"c")

    assert await answers(jobs) == [b"a", b"b", b"c"]
    assert [process.worker.told for process in house.starter.processes] == [{"worker": 9000}, {"worker": 9001}]
    assert house.pool.state is VersionState.READY
    assert [state for _, state in house.observer.workers] == ["starting", "starting", "ready", "ready"]
    await house.close()


@in_fake_time
async def test_an_idle_worker_gets_a_job_within_the_same_call(clock, bench):
    house = await bench(script=HELD).scaled(1)

    house.submit(b"a")

    assert len(house.pool.workers[0].link.in_flight) == 1
    house.worker().serve(await house.worker().next_batch())
    await house.close()


@in_fake_time
async def test_work_goes_to_the_worker_with_the_least_in_its_hands(clock, bench):
    house = await bench(script=HELD).scaled(2)

    jobs = house.submit(b"a", b"b")
    await settle()

    assert [len(house.worker(index).batches) for index in (0, 1)] == [1, 1]
    for index in (0, 1):
        house.worker(index).serve(await house.worker(index).next_batch())
    assert await answers(jobs) == [b"a", b"b"]
    await house.close()


@pytest.mark.parametrize(
    ("waiting", "workers", "spent", "held"),
    [
        (40, 1, 0.00001, 16),
        (300, 1, 0.00001, 100),
        (300, 2, 0.00001, 50),
        (2000, 1, 0.00001, 256),
        (300, 2, 0.0004, 2),
        (300, 2, 0.02, 1),
    ],
)
@in_fake_time
async def test_the_more_wait_the_more_a_quick_worker_has_in_its_hands(clock, bench, waiting, workers, spent, held):
    house = await bench(script=HELD, bound=2000).scaled(workers)
    house.submit(*[b"warm"] * workers)
    for index in range(workers):
        worker = house.worker(index)
        worker.answer(await worker.next_batch(), spans=(0.0, 0.0, 0.0, spent, 0.0, 0.0))
    await answers(house.jobs)

    house.submit(*[b"x"] * waiting)
    for _ in range(3):
        await settle()

    assert [len(link.in_flight) for link in house.pool.jobs.links] == [held] * workers
    await house.close()


@in_fake_time
async def test_jobs_that_wait_behind_a_running_batch_leave_together(clock, bench):
    house = await bench(script=HELD, size=4).scaled(1)
    jobs = house.submit(b"a", b"b", b"c", b"d", b"e", b"f")

    sizes = []
    while sum(sizes) < 6:
        batch = await house.worker().next_batch()
        sizes.append(len(batch.jobs))
        house.worker().serve(batch)

    assert sizes == [1, 4, 1]
    assert await answers(jobs) == [b"a", b"b", b"c", b"d", b"e", b"f"]
    await house.close()


@in_fake_time
async def test_a_batch_that_is_not_full_leaves_when_its_oldest_has_waited_its_delay(clock, bench):
    house = await bench(size=4, delay=0.1).scaled(1)
    began = clock.monotonic()
    [first] = house.submit(b"a")
    clock.advance(0.06)
    [second] = house.submit(b"b")

    await answers([first, second])

    assert first.done - began == pytest.approx(0.1)
    assert second.batch_size == 2
    await house.close()


@in_fake_time
async def test_jobs_that_come_while_workers_start_are_answered_by_them(clock, bench):
    house = await bench(script=Script(respond=GOOD.respond)).scaled(1)
    jobs = house.submit(b"a", b"b")
    await settle()
    assert [job.state for job in jobs] == [JobState.QUEUED, JobState.QUEUED]

    house.worker().loaded()

    assert await answers(jobs) == [b"a", b"b"]
    await house.close()


async def lone_requests(house, number, spent):
    """Send requests one at a time, each answered by a service that takes so long."""
    worker = house.worker()
    for _ in range(number):
        [job] = house.submit(b"a")
        batch = await worker.next_batch()
        worker.begin(batch)
        worker.finish(batch)
        worker.answer(batch, spans=(0.0, 0.0, 0.0, spent, 0.0, 0.0))
        await answers([job])


@in_fake_time
async def test_lone_requests_to_a_quick_service_are_awaited_in_place_with_breaks(clock, bench):
    house = await bench(script=HELD).scaled(1)
    [link] = house.pool.jobs.links
    awaited = []
    link.await_answer = awaited.append

    await lone_requests(house, ALONE + AWAITED, QUICK / 2)
    assert len(awaited) == AWAITED
    await lone_requests(house, ALONE, QUICK / 2)
    assert len(awaited) == AWAITED, "some go the usual way, to see whether others come"
    await lone_requests(house, 1, QUICK / 2)
    assert len(awaited) == AWAITED + 1

    house.submit(b"a", b"b")
    batches = [await house.worker().next_batch() for _ in range(2)]
    for batch in batches:
        house.worker().serve(batch)
    await lone_requests(house, ALONE, QUICK / 2)
    assert len(awaited) == AWAITED + 2, "clients came together: nobody waits until that has passed"
    await house.close()


@pytest.mark.parametrize(("cores", "spent"), [(1, QUICK / 2), (2, QUICK * 2)])
@in_fake_time
async def test_nobody_waits_for_a_slow_service_or_for_a_worker_that_sleeps(clock, bench, cores, spent):
    house = bench(script=HELD)
    house.pool._crowd = Crowd(cores, 0.0002)
    await house.scaled(1)
    [link] = house.pool.jobs.links
    awaited = []
    link.await_answer = awaited.append

    await lone_requests(house, 2 * ALONE, spent)

    assert awaited == []
    await house.close()


@in_fake_time
async def test_the_service_s_metrics_reach_the_observer(clock, bench):
    house = await bench(script=HELD).scaled(1)
    house.worker().send_raw(b"".join(page_of_metrics()))
    await settle()

    assert house.observer.metrics == [b"{}\n"]
    await house.close()


def page_of_metrics():
    from marserve.wire.frames import result_frame

    return result_frame(99, 0, (0.0,) * 6, b"{}\n", [], 0, 0)


# What is not accepted


@in_fake_time
async def test_a_job_for_which_no_worker_is_coming_is_refused_at_once(clock, bench):
    house = bench()

    with pytest.raises(NoWorker, match="no worker"):
        house.submit(b"a")

    assert len(house.queue) == 0
    await house.close()


@in_fake_time
async def test_a_full_queue_refuses(clock, bench):
    house = await bench(script=HELD, bound=2).scaled(1)
    jobs = house.submit(b"a", b"b", b"c")

    with pytest.raises(QueueFull):
        house.submit(b"d")

    for _ in range(3):
        house.worker().serve(await house.worker().next_batch())
    assert await answers(jobs) == [b"a", b"b", b"c"]
    assert house.submit(b"e")
    house.worker().serve(await house.worker().next_batch())
    await house.close()


# Clients that go


@in_fake_time
async def test_a_job_that_is_given_up_in_the_queue_never_runs(clock, bench):
    house = await bench(script=HELD).scaled(1)
    first, gone, last = house.submit(b"a", b"b", b"c")

    house.pool.cancel(gone, Cancelled("gone"))
    house.pool.cancel(gone, Cancelled("gone"))

    assert (gone.reply.ending_count, gone.error.kind) == (0, "Cancelled")
    ran = []
    for _ in range(2):
        batch = await house.worker().next_batch()
        ran += [house.worker().body(job) for job in batch.jobs]
        house.worker().serve(batch)
    assert await answers([first, last]) == [b"a", b"c"]
    assert ran == [b"a", b"c"]
    house.jobs.remove(gone)
    assert house.observer.jobs.count(gone) == 1
    house.observer.jobs.remove(gone)
    await house.pool.close()
    assert [job.reply.ending_count for job in house.jobs] == [1, 1]
    house.gate.close()


@in_fake_time
async def test_after_a_cancellation_every_job_runs_once(clock, bench):
    house = await bench(script=HELD, size=3).scaled(1)
    [first] = house.submit(b"first")
    jobs = house.submit(b"a", b"b", b"c", b"d")
    house.pool.cancel(jobs[1], Cancelled("gone"))

    ran = []
    for _ in range(2):
        batch = await house.worker().next_batch()
        ran += [house.worker().body(job) for job in batch.jobs]
        house.worker().serve(batch)
        await settle()

    assert ran == [b"first", b"a", b"c", b"d"]
    assert not house.worker().batches
    assert [job.reply.ending_count for job in [first, *jobs]] == [1, 1, 0, 1, 1]
    await house.pool.close()
    house.gate.close()


@in_fake_time
async def test_a_job_that_is_given_up_while_it_runs_costs_its_neighbours_nothing(clock, bench):
    house = await bench(script=HELD, size=2, delay=1.0).scaled(1)
    gone, stays = house.submit(b"a", b"b")
    batch = await house.worker().next_batch()

    house.pool.cancel(gone, Cancelled("gone"))
    house.worker().serve(batch)

    assert await answers([stays]) == [b"b"]
    assert gone.reply.ending_count == 0
    assert house.observer.jobs.count(gone) == 1
    await house.pool.close()
    house.gate.close()


# Deaths


@in_fake_time
async def test_a_worker_that_dies_is_replaced_and_only_what_it_ran_pays(clock, bench):
    house = await bench(script=HELD).scaled(1)
    await warmed(house, 1)
    done, running, *waiting = house.submit(b"done", b"running", b"c", b"d")
    worker = house.worker()
    await worker.until(lambda: len(worker.batches) == 4)
    first, second, *_ = worker.batches
    worker.begin(first)
    worker.finish(first)  # but the answer never leaves
    worker.begin(second)
    worker.step("inference")
    house.starter.script = GOOD
    house.starter.processes[0].lines.append("Segmentation fault")

    house.starter.processes[0].end(Exit(None, 11))

    [error] = await errors([running])
    assert isinstance(error, WorkerDied)
    assert "SIGSEGV" in error.message
    assert "in inference" in error.message
    assert "Segmentation fault" in error.message
    assert await answers([done, *waiting]) == [b"done", b"c", b"d"]
    assert [job.attempts for job in (done, running, *waiting)] == [2, 1, 2, 2]
    assert "SIGSEGV" in house.pool.last_autopsy.reason
    assert house.pool.restart_count == 1
    await house.close()


@in_fake_time
async def test_what_a_dead_worker_had_not_started_goes_to_the_head_of_the_queue(clock, bench):
    house = await bench(script=HELD).scaled(1)
    await warmed(house, 1)
    house.submit(*(b"%d" % number for number in range(20)))
    await house.worker().until(lambda: len(house.worker().batches) == 16)

    house.starter.processes[0].end(KILLED)
    await house.pool.wait_until(lambda: len(house.starter.processes) == 2)
    ran = []
    await settle()
    while len(ran) < 20:
        batch = await house.worker().next_batch()
        ran += [house.worker().body(job) for job in batch.jobs]
        house.worker().serve(batch)

    assert ran == [b"%d" % number for number in range(20)]
    await house.close()


@in_fake_time
async def test_an_answer_that_comes_with_the_end_of_the_link_counts(clock, bench):
    house = await bench(script=HELD).scaled(1)
    [job] = house.submit(b"a")
    worker = house.worker()
    worker.serve(await worker.next_batch())
    worker.close()

    assert await answers([job]) == [b"a"]
    assert job.attempts == 1
    house.starter.processes[0].end(KILLED)
    await house.close()


@in_fake_time
async def test_a_job_is_not_given_to_dying_workers_for_ever(clock, bench):
    house = await bench(script=HELD).scaled(1)
    [job] = house.submit(b"a")
    for number in range(MOST_ATTEMPTS):
        await house.pool.wait_until(lambda: house.pool.ready_count == 1)
        await house.worker().next_batch()
        house.starter.processes[number].end(KILLED)
        await settle()

    [error] = await errors([job])
    assert isinstance(error, WorkerDied)
    assert f"{MOST_ATTEMPTS} workers" in error.message
    await house.close()


@in_fake_time
async def test_the_waits_between_restarts_follow_the_table(clock, bench):
    house = await bench(waits=(0.0, 0.5, 2.0)).scaled(1)
    moments = []
    for _ in range(4):
        house.starter.processes[-1].end(KILLED)
        died = clock.monotonic()
        started = len(house.starter.processes)
        await settle()
        await house.pool.wait_until(lambda: len(house.starter.processes) > started)  # noqa: B023
        moments.append(clock.monotonic() - died)
        await house.pool.wait_ready(1)

    assert moments == pytest.approx([0.0, 0.5, 2.0, 2.0])
    assert house.pool.restart_count == 4
    await house.close()


@in_fake_time
async def test_a_worker_that_lies_is_ended_and_its_jobs_are_answered(clock, bench):
    house = await bench(script=Script(outcome={"ok": True}, obeys=False)).scaled(1)
    await warmed(house, 1)
    jobs = house.submit(b"a", b"b")
    await house.worker().until(lambda: len(house.worker().batches) == 2)
    house.worker().begin(house.worker().batches[0])
    house.starter.script = GOOD

    house.worker().send_raw(b"\xff" * 100)

    [error] = await errors(jobs[:1])
    assert isinstance(error, WorkerDied)
    assert await answers(jobs[1:]) == [b"b"]
    assert house.starter.processes[0].kills == [True]
    await house.close()


@in_fake_time
async def test_a_door_that_cannot_send_errors_does_not_hold_up_the_others(clock, bench):
    class Door(RecordingReply):
        def fail(self, error):
            if not self.ending_count:
                self._end()
            raise ValueError("closed")

    house = await bench(script=HELD, size=3, delay=1.0).scaled(1)
    jobs = [house.job(body) for body in (b"a", b"b", b"c")]
    jobs[0].reply = Door()
    for number, job in enumerate(jobs, 1):
        job.id = number
        house.pool.submit(job)
        house.jobs.append(job)
    house.worker().begin(await house.worker().next_batch())

    house.starter.processes[0].end(KILLED)
    found = await errors(jobs)

    assert [type(error) for error in found[1:]] == [WorkerDied, WorkerDied]
    assert isinstance(jobs[0].error, HandlerFault)
    await house.close()


# Loading


FAILS = {"ok": False, "kind": "LoadError", "message": "No module named x", "hint": "h", "traceback": "line 1\nline 2"}


@in_fake_time
async def test_a_service_that_does_not_load_ends_the_tries_and_says_why(clock, bench):
    house = bench(script=Script(outcome=FAILS))
    house.pool.scale(1)
    jobs = house.submit(b"a")

    with pytest.raises(LoadError, match="No module named x") as failed:
        await house.pool.wait_ready(1)

    assert failed.value.traceback == "line 1\nline 2"
    [error] = await errors(jobs)
    assert isinstance(error, NoWorker)
    assert "No module named x" in error.message
    clock.advance(1000.0)
    await settle()
    assert len(house.starter.processes) == 1
    assert house.pool.state is VersionState.FAILED
    with pytest.raises(NoWorker, match="No module named x"):
        house.submit(b"b")
    await house.close()


PATIENT = RestartPolicy(waits=(1.0, 2.0), window=5.0, settle=0.0, repeats_failed_loads=True)


@in_fake_time
async def test_a_service_that_does_not_load_may_be_tried_again(clock, bench):
    house = bench(script=Script(outcome=FAILS), restart=PATIENT)
    house.pool.scale(1)
    jobs = house.submit(b"a")

    with pytest.raises(LoadError, match="No module named x"):
        await house.pool.wait_ready(1)

    assert "No module named x" in house.pool.why_degraded()
    assert (house.pool.state, house.pool.failure) == (VersionState.STARTING, None)
    house.starter.script = GOOD
    assert await answers(jobs) == [b"a"], "who waits for an answer is in no hurry"
    assert house.pool.setback is None
    assert house.pool.workers[0].number == 9000, "who replaces a worker has its number"
    assert house.observer.retries == [(9000, 1.0)]
    await house.close()


@in_fake_time
async def test_after_the_tries_nobody_waits(clock, bench):
    house = bench(script=Script(outcome=FAILS), restart=PATIENT)
    house.pool.scale(1)
    jobs = house.submit(b"a")
    began = clock.monotonic()

    [error] = await errors(jobs)

    assert isinstance(error, NoWorker)
    assert house.observer.retries == [(9000, 1.0), (9000, 2.0), (9000, 2.0), (9000, 2.0)]
    assert clock.monotonic() - began == pytest.approx(7.0)
    assert house.pool.state is VersionState.FAILED
    with pytest.raises(NoWorker, match="there is no further try"):
        house.submit(b"b")
    await house.close()


@in_fake_time
async def test_a_process_that_ends_while_it_loads_may_be_tried_again(clock, bench):
    house = bench(script=Script(dies=3), restart=PATIENT)
    house.pool.scale(1)

    with pytest.raises(LoadError, match="exit code 3"):
        await house.pool.wait_ready(1)

    house.starter.script = GOOD
    await house.pool.wait_until(lambda: house.pool.ready_count == 1)
    await house.close()


@in_fake_time
async def test_memory_that_runs_out_while_loading_ends_the_tries_of_the_patient_too(clock, bench):
    house = bench(script=Script(outcome={"ok": False, "kind": "OutOfMemory", "message": "m"}), restart=PATIENT)
    house.pool.scale(1)

    with pytest.raises(OutOfMemory):
        await house.pool.wait_ready(1)

    assert isinstance(house.pool.failure, OutOfMemory)
    assert house.observer.retries == []
    await house.close()


@in_fake_time
async def test_each_worker_has_its_own_row_of_waits(clock, bench):
    house = await bench(waits=(1.0, 9.0)).scaled(2)

    for process in house.starter.processes[:2]:
        process.end(KILLED)
    await settle()
    await house.pool.wait_ready(2)

    assert house.observer.retries == [(9000, 1.0), (9001, 1.0)]
    await house.close()


@in_fake_time
async def test_memory_that_runs_out_while_loading_is_told_as_that(clock, bench):
    house = await bench(script=Script(outcome={"ok": False, "kind": "OutOfMemory", "message": "m"})).scaled(1)

    with pytest.raises(OutOfMemory):
        await house.pool.wait_ready(1)
    await house.close()


@in_fake_time
async def test_a_service_that_ends_its_process_while_loading_ends_the_tries_too(clock, bench):
    house = await bench(script=Script(dies=3), waits=(0.0, 1.0)).scaled(1)
    jobs = house.submit(b"a")

    with pytest.raises(LoadError, match="exit code 3") as failed:
        await house.pool.wait_ready(1)

    assert f"tried {LOAD_TRIES} times" in failed.value.message
    assert len(house.starter.processes) == LOAD_TRIES
    assert isinstance((await errors(jobs))[0], NoWorker)
    await house.close()


@in_fake_time
async def test_a_worker_that_does_not_load_in_time_is_ended(clock, bench):
    house = bench(script=Script(), startup_timeout=7.0)
    began = clock.monotonic()
    house.pool.scale(1)

    with pytest.raises(LoadError, match="startup timeout of 7 s"):
        await house.pool.wait_ready(1)

    assert clock.monotonic() - began == pytest.approx(7.0, abs=2 * LOOK)
    assert house.starter.processes[0].kills[0] is True
    await house.close()


@in_fake_time
async def test_a_worker_that_never_says_hello_is_ended_too(clock, bench):
    house = await bench(script=Script(connects=False), startup_timeout=7.0).scaled(1)
    assert house.pool.starting_count == 1

    with pytest.raises(LoadError, match="startup timeout"):
        await house.pool.wait_ready(1)

    await settle()
    assert not house.gate._expected, "the gate keeps no token of a worker that is gone"
    house.starter.script = GOOD
    late = house.starter.processes[0].say_hello()
    await settle()
    assert not late.is_open
    await house.close()


@in_fake_time
async def test_a_process_that_cannot_be_started_is_told(clock, bench):
    house = bench()
    house.starter.error = OSError("no more processes")

    house.pool.scale(1)

    with pytest.raises(LoadError, match="no more processes"):
        await house.pool.wait_ready(1)
    assert not house.pool.workers
    await house.close()


@in_fake_time
async def test_a_link_that_cannot_be_set_up_costs_a_try_and_not_the_startup_timeout(clock, bench, monkeypatch):
    real = page.create_shared
    failures = [OSError("Too many open files")]

    def create_shared(name, size):
        if failures:
            raise failures.pop()
        return real(name, size)

    monkeypatch.setattr(link_module.page, "create_shared", create_shared)
    began = clock.monotonic()

    house = await bench().scaled(1)
    await house.pool.wait_ready(1)

    assert clock.monotonic() - began < 1.0
    assert "Too many open files" in house.pool.last_autopsy.reason
    await house.close()


@in_fake_time
async def test_the_operator_may_try_again(clock, bench):
    house = await bench(script=Script(outcome=FAILS)).scaled(1)
    house.starter.script = GOOD

    await house.scaled(1)
    await house.pool.wait_ready(1)

    assert house.pool.failure is None
    assert await answers(house.submit(b"a")) == [b"a"]
    await house.close()


@in_fake_time
async def test_a_second_worker_that_does_not_load_leaves_the_first_alone(clock, bench):
    house = await bench().scaled(1)
    house.starter.script = Script(outcome=FAILS)
    await house.scaled(2)
    with pytest.raises(LoadError):
        await house.pool.wait_ready(2)
    assert house.pool.state is VersionState.DEGRADED
    assert await answers(house.submit(b"a")) == [b"a"]

    house.starter.script = GOOD
    house.starter.processes[0].end(KILLED)
    await settle()

    assert await answers(house.submit(b"b")) == [b"b"], "one that has served is replaced all the same"
    await house.close()


@in_fake_time
async def test_jobs_are_not_given_up_while_another_worker_may_still_come(clock, bench):
    house = bench(script=Script())
    house.pool.scale(2)
    await settle()
    jobs = house.submit(b"a")

    house.worker(0).loaded(FAILS)
    await settle()
    assert jobs[0].reply.ending_count == 0
    house.worker(1).loaded()

    house.worker(1).serve(await house.worker(1).next_batch())
    assert await answers(jobs) == [b"a"]
    await house.close()


@in_fake_time
async def test_who_waits_for_a_version_that_is_removed_meanwhile_is_told(clock, bench):
    house = await bench(script=Script()).scaled(1)
    waiting = asyncio.ensure_future(house.pool.wait_ready(1))
    await settle()

    await house.pool.drain(5.0)

    with pytest.raises(ShuttingDown):
        await waiting
    await house.close()


# Tickets


@in_fake_time
async def test_with_tickets_only_a_worker_that_waits_is_given_jobs(clock, bench):
    house = await bench(script=HELD, has_tickets=True).scaled(1)
    running = house.submit(b"a")
    batch = await house.worker().next_batch()

    with pytest.raises(QueueFull, match="waits for a request"):
        house.submit(b"b")

    house.worker().serve(batch)
    await answers(running)
    later = house.submit(b"c")
    house.worker().serve(await house.worker().next_batch())
    assert await answers(later) == [b"c"]
    await house.close()


@in_fake_time
async def test_a_worker_that_fills_its_batch_still_waits(clock, bench):
    house = await bench(script=HELD, has_tickets=True, size=2, delay=1.0).scaled(1)

    both = house.submit(b"a", b"b")

    house.worker().serve(await house.worker().next_batch())
    assert await answers(both) == [b"a", b"b"]
    await house.close()


@in_fake_time
async def test_without_a_worker_a_ticket_says_why(clock, bench):
    house = bench(has_tickets=True)

    with pytest.raises(NoWorker):
        house.submit(b"a")
    await house.close()


# Time that runs out


@in_fake_time
async def test_what_is_late_when_a_worker_becomes_free_is_not_run(clock, bench):
    house = await bench(script=HELD, deadline=5.0, works_ahead=False).scaled(1)
    await warmed(house, 1)
    running, late = house.submit(b"a", b"b")
    batch = await house.worker().next_batch()
    assert house.queue.peek(2) == [late], "no worker is given ahead what may be late when its turn comes"
    clock.advance(6.0)

    house.worker().serve(batch)

    assert isinstance((await errors([late]))[0], JobTimeout)
    assert await answers([running]) == [b"a"]
    assert not house.worker().batches
    await house.close()


@in_fake_time
async def test_the_response_timeout_counts_from_the_start_of_the_batch(clock, bench):
    house = await bench(script=HELD, response_timeout=10.0).scaled(1)
    await warmed(house, 1)
    running, waiting = house.submit(b"a", b"b")
    worker = house.worker()
    await worker.until(lambda: len(worker.batches) == 2)
    first = worker.batches.popleft()
    clock.advance(8.0)
    worker.begin(first)
    worker.step("preprocess")
    began = clock.monotonic()
    house.starter.script = GOOD

    [error] = await errors([running])

    assert isinstance(error, WorkerSilent)
    assert "10 s" in error.message
    assert "preprocess" in error.message
    assert clock.monotonic() - began == pytest.approx(10.0, abs=2 * LOOK)
    assert await answers([waiting]) == [b"b"]
    await house.close()


@in_fake_time
async def test_a_worker_that_starts_nothing_is_ended_and_its_jobs_run_elsewhere(clock, bench):
    # Stopped by a signal, say: the page tells of no running batch, and yet nothing will ever come.
    house = await bench(script=HELD, response_timeout=10.0).scaled(1)
    jobs = house.submit(b"a")
    await house.worker().next_batch()
    house.starter.script = GOOD

    assert await answers(jobs) == [b"a"]
    assert jobs[0].attempts == 2
    await house.close()


@in_fake_time
async def test_a_worker_that_hangs_while_it_stops_is_ended(clock, bench):
    house = await bench(script=HELD, response_timeout=10.0).scaled(1)
    jobs = house.submit(b"a")
    house.worker().begin(await house.worker().next_batch())

    house.pool.scale(0)

    assert isinstance((await errors(jobs))[0], WorkerSilent)
    await house.close()


@in_fake_time
async def test_a_job_whose_deadline_passes_in_the_queue_is_told(clock, bench):
    house = await bench(script=HELD, deadline=5.0).scaled(1)
    began = clock.monotonic()
    running, waiting = house.submit(b"a", b"b")
    batch = await house.worker().next_batch()
    house.worker().begin(batch)

    [error] = await errors([waiting])

    assert isinstance(error, JobTimeout)
    assert "no worker was free" in error.message
    assert clock.monotonic() - began == pytest.approx(5.0, abs=2 * LOOK)
    house.worker().finish(batch)
    house.worker().answer(batch)
    assert await answers([running]) == [b"a"]
    await house.close()


@in_fake_time
async def test_a_deadline_passes_while_workers_start_too(clock, bench):
    house = await bench(script=Script(), deadline=5.0).scaled(1)
    jobs = house.submit(b"a")

    [error] = await errors(jobs)

    assert isinstance(error, JobTimeout)
    assert "no worker is ready" in error.message
    await house.close()


@in_fake_time
async def test_the_end_of_one_job_may_make_its_client_give_up_another(clock, bench):
    # Two requests over one connection, which the first one's error closes.
    house = await bench(script=Script(), deadline=5.0).scaled(1)
    first, second = house.submit(b"a", b"b")
    first.reply.on_end = lambda: house.pool.cancel(second, Cancelled("gone"))

    await errors([first])

    assert second.reply.ending_count == 0
    assert {job.id for job in house.observer.jobs} == {first.id, second.id}
    assert len(house.observer.jobs) == 2
    assert len(house.queue) == 0
    await house.pool.close()
    house.gate.close()


# Taking back


@in_fake_time
async def test_what_waits_behind_a_slow_batch_goes_to_others(clock, bench):
    house = await bench(script=HELD).scaled(1)
    await warmed(house, 1)
    slow, *waiting = house.submit(b"slow", b"b", b"c", b"d")
    worker = house.worker()
    await worker.until(lambda: len(worker.batches) == 4)
    first, second, *rest = worker.batches
    worker.begin(first, ago=1.0)
    house.starter.script = GOOD

    await house.scaled(2)

    assert await answers(waiting) == [b"b", b"c", b"d"]
    assert slow.reply.ending_count == 0
    assert not any(worker.begin(batch) for batch in (second, *rest))
    worker.finish(first)
    worker.answer(first)
    assert await answers([slow]) == [b"slow"]
    assert [job.attempts for job in (slow, *waiting)] == [1, 2, 2, 2]
    await house.close()


@in_fake_time
async def test_what_waits_behind_the_only_worker_goes_to_the_next_one(clock, bench):
    house = await bench(script=HELD).scaled(1)
    first = house.worker()
    house.submit(b"warm")
    first.answer(await first.next_batch(), spans=(0.0, 0.0, 0.0, 0.014, 0.0, 0.0))
    running, waiting, queued = house.submit(b"running", b"waiting", b"queued")
    await first.until(lambda: len(first.batches) == 2)
    assert len(house.queue) == 1
    batch = first.batches[0]
    first.begin(batch)

    await house.scaled(2)

    second = house.worker(1)
    second.serve(await second.next_batch())
    assert await answers([waiting]) == [b"waiting"]
    second.serve(await second.next_batch())
    assert await answers([queued]) == [b"queued"]
    assert not first.begin(first.batches[1])
    first.finish(batch)
    first.answer(batch)
    assert await answers([running]) == [b"running"]
    await house.close()


@in_fake_time
async def test_a_batch_that_runs_twice_after_all_is_answered_once(clock, bench):
    house = await bench(script=HELD).scaled(1)
    await warmed(house, 1)
    slow, twice = house.submit(b"slow", b"twice")
    worker = house.worker()
    await worker.until(lambda: len(worker.batches) == 2)
    first, second = worker.batches
    worker.begin(first, ago=1.0)
    house.starter.script = GOOD
    await house.scaled(2)
    assert await answers([twice]) == [b"twice"]

    # The worker had looked at the page just before the batch was taken back, and runs it all the same.
    worker.finish(first)
    worker.answer(first)
    worker.words[page.STARTED] = worker.words[page.FINISHED] = second.number
    worker.answer(second, lambda body: (200, b"too late"))
    await answers([slow])
    await settle()

    assert twice.reply.body == b"twice"
    await house.close()


@in_fake_time
async def test_a_slow_batch_with_nobody_else_there_keeps_its_place(clock, bench):
    house = await bench(script=HELD).scaled(1)
    await warmed(house, 1)
    jobs = house.submit(b"slow", b"b", b"c")
    worker = house.worker()
    await worker.until(lambda: len(worker.batches) == 3)
    first = worker.batches.popleft()
    worker.begin(first, ago=1.0)
    await house.pool.wait_until(lambda: True)
    while len(house.queue) < 2:
        await asyncio.sleep(0.001)
    worker.batches.clear()

    worker.finish(first)
    worker.answer(first)
    for _ in range(2):
        worker.serve(await worker.next_batch())

    assert await answers(jobs) == [b"slow", b"b", b"c"]
    await house.close()


# Scaling


@in_fake_time
async def test_scaling_down_loses_nothing(clock, bench):
    house = await bench(script=HELD).scaled(3)
    await warmed(house, 3)
    jobs = house.submit(*(b"%d" % number for number in range(40)))
    await settle()
    running = [house.worker(index).batches[0] for index in range(3)]
    for index, batch in enumerate(running):
        house.worker(index).begin(batch)

    house.pool.scale(1)
    await settle()
    for index, batch in enumerate(running):
        house.worker(index).finish(batch)
        house.worker(index).answer(batch)
    await settle()
    [left] = house.starter.living
    while any(job.reply.ending_count == 0 for job in jobs):
        batch = await left.worker.next_batch()
        if batch not in running:
            left.worker.serve(batch)
            await settle()

    assert await answers(jobs) == [b"%d" % number for number in range(40)]
    assert house.pool.ready_count == 1
    await house.close()


@in_fake_time
async def test_a_worker_that_stops_is_told_so_only_when_it_has_nothing_in_its_hands(clock, bench):
    house = await bench(script=HELD).scaled(1)
    jobs = house.submit(b"a")
    worker = house.worker()
    batch = await worker.next_batch()
    worker.begin(batch)

    house.pool.scale(0)
    await settle()
    assert not worker.is_stopped
    with pytest.raises(NoWorker):
        house.submit(b"b")

    worker.finish(batch)
    worker.answer(batch)
    assert await answers(jobs) == [b"a"]
    await settle()
    assert worker.is_stopped
    assert house.starter.processes[0].kills == []
    await house.close()


@in_fake_time
async def test_to_no_worker_and_back(clock, bench):
    house = await bench(script=HELD).scaled(1)
    running, waiting = house.submit(b"a", b"b")
    house.worker().begin(await house.worker().next_batch())

    house.pool.scale(0)

    assert isinstance((await errors([waiting]))[0], NoWorker)
    assert house.pool.state is VersionState.REGISTERED
    house.starter.script = GOOD
    await house.scaled(1)
    await house.pool.wait_ready(1)
    assert await answers(house.submit(b"c")) == [b"c"]
    house.starter.processes[0].end(KILLED)
    assert isinstance((await errors([running]))[0], WorkerDied)
    assert len(house.starter.living) == 1
    await house.close()


@in_fake_time
async def test_workers_that_still_load_are_the_first_to_go(clock, bench):
    house = await bench().scaled(1)
    house.starter.script = Script()
    await house.scaled(3)

    await house.scaled(1)

    assert house.starter.living == house.starter.processes[:1]
    assert await answers(house.submit(b"a")) == [b"a"]
    await house.close()


@in_fake_time
async def test_a_worker_that_does_not_stop_is_ended(clock, bench):
    house = await bench(script=Script(outcome={"ok": True}, obeys=False)).scaled(1)
    began = clock.monotonic()

    await house.pool.close()

    assert clock.monotonic() - began == pytest.approx(5.0)
    assert house.starter.processes[0].kills == [True]
    house.gate.close()


@in_fake_time
async def test_a_stopping_worker_that_lies_does_not_hang_for_ever(clock, bench):
    house = await bench(script=Script(outcome={"ok": True}, obeys=False), response_timeout=1e6).scaled(1)
    jobs = house.submit(b"a")
    house.worker().begin(await house.worker().next_batch())
    house.pool.scale(0)

    house.worker().send_raw(b"\xff" * 100)

    assert isinstance((await errors(jobs))[0], WorkerDied)
    await house.close()


@in_fake_time
async def test_a_restart_that_waits_is_called_off_when_it_is_no_longer_wanted(clock, bench):
    house = await bench(waits=(5.0,)).scaled(1)
    house.starter.processes[0].end(KILLED)
    await settle()
    jobs = house.submit(b"a")

    house.pool.scale(0)
    clock.advance(10.0)
    await settle()

    assert isinstance((await errors(jobs))[0], NoWorker)
    assert len(house.starter.processes) == 1
    await house.close()


# The end


@in_fake_time
async def test_draining_answers_what_was_accepted(clock, bench):
    house = await bench(script=HELD).scaled(1)
    jobs = house.submit(*(b"%d" % number for number in range(20)))
    draining = asyncio.ensure_future(house.pool.drain(60.0))
    for _ in range(20):
        house.worker().serve(await house.worker().next_batch())

    await draining

    assert await answers(jobs) == [b"%d" % number for number in range(20)]
    assert not house.pool.workers
    with pytest.raises(ShuttingDown):
        house.submit(b"late")
    await house.close()


@in_fake_time
async def test_draining_waits_for_a_worker_that_is_being_replaced(clock, bench):
    house = await bench(waits=(3.0,)).scaled(1)
    house.starter.processes[0].end(KILLED)
    await settle()
    jobs = house.submit(b"a")

    await house.pool.drain(60.0)

    assert await answers(jobs) == [b"a"]
    await house.close()


@in_fake_time
async def test_what_a_drain_does_not_finish_in_time_is_told_so(clock, bench):
    house = await bench(script=HELD, response_timeout=60.0).scaled(1)
    running, waiting = house.submit(b"a", b"b")
    batch = await house.worker().next_batch()
    house.worker().begin(batch)
    draining = asyncio.ensure_future(house.pool.drain(10.0))

    [error] = await errors([waiting])
    house.worker().finish(batch)
    house.worker().answer(batch)
    await draining

    assert isinstance(error, ShuttingDown)
    assert await answers([running]) == [b"a"]
    await house.close()


@in_fake_time
async def test_closing_answers_what_waits_for_workers_that_will_not_come(clock, bench):
    house = await bench(waits=(1000.0,)).scaled(1)
    house.starter.processes[0].end(KILLED)
    await settle()
    jobs = house.submit(b"a")

    await house.pool.close()

    assert isinstance((await errors(jobs))[0], ShuttingDown)
    await house.close()


@in_fake_time
async def test_an_end_by_force_tells_everybody(clock, bench):
    house = await bench(script=HELD).scaled(2)
    jobs = house.submit(*(b"%d" % number for number in range(5)))
    for index in (0, 1):
        house.worker(index).begin(await house.worker(index).next_batch())
    sentence = JobTimeout("too late")

    house.pool.kill_all(sentence)
    found = await errors(jobs)

    assert all(error is sentence for error in found)
    await settle()
    assert not house.starter.living
    await house.close()


@in_fake_time
async def test_a_pool_at_rest_has_no_timer(clock, bench):
    house = await bench().scaled(1)
    await answers(house.submit(b"a"))
    await asyncio.sleep(10 * LOOK)

    assert [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()] == []
    await house.close()


@in_fake_time
async def test_workers_poll_while_there_are_cores_for_all(clock, bench):
    house = await bench().scaled(1)
    [first] = house.pool.jobs.links
    assert first.words[page.POLL_MICROSECONDS] == 200

    await house.scaled(2)
    assert [link.words[page.POLL_MICROSECONDS] for link in house.pool.jobs.links] == [0, 0]
    await house.scaled(1)
    assert [link.words[page.POLL_MICROSECONDS] for link in house.pool.jobs.links] == [200]
    await house.close()


@in_fake_time
async def test_what_was_answered_in_part_is_not_run_again(clock, bench):
    house = await bench(script=HELD).scaled(1)
    [job] = house.submit(b"a")
    batch = await house.worker().next_batch()
    house.worker().begin(batch)
    house.worker().send_pieces(batch, b"first")
    house.worker().finish(batch)
    await settle()

    house.starter.processes[0].end(KILLED)
    await answers([job])

    assert job.reply.pieces == [b"first"]
    assert isinstance(job.reply.error, WorkerDied)
    await house.close()


@in_fake_time
async def test_the_starter_hears_when_no_further_worker_is_wanted(clock, bench):
    house = await bench().scaled(2)
    assert house.starter.releases == 0

    await house.scaled(1)
    assert house.starter.releases == 0
    await house.scaled(0)
    assert house.starter.releases == 1

    await house.close()
    assert house.starter.releases == 2


@in_fake_time
async def test_the_starter_hears_when_the_tries_are_over(clock, bench):
    house = await bench(script=Script(outcome={"ok": False, "message": "no weights"})).scaled(1)

    assert house.pool.failure is not None
    assert house.starter.releases == 1
    await house.close()
