"""Rows C16, D1 to D5, D7, D8 and D11: what an archive's ``model-config.yaml`` steers."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pairs import PATIENCE, until
from rows import House, Product, Running

HANDLER = """
import json
import os
import time


class Service:
    def initialize(self, context):
        time.sleep(context.model_yaml_config.get("handler", {}).get("seconds", 0))
        print("initialized")

    def handle(self, data, context):
        asked = data[0].get("body") or data[0].get("data")
        asked = asked.decode() if isinstance(asked, (bytes, bytearray)) else asked
        if asked == "config":
            return [json.dumps(context.model_yaml_config)]
        if asked == "limit":
            return [str(context.system_properties["limit_max_image_pixels"])]
        folder, _, what = asked.rpartition("/")
        open(f"{folder}/ran-{what}", "w").close()
        while what.startswith("wait") and not os.path.exists(f"{folder}/go"):
            time.sleep(0.01)
        return [what] * len(data)
"""
TEXT = {"Content-Type": "text/plain"}
ONE = "minWorkers: 1\nmaxWorkers: 1\n"
NO_WORKER = (
    'Model "ticket" has no worker to serve inference request. Please use scale workers API to add workers. '
    "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)


@pytest.fixture(scope="module")
def server(shared_house: House) -> Iterator[Running]:
    """Return a server without GPUs that has no model yet."""
    settings = {
        "default_response_timeout": "33",
        "default_startup_timeout": "34",
        "initial_worker_port": "9500",
        "number_of_gpu": "0",
        "limit_max_image_pixels": "false",
    }
    return shared_house.start(settings=settings)


def register(server: Running, name: str, config: str = "", **parameters: object) -> dict[str, Any]:
    """Register a model with a configuration; return its description."""
    server.house.archive(name, HANDLER, config=config)
    query = "".join(f"&{key}={value}" for key, value in parameters.items())
    answer = server.manage("POST", f"/models?url={name}.mar{query}")
    assert answer.status == 200, answer.text
    return server.describe(name)


def predict(server: Running, name: str, text: object) -> str:
    answer = server.ask(f"/predictions/{name}", str(text), headers=TEXT)
    assert answer.status == 200, answer.text
    return answer.text


@pytest.mark.row("C16")
def test_timeouts_that_nobody_gives(server: Running, product: Product) -> None:
    unsaid = register(server, "unsaid", initial_workers=0)
    asked = register(server, "asked", response_timeout=7, startup_timeout=8, initial_workers=0)
    # The original takes 120 for what a file does not mention, whatever was asked for; here such a file says nothing.
    other = register(server, "other", "batchSize: 2\n", response_timeout=7, startup_timeout=8, initial_workers=0)

    assert (unsaid["responseTimeout"], unsaid["startupTimeout"]) == (33, 34)
    assert (asked["responseTimeout"], asked["startupTimeout"]) == (7, 8)
    expected = (120, 120) if product.is_genuine else (7, 8)
    assert (other["responseTimeout"], other["startupTimeout"]) == expected


@pytest.mark.row("D1")
def test_workers_of_the_file_are_stronger_than_those_of_the_registration(server: Running) -> None:
    pair = register(server, "pair", "minWorkers: 1\nmaxWorkers: 2\n", initial_workers=0)
    alone = register(server, "alone", "minWorkers: 2\n", initial_workers=0)
    upside_down = register(server, "upside_down", "minWorkers: 2\nmaxWorkers: 1\n", initial_workers=0)

    assert (pair["minWorkers"], pair["maxWorkers"], len(pair["workers"])) == (1, 2, 1)
    assert int(pair["workers"][0]["id"]) >= 9500
    assert alone["workers"] == upside_down["workers"] == []


@pytest.mark.row("D2")
def test_batches_are_as_the_file_says_unless_the_registration_does(server: Running) -> None:
    config = "batchSize: 4\nmaxBatchDelay: 77\n"
    said = register(server, "said", config, initial_workers=0)
    asked = register(server, "asked_for", config, batch_size=3, max_batch_delay=9, initial_workers=0)

    assert (said["batchSize"], said["maxBatchDelay"]) == (4, 77)
    assert (asked["batchSize"], asked["maxBatchDelay"]) == (3, 9)


@pytest.mark.row("D3")
def test_who_is_silent_for_too_long_is_replaced(server: Running, tmp_path: Path) -> None:
    entry = register(server, "silent", f"{ONE}responseTimeout: 1\n", response_timeout=60)
    assert entry["responseTimeout"] == 1

    answer = server.ask("/predictions/silent", f"{tmp_path}/wait", headers=TEXT)

    assert (answer.status, answer.json()["message"]) == (500, "Worker died.")
    check_phrase_pair(server)
    assert predict(server, "silent", tmp_path / "after") == "after"


def check_phrase_pair(server: Running) -> None:
    server.wait_for_line("Backend worker error$")
    server.wait_for_line(
        "^org.pytorch.serve.wlm.WorkerInitializationException: Backend worker did not respond in given time"
    )


@pytest.mark.row("D4")
def test_who_takes_too_long_to_load_is_given_up(server: Running) -> None:
    slow = f"{ONE}handler:\n  seconds: 30\nstartupTimeout: 1\n"
    server.house.archive("slow", HANDLER, config=slow)

    answer = server.manage("POST", "/models?url=slow.mar&initial_workers=1&startup_timeout=60")

    assert answer.status == 500
    assert answer.json()["message"] == "Failed to start workers for model slow version: 1.0"
    check_phrase_pair(server)
    entry = register(server, "quick", f"{ONE}handler:\n  seconds: 0.3\nstartupTimeout: 60\n", startup_timeout=1)
    assert entry["workers"][0]["status"] == "READY"


@pytest.mark.row("D5")
def test_devices(server: Running) -> None:
    entry = register(server, "devices", "deviceType: gpu\ndeviceIds: [0, 1]\n", initial_workers=0)

    assert entry["deviceType"] == "cpu", "there is no GPU"
    assert "deviceIds" not in entry
    server.wait_for_line(r"WARN.*deviceIds? ?.*0")


@pytest.mark.row("D7")
def test_the_queue_of_a_model(server: Running) -> None:
    entry = register(server, "queue", "jobQueueSize: 3\n", initial_workers=0)

    assert entry["jobQueueStatus"] == {"remainingCapacity": 3, "pendingRequests": 0}


@pytest.mark.row("D7")
def test_with_tickets_only_a_worker_that_waits_is_given_requests(server: Running, tmp_path: Path) -> None:
    entry = register(server, "ticket", f"{ONE}useJobTicket: true\n")
    assert entry["useJobTicket"] is True

    def is_accepted() -> bool:
        return server.ask("/predictions/ticket", f"{tmp_path}/first", headers=TEXT).status == 200

    until("the worker waits for a request", is_accepted)  # the original's does so a moment after it is READY
    with ThreadPoolExecutor(1) as pool:
        asked = [pool.submit(server.ask, "/predictions/ticket", f"{tmp_path}/wait", headers=TEXT)]

        def runs() -> bool:
            if asked[-1].done() and not (tmp_path / "ran-wait").exists():  # the original's did not wait yet, again
                asked.append(pool.submit(server.ask, "/predictions/ticket", f"{tmp_path}/wait", headers=TEXT))
            return (tmp_path / "ran-wait").exists()

        until("the request runs", runs)
        running = asked[-1]
        refused = server.ask("/predictions/ticket", f"{tmp_path}/second", headers=TEXT)
        (tmp_path / "go").touch()
        assert running.result(PATIENCE).status == 200

    assert (refused.status, refused.json()["message"]) == (503, NO_WORKER)
    assert not (tmp_path / "ran-second").exists()


@pytest.mark.row("D8")
def test_who_has_waited_for_too_long_is_not_served(server: Running, product: Product, tmp_path: Path) -> None:
    entry = register(server, "impatient", f"{ONE}clientTimeoutInMills: 100\n")
    assert entry["clientTimeoutInMills"] == 100
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask_and_leave, server, f"{tmp_path}/wait")
        until("the request runs", (tmp_path / "ran-wait").exists)
        late = ask_and_leave(server, f"{tmp_path}/late")
        (tmp_path / "go").touch()
        running.result(PATIENCE)

    # The original runs it, and says nothing to the client.
    expected = (None, True) if product.is_genuine else (503, False)
    if product.is_genuine:
        server.wait_for_line("Drop .*inference request .* due to client timeout")
        until("it has run", (tmp_path / "ran-late").exists)
    assert (late, (tmp_path / "ran-late").exists()) == expected


def ask_and_leave(server: Running, text: str) -> int | None:
    """Return the status of a prediction, None where none came within a second."""
    connection = http.client.HTTPConnection("127.0.0.1", server.doors["inference"], timeout=1.0)
    try:
        connection.request("POST", "/predictions/impatient", text, TEXT)
        return connection.getresponse().status
    except TimeoutError:
        return None
    finally:
        connection.close()


@pytest.mark.row("D11")
def test_the_handler_is_given_the_whole_file(server: Running) -> None:
    register(server, "whole", f"{ONE}handler:\n  words: [a, b]\nown: 1.5\n")

    assert json.loads(predict(server, "whole", "config")) == {
        "minWorkers": 1,
        "maxWorkers": 1,
        "handler": {"words": ["a", "b"]},
        "own": 1.5,
    }
    assert predict(server, "whole", "limit") == "False"


@pytest.mark.row("D11")
def test_what_is_of_a_wrong_type_is_told_and_does_not_count(server: Running) -> None:
    keys = "responseTimeout batchSize maxRetryTimeoutInSec clientTimeoutInMills useJobTicket deviceType deviceIds"
    entry = register(server, "wrong", "".join(f"{key}: wrong\n" for key in keys.split()), initial_workers=0)

    assert (entry["batchSize"], entry["maxRetryTimeoutInSec"], entry["clientTimeoutInMills"]) == (1, 300, 0)
    assert (entry["useJobTicket"], entry["deviceType"], "deviceIds" in entry) == (False, "cpu", False)
    until("each is told", lambda: all(told(server, key) for key in keys.split()))


def told(server: Running, key: str) -> bool:
    name = key.lower().removesuffix("sec")  # the original calls that one maxRetryTimeoutInMin
    return any("WARN" in line and name in line.lower() and "wrong" in line for line in server.lines)
