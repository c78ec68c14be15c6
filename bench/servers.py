"""Starts a contender as a user would, on a free port, shows that it answers rightly, and ends it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.floors.service import FOLDER_VARIABLE
from bench.load import MeasureError
from bench.plan import Contender
from bench.services.build import ROOT, Built, Subject

#: Seconds that a server may take until it is ready, and to end once it is told to.
START, END = 60.0, 15.0
#: Where each kind of server says its ports, that of predictions first.
_PORTS = {
    "marserve": [
        re.compile(rf"^{door}: http://127\.0\.0\.1:(\d+)$", re.MULTILINE) for door in ("inference", "management")
    ],
    "uvicorn": [re.compile(r"running on http://127\.0\.0\.1:(\d+)")],
}
_LOG_LINES = 15


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        process: the one that holds the port; workers are its children.
        first_answer: seconds from the start of the command to its first answer.
    """

    port: int
    process: psutil.Process
    first_answer: float


@contextlib.contextmanager
def running(contender: Contender, built: Built) -> Iterator[Running]:
    """Start a server, check its answers, and end it when the block ends.

    Raises:
        MeasureError: it did not start, or answered wrongly; with the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder, "log")
        command, environment = _command(contender, built, Path(folder))
        began = time.perf_counter()
        with log.open("wb") as console:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=console, stderr=console, stdin=subprocess.DEVNULL
            )
        try:
            port, *others = _wait_for_ports(process, log, _PORTS[contender.kind])
            check_answer(contender.subject, port, 0)
            first_answer = time.perf_counter() - began
            for number in range(1, len(contender.subject.examples)):
                check_answer(contender.subject, port, number)
            if others:
                check_description(_get(others[0], f"/models/{contender.subject.name}"), contender.settings)
            yield Running(port, _holder_of(port, process.pid), first_answer)
            if process.poll() is not None:
                raise MeasureError(f"{contender.title} ended in the middle, code {process.returncode}.")
        except (MeasureError, OSError, http.client.HTTPException) as error:
            raise MeasureError(f"{error} {_end_of(log)}".strip()) from error
        finally:
            _end(process)


def environment_of(subject: Subject, built: Built) -> dict[str, str]:
    """Return the environment of servers and floors: one thread a library, and none that spins."""
    # What the shell holds for a server of the user's own must not steer the one that is measured.
    own = {name: value for name, value in os.environ.items() if not name.startswith("MARSERVE_")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return own | threads | {"OMP_WAIT_POLICY": "PASSIVE", FOLDER_VARIABLE: str(built.folders / subject.name)}


def _command(contender: Contender, built: Built, folder: Path) -> tuple[list[str], dict[str, str]]:
    environment = environment_of(contender.subject, built)
    if contender.kind == "uvicorn":
        command = [sys.executable, "-m", "uvicorn", contender.application, "--port", "0", "--no-access-log"]
        return [*command, "--loop", "uvloop", "--http", "httptools"], environment
    # The cache is this start's own, so that unpacking is part of the time to the first answer.
    settings = {"cache_folder": str(folder / "cache"), **contender.settings}
    name = contender.subject.name
    command = [str(Path(sys.executable).with_name("marserve"))]
    if contender.module:
        command = [sys.executable, "-m", contender.module]
    command += ["start", "--foreground"]
    command += ["--model-store", str(built.store), "--models", f"{name}={name}.mar"]
    command += ["--config", str(ROOT / "bench" / "marserve.properties"), "--pid-file", str(folder / "pid")]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    return command, environment


def _wait_for_ports(process: subprocess.Popen[bytes], log: Path, patterns: Sequence[re.Pattern[str]]) -> list[int]:
    end = time.perf_counter() + START
    while time.perf_counter() < end:
        text = log.read_text(errors="replace")
        found = [match for pattern in patterns if (match := pattern.search(text))]
        if len(found) == len(patterns):
            return [int(match[1]) for match in found]
        if process.poll() is not None:
            raise MeasureError(f"It ended with code {process.returncode} before it was ready.")
        time.sleep(0.002)
    raise MeasureError(f"It was not ready after {START:g} s.")


def check_answer(subject: Subject, port: int, number: int) -> None:
    """Send one of the subject's examples.

    Raises:
        MeasureError: the answer is another than the example's.
    """
    body, expected = subject.examples[number]
    status, answer = _ask(port, "POST", subject.path, body)
    with contextlib.suppress(ValueError):
        if status == 200 and json.loads(answer) == expected:
            return
    raise MeasureError(f"{body} was answered with {status} {answer[:300]!r}, expected {expected}.")


def check_description(description: bytes, settings: Mapping[str, str]) -> None:
    """Check that a model runs with the batch size and the workers that it is compared under.

    Without this, a batch that an archive or a default asks for would be measured as batch 1.

    Args:
        description: what the management door says of the model, JSON.
        settings: as of a ``Contender``.

    Raises:
        MeasureError: it runs otherwise.
    """
    found = json.loads(description)[0]
    wanted = (int(settings["batch_size"]), int(settings["default_workers_per_model"]), 0)
    runs = (found["batchSize"], len(found["workers"]), found["maxBatchDelay"])
    if runs != wanted:
        raise MeasureError(f"It runs with (batch size, workers, batch delay) {runs}, wanted are {wanted}.")


def _get(port: int, path: str) -> bytes:
    status, answer = _ask(port, "GET", path)
    if status != 200:
        raise MeasureError(f"{path} was answered with {status} {answer[:300]!r}.")
    return answer


def _ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _holder_of(port: int, pid: int) -> psutil.Process:
    """Return the process that listens on ``port``: the command, or one that it has started."""
    command = psutil.Process(pid)
    for process in (command, *command.children(recursive=True)):
        if any(held.laddr and held.laddr.port == port for held in process.net_connections("tcp4")):
            return process
    raise MeasureError(f"No process of the command holds port {port}.")


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join(["Its last lines:", *lines]) if lines else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it has started."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
