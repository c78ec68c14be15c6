"""Rows 7, 29 and 44: what is named at start, and the folder that each registration has for itself."""

from __future__ import annotations

import json

import pytest

from rows import House, Product

WRITES = """
import json
import os


class Service:
    def initialize(self, context):
        self.folder = context.system_properties["model_dir"]
        with open(os.path.join(self.folder, "state.txt"), "a") as state:
            state.write("x")

    def handle(self, data, context):
        with open(os.path.join(self.folder, "state.txt")) as state:
            return [json.dumps([state.read(), self.folder])]
"""


@pytest.mark.row("M6")
@pytest.mark.row("M44")
def test_models_of_the_same_bytes_live_apart(house: House, product: Product) -> None:
    house.archive("writes", WRITES, file="the archive.mar", files={"state.txt": "orig"})
    server = house.start("one=the archive.mar", "two=the archive.mar", "junk=", "nowhere.mar")

    told = [json.loads(server.ask(f"/predictions/{name}", b"x").text) for name in ("one", "two")]
    assert server.manage("DELETE", "/models/one").status == 200
    left = server.ask("/predictions/two", b"x")

    if product.is_genuine:  # one folder for both, which goes with the first of them
        assert told[0][1] == told[1][1]
        assert left.status == 503
    else:
        assert [state for state, _ in told] == ["origx", "origx"]
        assert json.loads(left.text) == told[1]
