"""Rows C15, D9, E18, F24, H14, I1, I2, I3, I8 and I9: batches, GPUs, and the life and death of workers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from pairs import PATIENCE, until
from rows import Answer, House, Product, Running

HANDLER = """
import os
import time


class Service:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        words = [row.get("body") or row.get("data") for row in data]
        words = [word.decode() if isinstance(word, (bytes, bytearray)) else word for word in words]
        folder, _, what = words[0].rpartition("/")
        if what == "die":
            os._exit(3)
        if what == "kill":
            os.kill(os.getpid(), 9)
        if what.startswith("wait"):
            open(f"{folder}/ran-{what}", "w").close()
        while what.startswith("wait") and not os.path.exists(f"{folder}/go"):
            time.sleep(0.01)
        return [str(len(data))] * len(data)
"""
#: Fails to load as often as its configuration says.
FAILING = """
import os


class Service:
    def initialize(self, context):
        config = context.model_yaml_config["handler"]
        with open(config["file"], "a+") as file:
            file.write("x")
            file.seek(0)
            tries = len(file.read())
        print(f"this is try {tries}")
        if tries <= config["failures"]:
            raise RuntimeError("there are no weights")

    def handle(self, data, context):
        return ["loaded"] * len(data)
"""
TEXT = {"Content-Type": "text/plain"}
ONE = "minWorkers: 1\nmaxWorkers: 1\n"


@pytest.fixture(scope="module")
def server(shared_house: House) -> Iterator[Running]:
    """Return a server with the model ``plain``."""
    name = shared_house.archive("plain", HANDLER, config=ONE)
    server = shared_house.start(name, settings={"prefer_timeout_parameters": "true"})
    server.wait_for_workers("plain", 1)
    return server


def register(server: Running, name: str, code: str, config: str, query: str = "") -> Answer:
    server.house.archive(name, code, config=config)
    return server.manage("POST", f"/models?url={name}.mar{query}")


def predict(server: Running, name: str, text: object = "x") -> Answer:
    return server.ask(f"/predictions/{name}", str(text), headers=TEXT)


@pytest.mark.row("C15")
def test_a_full_queue_refuses(server: Running, tmp_path: Path) -> None:
    assert register(server, "queue", HANDLER, f"{ONE}jobQueueSize: 1\n").status == 200
    accepted: list[Future[Answer]] = []
    with ThreadPoolExecutor(8) as pool:
        accepted.append(pool.submit(predict, server, "queue", tmp_path / "wait"))
        until("the first runs", (tmp_path / "ran-wait").exists)

        def is_full() -> bool:
            status = server.describe("queue")["jobQueueStatus"]
            if status["remainingCapacity"]:  # a worker may have been given one ahead
                accepted.append(pool.submit(predict, server, "queue", tmp_path / "next"))
            return status == {"remainingCapacity": 0, "pendingRequests": 1}

        until("the queue is full", is_full)
        refused = predict(server, "queue", tmp_path / "one too many")
        (tmp_path / "go").touch()
        answers = [future.result(PATIENCE) for future in accepted]

    assert refused.status == 503
    assert refused.json()["type"] == "ServiceUnavailableException"
    assert 'Model "queue" has no worker to serve inference request.' in refused.json()["message"]
    assert [answer.status for answer in answers if answer.status != 503] == [200] * len(answers)


@pytest.mark.row("I1")
def test_a_batch_leaves_when_it_is_full_or_has_waited(server: Running) -> None:
    assert register(server, "batch", HANDLER, f"{ONE}batchSize: 3\nmaxBatchDelay: 1000\n").status == 200
    with ThreadPoolExecutor(3) as pool:
        together = [answer.text for answer in pool.map(lambda _: predict(server, "batch"), range(3))]
    together.append(predict(server, "batch").text)

    assert together == ["3", "3", "3", "1"]


@pytest.mark.row("E18")
def test_a_worker_that_dies_costs_its_request_and_no_other(server: Running, product: Product, tmp_path: Path) -> None:
    died = predict(server, "plain", tmp_path / "die")
    after = predict(server, "plain")
    killed = predict(server, "plain", tmp_path / "kill")

    assert (died.status, died.json()["message"]) == (500, "Worker died.")
    assert (after.status, after.text) == (200, "1")
    # The original says 500 when it hears of the closed socket before it does of the exit code.
    assert killed.status in ((507, 500) if product.is_genuine else (507,))
    assert killed.json()["message"] == "Worker died."
    server.wait_for_line("[0-9]+ Worker disconnected. WORKER_MODEL_LOADED")
    server.wait_for_line("Auto recovery start timestamp: [0-9]+")
    server.wait_for_line("Retry worker: [0-9]+ in 1 seconds.")
    server.wait_for_line("Auto recovery succeeded, reset recoveryStartTS")


@pytest.mark.row("I2")
def test_a_handler_that_cannot_load_is_tried_again(server: Running, tmp_path: Path) -> None:
    config = f"{ONE}handler:\n  file: {tmp_path}/tries\n  failures: 2\n"

    answer = register(server, "failing", FAILING, config, "&synchronous=false")

    assert answer.status == 202
    for expected in ("Auto recovery start timestamp: ", "Retry worker: [0-9]+ in 1 seconds."):
        server.wait_for_line(expected)
    for expected in ("Auto recovery failed again", "Retry worker: [0-9]+ in 1 seconds."):
        server.wait_for_line(expected)
    server.wait_for_line("Auto recovery succeeded, reset recoveryStartTS")
    assert predict(server, "failing").text == "loaded"
    printed = [line.partition("-failing_1.0-stdout MODEL_LOG - ")[2] for line in server.lines]
    assert [line for line in printed if "try" in line] == [f"this is try {number}" for number in (1, 2, 3)]
    assert printed.count("RuntimeError: there are no weights") == 2
    assert printed.count('    raise RuntimeError("there are no weights")') == 2


@pytest.mark.row("I2")
def test_who_registers_and_waits_is_told_of_the_first_failure(
    server: Running, product: Product, tmp_path: Path
) -> None:
    config = f"{ONE}handler:\n  file: {tmp_path}/tries\n  failures: 9\n"

    answer = register(server, "hopeless", FAILING, config)

    assert answer.status == 500
    assert answer.json()["message"] == "Failed to start workers for model hopeless version: 1.0"
    assert (tmp_path / "tries").read_text() == "x"
    if not product.is_genuine:  # where it may stay, without workers
        assert server.manage("GET", "/models/hopeless").status == 404


@pytest.mark.row("D9")
@pytest.mark.row("I9")
def test_the_tries_end_and_nobody_waits(server: Running, product: Product, tmp_path: Path) -> None:
    config = f"{ONE}maxRetryTimeoutInSec: 1\nhandler:\n  file: {tmp_path}/tries\n  failures: 9\n"
    assert register(server, "ended", FAILING, config, "&synchronous=false").status == 202
    entry = server.describe("ended")
    assert entry["maxRetryTimeoutInSec"] == 1

    server.wait_for_line("Auto recovery failed again")

    assert (tmp_path / "tries").read_text() == "xx"
    if not product.is_genuine:  # where the client is never answered
        refused = predict(server, "ended")
        assert (refused.status, refused.json()["type"]) == (503, "ServiceUnavailableException")
    assert len([line for line in server.lines if "-ended_1.0-stdout MODEL_LOG - this is try" in line]) == 2


@pytest.mark.row("H14")
def test_memory_that_runs_out_while_loading(server: Running) -> None:
    code = HANDLER.replace("pass", 'raise MemoryError("no room")')

    answer = register(server, "large", code, ONE)

    assert answer.status == 507
    assert answer.json()["message"] == "Failed to start workers for model large version: 1.0"


@pytest.mark.row("I3")
def test_scaling_down_loses_no_request(server: Running, product: Product, tmp_path: Path) -> None:
    assert register(server, "scaled", HANDLER, "minWorkers: 2\nmaxWorkers: 2\n").status == 200
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(predict, server, "scaled", tmp_path / f"wait-{number}") for number in range(4)]
        until("two run", lambda: len(list(tmp_path.glob("ran-*"))) == 2)
        scaled = server.manage("PUT", "/models/scaled?min_worker=1&max_worker=1")
        (tmp_path / "go").touch()
        answers = [future.result(PATIENCE) for future in futures]

    assert scaled.status == 202
    lost = [answer for answer in answers if answer.status != 200]
    # The original ends the worker in the middle of its request, and mostly loses it.
    assert [answer.json()["message"] for answer in lost] in ([[], ["Worker died."]] if product.is_genuine else [[]])
    server.wait_for_workers("scaled", 1)


@pytest.mark.row("C16")
def test_timeouts_of_the_registration_may_be_stronger(server: Running, product: Product) -> None:
    config = "responseTimeout: 44\nstartupTimeout: 55\n"
    query = "&initial_workers=0&response_timeout=7&startup_timeout=8"
    assert register(server, "timeouts", HANDLER, config, query).status == 200

    entry = server.describe("timeouts")

    expected = (44, 55) if product.is_genuine else (7, 8)  # it does not know the setting
    assert (entry["responseTimeout"], entry["startupTimeout"]) == expected


@pytest.mark.row("F24")
def test_unregistering_may_take_too_long(product: Product, house: House, tmp_path: Path) -> None:
    # The original's workers always end in time, unless that is no time at all; here they finish what they run.
    name = house.archive("busy", HANDLER, config=ONE)
    server = house.start(name, settings={"unregister_model_timeout": "0" if product.is_genuine else "1"})
    server.wait_for_workers("busy", 1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(predict, server, "busy", tmp_path / "wait")
        until("it runs", (tmp_path / "ran-wait").exists)
        answer = server.manage("DELETE", "/models/busy")
        server.kill()
        running.exception(PATIENCE)

    assert (answer.status, answer.json()["type"]) == (408, "RequestTimeoutException")
    assert answer.json()["message"] == "Timed out while cleaning resources: busy"


GPUS = """
def handle(data, context):
    if not data:
        print("GPU is", context.system_properties["gpu_id"], flush=True)
        return None
    return ["answer" for _ in data]
