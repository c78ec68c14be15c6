"""The console phrases of TorchServe, as a pool's workers come and go."""

from __future__ import annotations

import logging

import pytest
from pool_bench import TIMED, PoolBench, errors

from marserve.metrics.phrases import Phrases
from marserve.supervisor.lifecycle import RESTARTS
from marserve.supervisor.process import Exit
from marserve.testing import GOOD, HELD, FakeClock, Script, in_fake_time, settle

TIMED_OUT = [
    (
        "ERROR",
        "Backend worker error\norg.pytorch.serve.wlm.WorkerInitializationException: "
        "Backend worker did not respond in given time",
    )
]


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    for module in TIMED:
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def bench(clock, tmp_path):
    return lambda **options: PoolBench(clock, tmp_path, restart=RESTARTS["torchserve"], observer=Phrases, **options)


@pytest.fixture
def said(caplog):
    """Return what has been written since the last call: level and text, moments left out."""
    caplog.set_level(logging.INFO, "marserve.recovery")

    def said():
        found = [
            (record.levelname, record.getMessage().split(" timestamp: ")[0])
            for record in caplog.records
            if record.name == "marserve.recovery"
        ]
        caplog.clear()
        return found

    return said


@in_fake_time
async def test_a_worker_that_dies_and_comes_back(clock, bench, said):
    house = await bench().scaled(1)
    house.starter.processes[0].end(Exit(3, None))
    await settle()

    assert said() == [
        ("INFO", "9000 Worker disconnected. WORKER_MODEL_LOADED"),
        ("INFO", "Auto recovery start"),
        ("INFO", "Retry worker: 9000 in 1 seconds."),
    ]
    await house.pool.wait_ready(1)
    assert said() == [("INFO", "Auto recovery succeeded, reset recoveryStartTS")]
    assert house.observer.retries == [(9000, 1)], "another observer hears of it too"
    await house.close()


@in_fake_time
async def test_a_worker_that_does_not_answer(clock, bench, said):
    house = await bench(script=HELD, response_timeout=1.0).scaled(1)
    jobs = house.submit(b"a")
    house.worker().begin(await house.worker().next_batch())

    await errors(jobs)

    assert said()[:3] == [
        ("ERROR", "Number or consecutive unsuccessful inference 1"),
        *TIMED_OUT,
        ("INFO", "9000 Worker disconnected. WORKER_MODEL_LOADED"),
    ]
    await house.close()


@in_fake_time
async def test_a_worker_that_is_too_slow_to_load_again_and_again(clock, bench, said):
    house = bench(script=Script(), startup_timeout=1.0)
    house.pool.scale(1)
    await house.pool.wait_until(lambda: len(house.observer.retries) == 2)

    lines = said()
    assert [line for line in lines if "unsuccessful" in line[1]] == [
        ("ERROR", f"Number or consecutive unsuccessful inference {number}") for number in (1, 2)
    ]
    assert lines[-3:] == [
        ("INFO", "9000 Worker disconnected. WORKER_STARTED"),
        ("WARNING", "Auto recovery failed again"),
        ("INFO", "Retry worker: 9000 in 1 seconds."),
    ]
    house.starter.script = GOOD
    await house.pool.wait_until(lambda: house.pool.ready_count == 1)
    assert said() == [("INFO", "Auto recovery succeeded, reset recoveryStartTS")]
    await house.close()


@in_fake_time
async def test_a_worker_that_is_no_longer_wanted(clock, bench, said):
    house = await bench().scaled(1)

    await house.close()

    assert said() == [("INFO", "9000 Worker disconnected. WORKER_SCALED_DOWN")]
