"""What a door may ask about predictions, over fake workers on a fake clock."""

from __future__ import annotations

import logging
import re
import uuid

import pytest
from plane_bench import PlaneBench
from pool_bench import TIMED

from marserve.batching.job import JobState
from marserve.errors import ModelNotFound, NoWorker, QueueFull, ShuttingDown, VersionNotFound
from marserve.planes.resolving import Registration
from marserve.supervisor.process import Exit
from marserve.testing import GOOD, HELD, FakeClock, Script, in_fake_time, settle


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    for module in TIMED:
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def bench(clock, tmp_path, caplog):
    caplog.set_level(logging.CRITICAL + 1, "marserve")
    return lambda **options: PlaneBench(clock, tmp_path, **options)


async def served(house, *locations, **options):
    for location in locations or ("digits.mar",):
        await house.management.register(Registration(location, **options), wait=True)
    return house


@in_fake_time
async def test_a_request_reaches_the_version_that_it_means(clock, bench):
    house = bench(script=HELD)
    house.stock("old.mar", version="1.0")
    await served(house, "old.mar", "digits.mar")
    replies = [house.predict(b"a"), house.predict(b"b", version="2.0")]
    for index in (0, 1):
        worker = house.starter.worker(index)
        number = worker.told["model_version"].encode()
        worker.serve(await worker.next_batch(), lambda body, number=number: (200, body + number))
    await settle()

    assert [reply.body for reply in replies] == [b"a1.0", b"b2.0"]
    await house.close()


@in_fake_time
async def test_what_is_not_accepted_is_told_with_its_model(clock, bench):
    house = await served(bench(script=HELD, queue_size=1))
    with pytest.raises(ModelNotFound):
        house.predict(name="nothing")
    with pytest.raises(VersionNotFound):
        house.predict(version="9.9")

    accepted = [house.predict(), house.predict()]
    with pytest.raises(QueueFull) as full:
        house.predict()
    assert (full.value.model, full.value.version) == ("digits", None)  # the version is told to who asked for it
    with pytest.raises(QueueFull) as asked:
        house.predict(version="2.0")
    assert (asked.value.model, asked.value.version) == ("digits", "2.0")

    await house.management.scale("digits", None, 0, 0, wait=False)
    with pytest.raises(NoWorker) as none:
        house.predict()
    assert none.value.model == "digits"
    await house.close()
    assert [reply.ending_count for reply in accepted] == [1, 1]


@in_fake_time
async def test_a_server_that_stops_accepts_nothing_new(clock, bench):
    house = await served(bench())
    house.inference.is_draining = True

    with pytest.raises(ShuttingDown):
        house.predict()
    await house.close()


@in_fake_time
async def test_a_client_that_goes_is_forgotten_and_heard_of(clock, bench):
    house = await served(bench(script=HELD))
    running, waiting = house.predict(), house.predict()

    for reply in (running, waiting):
        house.inference.give_up(reply.job)
        house.inference.give_up(reply.job)

    assert [reply.ending_count for reply in (running, waiting)] == [0, 0]
    assert [job.error.kind for job in house.observer.jobs] == ["Cancelled", "Cancelled"]
    assert waiting.job.state is JobState.ANSWERED
    house.starter.worker().serve(await house.starter.worker().next_batch())
    await settle()
    assert running.ending_count == 0
    assert not house.starter.worker().batches
    await house.close()


@in_fake_time
async def test_ids_are_unique_and_shaped_like_uuids(clock, bench):
    house = await served(bench())
    jobs = [house.predict().job for _ in range(3)]

    texts = [f"{house.inference.id_prefix}{job.id:012x}" for job in jobs]

    assert len(set(texts)) == 3
    assert all(str(uuid.UUID(text)) == text for text in texts)
    await house.close()


