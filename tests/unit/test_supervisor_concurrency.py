"""A worker that runs its batches beside each other: nothing waits behind another, and one is given up alone."""

from __future__ import annotations

import pytest
from pool_bench import TIMED, PoolBench, answers, errors

from marserve.errors import Cancelled, WorkerDied, WorkerSilent
from marserve.supervisor.dispatch import LOOK
from marserve.supervisor.link import MOST_CONCURRENT
from marserve.supervisor.process import Exit
from marserve.supervisor.worker import LAST_SECONDS
from marserve.testing import FakeClock, Script, in_fake_time

CONCURRENT = Script(outcome={"ok": True, "is_async": True})


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    for module in TIMED:
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def bench(clock, tmp_path):
    return lambda **more: PoolBench(clock, tmp_path, **{"script": CONCURRENT, **more})


async def batches_of(house, count):
    worker = house.worker()
    await worker.until(lambda: len(worker.batches) == count)
    found = list(worker.batches)
    for batch in found:
        worker.begin(batch)
    return worker, found


async def answered_all(house, worker):
    worker.on_batch = worker.serve
    while worker.batches:
        worker.serve(worker.batches.popleft())
    await answers(house.jobs)
    await house.close()


@in_fake_time
async def test_every_job_leaves_at_once_and_answers_come_in_any_order(clock, bench):
    house = await bench().scaled(1)
    jobs = house.submit(b"a", b"b", b"c")

    worker, found = await batches_of(house, 3)
    for batch in reversed(found):
        worker.answer(batch)

    assert await answers(jobs) == [b"a", b"b", b"c"]
    await house.close()


@in_fake_time
async def test_a_batch_that_is_not_full_waits_its_delay_though_others_run(clock, bench):
    house = await bench(size=2, delay=1.0).scaled(1)
    house.submit(b"a", b"b")
    worker, _ = await batches_of(house, 1)
    began = clock.monotonic()
    house.submit(b"c")

    await worker.until(lambda: len(worker.batches) == 2)

    assert clock.monotonic() - began == pytest.approx(1.0, abs=0.01)
    await answered_all(house, worker)


@in_fake_time
async def test_one_worker_takes_no_more_than_its_bound(clock, bench):
    house = await bench(bound=MOST_CONCURRENT + 10).scaled(1)
    house.submit(*[b"x"] * (MOST_CONCURRENT + 5))

    worker, found = await batches_of(house, MOST_CONCURRENT)

    assert len(house.queue) == 5
    worker.answer(found[0])
    worker.batches.remove(found[0])
    await worker.until(lambda: len(worker.batches) == MOST_CONCURRENT)
    assert len(house.queue) == 4
    await answered_all(house, worker)


@in_fake_time
async def test_what_nobody_waits_for_is_cancelled(clock, bench):
    house = await bench(size=2, delay=1.0).scaled(1)
    first, second = house.submit(b"a", b"b")
    worker, [batch] = await batches_of(house, 1)

    house.pool.cancel(first, Cancelled("gone"))
    assert worker.cancelled == []
    house.pool.cancel(second, Cancelled("gone"))
    await worker.until(lambda: worker.cancelled)

    assert worker.cancelled == [batch.number]
    assert house.pool.jobs.is_busy  # until the worker has let go of it
    worker.answer(batch)
    await house.pool.close()
    house.gate.close()


@in_fake_time
async def test_one_that_is_silent_ends_alone(clock, bench):
    house = await bench(response_timeout=10.0).scaled(1)
    silent, lively = house.submit(b"a", b"b")
    worker, [first, second] = await batches_of(house, 2)
    began = clock.monotonic()
    clock.advance(8.0)
    worker.send_pieces(second, b"still here ")

    [error] = await errors([silent])

    assert isinstance(error, WorkerSilent)
    assert clock.monotonic() - began == pytest.approx(10.0, abs=2 * LOOK)
    await worker.until(lambda: worker.cancelled)
    assert worker.cancelled == [first.number]
    worker.begin(second)  # it goes on
    worker.answer(first)
    worker.answer(second)
    assert await answers([lively]) == [b"still here b"]
    await house.close()


@in_fake_time
async def test_a_worker_that_does_not_let_go_is_replaced(clock, bench):
    house = await bench(response_timeout=10.0).scaled(1)
    jobs = house.submit(b"a")
    await batches_of(house, 1)
    began = clock.monotonic()
    [error] = await errors(jobs)
    assert isinstance(error, WorkerSilent)

    await house.pool.wait_until(lambda: house.pool.last_autopsy is not None)

    assert clock.monotonic() - began == pytest.approx(10.0 + LAST_SECONDS, abs=2 * LOOK)
    await house.close()


@in_fake_time
async def test_all_that_has_begun_is_suspect(clock, bench):
    house = await bench().scaled(1)
    begun = house.submit(b"a", b"b")
    await batches_of(house, 2)

    house.starter.living[0].end(Exit(3, None))

    assert [type(error) for error in await errors(begun)] == [WorkerDied, WorkerDied]
    await house.close()
