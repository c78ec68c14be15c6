"""Rows of configuration, workers and logs: what one server, or two, show while they serve."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from marserve.doors.http.certificates import self_signed_pem
from pairs import PATIENCE, until
from rows import Answer, House, Product, Running

ECHO = "def handle(data, context):\n    return ['said'] * len(data) if data else None\n"
SEEN = """
import json, os

def handle(data, context):
    return [json.dumps(dict(os.environ)) for _ in data] if data else None
"""
SLOW = """
import time

def handle(data, context):
    if data:
        time.sleep(1.5)
        return ["late"] * len(data)
"""
GATE = """
import os, time

def handle(data, context):
    if data:
        folder = data[0]["body"].decode()
        open(folder + "/entered", "w").close()
        while not os.path.exists(folder + "/released"):
            time.sleep(0.01)
        return ["through"] * len(data)
"""
WHO = """
import os

LOADED_BY = os.getpid()

def handle(data, context):
    if data:
        told = {"loaded by": LOADED_BY, "pid": os.getpid(), "rows": len(data)}
        return [{**told, "batch_size": context.system_properties["batch_size"]} for _ in data]
"""
PICKY = """
def handle(data, context):
    if data:
        bodies = [row.get("body") for row in data]
        if "fail" in bodies:
            raise ValueError("as asked")
        return [str(body) for body in bodies]
"""
REPORTING = """
from mms.metrics.dimension import Dimension

def handle(data, context):
    if data:
        metrics = context.metrics
        metrics.add_counter("Seen", 1, 0, [Dimension("Kind", "a")])
        metrics.add_time("Took", 2.5, 0)
        metrics.add_size("Large", 3, 0, "kB")
        metrics.add_percent("Share", 4, 0)
        metrics.add_metric("Own", 5, 0, "apples")
        metrics.add_error("Fault", 1)
        print("printed by the handler", flush=True)
        return ["done"] * len(data)
