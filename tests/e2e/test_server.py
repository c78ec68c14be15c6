"""The real server with real archives: start, predict, scale, versions, stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from live import LiveServer, all_gone, descendants, launched, make_archive, serving
from services import STEERED, VERSIONED

#: What is served: of each kind of weights one, and nothing that takes long to train.
NAMES = ["digits", "fizbuz_mxnet", "fizbuz_package", "fizbuz_script", "fizbuz_torch"]


@pytest.fixture(scope="module")
def store(worked: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with worked archives."""
    store = tmp_path_factory.mktemp("server") / "store"
    store.mkdir()
    for name in NAMES:
        shutil.copy(worked(name), store)
    return store


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """All worked archives, served."""
    cache = tmp_path_factory.mktemp("cache")
    with serving(store, "all", cache=cache) as running:
        yield running


def word(number: int) -> str:
    """What is said for a number."""
    return ("Fiz" if number % 3 == 0 else "") + ("Buz" if number % 5 == 0 else "") or str(number)


@pytest.mark.parametrize("model", ["fizbuz_package", "fizbuz_torch", "fizbuz_script", "fizbuz_mxnet"])
def test_every_number_is_answered_right_and_the_same_by_all(server: LiveServer, model: str) -> None:
    def ask(number: int) -> bytes:
        answer = server.predict(model, {"input.1": number})
        assert answer.status_code == 200, answer.text
        return answer.content

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(1023)))
    assert answers == [json.dumps({"next_number": word(n + 1)}, separators=(",", ":")).encode() for n in range(1023)]


@pytest.mark.parametrize(
    "value", [{"input.1": 1023}, {"input.1": -1}, {"input.1": "x"}, {"other": 1}, {"input.1": 1.5}, [1], 7]
)
def test_bad_numbers_are_refused_with_the_reason(server: LiveServer, value: object) -> None:
    answer = server.predict("fizbuz_package", value)
    assert answer.status_code == 400
    assert answer.json()["type"] == "InvalidData"
    assert len(answer.json()["message"]) > 10


def test_a_bad_item_costs_its_batch_nothing(server: LiveServer) -> None:
    def ask(number: int) -> httpx.Response:
        return server.predict("fizbuz_package", {"input.1": number if number % 4 else "bad"})

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(200)))
    for number, answer in enumerate(answers):
        if number % 4:
            assert answer.json() == {"next_number": word(number + 1)}
        else:
            assert (answer.status_code, answer.json()["type"]) == (400, "InvalidData")


def test_invocations_finds_the_model_by_query_and_by_form_field(server: LiveServer) -> None:
    url = server.inference + "/invocations"
    by_query = server.client.post(url + "?model_name=fizbuz_package", json={"input.1": 2})
    assert by_query.json() == {"next_number": "Fiz"}
    without = server.client.post(url, json={"input.1": 2})
    assert (without.status_code, without.json()["message"]) == (400, "Parameter model_name is required.")


def test_ping_models_and_metrics_tell_what_is_served(server: LiveServer) -> None:
    assert server.client.get(server.inference + "/ping").json() == {"status": "Healthy"}
    names = [model["modelName"] for model in server.manage("GET", "/models").json()["models"]]
    assert names == NAMES
    server.predict("digits", content=b"no picture", headers={"content-type": "image/png"})
    text = server.client.get(server.metrics + "/metrics").text
    assert 'marserve_workers{model="digits",state="ready",version="1.0"} 1.0' in text
    assert "# TYPE marserve_requests_total counter" in text


