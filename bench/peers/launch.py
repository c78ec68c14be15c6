"""Starts a peer on a free port with a workload, shows that it answers rightly, and ends all of it."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from bench.load import MeasureError
from bench.peers.asking import Asked, ask, asked, check_right
from bench.peers.commands import LAUNCHERS, Launch, Mode, environment_of, program
from bench.peers.management import ask_management, check_mode, register
from bench.peers.table import PEERS, Peer
from bench.services.build import Built
from bench.services.workloads import Workload

#: Seconds that a peer may take to its first answer, and to end once it is told to.
START, END = 60.0, 6.0
#: Ports that are tried. Multi Model Server refuses those from 32767 on.
PORTS = range(20000, 32000)
_LOG_LINES = 15
#: What can go wrong with a peer and must not end the run of the others.
_FAULTS = (
    MeasureError,
    OSError,
    http.client.HTTPException,
    psutil.Error,
    subprocess.SubprocessError,
    ValueError,
    LookupError,
)


@dataclass(frozen=True)
class Standing:
    """A peer that answers.

    Attributes:
        process: what was started; all else descends from it.
        first_answer: seconds from the start of the command to its first right answer.
    """

    launch: Launch
    process: psutil.Process
    first_answer: float

    def to_workload(self, workload: Workload) -> Asked:
        """Return the request of a workload of the same archive."""
        return asked(self.launch.peer, workload, self.launch.port)


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens now.

    Raises:
        MeasureError: there are not so many.
    """
    found: list[int] = []
    for port in PORTS:
        if len(found) == count:
            return found
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                trial.bind(("127.0.0.1", port))
                found.append(port)
    raise MeasureError("No port is free.")


@contextlib.contextmanager
def standing(peer: Peer, workload: Workload, mode: Mode, built: Built) -> Iterator[Standing]:
    """Start a peer, check its answer, and end it with all its processes when the block ends.

    Raises:
        MeasureError: it did not start, or answered wrongly; with the end of its log.
    """
    with TemporaryDirectory(prefix="bench-peer-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        launch = Launch(peer, workload, mode, built, folder, *free_ports(3))
        command, environment = LAUNCHERS[peer.launcher](launch)
        log = folder / "log"
        began = time.perf_counter()
        with log.open("wb") as console:
            # A session of its own: what it leaves behind is found by that, also when its parent is gone.
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment_of(launch) | environment,
                stdout=console,
                stderr=console,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            to = asked(peer, workload, launch.port)
            _wait_for_answer(process, launch, to)
            first_answer = time.perf_counter() - began
            if peer.scaling == "management":
                check_mode(mode, ask_management(launch, "GET", f"/models/{workload.archive}"))
            yield Standing(launch, psutil.Process(process.pid), first_answer)
            if process.poll() is not None:
                raise MeasureError(f"It ended in the middle, code {process.returncode}.")
        except _FAULTS as error:
            raise MeasureError(f"{peer.title}: {error} {_end_of(log)}".strip()) from error
        finally:
            end(process)


def run_loops(workload: Workload, mode: Mode, built: Built, seconds: float) -> float:
    """Return the requests a second that bare loops of a service answer, one process a worker, all together.

    Raises:
        MeasureError: one of them failed.
    """
    loops = []
    with TemporaryDirectory(prefix="bench-loop-") as name:
        launch = Launch(PEERS["loops"], workload, mode, built, Path(name), 0, 0, 0)
        command, environment = program(launch)
        environment = environment_of(launch) | environment
        for _ in range(mode.workers):
            pipe = subprocess.PIPE
            loop = subprocess.Popen(
                [*command, str(seconds)], env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT
            )
            assert loop.stdin is not None
            loop.stdin.write(workload.body())
            loop.stdin.close()
            loop.stdin = None
            loops.append(loop)
        outputs = [loop.communicate()[0].decode() for loop in loops]
    for loop, output in zip(loops, outputs, strict=True):
        if loop.returncode:
            raise MeasureError(f"A bare loop ended with {loop.returncode}: {output.strip()[-500:]}")
    return sum(float(output.split()[-1]) for output in outputs)


# --- the life of one -----------------------------------------------------------------------------------


def _wait_for_answer(process: subprocess.Popen[bytes], launch: Launch, to: Asked) -> None:
    """Ask until the answer is right: many listen before a worker is there, and say 503 or 404 so long."""
    last: Exception = MeasureError("Nobody listened.")
    deadline = time.perf_counter() + START
    # Multi Model Server loads a model at its start with batches of 1, whatever it is told.
    is_registered = launch.peer.launcher != "mms"
    while time.perf_counter() < deadline:
        try:
            if not is_registered:
                register(launch)
                is_registered = True
            check_right(launch.peer, launch.workload, *ask(to))
            return
        except (OSError, http.client.HTTPException, MeasureError) as error:
            last = error
        if process.poll() is not None:
            raise MeasureError(f"It ended with code {process.returncode} before it was ready.")
        time.sleep(0.01)
    raise MeasureError(f"It was not ready after {START:g} s: {last}")


def family_of(pid: int) -> list[psutil.Process]:
    """Return a process, what descends from it, and what is left of its session where a parent has gone."""
    family: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        family = {one.pid: one for one in (process, *process.children(recursive=True))}
    for other in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(other.pid) == pid:
                family[other.pid] = other
    return list(family.values())


def end(process: subprocess.Popen[bytes]) -> None:
    """End a peer and whatever it has started: it is told first, and what stays is killed by its id."""
    family = family_of(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END)
    left = [one for one in family if one.is_running() and one.pid != process.pid]
    _, left = psutil.wait_procs(left, timeout=2.0)
    for one in left:
        with contextlib.suppress(psutil.Error):
            one.kill()
    if process.poll() is None:
        process.kill()
    process.wait()


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if log.is_file() else []
    return "\n".join(["Its last lines:", *lines]) if lines else ""
