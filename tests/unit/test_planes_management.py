"""What a door may ask about models, over fake workers on a fake clock."""

from __future__ import annotations

import asyncio
import logging

import pytest
from plane_bench import PlaneBench, archive
from pool_bench import TIMED

from marserve.errors import (
    BadRequest,
    Conflict,
    EnvironmentFault,
    Forbidden,
    JobTimeout,
    LoadError,
    MethodNotAllowed,
    ModelNotFound,
    OutOfMemory,
    ServeError,
    VersionNotFound,
)
from marserve.models.model import VersionConfig
from marserve.planes.resolving import REGISTRATION_FIRST, Precedence, Registration, resolve
from marserve.supervisor.lifecycle import RESTARTS, VersionState
from marserve.supervisor.parent import PARENT
from marserve.supervisor.process import WORKER, Exit
from marserve.testing import GOOD, HELD, FakeClock, Script, in_fake_time, settle

FAILS = Script(outcome={"ok": False, "message": "No module named x", "traceback": "line 1"})


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


def wanted(location="digits.mar", **options):
    return Registration(location, **options)


# Registering


@in_fake_time
async def test_a_model_is_registered_with_its_workers(clock, bench):
    house = bench()

    version = await house.management.register(wanted(initial_workers=2), wait=True)

    assert (version.name, version.version, version.pool.state) == ("digits", "2.0", VersionState.READY)
    assert house.registry.find("digits", None) is version
    told = house.starter.worker(0).told
    assert {
        key: told[key] for key in ("style", "model_name", "model_version", "folder", "handler", "batch_size")
    } == {
        "style": "native",
        "model_name": "digits",
        "model_version": "2.0",
        "folder": "/models/digits",
        "handler": "service.py",
        "batch_size": 1,
    }
    await house.close()


@in_fake_time
async def test_who_does_not_wait_gets_the_version_before_its_workers_are_there(clock, bench):
    house = bench(script=Script())

    version = await house.management.register(wanted(), wait=False)

    assert version.pool.state is VersionState.STARTING
    assert house.management.describe("digits", None) == [version]
    await house.close()


@in_fake_time
async def test_without_workers_a_model_is_only_registered(clock, bench):
    house = bench()

    version = await house.management.register(wanted(initial_workers=0), wait=True)

    assert version.pool.state is VersionState.REGISTERED
    assert house.starter.processes == []
    await house.close()


@in_fake_time
async def test_a_model_that_does_not_load_leaves_nothing_behind(clock, bench):
    house = bench(script=FAILS)

    with pytest.raises(LoadError, match="No module named x") as failed:
        await house.management.register(wanted(), wait=True)

    assert (failed.value.model, failed.value.version) == ("digits", "2.0")
    assert failed.value.traceback == "line 1"
    assert house.registry.models == {}
    assert house.starter.living == []
    house.starter.script = GOOD
    assert await house.management.register(wanted(), wait=True)
    await house.close()


@in_fake_time
async def test_at_the_start_a_server_that_tries_again_keeps_what_does_not_load(clock, bench):
    house = bench(script=FAILS, restart=RESTARTS["torchserve"])

    with pytest.raises(LoadError, match="No module named x"):
        await house.management.register(wanted(), wait=True, at_startup=True)

    version = house.registry.find("digits", None)
    house.starter.script = GOOD
    await version.pool.wait_until(lambda: version.pool.ready_count == 1)
    assert version.pool.state is VersionState.READY
    await house.close()


@in_fake_time
async def test_who_registers_later_is_told_at_once_even_there(clock, bench):
    house = bench(script=FAILS, restart=RESTARTS["torchserve"])

    with pytest.raises(LoadError, match="No module named x"):
        await house.management.register(wanted(), wait=True)

    assert (house.registry.models, house.starter.living) == ({}, [])
    assert len(house.starter.processes) == 1
    await house.close()