@in_fake_time
async def test_a_job_s_deadline_is_the_house_s(clock, bench):
    house = await served(bench())
    arrived = clock.monotonic()

    assert house.predict().job.deadline == arrived + 30.0
    await house.close()


@in_fake_time
async def test_the_only_model_is_told_only_when_there_is_one(clock, bench):
    house = bench()
    assert house.inference.only_model() == ""
    await house.management.register(Registration("digits.mar"), wait=True, at_startup=True)
    await house.management.register(Registration("fizbuz.mar"), wait=True)
    assert house.inference.only_model() == "digits"

    await house.management.register(Registration("fizbuz.mar", model_name="third"), wait=True, at_startup=True)

    assert house.inference.only_model() == ""
    await house.close()


# Health


@in_fake_time
async def test_a_server_is_ready_once_its_start_up_is_done_and_its_models_can_answer(clock, bench):
    house = bench()
    house.inference.startup = "The models of the start-up are being loaded."
    assert not house.inference.health().is_ready
    assert "start-up" in house.inference.health().reasons[0]

    house.inference.startup = None
    await served(house)

    health = house.inference.health()
    assert (health.is_ready, health.reasons, health.short) == (True, (), 0)
    assert (health.ready_count, health.wanted_count) == (1, 1)
    await house.close()


@in_fake_time
async def test_a_default_version_without_any_worker_makes_the_server_unready(clock, bench):
    house = await served(bench(script=HELD))
    house.starter.script = Script()
    house.starter.processes[0].end(Exit(None, 9))
    await settle()

    health = house.inference.health()

    assert not health.is_ready
    assert health.short == 1
    assert re.search(r"digits:2.0 is starting: 0 of 1 .*SIGKILL", health.reasons[0])
    await house.close()


@in_fake_time
async def test_a_version_that_lacks_workers_is_told_and_the_server_is_ready_all_the_same(clock, bench):
    house = await served(bench())
    house.starter.script = Script()
    await house.management.scale("digits", None, 2, 2, wait=False)

    health = house.inference.health()

    assert health.is_ready
    assert health.short == 1
    assert "degraded" in health.reasons[0]
    house.starter.script = GOOD
    await house.close()


@in_fake_time
async def test_another_version_than_the_default_does_not_make_the_server_unready(clock, bench):
    house = bench()
    house.stock("old.mar", version="1.0")
    await served(house, "old.mar")
    house.starter.script = Script()
    await house.management.register(Registration("digits.mar"), wait=False)

    health = house.inference.health()

    assert health.is_ready
    assert (health.short, len(health.reasons)) == (0, 1)
    await house.close()


@in_fake_time
async def test_a_model_that_is_scaled_to_no_worker_is_as_it_should_be(clock, bench):
    house = await served(bench())
    await house.management.scale("digits", None, 0, 0, wait=True)

    assert house.inference.health().is_ready
    await house.close()


@in_fake_time
async def test_a_model_of_the_start_up_that_failed_and_a_drain_are_told(clock, bench):
    house = await served(bench())
    house.inference.startup_failures["bad.mar"] = "It is broken."
    health = house.inference.health()
    assert health.is_ready  # the models beside it are served
    assert "bad.mar could not be loaded: It is broken." in health.reasons

    house.inference.is_draining = True

    assert not house.inference.health().is_ready
    assert "The server is stopping." in house.inference.health().reasons
    await house.close()


@in_fake_time
async def test_a_server_of_whose_start_up_nothing_is_left_is_not_ready(clock, bench):
    house = bench()
    house.inference.startup_failures["bad.mar"] = "It is broken."

    assert not house.inference.health().is_ready
    await house.close()


@in_fake_time
async def test_a_failure_of_the_start_up_is_made_good_by_registering_again(clock, bench):
    house = bench()
    house.inference.startup_failures["digits.mar"] = "It is broken."
    await served(house, "digits.mar")

    health = house.inference.health()

    assert (health.is_ready, health.reasons) == (True, ())
    await house.close()
