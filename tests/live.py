"""A real server for tests: started by its command on ports of the system's choice, and archives made on the spot."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
#: Longest wait for anything that a test awaits, seconds: beyond it the test has failed, not the machine been slow.
PATIENCE = 60.0

ADDRESSES = {
    "inference_address": "http://127.0.0.1:0",
    "management_address": "http://127.0.0.1:0",
    "metrics_address": "http://127.0.0.1:0",
}


def make_archive(
    store: Path,
    name: str,
    code: str,
    *,
    config: Mapping[str, object] | None = None,
    version: str = "1.0",
    folder: str = "",
    signature: Mapping[str, object] | None = None,
) -> str:
    """Write an archive as a folder of the store; return the name that registers it."""
    place = store / (folder or name)
    (place / "MAR-INF").mkdir(parents=True, exist_ok=True)
    (place / "service.py").write_text(code)
    model = {"modelName": name, "handler": "service.py", "modelVersion": version, "configFile": "model-config.yaml"}
    (place / "model-config.yaml").write_text(json.dumps(config or {}))
    if signature is not None:
        (place / "signature.json").write_text(json.dumps(signature))
    manifest = {"createdOn": "01/01/2026 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    (place / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    return place.name


class LiveServer:
    """``marserve start --foreground`` as a child process.

    Attributes:
        inference, management, metrics: base URLs.
        lines: what it has written so far.
    """

    def __init__(
        self,
        store: Path,
        models: str = "",
        *,
        settings: Mapping[str, object] | None = None,
        command: tuple[str, ...] = ("marserve", "start", "--foreground"),
        cache: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.lines: list[str] = []
        self._heard: queue.Queue[str] = queue.Queue()
        self._own = tempfile.TemporaryDirectory(prefix="marserve-test-")
        values = {**ADDRESSES, "cache_folder": cache or Path(self._own.name) / "cache", **(settings or {})}
        program = str(Path(sys.executable).with_name(command[0]))
        arguments = [program, *command[1:], "--model-store", str(store)]
        if models:
            arguments += ["--models", models]
        for key, value in values.items():
            arguments += ["--set", f"{key}={value}"]
        arguments += ["--pid-file", str(Path(self._own.name) / "server.pid")]
        self.process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=store.parent,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        self.inference = self.management = self.metrics = ""
        self.client = httpx.Client(timeout=PATIENCE)

    def _read(self, stream: IO[bytes]) -> None:
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            self.lines.append(line)
            self._heard.put(line)
        self._heard.put("")

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """Return the match of the next line that matches; fails the test if it does not come."""
        while True:
            try:
                line = self._heard.get(timeout=PATIENCE)
            except queue.Empty:
                raise AssertionError(f"No line matched {pattern!r}. So far:\n{self.log}") from None
            found = re.search(pattern, line)
            if found:
                return found
            if line == "" and not self._reader.is_alive():
                raise AssertionError(f"The server ended before a line matched {pattern!r}:\n{self.log}")

    def wait_until_open(self) -> LiveServer:
        """Return once the doors are open; models may still load."""
        while not (self.inference and self.management and self.metrics):
            found = self.wait_for_line(r"marserve\.server(?::| -) ((?:inference|management|metrics).*) at (\S+)$")
            for door in found.group(1).split(" and "):
                setattr(self, door, found.group(2))
        return self

    def wait_until_ready(self) -> LiveServer:
        """Return once the start-up is done."""
        self.wait_until_open()
        self.wait_for_line("marserve is ready")
        return self

    @property
    def log(self) -> str:
        """Everything that the server has written so far."""
        return "\n".join(self.lines)

    def predict(self, path: str, value: object = None, **more: Any) -> httpx.Response:
        """Post JSON, or what ``more`` says, to ``/predictions/path``."""
        if not more:
            more = {"json": value}
        return self.client.post(f"{self.inference}/predictions/{path}", **more)

    def manage(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Call the management API."""
        return self.client.request(method, self.management + path, **more)

    def describe(self, model: str, version: str = "") -> dict[str, Any]:
        """Return the first entry of a model's description."""
        answer = self.manage("GET", f"/models/{model}" + (f"/{version}" if version else ""))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()[0]
        return found

    def worker_pids(self, model: str) -> list[int]:
        """Return the process ids of a model's workers that have a process."""
        return [worker["pid"] for worker in self.describe(model)["workers"] if "pid" in worker]

    def until(self, what: str, is_so: Any) -> None:
        """Ask ``is_so`` until it holds: for what the server shows and does not announce."""
        give_up = threading.Event()
        timer = threading.Timer(PATIENCE, give_up.set)
        timer.start()
        try:
            while not is_so():
                assert not give_up.wait(0.02), f"It never came true that {what}. The log:\n{self.log}"
        finally:
            timer.cancel()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Return the exit code once the server has ended."""
        return self.process.wait(timeout=PATIENCE)

    def stop(self) -> int:
        """Stop the server as an operator does; return its exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
        self._reader.join(PATIENCE)
        self._own.cleanup()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextmanager
def launched(store: Path, models: str = "", **more: Any) -> Iterator[LiveServer]:
    """Run a server that the block itself ends, or kills."""
    server = LiveServer(store, models, **more)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def serving(store: Path, models: str = "", **more: Any) -> Iterator[LiveServer]:
    """Run a server for the length of a block, ready when it begins and stopped cleanly at its end."""
    with launched(store, models, **more) as server:
        server.wait_until_ready()
        yield server
        assert server.stop() == 0, server.log


def descendants(pid: int) -> list[psutil.Process]:
    """Return every process below ``pid``."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def all_gone(processes: list[psutil.Process]) -> bool:
    """Return whether every one of the processes ends; a zombie has, whoever should have reaped it."""
    give_up = threading.Event()
    timer = threading.Timer(PATIENCE, give_up.set)
    timer.start()
    try:
        while any(_is_alive(process) for process in processes):
            if give_up.wait(0.02):
                return False
    finally:
        timer.cancel()
    return True


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