@in_fake_time
async def test_a_version_that_does_not_load_leaves_its_siblings_alone(clock, bench):
    house = bench()
    house.stock("old.mar", version="1.0")
    first = await house.management.register(wanted("old.mar"), wait=True)
    house.starter.script = FAILS

    with pytest.raises(LoadError):
        await house.management.register(wanted(), wait=True)

    assert list(house.registry) == [first]
    assert house.registry.find("digits", None) is first
    await house.close()


@in_fake_time
async def test_who_did_not_wait_finds_a_model_that_does_not_load_as_failed(clock, bench):
    house = bench(script=FAILS)

    version = await house.management.register(wanted(), wait=False)
    await settle()

    assert version.pool.state is VersionState.FAILED
    assert house.registry.find("digits", None) is version
    await house.close()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"location": "nowhere.mar"}, ModelNotFound),
        ({"location": "nameless.mar"}, BadRequest),
        ({"location": "digits.mar", "model_name": "a/b"}, BadRequest),
        ({"location": "handlerless.mar"}, LoadError),
    ],
)
@in_fake_time
async def test_what_cannot_be_registered_is_told_and_changes_nothing(clock, bench, given, error):
    house = bench()
    house.stock("nameless.mar", name="")
    house.stock("handlerless.mar", handler="")

    with pytest.raises(error):
        await house.management.register(wanted(**given), wait=True)

    assert house.registry.models == {}
    assert house.starter.processes == []
    await house.close()


@in_fake_time
async def test_bare_archives_are_taken_where_the_old_server_takes_them(clock, bench):
    house = bench(management={"takes_bare": True, "names_after_file": True})
    house.stock("junk-1.mar", name="", handler="")

    with pytest.raises(BadRequest, match="does not name its model"):
        await house.management.register(wanted(location="junk-1.mar"), wait=True)
    idle = await house.management.register(wanted("junk-1.mar", model_name="idle", initial_workers=0), wait=True)
    named = await house.management.register(wanted("junk-1.mar", initial_workers=0), wait=True, at_startup=True)

    assert (idle.name, named.name, named.version) == ("idle", "junk_1", "1.0")
    await house.close()


@in_fake_time
async def test_an_environment_that_fails_is_told_with_the_name_that_was_asked_for(clock, bench, monkeypatch):
    house = bench()

    async def fail(wanted):
        raise EnvironmentFault("No such package.")

    monkeypatch.setattr(house.management, "_opener", fail)

    for given, name in ((wanted("a-b.mar", model_name="c"), "c"), (wanted("a-b.mar"), "a_b")):
        with pytest.raises(EnvironmentFault) as caught:
            await house.management.register(given, wait=True)
        assert caught.value.model == name
    await house.close()


@pytest.fixture
def own(tmp_path):
    """Return a folder that is an archive's own, with something in it."""
    folder = tmp_path / "models" / "own"
    folder.mkdir(parents=True)
    (folder / "service.py").touch()
    return folder


@in_fake_time
async def test_what_was_unpacked_for_a_version_goes_with_it_and_after_its_workers(clock, bench, own):
    house = bench()
    house.stock("own.mar", own_folder=str(own))
    await house.management.register(wanted("own.mar"), wait=True)
    there = []
    house.observer.worker_changed = lambda worker: there.append(own.exists())

    await house.management.unregister("digits", None)

    assert there
    assert all(there)
    assert not own.exists()
    await house.close()


@in_fake_time
async def test_what_was_unpacked_for_a_version_goes_after_the_end_of_workers_that_take_too_long(clock, bench, own):
    house = bench(script=HELD, unregister_timeout=5.0)
    house.stock("own.mar", own_folder=str(own))
    await house.management.register(wanted("own.mar"), wait=True)
    house.predict()
    await settle()

    with pytest.raises(JobTimeout):
        await house.management.unregister("digits", None)
    await asyncio.gather(*house.management._background)

    assert not own.exists()
    await house.close()


