"""The Starter of workers that their developer starts, in a debugger for instance: it says how, and waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import psutil

from marserve.supervisor.process import WORKER, Exit, Launch, OnExit

log = logging.getLogger("marserve.worker")

#: Seconds between two looks whether the process is still there.
LOOK = 0.2
#: What an interpreter is given to be an ordinary worker.
_MODULE = ("-m", "marserve.worker.main")

#: Returns what a worker is started with: the command, and its whole environment.
Prepare = Callable[[Launch], tuple[list[str], Mapping[str, str]]]


class ByHand:
    """Starts nothing; implements ``Starter``.

    Args:
        prepare: says how a worker would be started.
    """

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare

    def start(self, launch: Launch, on_exit: OnExit) -> Awaited:
        """See ``Starter``."""
        command, environment = self._prepare(launch)
        if launch.program == WORKER:
            command[1:] = _MODULE
        # What the developer's shell lacks; without the server as its parent a worker does not end with it.
        more = [
            f"{name}={shlex.quote(value)}"
            for name, value in environment.items()
            if os.environ.get(name) != value and name != "MARSERVE_PARENT"
        ]
        log.info("Start the worker %s yourself (debug=true): %s", launch.name, " ".join([*more, shlex.join(command)]))
        return Awaited(launch.name, on_exit)

    def release(self) -> None:
        """See ``Starter``: nothing is kept."""

    async def close(self) -> None:
        """See ``Starter``."""


class Awaited:
    """A worker that somebody else starts; implements ``Process``.

    Its output goes where its developer looks, and how it ends the system tells its own parent alone.
    """

    def __init__(self, name: str, on_exit: OnExit) -> None:
        self.name = name
        self.pid = 0
        self.lines: deque[str] = deque()
        self._on_exit: OnExit | None = on_exit
        self._processes: list[psutil.Process] = []
        self._loop = asyncio.get_running_loop()

    def include(self, pids: Sequence[int]) -> None:
        """See ``Process``: it has come."""
        self.pid = pids[0]
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._processes.append(psutil.Process(pid))
        self._look()

    def _look(self) -> None:
        if not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in self._processes):
            self._ended()
        elif self._on_exit is not None:
            self._loop.call_later(LOOK, self._look)

    def kill(self, hard: bool) -> None:
        """See ``Process``."""
        if not self._processes:
            self._loop.call_soon(self._ended)
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)

    def _ended(self) -> None:
        on_exit, self._on_exit = self._on_exit, None
        if on_exit is not None:
            on_exit(self, Exit(None, None))
