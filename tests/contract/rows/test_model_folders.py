"""Rows B8, C6, D1, D2 and H12: what is loaded at start, and the folder that each registration has for itself."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from pairs import until
from rows import House, Product, Running

#: Writes into its folder, as handlers do that unpack weights or keep a cache.
WRITES = """
import json
import os


class Service:
    def initialize(self, context):
        self.folder = context.system_properties["model_dir"]
        with open(os.path.join(self.folder, "state.txt"), "a") as state:
            state.write("x")

    def handle(self, data, context):
        with open("state.txt") as state:
            return [json.dumps([state.read(), self.folder])]
"""
FAILS = "def initialize(context):\n    raise ValueError('never')\n\n\nhandle = None\n"


@pytest.fixture(scope="module")
def server(shared_house: House) -> Running:
    """Return a server that was told to load what is there among what is not."""
    house = shared_house
    house.archive("writes", WRITES, files={"state.txt": "orig"})
    house.archive("spaced", WRITES, file="my archive.mar", files={"state.txt": "orig"})
    house.archive("archive", WRITES, files={"state.txt": "wrong"})
    return house.start("one=writes.mar", "two=writes.mar", "my archive.mar", "junk=", "all", "nowhere.mar")


def told(server: Running, model: str) -> tuple[str, Path]:
    """Return what a model finds in its folder, and the folder."""
    answer = server.ask(f"/predictions/{model}", b"x")
    assert answer.status == 200, answer.text
    state, folder = json.loads(answer.text)
    return state, Path(folder)


@pytest.mark.row("B8")
@pytest.mark.row("C6")
def test_names_may_hold_blanks_and_what_cannot_be_loaded_stops_no_start(server: Running) -> None:
    models = server.manage("GET", "/models").json()["models"]

    assert [(model["modelName"], model["modelUrl"]) for model in models] == [
        ("one", "writes.mar"),
        ("spaced", "my archive.mar"),
        ("two", "writes.mar"),
    ]
    assert told(server, "spaced")[0] == "origx"


@pytest.mark.row("H12")
def test_each_registration_has_a_folder_of_its_own(server: Running, product: Product) -> None:
    (first, one), (second, two) = told(server, "one"), told(server, "two")

    assert (first, second) == ("origx", "origx")
    assert one != two
    assert one.parent == two.parent
    before = {path.name for path in one.parent.iterdir()}
    server.house.archive("fails", FAILS)
    assert server.manage("POST", "/models?url=fails.mar&initial_workers=1&synchronous=true").status == 500
    assert server.manage("POST", "/models?url=writes.mar&model_name=one").status == 409
    if not product.is_genuine:  # which keeps both
        assert {path.name for path in one.parent.iterdir()} == before

    assert server.manage("DELETE", "/models/one").status == 200
    assert not one.exists()
    assert told(server, "two") == ("origx", two)
    server.manage("POST", "/models?url=writes.mar&model_name=one&initial_workers=1&synchronous=true")
    assert told(server, "one")[0] == "origx"


@pytest.mark.row("D1")
@pytest.mark.row("D2")
@pytest.mark.parametrize(
    ("name", "config", "described"),
    [
        ("no_delay", "maxBatchDelay: 0", {"maxBatchDelay": 100}),
        ("below", "minWorkers: -1\nmaxWorkers: 2", {"minWorkers": 1, "maxWorkers": 2}),
        ("none", "minWorkers: 0\nmaxWorkers: 2", {"minWorkers": 1, "maxWorkers": 2}),
        ("below_alone", "minWorkers: -1", {"minWorkers": 0, "maxWorkers": 0}),
        ("large", "batchSize: 1000000", {"batchSize": 1_000_000}),
    ],
)
def test_odd_numbers(server: Running, product: Product, name: str, config: str, described: dict[str, int]) -> None:
    server.house.archive(name, WRITES, config=config)

    assert server.manage("POST", f"/models?url={name}.mar&initial_workers=0").status == 200

    if not product.is_genuine and "batchSize" in described:
        described = {"batchSize": 65_535}  # the most that travel together; the log tells
        until("the log tells of it", lambda: "a batch size of 1000000 is too large" in server.log)
    assert described.items() <= server.describe(name).items()


@pytest.mark.row("H12")
def test_with_the_server_its_folders_end(house: House, product: Product) -> None:
    house.archive("writes", WRITES, files={"state.txt": "orig"})
    server = house.start("writes.mar")
    state, folder = told(server, "writes")

    server.end()

    assert state == "origx"
    if not product.is_genuine:  # which leaves some
        assert not folder.exists()
    again = house.start("writes.mar")
    state, folder = told(again, "writes")
    assert state == "origx"
    if not product.is_genuine:
        os.kill(again.process.pid, signal.SIGKILL)
        until("the folder of a server that was killed is gone", lambda: not folder.exists())
