"""Bad input, broken archives and dying workers: each ends with one clear answer and costs nobody else anything."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from live import ADDRESSES, LiveServer, all_gone, descendants, launched, make_archive, serving
from services import BROKEN, EXITS_AT_LOAD, GATED, STEERED, WITH_CHILD


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives that misbehave when they are told to."""
    store = tmp_path_factory.mktemp("faults") / "store"
    make_archive(store, "steered", STEERED, config={"minWorkers": 1})
    make_archive(store, "two", STEERED, config={"minWorkers": 2, "maxWorkers": 2})
    make_archive(store, "batched", STEERED, config={"batchSize": 4, "maxBatchDelay": 100})
    make_archive(store, "hasty", STEERED, config={"responseTimeout": 1})
    make_archive(store, "narrow", STEERED, config={"jobQueueSize": 2})
    make_archive(store, "broken", BROKEN)
    make_archive(store, "exits", EXITS_AT_LOAD)
    make_archive(store, "child", WITH_CHILD)
    (store / "truncated.mar").write_bytes(b"PK\x03\x04" + b"x" * 100)
    return store


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[LiveServer]:
    """One server for all faults: what one of them breaks, the next would notice."""
    settings = {"max_request_size": 100_000, "max_response_size": 100_000, "body_timeout": 1}
    with serving(store, "steered,two,batched,hasty,narrow", settings=settings) as running:
        yield running


def refusal(answer: httpx.Response, status: int, kind: str) -> str:
    """Check status and kind of an error; return what it says."""
    told = answer.json()
    assert (answer.status_code, told["code"], told["type"]) == (status, status, kind), answer.text
    return f"{told['message']} {told.get('hint', '')}"


def still_serves(server: LiveServer, model: str = "steered") -> int:
    """Check that a model answers; return the process that did."""
    answer = server.predict(model, {"hello": 1})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["pid"])


# Bad requests


def test_an_unknown_model_and_version(server: LiveServer) -> None:
    assert "nosuch" in refusal(server.predict("nosuch", {}), 404, "ModelNotFound")
    assert "9.9" in refusal(server.predict("steered/9.9", {}), 404, "VersionNotFound")


def test_a_model_without_a_worker(server: LiveServer) -> None:
    assert server.manage("POST", "/models?url=steered&model_name=idle&initial_workers=0").status_code == 200
    assert "min_worker" in refusal(server.predict("idle", {}), 503, "NoWorker")
    assert server.manage("PUT", "/models/idle?min_worker=1&synchronous=true").status_code == 200
    still_serves(server, "idle")
    assert server.manage("DELETE", "/models/idle").status_code == 200


def test_a_full_queue(server: LiveServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.predict, "narrow", {"sleep": 0.5}) for _ in range(8)]
        answers = [one.result() for one in asked]
    refused = [answer for answer in answers if answer.status_code != 200]
    # one runs, two wait
    assert len(refused) == 5
    for answer in refused:
        assert "job_queue_size" in refusal(answer, 503, "QueueFull")
        assert "retry-after" in answer.headers
    still_serves(server, "narrow")


def test_a_body_over_the_limit(server: LiveServer) -> None:
    told = refusal(server.predict("steered", content=b"x" * 100_001), 413, "TooLarge")
    assert "raise max_request_size" in told
    assert server.predict("steered", content=b"x" * 100_000).json()["body"] == {"bytes": 100_000}


def test_an_answer_over_the_limit(server: LiveServer) -> None:
    told = refusal(server.predict("steered", {"size": 100_001}), 500, "HandlerFault")
    assert "max_response_size" in told
    assert len(server.predict("steered", {"size": 100_000}).content) == 100_000


def test_malformed_json(server: LiveServer) -> None:
    answer = server.predict("steered", content=b'{"a": ', headers={"content-type": "application/json"})
    assert "line 1, column 7" in refusal(answer, 400, "BadRequest")


def test_a_wrong_content_type_reaches_the_service_as_bytes(server: LiveServer) -> None:
    answer = server.predict("steered", content=b"\x00\x01", headers={"content-type": "application/x-unknown"})
    assert answer.json()["body"] == {"bytes": 2}


def test_a_refused_item_is_refused_alone(server: LiveServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(server.predict, "batched", body) for body in ({"refuse": "no"}, {"a": 1}, {"a": 2}, {"a": 3})
        ]
        first, *others = [one.result() for one in asked]
    assert refusal(first, 400, "InvalidData").startswith("no")
    assert [other.status_code for other in others] == [200] * 3


# Services that fail


@pytest.mark.parametrize("step", ["preprocess", "inference", "postprocess", "handle"])
def test_an_exception_in_a_step(server: LiveServer, step: str) -> None:
    pid = still_serves(server)
    answer = server.predict("steered", {"in": step, "raise": f"oh no, {step}"})
    assert f"oh no, {step}" in refusal(answer, 500, "HandlerFault")
    server.until("the traceback is in the log", lambda: f"ValueError: oh no, {step}" in server.log)
    assert still_serves(server) == pid, "the worker has nothing to do with it"


