"""What is written down of a registry, and when."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from served_fakes import FakeManagement, FakeVersion, archive_of

from marserve.config.loading import load_settings
from marserve.config.properties import parse
from marserve.config.snapshot_files import newest
from marserve.config.versions import VersionEntry
from marserve.models.model import VersionConfig
from marserve.models.registry import Registry
from marserve.planes import snapshots as module
from marserve.planes.resolving import Registration
from marserve.planes.snapshots import Snapshots, entry
from marserve.planes.startup import remembered


@pytest.fixture
def registry() -> Registry:
    return Registry()


def add(registry: Registry, name: str, version: str = "1.0", location: str = "", **config: object) -> FakeVersion:
    archive = archive_of(location or f"{name}.mar", version)
    made = FakeVersion(name, version, archive, replace(VersionConfig(handler="service"), **config))  # type: ignore[arg-type]
    registry.add(made)
    return made


def newest_of(folder: Path) -> dict[str, str]:
    path = newest(folder)
    assert path is not None
    return {key: value.value for key, value in parse(path.read_text()).items()}


def test_each_occasion_has_its_file(tmp_path: Path, registry: Registry) -> None:
    snapshots = Snapshots(tmp_path / "config", [], registry)

    async def story() -> None:
        await snapshots.begin()
        await snapshots.changed()
        await snapshots.end()

    asyncio.run(story())
    assert [path.name[18:] for path in sorted((tmp_path / "config").iterdir())] == [
        "startup.cfg",
        "snapshot.cfg",
        "shutdown.cfg",
    ]


def test_before_the_start_up_is_done_and_after_the_end_nothing_is_written(tmp_path: Path, registry: Registry) -> None:
    # A server that is stopped while it loads would else forget the models that it had not come to.
    snapshots = Snapshots(tmp_path, [], registry)

    async def story() -> None:
        await snapshots.changed()
        await snapshots.end()

    asyncio.run(story())
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_has_the_settings_as_they_were_written_and_what_is_served(
    tmp_path: Path, registry: Registry
) -> None:
    add(registry, "a", min_workers=2, max_workers=3, batch_size=4, max_batch_delay=0.05, response_timeout=60.0)
    add(registry, "a", "2.0", location="a2.mar")
    registry.set_default("a", "2.0")
    written = [("job_queue_size", "7"), ("load_models", "all"), ("own", "ä: b"), ("model_snapshot", "{}")]
    asyncio.run(Snapshots(tmp_path, written, registry).begin())

    found = newest_of(tmp_path)
    snapshot = json.loads(found.pop("model_snapshot"))
    assert found == {"job_queue_size": "7", "own": "ä: b"}
    assert snapshot.pop("created") > 0
    assert snapshot.pop("name") == next(tmp_path.iterdir()).name
    assert snapshot == {
        "modelCount": 2,
        "models": {
            "a": {
                "1.0": {
                    "defaultVersion": False,
                    "marName": "a.mar",
                    "minWorkers": 2,
                    "maxWorkers": 3,
                    "batchSize": 4,
                    "maxBatchDelay": 50,
                    "responseTimeout": 60,
                    "startupTimeout": 120,
                    "runtimeType": "python",
                },
                "2.0": {
                    "defaultVersion": True,
                    "marName": "a2.mar",
                    "minWorkers": 1,
                    "maxWorkers": 1,
                    "batchSize": 1,
                    "maxBatchDelay": 0,
                    "responseTimeout": 120,
                    "startupTimeout": 120,
                    "runtimeType": "python",
                },
            }
        },
    }


def test_a_start_with_a_snapshot_asks_for_what_was_served(tmp_path: Path, registry: Registry) -> None:
    first = add(registry, "a", min_workers=0, max_workers=0, max_batch_delay=0.05)
    second = add(registry, "b", handler="other:function")
    config = tmp_path / "first.properties"
    config.write_text("log_level=debug\nload_models=all\nmodel_store=store\nspare=1\n")
    settings = load_settings(config, {"snapshots": "true"}, "torchserve").settings
    asyncio.run(Snapshots(tmp_path, settings.written, registry).begin())

    loaded = load_settings(newest(tmp_path), {}, "torchserve")
    assert loaded.settings.model_snapshot == (entry(first, True), entry(second, True))
    assert (loaded.settings.log_level, loaded.settings.load_models) == ("debug", ())
    registrations = remembered(loaded.settings.model_snapshot)
    assert [(one.model_name, one.location, one.handler, one.initial_workers) for one in registrations] == [
        ("a", "a.mar", None, 0),
        ("b", "b.mar", "other:function", 1),
    ]


def test_what_could_not_be_loaded_is_kept_until_it_is_there(tmp_path: Path, registry: Registry) -> None:
    snapshots = Snapshots(tmp_path, [], registry)
    snapshots.unloaded = [VersionEntry("gone", "1.0", archive="gone.mar", min_workers=1)]
    asyncio.run(snapshots.begin())
    assert json.loads(newest_of(tmp_path)["model_snapshot"])["models"]["gone"]["1.0"]["marName"] == "gone.mar"
    add(registry, "gone", location="back.mar")
    asyncio.run(snapshots.changed())
    assert json.loads(newest_of(tmp_path)["model_snapshot"])["models"]["gone"]["1.0"]["marName"] == "back.mar"


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("folder/a.mar", "folder/a.mar"),
        ("file:///folder/a.mar", "file:///folder/a.mar"),
        ("https://host/folder/a%20b.mar?key=1", "a b.mar"),
    ],
)
def test_a_download_is_found_again_in_the_store(registry: Registry, location: str, name: str) -> None:
    assert entry(add(registry, "a", location=location), True).archive == name


def test_a_folder_that_cannot_be_written_is_told_once_and_raises_nothing(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "marserve")
    snapshots = Snapshots(tmp_path / "config", [], registry)
    write = module.write

    def refuse(*_: object) -> Path:
        raise OSError(30, "Read-only file system")

    async def story() -> None:
        monkeypatch.setattr(module, "write", refuse)
        await snapshots.begin()
        await snapshots.changed()
        monkeypatch.setattr(module, "write", write)
        await snapshots.changed()
        monkeypatch.setattr(module, "write", refuse)
        await snapshots.end()

    asyncio.run(story())
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith(f"No snapshot can be written to {tmp_path / 'config'} (Read-only file system): ")
    assert [path.name[18:] for path in (tmp_path / "config").iterdir()] == ["snapshot.cfg"]


def test_changes_at_once_are_written_one_by_one(tmp_path: Path, registry: Registry) -> None:
    snapshots = Snapshots(tmp_path, [], registry)
    snapshots.is_open = True

    async def story() -> None:
        await asyncio.gather(*(snapshots.changed() for _ in range(5)))

    asyncio.run(story())
    assert len(list(tmp_path.glob("*-snapshot.cfg"))) == 5


def test_every_change_that_somebody_asks_for_is_written(registry: Registry) -> None:
    management = FakeManagement(registry)
    seen: list[list[tuple[str, int, bool]]] = []

    async def note() -> None:
        seen.append(
            [
                (version.version, version.config.min_workers, registry.models[version.name].default is version)
                for version in registry
            ]
        )

    async def story() -> None:
        management.on_change = note
        await management.register(Registration("m.mar"), wait=True)
        management.version = "2.0"
        await management.register(Registration("m.mar"), wait=True)
        await management.scale("m", "1.0", 3, 3, wait=True)
        await management.set_default("m", "2.0")
        await management.unregister("m", "1.0")

    asyncio.run(story())
    assert seen == [
        [("1.0", 1, True)],
        [("1.0", 1, True), ("2.0", 1, False)],
        [("1.0", 3, True), ("2.0", 1, False)],
        [("1.0", 3, False), ("2.0", 1, True)],
        [("2.0", 1, True)],
    ]
