"""The gate: where workers connect back, say hello with their token, and become links."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from marserve.errors import RemoteProtocolError
from marserve.wire import frames

log = logging.getLogger("marserve.gate")

#: Seconds until the next look when no connection can be taken.
PAUSE = 0.5

#: Called with the greeted socket and the worker's hello.
OnHello = Callable[[socket.socket, dict[str, object]], None]


class Gate:
    """A unix socket on which only workers with a known token get past hello."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._expected: dict[str, OnHello] = {}
        self._socket: socket.socket | None = None
        #: those that have connected and not said hello yet
        self._strangers: set[socket.socket] = set()

    def open(self) -> None:
        """Listen; needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.bind(self.path)
        os.chmod(self.path, 0o600)
        self._socket.listen(128)
        self._listen()

    def _listen(self) -> None:
        if self._socket is not None:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening and remove the socket's file."""
        if self._socket is None:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        for sock in self._strangers:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._strangers.clear()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def expect(self, token: str, on_hello: OnHello) -> None:
        """Let the worker that says ``token`` in, once."""
        self._expected[token] = on_hello

    def forget(self, token: str) -> None:
        """Let nobody in with ``token`` any more."""
        self._expected.pop(token, None)

    def _accept(self) -> None:
        assert self._socket is not None
        while True:
            try:
                sock, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # No descriptors are left: whoever knocks stays outside until some are, without being asked for.
                log.warning("A worker cannot connect: %s.", error)
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(PAUSE, self._listen)
                return
            sock.setblocking(False)
            reader = frames.FrameReader()
            self._strangers.add(sock)
            self._loop.add_reader(sock.fileno(), self._read, sock, reader)

    def _read(self, sock: socket.socket, reader: frames.FrameReader) -> None:
        try:
            data = sock.recv(64 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            found = reader.feed(data)
            if data and not found:
                return
            self._forget(sock)
            if not data:
                sock.close()
                return
            self._greet(sock, found)
        except RemoteProtocolError as error:
            log.warning("Somebody at the gate was turned away: %s", error)
            self._forget(sock)
            sock.close()

    def _forget(self, sock: socket.socket) -> None:
        if sock in self._strangers:
            self._strangers.remove(sock)
            self._loop.remove_reader(sock.fileno())

    def _greet(self, sock: socket.socket, found: list[tuple[int, int, int, int, bytes]]) -> None:
        kind, _flags, _count, _batch, body = found[0]
        if kind != frames.HELLO or len(found) > 1:
            raise RemoteProtocolError("Something else than one hello came first.")
        hello = frames.decode_message(body)
        token = str(hello.get("token", "")).encode("utf-8", "replace")
        known = next((one for one in self._expected if hmac.compare_digest(one.encode(), token)), None)
        if known is None:
            raise RemoteProtocolError("A hello carried a token that no worker was given.")
        if hello.get("version") != frames.WIRE_VERSION:
            raise RemoteProtocolError(
                f"A worker speaks version {hello.get('version')} of the wire, this server {frames.WIRE_VERSION}."
            )
        self._expected.pop(known)(sock, hello)
