"""One copy of a model for all of its workers: what they share, what each has of its own, and what is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from live import LiveServer, all_gone, descendants, launched, make_archive, serving
from services import STEERED

MEGABYTE = 1 << 20

#: Holds 100 MB, and tells what a worker has of its own.
HEAVY = """
import atexit, os, random, tempfile, threading, time
import numpy

class Heavy:
    def initialize(self, context):
        self.weights = numpy.ones(100 << 17)  # 100 MB
        self.loader = os.getpid()
        self.folder = tempfile.TemporaryDirectory()
        self.lines = open(__file__)
        self.was_loading = context.will_fork
        random.seed(1)
        numpy.random.seed(1)
        print("loaded", flush=True)

    def after_fork(self, context):
        assert not context.will_fork
        self.forked = os.getpid()

    def handle(self, data, context):
        answers = []
        for row in data:
            asked = row["body"]
            if asked.get("exit"):
                print("its last words", flush=True)
                os._exit(asked["exit"])
            time.sleep(asked.get("sleep", 0))
            answers.append({
                "pid": os.getpid(),
                "loader": self.loader,
                "was_loading": self.was_loading,
                "forked": self.forked,
                "sum": float(self.weights[::4096].sum()),
                "random": [random.random(), float(numpy.random.rand())],
                "line": self.lines.readline(),
                "folder": os.path.isdir(self.folder.name),
                "threads": threading.active_count(),
            })
        return answers
"""

#: Services that cannot be forked, with words of the line that says why.
UNFIT = {
    "threads": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()",
        "Thread-1",
    ),
    "child": ("import subprocess\nsubprocess.Popen(['sleep', '1000'])", "started processes"),
    "wire": ("import socket\nsocket.socketpair()[0].detach()", "has opened socket:"),
    "session": (
        "import onnxruntime\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.intra_op_num_threads = 1\n"
        "global kept\n"
        "kept = onnxruntime.InferenceSession(context.system_properties['model_dir'] + '/m.onnx', options)",
        "onnxruntime session",
    ),
}
UNFIT_CODE = """
import os

class Unfit:
    def initialize(self, context):
        print("loaded", flush=True)
        {}

    def handle(self, data, context):
        return [os.getpid()] * len(data)
"""
ASYNC = """
import os

async def handle(data, context):
    return [os.getpid()] * len(data or ())
"""

ROOT = Path(__file__).resolve().parents[2]


def onnx_file() -> bytes:
    """Return a small ONNX model: its output is its input."""
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives that can be forked, and some that cannot."""
    store = tmp_path_factory.mktemp("fork") / "store"
    make_archive(store, "heavy", HEAVY)
    make_archive(store, "steered", STEERED, config={"minWorkers": 2})
    make_archive(store, "told", STEERED, config={"minWorkers": 2, "workerStart": "spawn"})
    make_archive(store, "async", ASYNC, config={"minWorkers": 2})
    for name, (code, _words) in UNFIT.items():
        make_archive(store, name, UNFIT_CODE.format(code.replace("\n", "\n        ")), config={"minWorkers": 2})
    (store / "session" / "m.onnx").write_bytes(onnx_file())
    return store


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[LiveServer]:
    """One server for all that leaves it as it was."""
    with serving(store) as running:
        yield running


@pytest.fixture
def heavy(server: LiveServer) -> Iterator[LiveServer]:
    """The server with one worker of the large model."""
    assert server.manage("POST", "/models?url=heavy&synchronous=true&initial_workers=1").status_code == 200
    yield server
    assert server.manage("DELETE", "/models/heavy").status_code == 200
    assert parents(server) == []


def parents(server: LiveServer) -> list[psutil.Process]:
    """Return the processes that have loaded for others."""
    models = [model["modelName"] for model in server.manage("GET", "/models").json()["models"]]
    workers = {pid for model in models for pid in server.worker_pids(model)}
    return [one for one in descendants(server.process.pid) if _is_parent(one) and one.pid not in workers]


def _is_parent(process: psutil.Process) -> bool:
    try:
        return "marserve.worker.parent" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def scale(server: LiveServer, model: str, workers: int) -> list[int]:
    """Scale a model, and return the processes of its workers."""
    answer = server.manage("PUT", f"/models/{model}?min_worker={workers}&synchronous=true")
    assert answer.status_code == 200, answer.text
    return server.worker_pids(model)