@pytest.mark.parametrize("body", [{"short": 1}, {"no_list": 1}, {"unsendable": 1}])
def test_results_that_cannot_be_sent(server: LiveServer, body: dict[str, object]) -> None:
    pid = still_serves(server)
    refusal(server.predict("steered", body), 500, "HandlerFault")
    assert still_serves(server) == pid


def test_memory_that_runs_out(server: LiveServer) -> None:
    refusal(server.predict("steered", {"memory": 1}), 507, "OutOfMemory")
    still_serves(server)


def test_a_service_that_hangs(server: LiveServer) -> None:
    pid = still_serves(server, "hasty")
    told = refusal(server.predict("hasty", {"sleep": 600, "in": "preprocess"}), 504, "WorkerSilent")
    assert "response timeout of 1 s" in told
    assert "preprocess" in told
    assert "response_timeout" in told
    assert still_serves(server, "hasty") != pid


@pytest.mark.parametrize(
    ("body", "says"), [({"exit": 7}, "exit code 7"), ({"signal": 11}, "SIGSEGV"), ({"signal": 9}, "SIGKILL")]
)
def test_a_service_that_ends_its_process(server: LiveServer, body: dict[str, object], says: str) -> None:
    still_serves(server)
    told = refusal(server.predict("steered", {**body, "in": "inference"}), 500, "WorkerDied")
    assert says in told
    assert "in inference" in told
    still_serves(server)
    assert says in str(server.describe("steered"))


def test_the_last_line_of_a_dead_worker_is_told(server: LiveServer) -> None:
    answer = server.predict("steered", {"in": "preprocess", "say": "the disk is full", "exit": 1})
    assert "the disk is full" in refusal(answer, 500, "WorkerDied")
    still_serves(server)


def test_only_the_running_batch_of_a_dead_worker_is_answered_with_an_error(server: LiveServer) -> None:
    """One worker with much in its hands: whoever is not to blame is run again and answered."""

    def ask(number: int) -> httpx.Response:
        return server.predict("narrowless", {"n": number} if number != 20 else {"exit": 3})

    assert server.manage("POST", "/models?url=steered&model_name=narrowless").status_code == 200
    for number in range(200):  # many quick batches: the link learns that it may work ahead
        assert server.predict("narrowless", {"n": number}).status_code == 200
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(ask, range(40)))
    assert [answer.status_code for answer in answers] == [500 if n == 20 else 200 for n in range(40)]
    assert [answer.json()["body"]["n"] for n, answer in enumerate(answers) if n != 20] == [
        n for n in range(40) if n != 20
    ]
    assert server.manage("DELETE", "/models/narrowless").status_code == 200


def test_killed_workers_cost_only_what_they_ran(server: LiveServer) -> None:
    before = server.worker_pids("two")
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.predict, "two", {"say": "it runs", "sleep": 600}) for _ in range(2)]
        # Being in a worker's hands is not enough: what it has not started is given to another.
        server.until("both run", lambda: server.log.count("it runs") == 2)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        for one in asked:
            assert "SIGKILL" in refusal(one.result(), 500, "WorkerDied")
    server.until("new workers are there", lambda: len(server.worker_pids("two")) == 2)
    assert still_serves(server, "two") not in before


def test_what_waits_behind_a_slow_batch_is_taken_back(server: LiveServer) -> None:
    """Two workers; one gets stuck with work ahead of it, which the other must do."""
    for number in range(300):
        assert server.predict("two", {"n": number}).status_code == 200
    with ThreadPoolExecutor(40) as pool:
        slow = pool.submit(server.predict, "two", {"sleep": 3})
        quick = [pool.submit(server.predict, "two", {"n": n}) for n in range(39)]
        pids = {one.result().json()["pid"] for one in quick}
        assert not slow.done(), "the quick ones did not wait for the slow one"
        stuck = slow.result().json()["pid"]
    assert pids - {stuck}


# Clients that leave, send slowly, read slowly


def test_a_client_that_goes_away_frees_its_place(server: LiveServer) -> None:
    host, port = server.inference.removeprefix("http://").split(":")
    running = socket.create_connection((host, int(port)))
    waiting = [socket.create_connection((host, int(port))) for _ in range(2)]
    body = b'{"sleep": 2}'
    head = b"POST /predictions/narrow HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n%s"
    for client in (running, *waiting):
        client.sendall(request % (len(body), body))
    server.until("the queue is full", lambda: server.describe("narrow")["jobQueueStatus"]["pendingRequests"] == 2)
    for client in waiting:
        client.close()
    server.until("their places are free", lambda: server.describe("narrow")["jobQueueStatus"]["pendingRequests"] == 0)
    assert still_serves(server, "narrow")
    assert running.recv(1000).startswith(b"HTTP/1.1 200 OK")
    running.close()