@pytest.mark.parametrize("why", ["conflict", "handler", "load"])
@in_fake_time
async def test_what_was_unpacked_for_a_version_that_is_not_served_is_removed(clock, bench, own, why):
    house = bench(script=FAILS if why == "load" else GOOD)
    house.stock("own.mar", own_folder=str(own), handler="" if why == "handler" else "service.py")
    if why == "conflict":
        await house.management.register(wanted(), wait=True)
        house.stock("own.mar", own_folder=str(own), version="2.0")

    with pytest.raises(Conflict if why == "conflict" else LoadError):
        await house.management.register(wanted("own.mar"), wait=True)

    assert not own.exists()
    await house.close()


@in_fake_time
async def test_a_name_and_version_are_registered_once(clock, bench):
    house = bench()
    await house.management.register(wanted(), wait=True)

    with pytest.raises(Conflict):
        await house.management.register(wanted(), wait=True)

    assert len(house.starter.processes) == 1
    assert await house.management.register(wanted(model_name="other"), wait=True)
    await house.close()


@in_fake_time
async def test_two_who_register_the_same_at_once_get_one_version(clock, bench):
    house = bench()

    results = await asyncio.gather(
        *(house.management.register(wanted(), wait=True) for _ in range(2)), return_exceptions=True
    )

    assert sorted(type(result).__name__ for result in results) == ["Conflict", "ModelVersion"]
    await house.close()


@in_fake_time
async def test_a_version_that_is_removed_while_it_loads_is_not_said_to_be_registered(clock, bench):
    house = bench(script=Script())
    registering = asyncio.ensure_future(house.management.register(wanted(), wait=True))
    await settle()

    await house.management.unregister("digits", None)

    with pytest.raises(ServeError):
        await registering
    assert house.registry.models == {}
    await house.close()


@in_fake_time
async def test_a_closed_house_takes_nothing_in_or_out_but_what_it_starts_with(clock, bench):
    house = bench(is_open=False)

    with pytest.raises(MethodNotAllowed, match="switched off"):
        await house.management.register(wanted(), wait=True)
    version = await house.management.register(wanted(), wait=True, at_startup=True)
    with pytest.raises(MethodNotAllowed):
        await house.management.unregister("digits", None)

    assert version.loaded_at_startup
    assert house.inference.only_model() == "digits"
    await house.close()


# Scaling


@in_fake_time
async def test_scaling_waits_for_the_workers_that_are_wanted(clock, bench):
    house = bench()
    await house.management.register(wanted(), wait=True)

    version = await house.management.scale("digits", None, 3, 3, wait=True)
    assert (version.pool.ready_count, version.config.min_workers) == (3, 3)

    await house.management.scale("digits", None, 1, 2, wait=True)
    assert (version.pool.ready_count, len(house.starter.living)) == (1, 1)
    assert (version.config.min_workers, version.config.max_workers) == (1, 2)
    await house.close()


@in_fake_time
async def test_scaling_that_fails_says_why_and_keeps_who_runs(clock, bench):
    house = bench()
    version = await house.management.register(wanted(), wait=True)
    house.starter.script = Script(outcome={"ok": False, "kind": "OutOfMemory", "message": "no memory"})

    with pytest.raises(OutOfMemory) as failed:
        await house.management.scale("digits", None, 2, 2, wait=True)

    assert failed.value.model == "digits"
    assert version.pool.ready_count == 1
    await house.close()


@pytest.mark.parametrize(("least", "most"), [(-1, 1), (2, 1)])
@in_fake_time
async def test_numbers_of_workers_that_make_no_sense_are_refused(clock, bench, least, most):
    house = bench()
    version = await house.management.register(wanted(), wait=True)

    with pytest.raises(BadRequest):
        await house.management.scale("digits", None, least, most, wait=True)

    assert version.pool.target == 1
    await house.close()


@in_fake_time
async def test_what_is_not_there_cannot_be_managed(clock, bench):
    house = bench()
    await house.management.register(wanted(), wait=True)

    for act in (
        lambda name, version: house.management.scale(name, version, 1, 1, wait=True),
        house.management.unregister,
    ):
        with pytest.raises(ModelNotFound):
            await act("nothing", None)
        with pytest.raises(VersionNotFound):
            await act("digits", "9.9")
    with pytest.raises(VersionNotFound):
        await house.management.set_default("digits", "9.9")
    with pytest.raises(ModelNotFound):
        house.management.describe("nothing", "all")
    await house.close()