def test_the_description_takes_its_schemas_from_the_signatures(server: LiveServer) -> None:
    document = server.client.get(server.inference + "/api-description").json()
    operation = document["paths"]["/predictions/fizbuz_package"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert "input.1" in json.dumps(schema)
    assert "next_number" in json.dumps(operation["responses"]["200"])


def test_scaling_by_max_worker_alone_answers_as_the_old_servers_did(server: LiveServer) -> None:
    answer = server.manage("PUT", "/models/fizbuz_package?max_worker=1")
    assert (answer.status_code, answer.json()) == (202, {"status": "Processing worker updates..."})


def test_the_server_never_imports_torch(server: LiveServer) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libtorch" not in maps
    assert "onnxruntime" not in maps


class Load:
    """Clients that ask all the time, and what they were answered."""

    def __init__(self, server: LiveServer, path: str, clients: int = 8) -> None:
        self._server, self._path = server, path
        self._stop = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.answers: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._stop.is_set():
                answer = client.post(f"{self._server.inference}/predictions/{self._path}", json={"n": 1})
                self.statuses[answer.status_code] += 1
                self.answers[answer.json().get("version", answer.text)] += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_scaling_versions_and_defaults_lose_no_request_under_load(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = make_archive(store, "swap", VERSIONED.format(version="1.0"), folder="swap-1")
    second = make_archive(store, "swap", VERSIONED.format(version="2.0"), version="2.0", folder="swap-2")
    with serving(store, first) as server:
        with Load(server, "swap") as load:
            for workers in (2, 3, 1, 2):
                assert server.manage("PUT", f"/models/swap?min_worker={workers}&synchronous=true").status_code == 200
                assert len(server.worker_pids("swap")) == workers
            assert server.manage("POST", f"/models?url={second}&initial_workers=1").status_code == 200
            assert server.manage("PUT", "/models/swap/2.0/set-default").status_code == 200
            server.until("the new version answers", lambda: load.answers["2.0"] > 20)
            assert server.manage("DELETE", "/models/swap/1.0").status_code == 200
            seen = load.answers["2.0"]
            server.until("it goes on", lambda: load.answers["2.0"] > seen + 20)
        assert set(load.statuses) == {200}, load.answers
        assert set(load.answers) == {"1.0", "2.0"}
        assert server.predict("swap/1.0", {}).status_code == 404


def test_a_stop_answers_what_was_accepted_and_leaves_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    name = make_archive(store, "steered", STEERED)
    with launched(store, name) as server, ThreadPoolExecutor(4) as pool:
        children = descendants(server.wait_until_ready().process.pid)
        asked = [pool.submit(server.predict, "steered", {"sleep": 0.4}) for _ in range(4)]
        server.until("all are accepted", lambda: _accepted(server, "steered") == 4)
        server.signal(signal.SIGTERM)
        assert [one.result().status_code for one in asked] == [200] * 4
        assert server.wait() == 0
        assert all_gone(children)


def _accepted(server: LiveServer, model: str) -> int:
    found = server.describe(model)
    running = sum(worker["inFlightBatches"] for worker in found["workers"])
    return int(running + found["jobQueueStatus"]["pendingRequests"])


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    store = tmp_path / "store"
    name = make_archive(store, "steered", STEERED)
    with launched(store, name) as server, ThreadPoolExecutor(1) as pool:
        children = descendants(server.wait_until_ready().process.pid)
        asked = pool.submit(server.predict, "steered", {"sleep": 600})
        server.until("it is accepted", lambda: _accepted(server, "steered") == 1)
        server.signal(signal.SIGTERM)
        server.wait_for_line("draining")
        server.signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
        with pytest.raises(httpx.HTTPError):
            asked.result()
        assert all_gone(children)


@pytest.mark.parametrize("program", ["torchserve", "mxnet-model-server"])
def test_the_old_commands_start_and_stop_the_same_server(program: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    name = make_archive(store, "swap", VERSIONED.format(version="1.0"))
    (tmp_path / "temp").mkdir()
    config = tmp_path / "config.properties"
    config.write_text(
        "inference_address=http://127.0.0.1:28080\nmanagement_address=http://127.0.0.1:28081\n"
        "metrics_address=http://127.0.0.1:28082\ndefault_workers_per_model=1\n"
    )
    flags = {"torchserve": ["--ncs", "--ts-config"], "mxnet-model-server": ["--mms-config"]}[program]
    command = [str(Path(sys.executable).with_name(program)), "--start", "--model-store", str(store)]
    command += ["--models", f"{name}={name}", *flags, str(config)]
    if program == "torchserve":
        command.append("--disable-token-auth")
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temp"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path, env=environment, text=True
    )
    assert started.stdout is not None
    seen = []
    for line in started.stdout:
        seen.append(line)
        if "Model server started." in line:
            break
    else:
        raise AssertionError("".join(seen))
    try:
        answer = httpx.post(f"http://127.0.0.1:28080/predictions/{name}", json={}, timeout=60)
        assert (answer.status_code, answer.json()["version"]) == (200, "1.0")
        assert answer.text.startswith('{\n  "version"'), "the dialects keep the old servers' bytes"
    finally:
        stopped = subprocess.run(
            [command[0], "--stop"], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
    assert stopped.returncode == 0
    assert "stopped" in stopped.stdout
    assert started.wait(60) == 0
    started.stdout.close()