"""
MODELS = {
    "seen": SEEN,
    "slow": SLOW,
    "gate": GATE,
    "who": WHO,
    "picky": PICKY,
    "reporting": REPORTING,
}
JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}


@pytest.fixture(scope="module")
def server(shared_house: House) -> Running:
    """A server with the settings of several rows."""
    for name, code in MODELS.items():
        shared_house.archive(name, code)
    settings = {
        "default_response_timeout": "1",
        "blacklist_env_vars": ".*SECRET.*|HIDDEN",
        "enable_envvars_config": "true",
    }
    environment = {
        "MMS_JOB_QUEUE_SIZE": "4",
        "MY_SECRET_KEY": "1",
        "HIDDEN": "2",
        "HIDDEN_NOT": "3",
        "LOG_LOCATION": str(shared_house.folder / "logs"),
        "METRICS_LOCATION": str(shared_house.folder / "metrics"),
    }
    return shared_house.start("seen.mar", "slow.mar", settings=settings, environment=environment)


def register(server: Running, archive: str, **asked: object) -> Answer:
    """Register a model by query."""
    query = "&".join(f"{key}={value}" for key, value in {"url": archive, "initial_workers": 1, **asked}.items())
    return server.manage("POST", f"/models?{query}")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for requests beside each other."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


def logged(server: Running, folder: str, name: str, pattern: str) -> bool:
    """Return whether a line of a log file matches."""
    path = server.house.folder / folder / name
    return path.exists() and re.search(pattern, path.read_text(), re.MULTILINE) is not None


# ---- configuration


@pytest.mark.row("M18")
def test_hidden_variables_do_not_reach_handlers(server: Running) -> None:
    seen = server.ask("/predictions/seen").json()

    assert "HIDDEN_NOT" in seen
    assert not {"MY_SECRET_KEY", "HIDDEN"} & seen.keys()
    assert (seen["MMS_DECODE_INPUT_REQUEST"], seen["MXNET_USE_OPERATOR_TUNING"]) == ("true", "0")


@pytest.mark.row("M12")
@pytest.mark.row("M35")
def test_a_timeout_is_minutes_in_settings_and_queries_and_seconds_in_a_body(
    product: Product, server: Running
) -> None:
    until("it is told", lambda: product.is_genuine or "A worker may spend 60 s on a batch" in server.log)
    assert server.ask("/predictions/slow").text == "late"

    assert register(server, "slow.mar", model_name="minutes", response_timeout=1).status == 200
    assert server.ask("/predictions/minutes").text == "late"

    told = {"url": "slow.mar", "model_name": "seconds", "response_timeout": 1, "initial_workers": 1}
    assert server.manage("POST", "/models", body=json.dumps(told), headers=JSON).status == 200
    died = server.ask("/predictions/seconds")
    assert (died.status, died.json()["message"]) == (500, "Worker died.")


@pytest.mark.row("M13")
@pytest.mark.row("M14")
def test_a_timeout_in_seconds_and_a_unix_address(house: House) -> None:
    house.archive("slow", SLOW)
    path = house.folder / "management.sock"
    settings = {
        "default_response_timeout": "60",
        "default_response_timeout_seconds": "1",
        "management_address": f"unix:{path}",
    }
    server = house.start("slow.mar", settings=settings)

    died = server.ask("/predictions/slow")
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(path))
        raw.sendall(b"GET /models/slow HTTP/1.1\r\nhost: x\r\n\r\n")
        described = raw.recv(65536)

    assert (died.status, died.json()["message"]) == (500, "Worker died.")
    assert described.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.row("M15")
def test_https_with_files_and_without(product: Product, house: House) -> None:
    house.archive("echo", ECHO)
    inference, management = product.original.free_ports(2)
    pem = self_signed_pem(["127.0.0.1"])
    key, certificate = house.folder / "key.pem", house.folder / "certificate.pem"
    key.write_bytes(
        b"".join(re.findall(rb"-----BEGIN \w*\s*PRIVATE KEY.*?END \w*\s*PRIVATE KEY-----\n", pem, re.DOTALL))
    )
    certificate.write_bytes(b"".join(re.findall(rb"-----BEGIN CERT.*?END CERTIFICATE-----\n", pem, re.DOTALL)))
    files = {"private_key_file": str(key), "certificate_file": str(certificate)}
    # On a Java of today the original cannot make a certificate of its own.
    for more in [files] if product.is_genuine else [files, {}]:
        settings = {
            "inference_address": f"https://127.0.0.1:{inference}",
            "management_address": f"https://127.0.0.1:{management}",
        }
        server = house.start("echo.mar", settings={**settings, **more})
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", inference), PATIENCE) as raw:
            tls = context.wrap_socket(raw)
            tls.sendall(b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n")
            assert tls.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
            tls.close()
        server.kill()


@pytest.mark.row("M11")
@pytest.mark.row("M73")
def test_a_full_queue(server: Running, pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    assert register(server, "gate.mar").status == 200
    first = pool.submit(server.ask, "/predictions/gate", str(tmp_path).encode())
    until("the worker is busy", (tmp_path / "entered").exists)

    # The queue takes four, by the environment; some server may hold another one on its way to the worker.
    more = [pool.submit(server.ask, "/predictions/gate", str(tmp_path).encode()) for _ in range(7)]
    until("one is refused", lambda: any(one.done() for one in more))
    (tmp_path / "released").touch()
    answers = [one.result(PATIENCE) for one in (first, *more)]

    refused = [answer for answer in answers if answer.status != 200]
    assert {answer.text for answer in answers if answer.status == 200} == {"through"}
    assert refused
    for answer in refused:
        assert (answer.status, answer.json()["message"]) == (
            503,
            "No worker is available to serve request for model: gate. Consider increasing job queue size.",
        )


# ---- batches


@pytest.mark.row("M71")
def test_a_batch_leaves_when_it_is_full(server: Running, pool: ThreadPoolExecutor) -> None:
    assert register(server, "who.mar", model_name="batched", batch_size=3, max_batch_delay=60000).status == 200

    asked = [pool.submit(server.ask, "/predictions/batched") for _ in range(3)]
    answers = [one.result(PATIENCE).json() for one in asked]

    assert [(answer["rows"], answer["batch_size"]) for answer in answers] == [(3, 3)] * 3


@pytest.mark.row("M72")
def test_a_batch_that_fails_costs_no_worker(product: Product, server: Running, pool: ThreadPoolExecutor) -> None:
    assert register(server, "picky.mar", model_name="failing", batch_size=3, max_batch_delay=60000).status == 200
    before = [worker["id"] for worker in server.describe("failing")["workers"]]

    bodies = [b"fail", b"good", b"good"]
    asked = [pool.submit(server.ask, "/predictions/failing", body, headers=TEXT) for body in bodies]
    answers = [one.result(PATIENCE) for one in asked]

    if product.is_genuine:  # all but one get the death of their worker
        assert sorted(answer.status for answer in answers) == [500, 500, 503]
        return
    assert [(answer.status, answer.json()["message"]) for answer in answers] == [(503, "Prediction failed")] * 3
    assert [worker["id"] for worker in server.describe("failing")["workers"]] == before


@pytest.mark.row("M72")
def test_a_bad_item_costs_the_rest_of_its_batch_nothing(
    product: Product, server: Running, pool: ThreadPoolExecutor
) -> None:
    assert register(server, "picky.mar", model_name="alone", batch_size=3, max_batch_delay=60000).status == 200

    bodies = [b"{", b'"good"', b'"good"']
    asked = [pool.submit(server.ask, "/predictions/alone", body, headers=JSON) for body in bodies]
    answers = [one.result(PATIENCE) for one in asked]

    if product.is_genuine:
        assert 200 not in [answer.status for answer in answers]
        return
    assert [answer.text for answer in answers] == [str(bytearray(b"{")), "good", "good"]


@pytest.mark.row("M55")
@pytest.mark.parametrize("body", [b"{", b""])
def test_a_malformed_body_costs_nobody_else(product: Product, server: Running, body: bytes) -> None:
    name = f"malformed{len(body)}"
    assert register(server, "picky.mar", model_name=name).status == 200
    before = [worker["id"] for worker in server.describe(name)["workers"]]

    answer = server.ask(f"/predictions/{name}", body, headers=JSON)

    if product.is_genuine:
        assert (answer.status, answer.json()["message"]) == (500, "Worker died.")
        return
    assert (answer.status, answer.text) == (200, str(bytearray(body)))
    assert server.ask(f"/predictions/{name}", b'"good"', headers=JSON).text == "good"
    assert [worker["id"] for worker in server.describe(name)["workers"]] == before


# ---- workers


@pytest.mark.row("M40")
def test_to_no_worker_and_back(product: Product, server: Running) -> None:
    assert register(server, "who.mar", model_name="scaled").status == 200

    down = server.manage("PUT", "/models/scaled?min_worker=0&max_worker=0&synchronous=true")
    refused = server.ask("/predictions/scaled") if not product.is_genuine else None
    assert down.json() == {"status": "Workers scaled"}
    assert server.describe("scaled")["workers"] == []
    if refused is None:
        return  # from where there is no way back: the request, and the next scaling, would wait for ever
    assert (refused.status, refused.json()["type"]) == (503, "ServiceUnavailableException")
    up = server.manage("PUT", "/models/scaled?min_worker=1&synchronous=true")
    assert up.json() == {"status": "Workers scaled"}
    assert server.ask("/predictions/scaled").status == 200


@pytest.mark.row("M44")
def test_two_archives_with_the_same_bytes_live_apart(product: Product, server: Running) -> None:
    for name in ("one", "other"):
        assert register(server, "who.mar", model_name=name).status == 200
    assert server.manage("DELETE", "/models/one").status == 200

    assert server.ask("/predictions/other").status == 200
    if product.is_genuine:
        return  # there the folder of both has gone with the first, and no further worker can load it
    more = server.manage("PUT", "/models/other?min_worker=2&synchronous=true")
    assert more.json() == {"status": "Workers scaled"}


@pytest.mark.row("M42")
@pytest.mark.row("M45")
@pytest.mark.row("M74")
def test_a_worker_that_was_killed_is_replaced(server: Running) -> None:
    assert register(server, "who.mar", model_name="killed").status == 200
    first = server.ask("/predictions/killed").json()["pid"]
    (worker,) = server.describe("killed")["workers"]
    assert list(worker) == ["id", "startTime", "status", "gpu", "memoryUsage"]
    assert (worker["status"], worker["gpu"], type(worker["memoryUsage"])) == ("READY", False, int)

    os.kill(first, signal.SIGKILL)

    def is_replaced() -> bool:
        answer = server.ask("/predictions/killed")
        return answer.status == 200 and answer.json()["pid"] != first

    until("another worker answers", is_replaced)


@pytest.mark.row("M75")
def test_workers_share_what_was_loaded_once(product: Product, server: Running, pool: ThreadPoolExecutor) -> None:
    asked = {"preload_model": "true", "initial_workers": 2, "batch_size": 2, "max_batch_delay": 5}
    assert register(server, "who.mar", model_name="shared", **asked).status == 200

    answers = [
        one.result(PATIENCE).json() for one in [pool.submit(server.ask, "/predictions/shared") for _ in range(8)]
    ]

    assert len({answer["loaded by"] for answer in answers}) == 1
    assert all(answer["loaded by"] != answer["pid"] for answer in answers)
    assert {answer["batch_size"] for answer in answers} == {1 if product.is_genuine else 2}


# ---- logs


@pytest.mark.row("M65")
@pytest.mark.row("M79")
def test_metrics_and_log_files(product: Product, server: Running) -> None:
    assert register(server, "reporting.mar").status == 200
    assert server.ask("/predictions/reporting").text == "done"

    tail = r"\|#hostname:[^,]+,requestID:[0-9a-f-]{36},timestamp:\d+$"
    own = r"ModelName:reporting,Level:Model"
    for line in (
        r"Seen\.Count:1(\.0)?\|#Kind:a,",
        r"Took\.Milliseconds:2\.5\|#",
        r"Large\.Kilobytes:3(\.0)?\|#",
        r"Share\.Percent:4(\.0)?\|#",
        r"Own\.apples:5(\.0)?\|#",
    ):
        pattern = line + own + tail
        until(f"{line} is logged", lambda pattern=pattern: logged(server, "metrics", "model_metrics.log", pattern))
    until("the host is logged", lambda: logged(server, "metrics", "mms_metrics.log", r"DiskAvailable\.Gigabytes:"))
    access = r'/127\.0\.0\.1:\d+ "GET /predictions/reporting HTTP/1\.1" 200 \d+$'
    until("the access line is there", lambda: logged(server, "logs", "access_log.log", access))
    # There what a handler prints is among the server's lines, twice, and the file of the models stays empty.
    place = "mms_log.log" if product.is_genuine else "model_log.log"
    until("the handler's line is there", lambda: logged(server, "logs", place, "printed by the handler"))
    assert (server.house.folder / "logs" / "mms_log.log").exists()