# Removing


@in_fake_time
async def test_a_version_that_is_removed_answers_what_it_has_accepted(clock, bench):
    house = bench(script=HELD)
    version = await house.management.register(wanted(), wait=True)
    replies = [house.predict(b"a"), house.predict(b"b")]
    removing = asyncio.ensure_future(house.management.unregister("digits", None))
    await settle()
    with pytest.raises(ModelNotFound):
        house.predict()
    for _ in replies:
        house.starter.worker().serve(await house.starter.worker().next_batch())

    assert await removing is version
    assert [reply.body for reply in replies] == [b"a", b"b"]
    assert house.starter.living == []
    await house.close()


@in_fake_time
async def test_a_version_that_does_not_end_in_time_is_ended_by_force(clock, bench):
    house = bench(script=HELD, unregister_timeout=5.0)
    await house.management.register(wanted(), wait=True)
    running, waiting = house.predict(b"a"), house.predict(b"b")
    house.starter.worker().begin(await house.starter.worker().next_batch())
    began = clock.monotonic()

    with pytest.raises(JobTimeout, match="Timed out while cleaning resources: digits"):
        await house.management.unregister("digits", None)

    assert clock.monotonic() - began == pytest.approx(5.0, abs=0.5)
    await settle()
    assert house.starter.living == []
    assert [reply.ending_count for reply in (running, waiting)] == [1, 1]
    assert house.registry.models == {}
    await house.close()


@in_fake_time
async def test_a_default_version_goes_last(clock, bench):
    house = bench()
    house.stock("old.mar", version="1.0")
    await house.management.register(wanted("old.mar"), wait=True)
    await house.management.register(wanted(), wait=True)

    with pytest.raises(Forbidden):
        await house.management.unregister("digits", None)
    await house.management.set_default("digits", "2.0")
    removed = await house.management.unregister("digits", "1.0")

    assert removed.version == "1.0"
    assert [one.version for one in house.management.describe("digits", "all")] == ["2.0"]
    await house.close()


# Listing


@in_fake_time
async def test_models_are_listed_by_name_in_pages(clock, bench):
    house = bench()
    for name in ("c", "a", "b"):
        await house.management.register(wanted(model_name=name, initial_workers=0), wait=True)

    def page(limit, offset):
        versions, following = house.management.list_models(limit, offset)
        return [version.name for version in versions], following

    assert page(2, 0) == (["a", "b"], 2)
    assert page(2, 2) == (["c"], None)
    assert page(3, 0) == (["a", "b", "c"], 3)
    assert page(9, 9) == ([], None)
    await house.close()


# How a version is served


DEFAULTS = VersionConfig(
    min_workers=2, max_workers=2, batch_size=4, max_batch_delay=0.1, queue_size=50, gpu_ids=(0, 1)
)


def resolved(config=(), defaults=DEFAULTS, precedence=REGISTRATION_FIRST, **options):
    return resolve(defaults, archive(**dict(config)), Registration("x", **options), precedence)


def test_what_nobody_says_is_as_the_settings_have_it():
    config = resolved()

    assert (config.min_workers, config.max_workers, config.batch_size, config.max_batch_delay) == (2, 2, 4, 0.1)
    assert (config.queue_size, config.handler, config.gpu_ids) == (50, "service.py", (0, 1))


