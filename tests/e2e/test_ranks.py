"""Workers of several processes: torchrun starts the ranks, each batch reaches those that it should, one answers."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from live import LiveServer, all_gone, descendants, launched, make_archive, serving

#: Sums over the ranks what each of them makes of a request; the body steers single ranks.
SERVICE = """
import os
import signal
import subprocess
import time

import torch
import torch.distributed as dist

RANK, SIZE = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])


def total(number):
    value = torch.tensor([float(number)])
    dist.all_reduce(value)
    return value.item()


class Summing:
    def initialize(self, context):
        dist.init_process_group("gloo")
        print("the process group is complete")
        self.kept = subprocess.Popen(["sleep", "1000"])
        self.count = 0

    def handle(self, data, context):
        self.count += 1
        answers = []
        for row in data:
            body = row["body"]
            if isinstance(body, (bytes, bytearray, memoryview)):
                answers.append({"size": total(len(body)), "sum": total(sum(body[::1000]))})
                continue
            if body.get("rank") == RANK:
                if "raise" in body:
                    raise ValueError(body["raise"])
                if "exit" in body:
                    os._exit(body["exit"])
                if "signal" in body:
                    os.kill(os.getpid(), body["signal"])
                    time.sleep(60)
            if "raise" in body and body.get("rank") is None:
                raise ValueError(body["raise"])
            for number in range(body.get("pieces", 0)):
                context.send_intermediate([f"{number} "])
            answers.append({"sum": total(body["x"] * (RANK + 1)), "rank": RANK})
        return answers
"""

#: Passes what the first rank gets on to the other by itself, as a pipeline does.
PIPELINE = """
import os
import threading

import torch
import torch.distributed as dist

RANK = int(os.environ["LOCAL_RANK"])


class Pipeline:
    def initialize(self, context):
        dist.init_process_group("gloo")
        self.count = 0
        if RANK:
            threading.Thread(target=self.stage, daemon=True).start()

    def stage(self):
        while True:
            value = torch.zeros(1)
            dist.recv(value, 0)
            dist.send(value * 10 + self.count, 0)

    def handle(self, data, context):
        self.count += 1
        value = torch.tensor([float(data[0]["body"]["x"])])
        dist.send(value, 1)
        dist.recv(value, 1)
        return [{"value": value.item(), "rank": RANK, "count": self.count}]
"""

UNEQUAL = """
import os
import torch.distributed as dist

class Unequal:
    def initialize(self, context):
        if os.environ["LOCAL_RANK"] == "1":
            raise ValueError("the second half of the weights is missing")
        dist.init_process_group("gloo")

    def handle(self, data, context):
        return data
"""

BESIDE = """
class Beside:
    async def initialize(self, context):
        pass

    async def handle(self, data, context):
        return data