def test_a_slow_sender_is_told_so(server: LiveServer) -> None:
    host, port = server.inference.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.settimeout(30)
        client.sendall(b"POST /predictions/steered HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


# Archives that do not load


def test_a_handler_that_cannot_load_tells_its_traceback(server: LiveServer) -> None:
    answer = server.manage("POST", "/models?url=broken&initial_workers=1&synchronous=true")
    told = refusal(answer, 500, "LoadError")
    assert "the weights are from another planet" in told
    assert "service.py" in answer.text
    assert "raise RuntimeError" in answer.text
    assert server.manage("GET", "/models/broken").status_code == 404


def test_a_handler_that_ends_its_process_while_it_loads(server: LiveServer) -> None:
    told = refusal(server.manage("POST", "/models?url=exits&initial_workers=1&synchronous=true"), 500, "LoadError")
    assert "exit code 9" in told
    assert server.manage("GET", "/models/exits").status_code == 404


def test_a_broken_archive_and_one_that_is_not_there(server: LiveServer) -> None:
    assert "truncated.mar" in refusal(server.manage("POST", "/models?url=truncated.mar"), 400, "ArchiveError")
    refusal(server.manage("POST", "/models?url=nosuch.mar"), 404, "ModelNotFound")
    refusal(server.manage("POST", "/models?url=../store/steered"), 404, "ModelNotFound")


def test_the_same_version_again(server: LiveServer) -> None:
    refusal(server.manage("POST", "/models?url=steered"), 409, "Conflict")


def test_a_model_of_the_start_that_fails_is_told_and_keeps_nothing_else_from_serving(store: Path) -> None:
    with serving(store, "steered,broken,truncated.mar", settings={"job_queue_size": 50}) as server:
        answer = server.client.get(server.inference + "/ping")
        assert (answer.status_code, answer.json()["status"]) == (200, "Degraded")
        assert "another planet" in answer.text
        assert "truncated.mar" in answer.text
        still_serves(server)


def test_ping_is_no_until_the_start_is_done(tmp_path: Path) -> None:
    store = tmp_path / "store"
    name = make_archive(store, "gated", GATED)
    gate = tmp_path / "gate"
    with launched(store, name, environment={"GATE_FILE": str(gate)}) as server:
        server.wait_until_open()
        answer = server.client.get(server.inference + "/ping")
        assert (answer.status_code, bool(answer.json()["reasons"])) == (503, True)
        gate.touch()
        server.wait_for_line("marserve is ready")
        assert server.client.get(server.inference + "/ping").status_code == 200
        assert server.stop() == 0


# Starting


def failed_start(store: Path, *arguments: str) -> str:
    """Start a server that cannot start; return what it says."""
    command = [str(Path(sys.executable).with_name("marserve")), "start", "--foreground", "--model-store", str(store)]
    command += ["--pid-file", str(store.parent / "failing.pid"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done
    return done.stderr


def test_a_port_that_is_taken(store: Path) -> None:
    free = [f"--set={key}={value}" for key, value in ADDRESSES.items() if key != "inference_address"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = failed_start(store, *free, "--set", f"inference_address=http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in told
    assert "inference_address" in told


def test_a_store_that_is_missing(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in failed_start(tmp_path / "nowhere")


def test_a_setting_that_nobody_knows(store: Path) -> None:
    assert "job_queue_size" in failed_start(store, "--set", "job_queu_size=3")


def test_a_temporary_folder_with_a_long_name(store: Path, tmp_path: Path) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    with serving(store, "steered", environment={"TMPDIR": str(long)}) as server:
        still_serves(server)


# Nothing is left behind


def test_a_killed_server_leaves_no_process_and_no_folder(store: Path, tmp_path: Path) -> None:
    with launched(store, "two,batched", environment={"TMPDIR": str(tmp_path)}) as server:
        children = descendants(server.wait_until_ready().process.pid)
        assert len(children) >= 3
        assert len(list(tmp_path.glob("marserve-*/gate.sock"))) == 1
        server.signal(signal.SIGKILL)
        server.wait()
        assert all_gone(children)
        assert list(tmp_path.glob("marserve-*/")) == []


def test_a_killed_server_takes_with_it_what_services_have_started(store: Path) -> None:
    with launched(store, "child") as server:
        child = psutil.Process(server.wait_until_ready().predict("child", {}).json()["child"])
        server.signal(signal.SIGKILL)
        server.wait()
        assert all_gone([child])


def test_a_killed_worker_takes_with_it_what_its_service_has_started(store: Path) -> None:
    with serving(store, "child") as server:
        child = psutil.Process(server.predict("child", {}).json()["child"])
        os.kill(server.worker_pids("child")[0], signal.SIGKILL)
        assert all_gone([child])


def test_what_a_service_has_started_ends_with_it(store: Path) -> None:
    with launched(store, "child") as server:
        child = psutil.Process(server.wait_until_ready().predict("child", {}).json()["child"])
        children = descendants(server.process.pid)
        assert server.stop() == 0
        assert all_gone([child, *children])