def test_a_registration_wins_over_the_archive_and_that_over_the_settings():
    model_config = {"batchSize": 8, "maxBatchDelay": 50, "minWorkers": 3, "responseTimeout": 7, "jobQueueSize": 9}

    of_archive = resolved(model_config)
    assert (of_archive.batch_size, of_archive.max_batch_delay, of_archive.min_workers) == (8, 0.05, 3)
    assert (of_archive.response_timeout, of_archive.queue_size) == (7.0, 9)

    of_registration = resolved(
        model_config, batch_size=16, max_batch_delay=0.0, initial_workers=0, response_timeout=2.0, handler="other.py"
    )
    assert (of_registration.batch_size, of_registration.max_batch_delay, of_registration.min_workers) == (16, 0.0, 0)
    assert (of_registration.response_timeout, of_registration.handler) == (2.0, "other.py")


ARCHIVE_FIRST = Precedence(archive_sets_workers=True, archive_sets_timeouts=True)


@pytest.mark.parametrize(
    ("config", "workers"),
    [
        ({}, (5, 5)),
        ({"minWorkers": 1, "maxWorkers": 3}, (1, 3)),
        ({"minWorkers": 1}, (5, 5)),
        ({"maxWorkers": 3}, (5, 5)),
        ({"minWorkers": 3, "maxWorkers": 1}, (5, 5)),
        ({"minWorkers": -1, "maxWorkers": 2}, (1, 2)),
        ({"minWorkers": 0, "maxWorkers": 2}, (1, 2)),
        ({"minWorkers": 0}, (5, 5)),
        ({"minWorkers": True, "maxWorkers": 2}, (5, 5)),
    ],
)
def test_workers_of_an_archive_count_as_a_pair_where_they_are_stronger(caplog, config, workers):
    found = resolved(config, precedence=ARCHIVE_FIRST, initial_workers=5)

    assert (found.min_workers, found.max_workers) == workers
    assert ("have no effect" in caplog.text) == (bool(config) and workers == (5, 5))
    assert (f"minWorkers is {config.get('minWorkers')}; 1 counts" in caplog.text) == (
        type(config.get("minWorkers")) is int and config["minWorkers"] < 1
    )


def test_odd_numbers_count_as_torchserve_has_them_where_they_are_taken(caplog):
    lenient = Precedence(takes_odd_numbers=True)

    assert resolved({"maxBatchDelay": 0}).max_batch_delay == 0.0
    assert caplog.text == ""
    assert resolved({"maxBatchDelay": 0}, precedence=lenient).max_batch_delay == 0.1
    assert resolved({"maxBatchDelay": 0}, precedence=lenient, max_batch_delay=0.0).max_batch_delay == 0.0
    assert "maxBatchDelay is 0, which stands for the default; 100 counts" in caplog.text
    for given in ({"config": {"batchSize": 1_000_000}}, {"batch_size": 1_000_000}):
        with pytest.raises(BadRequest, match="batch size of 1000000 is too large"):
            resolved(**given)
        assert resolved(**given, precedence=lenient).batch_size == 65_535
    assert "a batch size of 1000000 is too large; the most, 65535, counts" in caplog.text


def test_timeouts_of_an_archive_that_names_them_may_be_stronger():
    asked = {"response_timeout": 2.0, "startup_timeout": 3.0, "precedence": ARCHIVE_FIRST}

    named = resolved({"responseTimeout": 7, "startupTimeout": 8}, **asked)
    unnamed = resolved({"batchSize": 8}, **asked)

    assert (named.response_timeout, named.startup_timeout) == (7.0, 8.0)
    assert (unnamed.response_timeout, unnamed.startup_timeout) == (2.0, 3.0)


def test_keys_of_an_archive_alone():
    config = resolved({"maxRetryTimeoutInSec": 17, "clientTimeoutInMills": 1500, "useJobTicket": True})

    assert (config.retry_timeout, config.client_timeout, config.has_job_tickets) == (17.0, 1.5, True)


def test_timeouts_may_be_shorter_than_a_second():
    assert resolved({"responseTimeout": 0.5, "startupTimeout": 0.25}).response_timeout == 0.5


def test_there_are_never_fewer_workers_at_most_than_at_least():
    assert resolved({"minWorkers": 3, "maxWorkers": 1}).max_workers == 3
    assert resolved({"minWorkers": 1, "maxWorkers": 4}).max_workers == 4


