"""The server's child processes: spawned as fresh interpreters or forked from a parent; watched, read and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from marserve.supervisor.guard import Guard
from marserve.supervisor.process import Exit, Launch, OnExit, OnLine

#: Lines of a worker's log that are kept for its autopsy.
KEPT_LINES = 50
#: Longest line that is passed on whole, bytes; a longer one is cut there and goes on as the next.
LONGEST_LINE = 64 * 1024
#: Bytes of a log that are passed on in one turn of the loop: writing a line out costs about ten microseconds, and a
#: worker that floods its log must keep no request waiting. What it cannot write meanwhile holds it up, nobody else.
READ_AT_ONCE = 2048

#: Takes notice of the end of a process: its exit code, or the number of a signal as a negative one; None: it lives.
Reap = Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class Watchers:
    """Who is told of every process.

    Attributes:
        on_line: of the lines that it writes.
        guard: of its group.
    """

    on_line: OnLine
    guard: Guard


class Child:
    """A child process with its output read line by line; implements ``Process``.

    Args:
        output: descriptor of a pipe that it writes to.
        reap: asks the system for its end.
    """

    def __init__(self, name: str, pid: int, output: int, reap: Reap, watchers: Watchers, on_exit: OnExit) -> None:
        self.name = name
        self.pid = pid
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.exit: Exit | None = None
        self._on_exit = on_exit
        self._on_line = watchers.on_line
        self._guard = watchers.guard
        self._reap = reap
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._groups = [pid]
        self._guard.watch(pid)
        self._output = output
        os.set_blocking(output, False)
        self._loop.add_reader(output, self._read)
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
        if self._reap() is None:
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
        code = self._reap()
        if code is None:
            return
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        for group in self._groups:
            self._guard.forget(group)
        # What a pipe holds, and no more: somebody whom the worker has left behind may go on writing for ever.
        self._read(LONGEST_LINE)
        self._loop.remove_reader(self._output)
        os.close(self._output)
        if self._rest:
            self._tell(self._rest)
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
            os.kill(self.pid, signal.SIGKILL if hard else signal.SIGTERM)

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
        self._watchers = Watchers(on_line, guard)
        self._runtime = runtime

    def prepare(self, launch: Launch) -> tuple[list[str], dict[str, str]]:
        """Return the command of a worker, and its whole environment."""
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
        return [python, "-c", launch.program.code, *launch.program.arguments], environment

    def start(self, launch: Launch, on_exit: OnExit) -> Child:
        """See ``Starter``."""
        command, environment = self.prepare(launch)
        output, writing = os.pipe()
        try:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=environment,
                start_new_session=True,  # a group of its own: what it starts can be ended with it
            )
        except OSError:
            os.close(output)
            raise
        finally:
            os.close(writing)
        return Child(launch.name, popen.pid, output, popen.poll, self._watchers, on_exit)

    def adopt(self, name: str, pid: int, output: int, on_exit: OnExit) -> Child:
        """Watch a process that somebody else has forked for this one, whose child it is in the eyes of the system.

        Args:
            output: descriptor of a pipe that it writes to; closed when it ends.
        """
        return Child(name, pid, output, _reaper(pid), self._watchers, on_exit)

    def release(self) -> None:
        """See ``Starter``: nothing is kept."""

    async def close(self) -> None:
        """See ``Starter``."""

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


def _reaper(pid: int) -> Reap:
    """Return what asks the system for the end of a process, and remembers it: it is told only once."""
    found: list[int] = []

    def reap() -> int | None:
        if not found:
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has asked; what it was nobody knows any more
                found.append(-signal.SIGKILL)
            else:
                if ended:
                    found.append(os.waitstatus_to_exitcode(status))
        return found[0] if found else None

    return reap
