"""Serves an ASGI application on the connections of a listener: all routes but the fast lane's.

HTTP alone: no lifespan, no websockets (an upgrade is answered as an ordinary request). One task a request, started
when all requests before it on its connection have been answered, so that pipelined changes happen in order.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import unquote_to_bytes

from httptools import HttpParserInvalidURLError, parse_url

from marserve.doors.http.exchange import Exchange, render_headers, standard_phrase
from marserve.doors.http.lane import Application, Message

logger = logging.getLogger("marserve.http")

#: Bytes of a body that wait for the application before the connection stops reading.
_BODY_WAITING = 65_536


class AsgiBridge:
    """The lane of requests for the ASGI application; implements ``TurnLane``.

    Args:
        application: its ``asgi`` is served, its ``refuse`` words the answer when that raises.
        max_body: most bytes of a body.
        scheme: "http" or "https", for the scope.
        server: host and port that the listener is bound to, for the scope; None for a unix socket.
    """

    def __init__(
        self, application: Application, max_body: int, scheme: str = "http", server: tuple[str, int] | None = None
    ) -> None:
        self.application = application
        self.max_body = max_body
        self.scheme = scheme
        self.server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def admit(self, exchange: Exchange) -> bool:
        """See ``Lane``."""
        exchange.owner = cycle = Cycle(self, exchange)
        exchange.on_piece = cycle.take_piece
        if exchange.connection.front is exchange:
            self.turn(exchange)
        return True

    def turn(self, exchange: Exchange) -> None:
        """See ``TurnLane``."""
        task = asyncio.get_running_loop().create_task(_cycle_of(exchange).run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def accept(self, exchange: Exchange) -> None:
        """See ``Lane``."""
        _cycle_of(exchange).take_end()

    def gone(self, exchange: Exchange) -> None:
        """See ``Lane``."""
        _cycle_of(exchange).take_end()

    def close(self) -> None:
        """Cancel what the application still does."""
        for task in self._tasks:
            task.cancel()


def _cycle_of(exchange: Exchange) -> Cycle:
    assert isinstance(exchange.owner, Cycle)
    return exchange.owner


class Cycle:
    """One request through the application."""

    def __init__(self, bridge: AsgiBridge, exchange: Exchange) -> None:
        self._bridge = bridge
        self._exchange = exchange
        self._is_whole = False
        self._is_delivered = False  # the application has seen the end of the body
        self._news = asyncio.Event()  # of the body, or of the client
        self._drained = asyncio.Event()
        self._waiting = 0  # bytes in the exchange's pieces
        self._is_held = False

        self._start: Message | None = None  # the application has begun; nothing has been sent
        self._is_begun = False
        self._is_ended = False
        self._left: int | None = None  # bytes that the application still owes to its content-length

    # ---- the connection's side

    def take_piece(self) -> None:
        """A piece of the body has arrived."""
        self._waiting += len(self._exchange.pieces[-1])
        if self._is_ended:
            self._exchange.pieces.clear()
        elif self._waiting > _BODY_WAITING and not self._is_held:
            self._is_held = True
            self._exchange.connection.hold_body(True)
        self._news.set()

    def take_end(self) -> None:
        """The body is complete, or the client has left."""
        self._is_whole = True
        self._news.set()
        self._drained.set()

    async def run(self) -> None:
        """Call the application, and see to it that there is one answer whatever it does."""
        exchange = self._exchange
        try:
            await self._bridge.application.asgi(scope_of(exchange, self._bridge), self.receive, self.send)
            if not self._is_ended and not exchange.is_gone:
                raise RuntimeError("The ASGI application returned before its answer was complete.")
        except Exception:
            if exchange.is_gone:  # it may well have failed because its client has left
                return
            logger.exception("%s %s failed.", exchange.method.decode("latin-1"), exchange.target.decode("latin-1"))
            self._fail()
        finally:
            if not self._is_ended:
                exchange.break_off()
            self._release()

    def _fail(self) -> None:
        if not self._is_begun:
            headers, body = self._bridge.application.refuse(500, "The request failed: this is a fault of the server.")
            self._end()
            self._exchange.respond(500, standard_phrase(500), headers, body)

    def _release(self) -> None:
        """Let the connection go on reading."""
        self._waiting = 0
        if self._is_held:
            self._is_held = False
            self._exchange.connection.hold_body(False)

    def _end(self) -> None:
        self._is_ended = True
        self._exchange.pieces.clear()
        self._release()
        self._news.set()

    # ---- the application's side

    async def receive(self) -> Message:
        """Return the next message of the ASGI specification: a part of the body, or the disconnect."""
        exchange = self._exchange
        while True:
            if exchange.is_gone or self._is_ended:
                return {"type": "http.disconnect"}
            if exchange.pieces or (self._is_whole and not self._is_delivered):
                body = exchange.body()
                exchange.pieces.clear()
                self._is_delivered = self._is_whole
                self._release()
                return {"type": "http.request", "body": body, "more_body": not self._is_whole}
            self._news.clear()
            await self._news.wait()

    async def send(self, message: Message) -> None:
        """Take the next message of the ASGI specification.

        Raises:
            OSError: the client has left (ASGI 2.4).
            RuntimeError: the message is out of order.
            ValueError: a header that cannot be sent, or a body that is not as long as its content-length.
        """
        kind = message["type"]
        if self._exchange.is_gone:
            raise OSError("The client has left.")
        if self._is_ended:
            raise RuntimeError(f"{kind} came after the end of the answer.")
        if kind == "http.response.start":
            if self._start is not None or self._is_begun:
                raise RuntimeError(f"A second {kind} came.")
            self._start = message
        elif kind == "http.response.body":
            await self._send_body(bytes(message.get("body", b"")), message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} is no message of an HTTP answer.")

    async def _send_body(self, body: bytes, has_more: bool) -> None:
        exchange = self._exchange
        if not self._is_begun:
            if self._start is None:
                raise RuntimeError("http.response.body came before http.response.start.")
            status, headers, length = self._rendered(self._start)
            # The answer to HEAD tells the length that the body would have: only the application knows it.
            if not has_more and (length is None or length == len(body)):
                self._end()
                exchange.respond(status, standard_phrase(status), headers, body)
                return
            has_body = exchange.method != b"HEAD" and status not in (204, 304)
            self._left = length if has_body else None
            self._count(body, has_more)
            exchange.begin(status, standard_phrase(status), headers, length)
            self._is_begun = True
        else:
            self._count(body, has_more)
        is_drained = exchange.chunk(body)
        if not has_more:
            self._end()
            exchange.end()
        elif not is_drained:
            self._drained.clear()
            exchange.on_drained = self._drained.set
            await self._drained.wait()

    def _count(self, body: bytes, has_more: bool) -> None:
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not has_more):
                raise ValueError("The body is not as long as its content-length.")

    def _rendered(self, start: Message) -> tuple[int, bytes, int | None]:
        """Return status, header lines and told length of an answer; the connection writes its own framing."""
        lines: list[tuple[bytes, bytes]] = []
        length = None
        for name, value in start.get("headers", ()):
            lower = name.lower()
            if lower == b"content-length":
                length = int(value)
            elif lower == b"connection":
                self._exchange.close_after |= value.strip().lower() == b"close"
            elif lower != b"transfer-encoding":
                lines.append((name, value))
        return start["status"], render_headers(lines), length


def scope_of(exchange: Exchange, bridge: AsgiBridge) -> dict[str, Any]:
    """Return the ASGI scope of a request."""
    try:
        url = parse_url(exchange.target)
        raw_path, query = url.path or b"/", url.query or b""
    except HttpParserInvalidURLError:  # "*" of OPTIONS, host:port of CONNECT
        raw_path, query = exchange.target, b""
    names = exchange.headers
    client = exchange.client
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": exchange.http_version,
        "method": exchange.method.decode("ascii"),
        "scheme": bridge.scheme,
        "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [(names[at].lower(), names[at + 1]) for at in range(0, len(names), 2)],
        "client": client[:2] if isinstance(client, tuple) else None,
        "server": bridge.server,
    }