def test_an_archive_may_keep_to_the_cpu_or_to_some_devices():
    assert resolved({"deviceType": "cpu"}).gpu_ids == ()
    assert resolved({"deviceType": "CPU"}).gpu_ids == ()
    assert resolved({"deviceIds": [1]}).gpu_ids == (1,)
    assert resolved({"deviceType": "gpu", "deviceIds": [1, 0]}).gpu_ids == (1, 0)


def test_one_gpu_that_is_not_there_discards_the_list(caplog):
    assert resolved({"deviceIds": [1, 7]}).gpu_ids == (0, 1)
    assert "there is no GPU 7 here (there are: 0, 1)" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batchSize", 0),
        ("batchSize", -1),
        ("batchSize", 2.5),
        ("batchSize", True),
        ("batchSize", "8"),
        ("minWorkers", -1),
        ("maxBatchDelay", -5),
        ("maxBatchDelay", float("nan")),
        ("responseTimeout", 0),
        ("startupTimeout", 0),
        ("jobQueueSize", 0),
        ("jobQueueSize", [1]),
        ("maxRetryTimeoutInSec", "x"),
        ("clientTimeoutInMills", -1),
        ("useJobTicket", "yes"),
        ("useJobTicket", 1),
        ("workerStart", "thread"),
        ("deviceType", "tpu"),
        ("deviceIds", 3),
        ("deviceIds", ["0"]),
        ("deviceIds", [True]),
    ],
)
def test_what_makes_no_sense_in_an_archive_is_told_and_does_not_count(caplog, key, value):
    assert resolved({key: value}) == resolved()
    assert f"{key} is {value!r}" in caplog.text


@in_fake_time
async def test_an_archive_may_have_its_workers_forked(clock, bench):
    house = bench(script=Script(connects=False))
    house.stock("digits.mar", workerStart="fork")

    await house.management.register(wanted(initial_workers=2), wait=False)

    assert [process.launch.program for process in house.starter.processes] == [PARENT]
    await house.close()


@in_fake_time
async def test_workers_with_gpus_are_spawned_and_the_log_says_so(clock, bench, caplog):
    house = bench(script=Script(connects=False), gpu_ids=(0, 1))
    caplog.set_level(logging.INFO, "marserve.pool")
    house.stock("digits.mar", workerStart="fork")

    await house.management.register(wanted(initial_workers=2), wait=False)

    assert [process.launch.program for process in house.starter.processes] == [WORKER] * 2
    assert "digits:1.0: its workers are spawned" in caplog.text
    await house.close()


@in_fake_time
async def test_workers_are_given_devices_in_turn(clock, bench):
    house = bench(gpu_ids=(0, 1))

    await house.management.register(wanted(initial_workers=3), wait=True)

    assert [process.worker.told["gpu_id"] for process in house.starter.processes] == [0, 1, 0]

    house.starter.processes[1].end(Exit(None, 9))
    await house.registry.find("digits", None).pool.wait_until(lambda: len(house.starter.processes) == 4)
    await settle()

    assert house.starter.worker(3).told["gpu_id"] == 1, "who is replaced leaves its device to who replaces it"
    await house.close()


@in_fake_time
async def test_a_client_s_patience_shortens_the_deadline_of_its_jobs(clock, bench):
    house = bench()
    house.stock("digits.mar", clientTimeoutInMills=1500)
    await house.management.register(wanted(), wait=True)

    reply = house.predict()

    assert reply.job.deadline - reply.job.arrived == pytest.approx(1.5)
    await house.close()


@in_fake_time
async def test_what_an_archive_asks_for_in_vain_is_told(clock, bench, caplog):
    house = bench()
    caplog.set_level(logging.WARNING, "marserve")
    told = house.stock("vain", minWorkers=0, sequenceBatching=True, useVenv=False)

    await house.management.register(Registration(told, "vain"), wait=True)

    assert "sequenceBatching has no effect: requests are not kept in sequences" in caplog.text
    assert "useVenv" not in caplog.text
    await house.close()


