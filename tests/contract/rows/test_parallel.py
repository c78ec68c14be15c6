"""Rows of the feature table about services of several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from rows import House, Running

#: What a rank knows, and a sum over all of them; ``pp`` must not ask the other, which gets no request.
SERVICE = """
import json
import os

import torch
import torch.distributed as dist

import beside


class Ranked:
    def initialize(self, context):
        self.rank, self.size = int(os.environ.get("LOCAL_RANK", -1)), int(os.environ.get("WORLD_SIZE", 1))
        self.sums = context.model_yaml_config["parallelType"] == "tp"
        if self.size > 1:
            dist.init_process_group("gloo")
        self.count = 0

    def handle(self, data, context):
        self.count += 1
        value = torch.tensor([float(self.rank + 1)])
        if self.sums:
            dist.all_reduce(value)
        print("HANDLED", json.dumps([context.model_name, self.rank, self.count]), flush=True)
        names = ("RANK", "WORLD_SIZE", "OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID", "TS_DECODE_INPUT_REQUEST")
        told = {name: os.environ.get(name) for name in names}
        with open("beside.txt") as file:
            return [{**told, "rank": self.rank, "sum": value.item(), "text": file.read(), "also": beside.NAME}]
"""

FILES = {"beside.py": "NAME = 'beside'\n", "beside.txt": "found"}


def config(kind: str, options: str) -> str:
    return f"minWorkers: 1\nmaxWorkers: 1\nparallelType: {kind}\n{options}"


TORCHRUN = "torchrun:\n  nproc-per-node: 2\n  OMP_NUMBER_THREADS: 2\n"


@pytest.fixture(scope="module")
def server(shared_house: House) -> Iterator[Running]:
    """Return a server whose path has ``torchrun``: the original runs that by its name."""
    folder = shared_house.folder / "bin"
    folder.mkdir()
    command = folder / "torchrun"
    command.write_text(f'#!/bin/sh\nexec {shared_house.product.python} -m torch.distributed.run "$@"\n')
    command.chmod(0o755)
    path = f"{folder}:{shared_house.product.folder}:{os.environ['PATH']}"
    for kind in ("tp", "pp"):
        shared_house.archive(kind, SERVICE, config=config(kind, TORCHRUN), files=FILES)
    shared_house.archive("alone", SERVICE, config=config("custom", "parallelLevel: 1\n"), files=FILES)
    shared_house.archive("level", SERVICE, config=config("tp", "parallelLevel: 2\n"), files=FILES)
    server = shared_house.start(environment={"PATH": path})
    for name in ("tp", "pp", "alone"):
        answer = server.manage("POST", f"/models?url={name}.mar&initial_workers=1&synchronous=true")
        assert answer.status == 200, server.log
    yield server
    server.kill()


def told(server: Running, model: str) -> dict[str, object]:
    answer = server.ask(f"/predictions/{model}", "1")
    assert answer.status == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


@pytest.mark.row("D6")
@pytest.mark.row("H12")
def test_with_tp_every_rank_gets_the_request_and_the_first_answers(server: Running) -> None:
    for count in (1, 2):
        found = told(server, "tp")
        assert found.pop("TORCHELASTIC_RUN_ID") == "tp_29500"
        assert found == {
            "RANK": "0",
            "WORLD_SIZE": "2",
            "OMP_NUM_THREADS": "2",
            "TS_DECODE_INPUT_REQUEST": "true",
            "rank": 0,
            "sum": 3.0,
            "text": "found",
            "also": "beside",
        }
        heard = {server.wait_for_line(rf'HANDLED \["tp", (\d), {count}\]').group(1) for _ in range(2)}
        assert heard == {"0", "1"}


@pytest.mark.row("D6")
def test_with_pp_only_the_first_rank_gets_the_request(server: Running) -> None:
    for count in (1, 2):
        found = told(server, "pp")
        assert (found["rank"], found["sum"], found["WORLD_SIZE"]) == (0, 1.0, "2")
        server.wait_for_line(rf'HANDLED \["pp", 0, {count}\]')
    assert 'HANDLED ["pp", 1' not in server.log


@pytest.mark.row("D6")
def test_a_custom_service_is_one_process(server: Running) -> None:
    found = told(server, "alone")
    assert (found["rank"], found["WORLD_SIZE"]) == (-1, None)


@pytest.mark.row("D6")
@pytest.mark.parametrize(("model", "kind", "level"), [("tp", "tp", 2), ("pp", "pp", 2), ("alone", "custom", 1)])
def test_the_description_tells_of_it(server: Running, model: str, kind: str, level: int) -> None:
    found = server.describe(model)
    assert (found["parallelType"], found["parallelLevel"]) == (kind, level)
    first = {"tp": "29500", "pp": "29502", "alone": "29504"}[model]
    assert [worker["id"] for worker in found["workers"]] == [first]


@pytest.mark.row("D6")
def test_a_level_without_torchrun_starts_as_many_ranks(server: Running) -> None:
    answer = server.manage("POST", "/models?url=level.mar&initial_workers=1&synchronous=true")
    if server.house.product.is_genuine:  # it looks for options where there are none
        assert answer.status == 500
        return
    assert answer.status == 200
    assert told(server, "level")["sum"] == 3.0