"""


@pytest.mark.row("I8")
def test_workers_get_gpus_in_turn(house: House) -> None:
    house.archive("gpus", GPUS, config="minWorkers: 3\nmaxWorkers: 3\n")
    server = house.start("gpus.mar", environment={"CUDA_VISIBLE_DEVICES": "4,7"})
    workers = server.wait_for_workers("gpus", 3)
    assert [worker["gpu"] for worker in workers] == [True] * 3
    until("all have told theirs", lambda: server.log.count("GPU is") >= 3)
    # The original begins with the second of them.
    first = "1" if house.product.is_genuine else "0"
    assert sorted(re.findall(r"GPU is (\S+)", server.log)) == sorted(["0", "1", first])


SMI = """#!/bin/sh
case "$*" in
*gpu=index,*)
    echo 'index, utilization.gpu [%], utilization.memory [%], memory.used [MiB]'
    echo '1, 7 %, 3 %, 123 MiB'
    ;;
*gpu=index*) printf 'index\\n0\\n1\\n' ;;
*)
    echo 'utilization.gpu [%], utilization.memory [%], memory.used [MiB]'
    echo '7 %, 3 %, 123 MiB'
    ;;
esac
"""


@pytest.mark.row("F17", "I8")
def test_a_description_tells_how_busy_the_gpu_is(house: House) -> None:
    tool = house.folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(SMI)
    tool.chmod(0o755)
    config = "minWorkers: 1\nmaxWorkers: 1\ndeviceIds: [1]\n"
    house.archive("gpus", GPUS, config=config)
    path = f"{tool.parent}:{house.product.environment(house.folder)['PATH']}"
    server = house.start("gpus.mar", environment={"CUDA_VISIBLE_DEVICES": "0,1", "PATH": path})
    (worker,) = server.wait_for_workers("gpus", 1)
    usage = "utilization.gpu [%]::7 % utilization.memory [%]::3 % memory.used [MiB]::123 MiB"
    assert worker["gpuUsage"] == f"gpuId::1 {usage}"