@in_fake_time
async def test_a_runtime_that_no_worker_can_be_is_refused(clock, bench):
    house = bench()
    told = house.stock("old", minWorkers=0)

    with pytest.raises(BadRequest, match="runtime python2"):
        await house.management.register(Registration(told, "old", runtime="python2"), wait=True)
    await house.close()


@in_fake_time
async def test_where_a_model_has_no_versions_its_name_is_taken(clock, bench):
    house = bench(management={"has_versions": False})
    house.stock("a.mar", name="m")
    house.stock("b.mar", name="m", version="2.0")
    await house.management.register(wanted("a.mar", initial_workers=0), wait=True)

    with pytest.raises(Conflict, match="Model m is already registered"):
        await house.management.register(wanted("b.mar", initial_workers=0), wait=True)
    await house.close()


@in_fake_time
async def test_a_registration_says_whether_its_workers_are_forked(clock, bench):
    house = bench()
    house.stock("a.mar", name="m")

    for number, (asked, how) in enumerate(((True, "fork"), (False, "spawn"), (None, "spawn"))):
        told = wanted("a.mar", model_name=f"m{number}", initial_workers=0, is_preloaded=asked)
        version = await house.management.register(told, wait=True)
        assert version.config.worker_start == how
    await house.close()


# Routes


@in_fake_time
async def test_a_route_that_another_model_has_is_refused_and_nothing_is_left(clock, bench, own):
    house = bench()
    house.stock("first.mar", name="first", routes=["POST /x"])
    house.stock("second.mar", name="second", own_folder=str(own), routes=["POST /y", "POST /x"])
    await house.management.register(wanted("first.mar"), wait=True)

    with pytest.raises(Conflict, match="one of model first already"):
        await house.management.register(wanted("second.mar"), wait=True)

    assert list(house.registry.models) == ["first"]
    assert len(house.starter.processes) == 1
    assert not own.exists()
    assert not house.inference.methods_at(("y",))

    await house.management.unregister("first", None)
    own.mkdir()
    await house.management.register(wanted("second.mar"), wait=True)
    assert dict(house.inference.methods_at(("x",))) == {"POST": "second"}
    await house.close()


@pytest.mark.parametrize("routes", [["POST /models"], ["anything"], "POST /x"])
@in_fake_time
async def test_a_route_that_cannot_be_is_refused_and_nothing_is_left(clock, bench, routes):
    house = bench()
    house.stock("routed.mar", name="routed", routes=routes)

    with pytest.raises(BadRequest, match=r"model-config\.yaml: routes"):
        await house.management.register(wanted("routed.mar"), wait=True)

    assert (house.registry.models, house.starter.processes) == ({}, [])
    await house.close()


@in_fake_time
async def test_a_model_that_does_not_load_leaves_its_routes_to_others(clock, bench):
    house = bench(script=FAILS)
    house.stock("routed.mar", name="routed", routes=["POST /x"])

    with pytest.raises(LoadError):
        await house.management.register(wanted("routed.mar"), wait=True)

    assert not house.inference.methods_at(("x",))
    await house.close()


@in_fake_time
async def test_a_new_version_takes_the_routes_over(clock, bench):
    house = bench()
    house.stock("old.mar", name="routed", version="1.0", routes=["POST /x"])
    house.stock("new.mar", name="routed", version="2.0", routes=["POST /x/"])
    for location in ("old.mar", "new.mar"):
        await house.management.register(wanted(location), wait=True)

    await house.management.set_default("routed", "2.0")
    await house.management.unregister("routed", "1.0")

    assert dict(house.inference.methods_at(("x",))) == {"POST": "routed"}
    await house.close()


def test_in_the_old_dialects_routes_have_no_effect_and_the_log_says_so(caplog):
    found = resolved({"routes": ["POST /models"]}, precedence=Precedence(has_routes=False))

    assert found.routes == ()
    assert "routes has no effect: only marserve's own dialect" in caplog.text
