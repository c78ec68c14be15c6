"""What a worker process is to those who start it and hear of its end, wherever it runs and however it is started."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

#: What a worker runs. ``-c`` and a working directory without files keep every script of the archive off the
#: path until the loader puts the archive there.
ENTRY = "from marserve.worker.main import main; main()"


@dataclass(frozen=True, slots=True)
class Program:
    """What an interpreter is given to run: code for its ``-c``, and the arguments of that."""

    code: str = ENTRY
    arguments: tuple[str, ...] = ()


#: An ordinary worker.
WORKER = Program()


@dataclass(frozen=True, slots=True)
class Launch:
    """What a starter is told.

    Attributes:
        name: how logs name the worker, e.g. ``fizbuz_package:1.0#3``.
        gate: path of the socket that the worker connects back to.
        token: what it must say there.
        python: the interpreter, None for the server's own.
        environment: the whole environment of the worker.
        program: what the interpreter runs.
        load: what the worker is told to load, for starters that do it before there is one.
    """

    name: str
    gate: str
    token: str
    environment: Mapping[str, str]
    python: str | None = None
    program: Program = WORKER
    load: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker process ended: an exit code, or the number of a signal; neither where nobody knows."""

    code: int | None
    signal: int | None

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = str(self.signal)
            told = " (out of memory?)" if self.signal == signal.SIGKILL else ""
            return f"killed by {name}{told}"
        return "ended" if self.code is None else f"ended with exit code {self.code}"


#: The end of a process by the system, most often for want of memory, or by force.
KILLED = Exit(None, signal.SIGKILL)


class Process(Protocol):
    """A worker process, wherever it is. Nobody above assumes a child or a process id."""

    #: How logs name it.
    name: str

    @property
    def pid(self) -> int:
        """The id to show to the operator, 0 where there is none."""

    @property
    def lines(self) -> deque[str]:
        """The last lines that the worker wrote, oldest first."""

    def kill(self, hard: bool) -> None:
        """Ask the process to end, or make it end together with everything that it has started."""

    def include(self, pids: Sequence[int]) -> None:
        """Count these processes, which lead groups of their own, to what it has started."""


#: Called when a process has ended, after the last of its lines has been read.
OnExit = Callable[["Process", Exit], None]
#: Called for each line that a worker writes.
OnLine = Callable[[str, str], None]


class Starter(Protocol):
    """Starts workers: ``spawn``, ``fork`` from a loaded parent, or by hand; ``remote`` has the same shape."""

    def start(self, launch: Launch, on_exit: OnExit) -> Process:
        """Start a worker; it connects to ``launch.gate`` by itself.

        Raises:
            OSError: no process could be started.
        """

    def release(self) -> None:
        """No further worker is wanted for now: let go of what is kept for starting them; those that live go on."""

    async def close(self) -> None:
        """``release``, and wait until what was kept is gone."""


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans (Linux), so that it can end them.

    A worker's own children would else be handed to init when the worker dies, and outlive the server.
    """
    if sys.platform != "linux":
        return
    set_child_subreaper = 36
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0)


def end_orphans() -> int:
    """Kill and reap every child that is left; returns how many there were. Called last, by a server that ends."""
    import psutil

    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=2.0)
    return len(left)
