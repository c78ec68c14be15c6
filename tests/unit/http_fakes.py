"""A connection without sockets: a transport that keeps what is written, and a lane that keeps what it is told."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from marserve.doors.http.asgi import AsgiBridge
from marserve.doors.http.connection import Connection, Exchange, Limits
from marserve.doors.http.heads import Heads
from marserve.doors.http.lane import ASGIApp

LIMITS = Limits(header_bytes=1000, body_bytes=2000, pipeline_depth=3, pipeline_bytes=500)


class FakeSocket:
    def __init__(self) -> None:
        self.options: list[tuple[int, int]] = []

    def setsockopt(self, level: int, option: int, value: object) -> None:
        self.options.append((level, option))


class FakeTransport:
    """Writes into ``out``; ``unsent`` is what the peer has not taken yet."""

    def __init__(self, has_eof: bool = True) -> None:
        self.out = bytearray()
        self.write_count = 0
        self.unsent = 0
        self.is_aborted = self.is_closed = self.has_written_eof = self.is_reading_paused = False
        self._has_eof = has_eof
        self.socket = FakeSocket()

    def write(self, data: bytes) -> None:
        assert not self.is_closed, "a closed transport was written to"
        assert not self.has_written_eof, "something was written behind the end"
        self.out += data
        self.write_count += 1

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def can_write_eof(self) -> bool:
        return self._has_eof

    def write_eof(self) -> None:
        self.has_written_eof = True

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False

    def is_reading(self) -> bool:
        return not self.is_reading_paused

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_extra_info(self, name: str) -> object:
        return {"peername": ("10.0.0.9", 5555), "socket": self.socket}.get(name)


class FakeLoop:
    """Keeps what is to be called soon until ``turn``."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        calls, self.soon = self.soon, []
        for call in calls:
            call()


class RecordingLane:
    """Admits, and answers at once with the target as body, unless told otherwise."""

    def __init__(self) -> None:
        self.max_body = 100_000
        self.answers_at_once = True
        self.admits = True
        self.admitted: list[Exchange] = []
        self.accepted: list[Exchange] = []
        self.abandoned: list[Exchange] = []

    def admit(self, exchange: Exchange) -> bool:
        self.admitted.append(exchange)
        if not self.admits:
            exchange.respond(404, b"Not Found", b"", b"none")
        return self.admits

    def accept(self, exchange: Exchange) -> None:
        self.accepted.append(exchange)
        if self.answers_at_once:
            exchange.respond(200, b"OK", b"", exchange.target)

    def gone(self, exchange: Exchange) -> None:
        self.abandoned.append(exchange)


async def unreachable(*_: object) -> None:
    raise AssertionError("this test does not reach the application")


class RecordingApplication:
    """Everything takes the recording lane, but for targets below ``/asgi``."""

    def __init__(self, asgi: ASGIApp = unreachable) -> None:
        self.fast = RecordingLane()
        self.asgi = asgi
        self.refusals: list[tuple[int, str]] = []
        self.told: list[tuple[bytes, bytes, int]] = []

    def lane(self, method: bytes, target: bytes) -> RecordingLane | None:
        return None if target.startswith(b"/asgi") else self.fast

    def refuse(self, status: int, message: str) -> tuple[bytes, bytes]:
        self.refusals.append((status, message))
        return b"x-refused: yes\r\n", message.encode()

    def refused(self, exchange: Exchange, status: int) -> None:
        self.told.append((exchange.method, exchange.target, status))


class Client:
    """A connection and the other end of it."""

    def __init__(self, has_eof: bool = True, asgi: ASGIApp = unreachable, **limits: float) -> None:
        self.application = RecordingApplication(asgi)
        self.lane = self.application.fast
        self.transport = FakeTransport(has_eof)
        self.loop = FakeLoop()
        self.open_count = 0
        self.limits = replace(LIMITS, **limits)  # type: ignore[arg-type]
        self.bridge = AsgiBridge(self.application, self.limits.body_bytes)
        self.connection = Connection(
            self.application,
            self.bridge,
            self.limits,
            self.loop,
            Heads(self.application.lane),
            self._made,
            self._lost,
        )  # type: ignore[arg-type]
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def _made(self, connection: Connection) -> None:
        self.open_count += 1

    def _lost(self, connection: Connection) -> None:
        self.open_count -= 1

    def send(self, data: bytes, size: int = 0) -> None:
        """Send bytes, in pieces of ``size`` when that is given; stop where the server would not read any more."""
        size = size or len(data) or 1
        for start in range(0, len(data), size):
            if not self.transport.is_closed:
                self.connection.data_received(data[start : start + size])

    def sweep(self, seconds: float) -> None:
        """Let the sweep come, ``seconds`` from now."""
        self.connection.sweep(monotonic() + seconds)

    def leave(self) -> None:
        self.connection.connection_lost(None)

    @property
    def out(self) -> bytes:
        return bytes(self.transport.out)

    @property
    def statuses(self) -> list[int]:
        """The statuses of all that was answered, in order."""
        return [status for status, _, _ in self.answers]

    @property
    def answers(self) -> list[tuple[int, dict[bytes, bytes], bytes]]:
        """What was answered, read as a client would: by its lengths and chunks."""
        found, rest = [], self.out
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            status = int(first.split(b" ")[1])
            headers = {name: value for name, _, value in (line.partition(b": ") for line in lines)}
            body = b""
            if headers.get(b"transfer-encoding") == b"chunked":
                while rest:
                    size, _, rest = rest.partition(b"\r\n")
                    body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
                    if size == b"0":
                        break
            elif b"content-length" in headers:
                length = int(headers[b"content-length"])
                assert len(rest) >= length, "the answer is shorter than it says"
                body, rest = rest[:length], rest[length:]
            found.append((status, headers, body))
        return found

    @property
    def is_lingering(self) -> bool:
        return self.transport.has_written_eof and not self.transport.is_closed

    @property
    def is_reset(self) -> bool:
        return self.transport.is_aborted and (socket.SOL_SOCKET, socket.SO_LINGER) in self.transport.socket.options


def post(target: bytes = b"/a", body: bytes = b"", *headers: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"POST " + target + b" HTTP/" + version, b"Host: x", *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(target: bytes = b"/a", *headers: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([method + b" " + target + b" HTTP/" + version, b"Host: x", *headers]) + b"\r\n\r\n"
