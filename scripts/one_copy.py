"""Shows what the workers of a large model share: memory, time to four workers, and time to replace one that died."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

MEGABYTE = 1 << 20
#: One layer has a megabyte of weights; each request runs one of them in turn.
SERVICE = """
import os

import torch


class Layers:
    def initialize(self, context):
        self.layers = [torch.nn.Linear(512, 512, bias=False).eval() for _ in range(%d)]
        self.row = torch.ones(1, 512)
        self.turn = 0

    def handle(self, data, context):
        self.turn += 1
        with torch.inference_mode():
            self.layers[self.turn %% len(self.layers)](self.row)
        return [os.getpid()] * len(data)
"""


def make_archive(store: Path, megabytes: int) -> None:
    """Write the archive ``layers`` as a folder of the store."""
    place = store / "layers"
    (place / "MAR-INF").mkdir(parents=True)
    (place / "service.py").write_text(SERVICE % megabytes)
    model = {"modelName": "layers", "handler": "service.py", "modelVersion": "1.0"}
    (place / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"runtime": "python", "model": model}))


class Served:
    """A server with one worker of the model."""

    def __init__(self, folder: Path, start: str) -> None:
        told = {f"{door}_address": "http://127.0.0.1:0" for door in ("inference", "management", "metrics")}
        told.update(worker_start=start, worker_threads="1", cache_folder=str(folder / "cache"))
        command = [str(Path(sys.executable).with_name("marserve")), "start", "--foreground", "--models", "layers"]
        command += ["--model-store", str(folder / "store"), "--pid-file", str(folder / "pid")]
        for key, value in told.items():
            command += ["--set", f"{key}={value}"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
        )
        assert self.process.stdout is not None
        self.doors: dict[str, http.client.HTTPConnection] = {}
        for line in self.process.stdout:
            found = re.match(r"(inference|management): http://(\S+)", line)
            if found:
                self.doors[found[1]] = http.client.HTTPConnection(found[2], timeout=60)
            if line.startswith("metrics:"):
                return
        raise SystemExit("The server did not start.")

    def ask(self, door: str, method: str, path: str, body: str | None = None) -> Any:
        """Return the JSON of an answer."""
        self.doors[door].request(method, path, body, {"content-type": "application/json"})
        answer = self.doors[door].getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text)

    def workers(self) -> set[int]:
        """Return the processes of the workers that are ready."""
        found = self.ask("management", "GET", "/models/layers")[0]["workers"]
        return {worker["pid"] for worker in found if worker["status"].lower() == "ready"}

    def megabytes(self) -> float:
        """Return the proportional memory of all processes below the server."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return sum(float(process.memory_full_info().pss) for process in below) / MEGABYTE


@contextlib.contextmanager
def served(megabytes: int, start: str) -> Iterator[Served]:
    """Serve the model with one worker for the length of a block."""
    with tempfile.TemporaryDirectory() as name:
        make_archive(Path(name) / "store", megabytes)
        server = Served(Path(name), start)
        try:
            yield server
        finally:
            server.process.terminate()
            server.process.communicate()


def show(server: Served, requests: int) -> None:
    """Print the figures."""
    one = server.megabytes()
    print(f"one worker             {one:8.0f} MB")
    began = time.perf_counter()
    server.ask("management", "PUT", "/models/layers?min_worker=4&synchronous=true")
    print(f"to four workers        {time.perf_counter() - began:8.3f} s")
    four = server.megabytes()
    print(f"four workers           {four:8.0f} MB, {four / one:.2f} of one")
    for _ in range(requests):
        server.ask("inference", "POST", "/predictions/layers", "{}")
    later = server.megabytes()
    print(f"after {requests:6} requests  {later:8.0f} MB, {later / one:.2f} of one")
    before = server.workers()
    began = time.perf_counter()
    os.kill(min(before), signal.SIGKILL)
    while min(before) in (after := server.workers()) or len(after) < len(before):
        pass
    print(f"a killed one is back   {time.perf_counter() - began:8.3f} s")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400, help="size of the weights (400)")
    parser.add_argument(
        "--requests", type=int, default=10_000, help="requests before the second look at memory (10000)"
    )
    parser.add_argument("--start", choices=("fork", "spawn"), default="fork", help="how workers begin (fork)")
    told = parser.parse_args()
    with served(told.megabytes, told.start) as server:
        show(server, told.requests)


if __name__ == "__main__":
    main()