"""

PLAIN = """
class Plain:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return ["served"] * len(data)
"""

TWO = {"torchrun": {"nproc-per-node": 2, "OMP_NUMBER_THREADS": 1}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    store = tmp_path_factory.mktemp("ranks") / "store"
    make_archive(store, "tensor", SERVICE, config={"parallelType": "tp", **TWO})
    make_archive(store, "pipeline", PIPELINE, config={"parallelType": "pp", **TWO})
    make_archive(store, "beside", BESIDE, config={"parallelType": "tp", "parallelLevel": 1})
    make_archive(store, "unequal", UNEQUAL, config={"parallelType": "tp", **TWO})
    with serving(store, "tensor,pipeline") as running:
        yield running


def add_up(server: LiveServer) -> None:
    """Ask for a sum over both ranks."""
    answer = server.predict("tensor", {"x": 5})
    assert (answer.status_code, answer.json()) == (200, {"sum": 15.0, "rank": 0}), server.log


def test_every_rank_gets_the_batch_and_the_first_answers(server: LiveServer) -> None:
    add_up(server)
    add_up(server)
    lines = [line for line in server.lines if "the process group is complete" in line]
    assert sorted(line[line.index("[rank") :][:8] for line in lines) == ["[rank 0]", "[rank 1]"]


def test_a_large_body_is_read_by_every_rank(server: LiveServer) -> None:
    body = bytes(range(250)) * 8000
    answer = server.predict("tensor", content=body, headers={"content-type": "application/octet-stream"})
    assert answer.json() == {"size": 2.0 * len(body), "sum": 2.0 * sum(body[::1000])}


def test_only_the_first_rank_sends_pieces(server: LiveServer) -> None:
    answer = server.predict("tensor", {"x": 1, "pieces": 2})
    assert answer.text == "0 1 " + json.dumps({"sum": 3.0, "rank": 0}, separators=(",", ":"))


def test_of_a_pipeline_only_the_first_rank_gets_the_batch(server: LiveServer) -> None:
    for count in (1, 2):
        assert server.predict("pipeline", {"x": 4}).json() == {"value": 40.0, "rank": 0, "count": count}


def test_the_description_tells_of_ranks(server: LiveServer) -> None:
    found = server.describe("tensor")
    assert (found["parallelType"], found["parallelLevel"]) == ("tp", 2)
    (worker,) = found["workers"]
    assert int(worker["id"]) >= 29500
    assert worker["memoryUsage"] > psutil.Process(worker["pid"]).memory_info().rss


def test_what_every_rank_refuses_costs_the_request_alone(server: LiveServer) -> None:
    (worker,) = server.describe("tensor")["workers"]
    answer = server.predict("tensor", {"x": 1, "raise": "not this one"})
    assert (answer.status_code, "not this one" in answer.text) == (500, True)
    add_up(server)
    assert server.describe("tensor")["workers"][0]["pid"] == worker["pid"]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"rank": 1, "exit": 7}, "Rank 1 ended with exit code 7."),
        ({"rank": 0, "signal": int(signal.SIGKILL)}, "Rank 0 was killed by SIGKILL."),
        # For torchrun it has done its work.
        ({"rank": 1, "exit": 0}, "Rank 0 ended because another had; it has said which."),
    ],
)
def test_a_rank_that_dies_ends_the_worker_and_another_comes(
    server: LiveServer, end: dict[str, int], words: str
) -> None:
    processes = [one for one in descendants(server.process.pid) if one.pid in group_of(server)]
    answer = server.predict("tensor", {"x": 1, **end})
    assert answer.status_code == 500
    assert words in answer.text
    lines = "\n".join(server.describe("tensor")["lastDeath"]["log"])
    assert words in lines
    assert ("Rank 1 is gone." in lines) or end.get("exit") != 0
    assert all_gone(processes)
    server.until("a new worker is there", lambda: server.worker_pids("tensor"))
    add_up(server)


def group_of(server: LiveServer) -> set[int]:
    """Return the processes of the tensor's worker: torchrun, the ranks, and what these have started."""
    (pid,) = server.worker_pids("tensor")
    agent = psutil.Process(pid).parent()
    assert agent is not None
    assert agent.pid != server.process.pid
    found = {agent.pid, *(one.pid for one in agent.children(recursive=True))}
    assert len(found) == 5
    return found


def test_a_rank_that_cannot_load_is_named_while_the_others_wait_for_it(server: LiveServer) -> None:
    answer = server.manage("POST", "/models?url=unequal&initial_workers=1&synchronous=true")
    assert answer.status_code >= 400
    assert "In rank 1: " in answer.text
    assert "the second half of the weights is missing" in answer.text
    assert server.manage("GET", "/models/unequal").status_code == 404


def test_ranks_that_all_get_a_batch_cannot_run_them_beside_each_other(server: LiveServer) -> None:
    answer = server.manage("POST", "/models?url=beside&initial_workers=1&synchronous=true")
    assert answer.status_code >= 400
    assert "cannot have async def handle" in answer.text


def test_scaling_down_leaves_no_process(server: LiveServer) -> None:
    add_up(server)
    group = group_of(server)
    processes = [one for one in descendants(server.process.pid) if one.pid in group]
    assert len(processes) == len(group)
    assert server.manage("PUT", "/models/tensor?min_worker=0&synchronous=true").status_code == 200
    assert all_gone(processes)


def test_a_server_that_is_killed_takes_its_ranks_along(tmp_path: Path) -> None:
    make_archive(tmp_path / "store", "tensor", SERVICE, config={"parallelType": "tp", **TWO})
    with launched(tmp_path / "store", "tensor") as server:
        add_up(server.wait_until_ready())
        processes = descendants(server.process.pid)
        assert {one.pid for one in processes} > group_of(server)
        server.signal(signal.SIGKILL)
        assert all_gone(processes)


def test_without_torch_the_reason_is_told_and_no_core_is_pinned(tmp_path: Path) -> None:
    (tmp_path / "path" / "torch").mkdir(parents=True)
    (tmp_path / "path" / "torch" / "__init__.py").write_text("raise ImportError('there is no torch here')\n")
    make_archive(tmp_path / "store", "tensor", PLAIN, config={"parallelType": "tp", **TWO})
    make_archive(tmp_path / "store", "plain", PLAIN)
    environment = {"PYTHONPATH": str(tmp_path / "path")}
    settings = {"cpu_launcher_enable": "true"}
    with serving(tmp_path / "store", "plain", settings=settings, environment=environment) as server:
        assert server.predict("plain", {}).text == "served"
        assert "run_cpu is not available (ImportError: there is no torch here)" in server.log
        answer: httpx.Response = server.manage("POST", "/models?url=tensor&initial_workers=1&synchronous=true")
        assert answer.status_code >= 400
        assert "torch cannot be imported where the worker runs: there is no torch here" in answer.text
