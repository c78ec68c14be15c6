"""Rows B9 and L9: what is served is written down, and read at the next start."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from marserve.config.properties import dump, parse
from rows import House, Product, Running

CODE = """\
def handle(data, context):
    return [context.manifest["model"]["modelVersion"] for _ in data] if data else None
"""
#: Neither --ncs nor a file: what was written down counts.
FLAGS = ("--dt", "--enable-model-api")
NO_FILE = Path(os.devnull)
MEMBERS = {
    "defaultVersion": True,
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 4,
    "maxBatchDelay": 50,
    "responseTimeout": 60,
    "startupTimeout": 70,
    "runtimeType": "python",
}


def files(house: House) -> list[str]:
    """Return the names of the snapshots, oldest first."""
    return sorted(path.name for path in (house.folder / "logs" / "config").glob("*.cfg"))


def occasions(house: House) -> list[str]:
    """Return what the snapshots were written for, oldest first."""
    names = files(house)
    assert all(re.fullmatch(r"\d{17}-[a-z]+\.cfg", name) for name in names)
    return [name[18:-4] for name in names]


def newest(house: House) -> dict[str, str]:
    """Return keys and values of the newest snapshot."""
    text = (house.folder / "logs" / "config" / files(house)[-1]).read_text(encoding="utf-8")
    return {key: entry.value for key, entry in parse(text).items()}


def put(house: House, models: object, *, text: str = "", count: int = 1) -> dict[str, int]:
    """Write a snapshot; return the ports of the server that it describes."""
    doors, settings = house.settings({"model_store": str(house.store)})
    snapshot = {"name": "20260131120000000-shutdown.cfg", "modelCount": count, "created": 1, "models": models}
    folder = house.folder / "logs" / "config"
    folder.mkdir(parents=True)
    content = text or dump([("model_snapshot", json.dumps(snapshot))])
    file = folder / "20260131120000000-shutdown.cfg"
    file.write_text(dump(settings.items()) + content)
    file.chmod(0o444)
    return doors


def restored(house: House, doors: dict[str, int], *models: str, flags: tuple[str, ...] = FLAGS) -> Running:
    """Start without a file; what is read has these ports."""
    server = house.launch(*models, config=NO_FILE, flags=flags)
    server.doors = doors
    server.wait_for_line("Model server started.")
    return server


@pytest.mark.row("L9")
def test_three_kinds_are_written_and_bring_back_what_was_served(house: House, product: Product) -> None:
    house.archive("a", CODE)
    house.archive("a", CODE, version="2.0", file="a2.mar")
    house.archive("b", CODE)
    server = house.start("a.mar", "b.mar", flags=FLAGS, settings={"job_queue_size": "7", "own_key": "a: b = c"})
    assert occasions(house) == ["startup"]
    assert server.describe("a")["loadedAtStartup"] is True
    found = newest(house)
    assert (found["job_queue_size"], found["own_key"]) == ("7", "a: b = c")
    snapshot = json.loads(found["model_snapshot"])
    assert sorted(snapshot) == ["created", "modelCount", "models", "name"]
    assert (snapshot["modelCount"], snapshot["name"]) == (2, files(house)[0])
    assert snapshot["models"]["a"]["1.0"] == {
        "defaultVersion": True,
        "marName": "a.mar",
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "maxBatchDelay": 100,
        "responseTimeout": 120,
        "startupTimeout": 120,
        "runtimeType": "python",
    }

    server.manage("POST", "/models?url=a2.mar&initial_workers=1&synchronous=true&batch_size=3")
    assert json.loads(newest(house)["model_snapshot"])["modelCount"] == 3, "each version counts"
    server.manage("PUT", "/models/a/2.0?min_worker=2&max_worker=2&synchronous=true")
    server.manage("PUT", "/models/a/2.0/set-default")
    server.manage("DELETE", "/models/b")
    assert occasions(house) == ["startup", *["snapshot"] * 4]
    server.end()
    assert occasions(house)[-1] == "shutdown"

    again = restored(house, server.doors)
    assert [model["modelName"] for model in again.manage("GET", "/models").json()["models"]] == ["a"]
    assert again.manage("GET", "/models/a").json()[0]["modelVersion"] == "2.0"
    again.wait_for_workers("a", 2)
    entry = again.describe("a")
    assert (entry["batchSize"], entry["loadedAtStartup"]) == (3, False)
    assert again.ask("/predictions/a", b"x").text == "2.0"
    assert again.ask("/predictions/a/1.0", b"x").text == "1.0"
    assert occasions(house)[-2:] == ["shutdown", "startup"]
    assert newest(house)["own_key"] == "a: b = c"


#: A snapshot of the original and one of ours, of the same model; each of the two servers reads both.
GENUINE = r"""model_snapshot={\n  "name"\: "20260131120000000-shutdown.cfg",\n  "modelCount"\: 1,\n  \
"created"\: 1,\n  "models"\: {\n    "a"\: {\n      "1.0"\: {\n        \
"defaultVersion"\: true,\n        "marName"\: "a.mar",\n        \
"minWorkers"\: 1,\n        "maxWorkers"\: 1,\n        "batchSize"\: 4,\n        "maxBatchDelay"\: 50,\n        \
"responseTimeout"\: 60,\n        "startupTimeout"\: 70,\n        "runtimeType"\: "python"\n      }\n    }\n  }\n}
version=0.12.0
tsConfigFile=config.properties
python=/usr/bin/python
own_key=é
"""
OURS = r"""own_key=\u00e9
model_snapshot={"name"\: "20260131120000000-shutdown.cfg", "modelCount"\: 1, "created"\: 1, \
"models"\: {"a"\: {"1.0"\: \
{"defaultVersion"\: true, "marName"\: "a.mar", "minWorkers"\: 1, "maxWorkers"\: 1, "batchSize"\: 4, \
"maxBatchDelay"\: 50, "responseTimeout"\: 60, "startupTimeout"\: 70, "runtimeType"\: "python"}}}}
"""


@pytest.mark.row("L9")
@pytest.mark.parametrize("text", [GENUINE, OURS], ids=["theirs", "ours"])
def test_a_read_only_snapshot_of_either_server_counts(house: House, text: str) -> None:
    house.archive("a", CODE, config="batchSize: 9\nminWorkers: 2\nmaxWorkers: 2\n")
    house.archive("other", CODE)
    server = restored(house, put(house, None, text=text), "other.mar")
    assert [model["modelName"] for model in server.manage("GET", "/models").json()["models"]] == ["a"]
    entry = server.describe("a")
    keys = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")
    assert [entry[key] for key in keys] == [1, 1, 4, 50, 60, 70]


@pytest.mark.row("L9")
def test_optional_members_may_be_missing_and_a_junk_archive_stops_nothing(house: House) -> None:
    house.archive("a", CODE)
    (house.store / "junk.mar").write_text("no archive")
    told = {key: MEMBERS[key] for key in ("defaultVersion", "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay")}
    models = {
        "junk": {"1.0": {**told, "marName": "junk.mar"}},
        "renamed": {"1.0": {**told, "marName": "a.mar"}},
    }
    server = restored(house, put(house, models, count=2))
    assert server.describe("renamed")["responseTimeout"] == 120
    assert server.ask("/predictions/renamed", b"x").text == "1.0"
    assert "junk" in json.loads(newest(house)["model_snapshot"])["models"]


@pytest.mark.row("L9")
def test_a_missing_archive_stops_the_start(house: House, product: Product) -> None:
    put(house, {"gone": {"1.0": {**MEMBERS, "marName": "gone.mar"}}})
    told = product.run(house.folder, "torchserve", "--start", "--foreground", "--model-store", "store", *FLAGS)
    assert "Model archive file for model gone, version 1.0 not found in model store" in told.stdout
    assert "Model server started." not in told.stdout
    assert told.returncode == (0 if product.is_genuine else 1)


@pytest.mark.row("L9")
def test_a_missing_member_stops_the_start(house: House, product: Product) -> None:
    house.archive("a", CODE)
    put(house, {"a": {"1.0": {"marName": "a.mar", "defaultVersion": True}}})
    told = product.run(house.folder, "torchserve", "--start", "--foreground", "--model-store", "store", *FLAGS)
    assert "Model server started." not in told.stdout
    if not product.is_genuine:
        assert "has no minWorkers and no maxWorkers" in told.stdout


@pytest.mark.row("B9")
def test_with_ncs_none_is_read_and_none_is_written(house: House) -> None:
    house.archive("a", CODE)
    house.archive("other", CODE)
    put(house, {"a": {"1.0": {**MEMBERS, "marName": "a.mar"}}})
    doors, settings = house.settings()
    (house.folder / "config.properties").write_text(dump(settings.items()))
    server = restored(house, doors, "other.mar", flags=("--no-config-snapshots", *FLAGS))
    assert [model["modelName"] for model in server.manage("GET", "/models").json()["models"]] == ["other"]
    server.manage("PUT", "/models/other?min_worker=2&synchronous=true")
    server.end()
    assert occasions(house) == ["shutdown"]


@pytest.mark.row("L9")
def test_a_snapshot_in_a_named_file_counts_and_none_needs_to_be_written(house: House) -> None:
    # As KServe gives it: in the configuration itself, in a container where nothing can be written.
    house.archive("a", CODE)
    (house.folder / "blocked").write_text("no folder")
    snapshot = {"name": "startup.cfg", "modelCount": 1, "models": {"a": {"1.0": {**MEMBERS, "marName": "a.mar"}}}}
    settings = {"model_snapshot": json.dumps(snapshot), "load_models": "all"}
    environment = {"LOG_LOCATION": str(house.folder / "blocked"), "METRICS_LOCATION": str(house.folder)}
    server = house.start(settings=settings, flags=FLAGS, environment=environment)
    assert server.describe("a")["batchSize"] == 4
    answer = server.manage("PUT", "/models/a?min_worker=2&synchronous=true")
    assert answer.json() == {"status": "Workers scaled to 2 for model: a"}