def shared_out(processes: list[int]) -> int:
    """Return the proportional memory of processes, bytes."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in processes)


def ask_all(server: LiveServer, count: int) -> dict[int, dict[str, object]]:
    """Ask until so many workers have answered; return their first answers by process."""
    found: dict[int, dict[str, object]] = {}

    def ask(_: int) -> None:
        answer = server.predict("heavy", {"sleep": 0.02}).json()
        found.setdefault(answer["pid"], answer)

    with ThreadPoolExecutor(8) as pool:
        while len(found) < count:
            list(pool.map(ask, range(16)))
    return found


def loads(server: LiveServer, model: str) -> int:
    """Return how often a model has been loaded."""
    return sum(f"[{model}:1.0#" in line and line.endswith("] loaded") for line in server.lines)


def test_four_workers_have_one_copy(heavy: LiveServer) -> None:
    before = loads(heavy, "heavy")
    family = [*heavy.worker_pids("heavy"), parents(heavy)[0].pid]
    one = shared_out(family)
    assert one > 100 * MEGABYTE

    pids = scale(heavy, "heavy", 4)
    ask_all(heavy, 4)

    for _ in range(500):
        heavy.predict("heavy", {})
    assert shared_out([*pids, family[-1]]) < 1.3 * one
    assert loads(heavy, "heavy") == before


def test_each_worker_has_its_own_random_numbers_files_and_end(heavy: LiveServer) -> None:
    pids = scale(heavy, "heavy", 4)

    answers = ask_all(heavy, 4)

    assert set(answers) == set(pids)
    assert len({tuple(answer["random"]) for answer in answers.values()}) == 4  # type: ignore[arg-type]
    assert len({answer["random"][0] for answer in answers.values()}) == 4  # type: ignore[index]
    assert len({answer["random"][1] for answer in answers.values()}) == 4  # type: ignore[index]
    assert {answer["line"] for answer in answers.values()} == {HEAVY.splitlines(keepends=True)[0]}
    assert {answer["loader"] for answer in answers.values()} == {parents(heavy)[0].pid}
    assert all(answer["forked"] == pid and answer["was_loading"] for pid, answer in answers.items())
    scale(heavy, "heavy", 1)
    heavy.until(
        "three are gone", lambda: not any(map(psutil.pid_exists, set(pids) - set(heavy.worker_pids("heavy"))))
    )
    assert heavy.predict("heavy", {}).json()["folder"], (
        "what was made for all ends with the parent, not with a worker"
    )


def test_a_worker_that_dies_is_told_about_and_forked_again(heavy: LiveServer) -> None:
    (pid,) = heavy.worker_pids("heavy")
    before = loads(heavy, "heavy")

    answer = heavy.predict("heavy", {"exit": 7})

    assert (answer.status_code, "ended with exit code 7" in answer.text) == (500, True), answer.text
    assert "its last words" in answer.text
    assert heavy.predict("heavy", {}).json()["pid"] != pid
    new = heavy.worker_pids("heavy")[0]
    os.kill(new, signal.SIGSEGV)
    heavy.until("it is replaced", lambda: heavy.worker_pids("heavy") not in ([new], []))
    assert heavy.predict("heavy", {}).status_code == 200
    assert "killed by SIGSEGV" in heavy.log
    assert loads(heavy, "heavy") == before


def test_workers_go_on_without_their_parent(heavy: LiveServer) -> None:
    (pid,) = heavy.worker_pids("heavy")
    (parent,) = parents(heavy)
    before = loads(heavy, "heavy")

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(heavy.predict, "heavy", {"sleep": 0.5})
        parent.kill()
        heavy.until("it is heard of", lambda: "the parent of its workers killed by SIGKILL" in heavy.log)
        assert running.result().json()["pid"] == pid

    assert heavy.predict("heavy", {}).json()["pid"] == pid
    scale(heavy, "heavy", 2)
    assert loads(heavy, "heavy") == before + 1
    assert parents(heavy) != [parent]


def test_a_worker_without_a_process_shows_no_number(server: LiveServer, store: Path) -> None:
    """0 would be the process group of whoever sends a signal to it."""
    fifo = store / "let_it_load"
    os.mkfifo(fifo)
    waiting = f"class Waiting:\n    def initialize(self, context):\n        open({str(fifo)!r}).read()\n"
    make_archive(store, "waiting", waiting + "    def handle(self, data, context):\n        return data\n")
    assert server.manage("POST", "/models?url=waiting&initial_workers=1&synchronous=false").status_code == 202
    with fifo.open("w"):  # opens when the service does
        (worker,) = server.describe("waiting")["workers"]
        assert ("pid" in worker, worker["memoryUsage"]) == (False, 0)
    server.until("it has a process", lambda: server.worker_pids("waiting"))
    assert server.manage("DELETE", "/models/waiting").status_code == 200


def test_a_model_without_workers_is_not_kept_in_memory(heavy: LiveServer) -> None:
    (parent,) = parents(heavy)

    scale(heavy, "heavy", 0)

    assert all_gone([parent])
    scale(heavy, "heavy", 1)
    assert heavy.predict("heavy", {}).status_code == 200


@pytest.mark.parametrize("name", [*UNFIT, "async", "told"])
def test_what_is_not_fit_is_spawned(server: LiveServer, name: str) -> None:
    answer = server.manage("POST", f"/models?url={name}&synchronous=true&initial_workers=2")
    assert answer.status_code == 200, answer.text

    assert len(set(server.worker_pids(name))) == 2
    assert server.predict(name, {}).status_code == 200
    assert parents(server) == []

    lines = [line for line in server.lines if f"{name}:1.0: its workers are spawned" in line]
    assert len(lines) == (name != "told")
    if name in UNFIT:
        assert UNFIT[name][1] in lines[0]
        assert loads(server, name) == 2, "the parent has become the first worker"
    for pid in server.worker_pids(name):  # each can be replaced
        os.kill(pid, signal.SIGKILL)
        server.until("it is replaced", lambda pid=pid: pid not in server.worker_pids(name))
    assert server.predict(name, {}).status_code == 200
    assert server.manage("DELETE", f"/models/{name}").status_code == 200


@pytest.mark.parametrize("threads", [1, 2])
def test_an_onnx_session_has_its_threads(tmp_path: Path, threads: int) -> None:
    store = tmp_path / "store"
    for start in ("fork", "spawn"):
        make_archive(store, start, "", config={"minWorkers": 2, "workerStart": start})
        (store / start / "m.onnx").write_bytes(onnx_file())
    # Else the spawned ones have a thread more, of onnxruntime's own.
    environment = {"ORT_DISABLE_TELEMETRY": "1"}
    counts = {}
    with serving(store, settings={"worker_threads": threads}, environment=environment) as server:
        for start in ("fork", "spawn"):
            url = f"/models?url={start}&handler=onnx_service&synchronous=true&initial_workers=2"
            assert server.manage("POST", url).status_code == 200
            assert server.predict(start, {"x": [1, 2, 3, 4]}).json() == [1, 2, 3, 4]
            counts[start] = [psutil.Process(pid).num_threads() for pid in server.worker_pids(start)]
        assert len(parents(server)) == 1
    assert counts["fork"] == counts["spawn"]
    assert all(count >= threads for count in counts["fork"])


def test_a_killed_server_leaves_nothing(store: Path) -> None:
    with launched(store, "heavy,steered") as server:
        family = descendants(server.wait_until_ready().process.pid)
        assert len(parents(server)) == 2
        server.signal(signal.SIGKILL)
        server.wait()
        assert all_gone(family)


def test_a_server_without_parents_leaves_nothing_either(store: Path) -> None:
    with launched(store, "heavy,steered") as server:
        family = descendants(server.wait_until_ready().process.pid)
        for parent in parents(server):
            parent.kill()
        server.signal(signal.SIGKILL)
        server.wait()
        assert all_gone(family)


def test_a_stopped_server_leaves_nothing(store: Path) -> None:
    with launched(store, "heavy,steered,told") as server:
        family = descendants(server.wait_until_ready().process.pid)
        assert server.stop() == 0
        assert all_gone(family)
        assert "left behind" not in server.log
