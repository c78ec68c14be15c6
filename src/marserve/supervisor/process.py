"""Starting worker processes and knowing how they ended: a Starter, and the one that spawns."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from marserve.supervisor.guard import Guard

#: Lines of a worker's log that are kept for its autopsy.
KEPT_LINES = 50
#: Longest line that is passed on whole, bytes; a longer one is cut there and goes on as the next.
LONGEST_LINE = 64 * 1024
#: Bytes of a log that are passed on in one turn of the loop: writing a line out costs about ten microseconds, and a
#: worker that floods its log must keep no request waiting. What it cannot write meanwhile holds it up, nobody else.
READ_AT_ONCE = 2048
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
    """

    name: str
    gate: str
    token: str
    environment: Mapping[str, str]
    python: str | None = None
    program: Program = WORKER


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker process ended: an exit code, or the number of a signal."""

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
        return f"ended with exit code {self.code}"


#: The end of a process by the system, most often for want of memory, or by force.
KILLED = Exit(None, signal.SIGKILL)


class Process(Protocol):
    """A worker process, wherever it is. Nobody above assumes a child or a process id."""

    #: The id to show to the operator, 0 where there is none.
    pid: int
    #: The last lines that the worker wrote, oldest first.
    lines: deque[str]

    def kill(self, hard: bool) -> None:
        """Ask the process to end, or make it end together with everything that it has started."""

    def include(self, pids: Sequence[int]) -> None:
        """Count these processes, which lead groups of their own, to what it has started."""


#: Called when a process has ended, after the last of its lines has been read.
OnExit = Callable[["Process", Exit], None]
#: Called for each line that a worker writes.
OnLine = Callable[[str, str], None]


class Starter(Protocol):
    """Starts workers: ``spawn`` here; ``fork`` from a loaded parent and ``remote`` have the same shape."""

    def start(self, launch: Launch, on_exit: OnExit) -> Process:
        """Start a worker; it connects to ``launch.gate`` by itself.

        Raises:
            OSError: no process could be started.
        """


class Spawned:
    """A child process with its output read line by line."""

    __slots__ = (
        "_groups",
        "_guard",
        "_loop",
        "_on_exit",
        "_on_line",
        "_output",
        "_pidfd",
        "_popen",
        "_rest",
        "exit",
        "lines",
        "name",
        "pid",
    )

    def __init__(
        self,
        launch: Launch,
        command: list[str],
        environment: Mapping[str, str],
        on_exit: OnExit,
        on_line: OnLine,
        guard: Guard,
    ) -> None:
        self._guard = guard
        self.name = launch.name
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.exit: Exit | None = None
        self._on_exit = on_exit
        self._on_line = on_line
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=dict(environment),
            start_new_session=True,  # a group of its own: what it starts can be ended with it
        )
        self.pid = self._popen.pid
        self._groups = [self.pid]
        guard.watch(self.pid)
        assert self._popen.stdout is not None
        self._output = self._popen.stdout.fileno()
        os.set_blocking(self._output, False)
        self._loop.add_reader(self._output, self._read)
        self._pidfd = -1
        self._watch()

    def _watch(self) -> None:
        """Hear of the end at once where the system can tell, else by looking ten times a second."""
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            self._loop.call_later(0.1, self._look)
        else:
            self._loop.add_reader(self._pidfd, self._ended)

    def _look(self) -> None:
        if self._popen.poll() is None:
            self._loop.call_later(0.1, self._look)
        else:
            self._kill_group()
            self._ended()

    def _ended(self) -> None:
        if self.exit is not None:
            return
        if self._pidfd >= 0:
            # Before the process is reaped: until then its number, which is the group's, is nobody else's.
            self._kill_group()
        if self._popen.poll() is None:
            return
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        for group in self._groups:
            self._guard.forget(group)
        # What a pipe holds, and no more: somebody whom the worker has left behind may go on writing for ever.
        self._read(LONGEST_LINE)
        self._loop.remove_reader(self._output)
        assert self._popen.stdout is not None
        self._popen.stdout.close()
        if self._rest:
            self._tell(self._rest)
        code = self._popen.returncode
        self.exit = Exit(code, None) if code >= 0 else Exit(None, -code)
        self._on_exit(self, self.exit)

    def _read(self, most: int = READ_AT_ONCE) -> None:
        try:
            data = os.read(self._output, most)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._output)
            return
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._tell(line)
        if len(self._rest) > LONGEST_LINE:
            self._tell(self._rest)
            self._rest = b""

    def _tell(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        self.lines.append(text)
        self._on_line(self.name, text)

    def kill(self, hard: bool) -> None:
        """See ``Process``."""
        if self.exit is not None:
            return
        if hard:
            self._kill_group()
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGKILL if hard else signal.SIGTERM)

    def include(self, pids: Sequence[int]) -> None:
        """See ``Process``."""
        for pid in pids:
            with contextlib.suppress(OSError):  # it is gone already
                if pid not in self._groups and pid > 1 and os.getpgid(pid) == pid:
                    self._groups.append(pid)
                    self._guard.watch(pid)

    def _kill_group(self) -> None:
        """End what the worker has started and left behind in its group, and in those of its ranks."""
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


class Spawner:
    """The Starter that spawns a fresh interpreter for each worker."""

    def __init__(self, on_line: OnLine, runtime: Path, guard: Guard) -> None:
        self._on_line = on_line
        self._guard = guard
        self._runtime = runtime

    def start(self, launch: Launch, on_exit: OnExit) -> Spawned:
        """See ``Starter``."""
        environment = dict(launch.environment)
        environment["MARSERVE_GATE"] = launch.gate
        environment["MARSERVE_TOKEN"] = launch.token
        environment["MARSERVE_PARENT"] = str(os.getpid())
        environment.setdefault("PYTHONUNBUFFERED", "1")
        python = launch.python or sys.executable
        if launch.python is not None:
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, [str(self._package_path()), environment.get("PYTHONPATH", "")])
            )
        command = [python, "-c", launch.program.code, *launch.program.arguments]
        return Spawned(launch, command, environment, on_exit, self._on_line, self._guard)

    def _package_path(self) -> Path:
        """Return a folder that holds the package and nothing else.

        The server's own site-packages must not reach another interpreter: its compiled modules have the wrong
        ABI there.
        """
        folder = self._runtime / "path"
        link = folder / "marserve"
        if not link.is_symlink():
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                link.symlink_to(Path(__file__).resolve().parent.parent)
        return folder


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
