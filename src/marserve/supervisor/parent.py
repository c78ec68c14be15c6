"""The parent of a version's workers as the server sees it: what it is asked for, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from marserve.errors import ProtocolError
from marserve.supervisor.gate import Gate
from marserve.supervisor.process import KILLED, Exit, Launch, OnExit, Process, Program
from marserve.wire import frames
from marserve.wire.protocol import PARENT_SERVER, next_state
from marserve.wire.streams import send_all, send_with_descriptors

log = logging.getLogger("marserve.pool")

#: What a parent runs.
PARENT = Program("from marserve.worker.parent import main; main()")
#: How long a parent that is let go of may take for its own end, seconds.
LAST_SECONDS = 5.0
#: Longest time that a parent, which waits for nothing else then, may take to read what it is to load, seconds.
READING = 1.0


class Ordered:
    """A worker that has been asked for, from then on to its end; implements ``Process``.

    Args:
        abandon: called when it is to be ended before there is a process.
    """

    def __init__(self, launch: Launch, on_exit: OnExit, abandon: Callable[[Ordered], None]) -> None:
        self.name = launch.name
        self.launch = launch
        self.is_unwanted = False
        #: where its log can be read, -1 before it has been forked for
        self.output = -1
        self._on_exit = on_exit
        self._abandon = abandon
        self._process: Process | None = None
        self._lines: deque[str] = deque()

    @property
    def pid(self) -> int:
        """See ``Process``."""
        return self._process.pid if self._process is not None else 0

    @property
    def lines(self) -> deque[str]:
        """See ``Process``."""
        return self._process.lines if self._process is not None else self._lines

    def become(self, process: Process) -> None:
        """There is a process."""
        self._process = process
        if self.is_unwanted:
            process.kill(True)

    def saw(self, process: Process) -> None:
        """Its log is that of a process which was loading for it."""
        self._lines = process.lines

    def ended(self, process: Process, how: Exit) -> None:
        """Its process has ended, or the one that was loading for it; implements ``OnExit``."""
        self.saw(process)
        self._on_exit(self, how)

    def given_up(self) -> None:
        """It has ended before it began."""
        self._on_exit(self, KILLED)

    def kill(self, hard: bool) -> None:
        """See ``Process``."""
        if self._process is not None:
            self._process.kill(hard)
        elif not self.is_unwanted:
            self.is_unwanted = True
            self._abandon(self)

    def include(self, pids: Sequence[int]) -> None:
        """See ``Process``; a forked worker leads its group, which is known without being told."""
        if self._process is not None:
            self._process.include(pids)


class Parent:
    """The parent as the server sees it.

    Args:
        launch: how it is started, with a token of its own.
        heard: called with the kind and the message of each frame that it sends.

    Attributes:
        process: the process; set by whoever has started it.
        is_ready: whether it can be asked to fork.
        asked: what it has been asked for and not yet done, by token.
        heir: the worker that it has become.
    """

    process: Process

    def __init__(self, launch: Launch, gate: Gate, heard: Callable[[Parent, int, dict[str, object]], None]) -> None:
        self.is_ready = False
        self.asked: dict[str, Ordered] = {}
        self.heir: Ordered | None = None
        self._load = launch.load
        self._gate = gate
        self._heard = heard
        self._token = launch.token
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._reader = frames.FrameReader()
        self._state = "greeted"
        gate.expect(self._token, self._hello)

    def _hello(self, sock: socket.socket, hello: dict[str, object]) -> None:
        try:
            sock.settimeout(READING)
            send_all(sock, [frames.encode_message(frames.LOAD, self._load)])
            sock.setblocking(False)
        except OSError:  # it has ended, which is heard of too, or is of no use
            sock.close()
            self.process.kill(True)
            return
        self._sock = sock
        self._loop.add_reader(sock.fileno(), self.read)

    def read(self) -> None:
        """Hear what it has said."""
        while self._sock is not None:
            try:
                data = self._sock.recv(64 * 1024)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._hang_up()
                return
            try:
                for kind, _flags, _count, _batch, body in self._reader.feed(data):
                    self._state = next_state(PARENT_SERVER, self._state, kind)
                    self._heard(self, kind, frames.decode_message(body))
            except ProtocolError as error:
                log.error("A parent broke the rules of the wire, and is ended: %s", error.message)
                self.process.kill(True)
                return

    def fork(self, ordered: Ordered) -> None:
        """Ask for a worker.

        Raises:
            ConnectionError: it is ending.
            OSError: it cannot be asked now.
        """
        if self._sock is None:
            raise ConnectionError("The parent is gone.")
        ordered.output, writing = os.pipe()
        told = frames.encode_message(frames.FORK, {"token": ordered.launch.token})
        try:
            send_with_descriptors(self._sock, told, [writing])
        except OSError:
            os.close(ordered.output)
            raise
        finally:
            os.close(writing)
        self.asked[ordered.launch.token] = ordered

    def serve(self, heir: Ordered) -> None:
        """Let it become a worker; it is no parent any more."""
        self.heir = heir
        self.process.name = heir.name
        heir.become(self.process)
        if self._sock is not None:
            with contextlib.suppress(OSError):  # its end is heard of too
                send_all(self._sock, [frames.encode_message(frames.SERVE, {"token": heir.launch.token})])
            self._hang_up()

    def release(self) -> None:
        """Let it end: at once while it loads, else after what it has been asked for."""
        if not self.is_ready or self._sock is None:
            self.process.kill(True)
            return
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._loop.call_later(LAST_SECONDS, self.process.kill, True)

    def close(self) -> None:
        """It has ended: hear its last words, which are all there, and forget it."""
        self.read()
        self._hang_up()
        self._gate.forget(self._token)

    def _hang_up(self) -> None:
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
