"""What is loaded at start, over fake workers on a fake clock."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from plane_bench import PlaneBench, archive
from pool_bench import TIMED

from marserve.config.kinds import ModelChoice
from marserve.config.versions import VersionEntry
from marserve.models.model import VersionConfig
from marserve.planes.resolving import Precedence, Registration, resolve, restored
from marserve.planes.startup import chosen, load, remembered
from marserve.testing import FakeClock, in_fake_time


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


def entry(model, location, *, version="1.0", is_default=False, **told):
    return VersionEntry(model, version, is_default, location, **{"min_workers": 1, "max_workers": 1, **told})


def test_what_load_models_names(tmp_path: Path) -> None:
    for name in ("b.mar", "a.model", "c.tar.gz", "notes.txt", ".hidden.mar"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    every = [Registration("a.model"), Registration("b.mar"), Registration("c.tar.gz"), Registration("folder")]
    assert chosen([ModelChoice("", "all")], tmp_path) == every
    assert chosen([ModelChoice("m", "b.mar"), ModelChoice("", "folder")], None) == [
        Registration("b.mar", "m"),
        Registration("folder"),
    ]
    # Beside others, "all" is a name as any other, and what has no location is nothing.
    beside = [ModelChoice("", "all"), ModelChoice("m", "all"), ModelChoice("junk", "")]
    assert chosen(beside, tmp_path) == [Registration("all"), Registration("all", "m")]
    assert chosen([ModelChoice("m", "all")], tmp_path) == [Registration("all", "m")]


@in_fake_time
async def test_one_that_cannot_be_loaded_keeps_the_others_from_nothing(clock, bench):
    house = bench()

    unloaded = await load(
        [Registration("nowhere.mar"), Registration("fizbuz.mar")], house.management, house.inference
    )

    assert list(house.registry.models) == ["fizbuz"]
    assert list(house.inference.startup_failures) == ["nowhere.mar"]
    assert unloaded == []
    await house.close()


@in_fake_time
async def test_the_first_that_is_named_is_the_default_however_long_it_takes(clock, bench):
    house = bench()
    house.stock("old.mar", version="1.0")

    await load([Registration("digits.mar"), Registration("old.mar")], house.management, house.inference)
    assert house.registry.find("digits", None).version == "2.0"
    await house.close()


@in_fake_time
async def test_a_snapshot_brings_back_versions_and_the_default(clock, bench):
    house = bench()
    house.stock("old.mar", version="1.0", minWorkers=5, batchSize=64, responseTimeout=7)
    entries = [
        entry("digits", "old.mar", batch_size=8, max_batch_delay=0.0, response_timeout=60.0),
        entry("digits", "digits.mar", version="2.0", is_default=True, min_workers=0, max_workers=0),
    ]

    assert await load(remembered(entries), house.management, house.inference) == []

    assert house.registry.find("digits", None).version == "2.0"
    config = house.registry.find("digits", "1.0").config
    assert (config.min_workers, config.batch_size, config.max_batch_delay) == (1, 8, 0.0)
    assert config.response_timeout == 60.0
    assert house.registry.find("digits", "2.0").config.min_workers == 0
    await house.close()


@in_fake_time
async def test_what_a_snapshot_had_and_is_not_there_is_returned(clock, bench):
    house = bench()
    gone = entry("gone", "gone.mar")

    assert await load(remembered([gone]), house.management, house.inference) == [gone]

    assert list(house.inference.startup_failures) == ["gone"]
    await house.close()


@in_fake_time
async def test_a_bug_in_one_does_not_end_the_start_up(clock, bench, monkeypatch):
    house = bench()
    monkeypatch.setattr(house, "store", {"fizbuz.mar": house.store["fizbuz.mar"], "digits.mar": None})

    await load([Registration("digits.mar"), Registration("fizbuz.mar")], house.management, house.inference)

    assert list(house.registry.models) == ["fizbuz"]
    assert house.inference.startup_failures["digits.mar"].startswith("AttributeError: ")
    await house.close()


@in_fake_time
async def test_the_settings_of_single_versions_count_at_start_and_later(clock, bench):
    told = VersionEntry("digits", "2.0", batch_size=8, min_workers=2, max_workers=4)
    house = bench(management={"parameters": (told,), "startup_workers": 3})

    version = await house.management.register(Registration("digits.mar"), wait=True)
    other = await house.management.register(Registration("fizbuz.mar"), wait=True, at_startup=True)

    assert (version.config.batch_size, version.config.min_workers, version.config.max_workers) == (8, 2, 4)
    assert (other.config.batch_size, other.config.min_workers) == (1, 3)
    await house.close()


@in_fake_time
async def test_in_an_old_dialect_their_workers_count_at_start_alone(clock, bench):
    told = (VersionEntry("digits", "2.0", batch_size=8, min_workers=2, max_workers=4),)
    told += (VersionEntry("fizbuz", "1.0", min_workers=2, max_workers=4),)
    house = bench(management={"parameters": told, "precedence": Precedence(registration_sets_workers=True)})

    later = (await house.management.register(Registration("digits.mar"), wait=True)).config
    first = (await house.management.register(Registration("fizbuz.mar"), wait=True, at_startup=True)).config

    assert (later.batch_size, later.min_workers, later.max_workers) == (8, 1, 1)
    assert (first.min_workers, first.max_workers) == (2, 4)
    await house.close()


def test_the_settings_of_a_version_stand_between_its_model_config_and_the_defaults():
    told = VersionEntry("m", "1.0", batch_size=8, max_batch_delay=0.5, response_timeout=9.0, runtime="python3")
    defaults = VersionConfig(batch_size=2, max_batch_delay=0.1)
    config = resolve(defaults, archive(batchSize=4), Registration("m.mar", max_batch_delay=0.2), told=told)
    assert (config.batch_size, config.max_batch_delay, config.response_timeout) == (4, 0.2, 9.0)
    assert config.runtime == "python3"


def test_where_the_archive_sets_the_timeouts_the_settings_of_a_version_do_too():
    told, wanted = VersionEntry("m", "1.0", response_timeout=9.0), Registration("m.mar", response_timeout=5.0)
    strong = Precedence(archive_sets_timeouts=True)
    assert resolve(VersionConfig(), archive(), wanted, told=told).response_timeout == 5.0
    assert resolve(VersionConfig(), archive(), wanted, strong, told).response_timeout == 9.0
    assert resolve(VersionConfig(), archive(responseTimeout=7), wanted, strong, told).response_timeout == 7.0


def test_an_archive_without_a_handler_gets_that_of_the_settings():
    config = resolve(VersionConfig(handler="own:handle"), archive(handler=""), Registration("m.mar"))
    assert config.handler == "own:handle"
    assert resolve(VersionConfig(handler="own:handle"), archive(), Registration("m.mar")).handler == "service.py"


def test_what_is_restored_is_whole():
    config = restored(VersionConfig(), VersionEntry("m", "1.0", min_workers=3, max_workers=1))
    assert (config.min_workers, config.max_workers) == (3, 3)
