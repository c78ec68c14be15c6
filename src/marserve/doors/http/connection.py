"""One HTTP/1.x connection: parses requests, keeps answers in turn, and holds a client to its limits.

It is written for the fast lane: a request that arrives in one piece costs the parser's callbacks, ``Lane.admit``,
``Lane.accept`` and one ``transport.write``; no task, no timer, no header look-up. Whatever is rare (an incomplete
message, ``Expect``, ``Upgrade``, HTTP/1.0, pipelining, slowness) has a method of its own, off that path.

An ``Upgrade`` is never followed: such a request is answered as plain HTTP/1.1, with its whole body.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from time import monotonic
from typing import cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from marserve.doors.http.exchange import DONE, DROPPED, GONE, HIGH_WATER, OPEN, Exchange, standard_phrase
from marserve.doors.http.lane import Application, Lane, Limits

__all__ = ["Application", "Connection", "Exchange", "Lane", "Limits", "TurnLane"]

logger = logging.getLogger("marserve.http")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Lengths of the header names that ``_watch`` knows: asking for the length alone spares most headers the look-up.
_WATCHED = frozenset((len("expect"), len("upgrade"), len("connection"), len("content-length"), len("transfer-encoding")))
#: Input is parsed in slices, so that limits between requests hold: the parser cannot be stopped inside one.
_SLICE = 16_384


class TurnLane(Lane):
    """A lane that must not begin with a request before the answers to all earlier ones are complete."""

    def turn(self, exchange: Exchange) -> None:
        """All before it has been answered; never called for a request that was first when it was admitted."""


class Connection(asyncio.Protocol):
    """The protocol of one socket.

    Args:
        application: where requests go.
        bridge: the lane of requests for which ``application.lane`` returns None.
        limits: what the client may take.
        loop: the running loop.
        lost: called once with the connection, when it has gone.
    """

    def __init__(
        self,
        application: Application,
        bridge: TurnLane,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        lost: Callable[[Connection], None],
    ) -> None:
        self._application = application
        self._find_lane = application.lane
        self._bridge = bridge
        self._limits = limits
        self._loop = loop
        self._lost = lost
        self._slice = min(_SLICE, limits.header_bytes)

        # The socket. ``write``, ``is_closing`` and the two below are for exchanges too.
        self.peer: tuple[object, ...] | str = ""
        self.transport: asyncio.Transport
        self.write: Callable[[bytes], None]
        self.is_closing: Callable[[], bool]

        # The order of answers: the exchange whose answer may go out now, and those that wait behind it.
        self.front: Exchange | None = None
        self.behind: deque[Exchange] = deque()
        self.paused = False  # the client is slow to read: the transport's buffer is above its mark

        # The message that is being received.
        self._parser: HttpRequestParser
        self._feed: Callable[[bytes | memoryview], None]
        self._reading: Exchange | None = None
        self._headers: list[bytes] | deque[bytes] = DROPPED
        self._length = 0
        self._coding: bytes | None = None
        self._expectation: bytes | None = None
        self._odd = False  # the headers need more than the fast lane looks at
        self._parked: Exchange | None = None  # its parser stops at an upgrade that we do not follow
        self._resumed: Exchange | None = None  # its body is about to come through a new parser
        self._touched = False  # a request line was seen since the flag was cleared

        # Input that waits, unparsed.
        self.held_up = False
        self._sealed = False  # no further request is taken; input is dropped
        self._backlog: deque[bytes] = deque()
        self._backlog_size = 0
        self._is_backlog_full = False
        self._is_body_held = False
        self._is_resuming = False

        # What the sweep looks at.
        self._heard = False
        self._since = 0.0
        self._head_since = 0.0
        self._carried = 0
        self._unsent = 0
        self._is_ending = False
        self._is_draining = False

    # ---- the socket's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.peer = transport.get_extra_info("peername") or ""
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._since = monotonic()
        self._open_parser()

    def connection_lost(self, exc: Exception | None) -> None:
        self._seal()
        self._abandon_all()
        self._is_ending = True
        self._feed = DROPPED.append  # type: ignore[assignment]
        del self._parser  # it holds this object's methods: without this only the garbage collector frees both
        self._lost(self)

    def eof_received(self) -> None:
        """Treat a client that closes its side as gone, even if it only half-closes: nobody can tell."""
        self._seal()
        self._abandon_all()
        self._is_ending = True

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self.held_up or len(data) > self._slice:
            self._take(data)
        else:
            self._parse(data)

    def pause_writing(self) -> None:
        self.paused = self.held_up = True
        self._unsent, self._since = self.transport.get_write_buffer_size(), monotonic()

    def resume_writing(self) -> None:
        self.paused = False
        if self.front is not None:
            self._tell_drained(self.front)
        self._resume_later()

    # ---- input

    def _open_parser(self) -> None:
        self._parser = HttpRequestParser(self)
        self._feed = self._parser.feed_data

    def _parse(self, data: bytes | memoryview) -> None:
        self._touched = False
        try:
            self._feed(data)
        except HttpParserError as error:
            self._parse_on(error, data)
        if self._reading is not None or not self._touched:
            self._note_unfinished(data)

    def _parse_on(self, error: HttpParserError, data: bytes | memoryview) -> None:
        """Go on behind upgrades that we do not follow; refuse what is malformed."""
        while isinstance(error, HttpParserUpgrade):
            data = data[error.args[0] :]
            try:
                self._reparse()
                self._feed(data)
                return
            except HttpParserError as following:
                error = following
        if self._sealed:
            return
        if isinstance(error, HttpParserCallbackError):
            logger.error("A request could not be read.", exc_info=error.__context__ or error)
            self._refuse(500, "The request could not be read: this is a fault of the server.")
        else:
            self._refuse(400, f"The request is malformed: {error}.")

    def _reparse(self) -> None:
        """Open a new parser in the middle of a request: the old one takes its body for another protocol.

        The new one is given headers that frame the same body; what its callbacks see of them is not kept.
        """
        exchange, self._parked = self._parked, None
        self._open_parser()
        if exchange is None:
            return
        framing = b"content-length: %d" % self._length if self._coding is None else b"transfer-encoding: chunked"
        self._resumed = exchange
        self._feed(b"POST / HTTP/1.1\r\nupgrade: -\r\n" + framing + b"\r\n\r\n")

    def _note_unfinished(self, data: bytes | memoryview) -> None:
        """Keep the clock and the limits of a message of which this was not the end."""
        if self._sealed:
            return
        exchange = self._reading
        if exchange is not None and exchange.lane is not None:
            if self._coding is not None:
                # Chunk lines, their extensions and trailers are bounded too, but a chunk may be one byte long.
                self._carried += len(data)
                if self._carried > self._limits.header_bytes + 16 * exchange.size:
                    self._refuse(400, "The body is hardly more than chunk extensions or trailers.")
            return
        if self._head_since:
            self._carried += len(data)
            if self._carried > self._limits.header_bytes:
                self._refuse_head()
        elif exchange is not None or bytes(data).strip(b"\r\n"):  # blank lines between requests are allowed
            self._head_since, self._carried = monotonic(), 0

    def _take(self, data: bytes) -> None:
        """Take input that must wait, or that is too large to be parsed at once."""
        if self._sealed:
            return
        exchange = self._reading
        if (
            not self.held_up
            and exchange is not None
            and exchange.lane is not None
            and exchange.size + len(data) <= self._length
        ):
            self._parse(data)  # no request can begin in it, so there is nothing to stop at
            return
        self._backlog.append(data)
        self._backlog_size += len(data)
        if not self.held_up:
            self._work_off()
        elif self._backlog_size > self._limits.pipeline_bytes:
            self._is_backlog_full = True
            self._steer_reading()

    def _work_off(self) -> None:
        while self._backlog and not self.held_up:
            data = self._backlog.popleft()
            self._backlog_size -= len(data)
            view = memoryview(data)
            for start in range(0, len(data), self._slice):
                if self.held_up:
                    if not self._sealed:
                        self._backlog.appendleft(data[start:])
                        self._backlog_size += len(data) - start
                    break
                self._parse(view[start : start + self._slice])
        if self._is_backlog_full and self._backlog_size <= self._limits.pipeline_bytes:
            self._is_backlog_full = False
            self._steer_reading()

    def _resume_later(self) -> None:
        # Never at once: the parser may be what called us, and it must not be fed from inside.
        if self.held_up and not self._sealed and not self._is_resuming:
            self._is_resuming = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._is_resuming = False
        if self._sealed or self.paused or len(self.behind) >= self._limits.pipeline_depth:
            return
        self.held_up = False
        self._work_off()

    def hold_body(self, is_held: bool) -> None:
        """Stop or go on reading the socket, for a lane that takes the body piece by piece."""
        self._is_body_held = is_held
        self._steer_reading()

    def _steer_reading(self) -> None:
        if self.is_closing():
            return
        if self._is_backlog_full or self._is_body_held:
            self.transport.pause_reading()
        elif not self.transport.is_reading():
            self._since = monotonic()
            self.transport.resume_reading()

    def _seal(self) -> None:
        """Take no further request from this connection; what still comes is dropped."""
        self._sealed = self.held_up = self._odd = True
        self._reading = self._parked = None
        self._head_since = 0.0
        self._backlog.clear()
        self._backlog_size = 0

    # ---- the parser's callbacks; nothing may escape from them, it would break the parser

    def on_url(self, piece: bytes) -> None:
        exchange = self._reading
        if exchange is None:
            self._touched = True
            self._length = 0
            self._reading = exchange = Exchange(self, piece, monotonic())
            self._headers = exchange.headers
        else:
            exchange.target += piece
            exchange.arrived = monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        headers.append(name)
        headers.append(value)
        if len(name) in _WATCHED:
            self._watch(name.lower(), value)

    def _watch(self, name: bytes, value: bytes) -> None:
        if self._headers is DROPPED:  # a trailer: it may not change what has been decided by the headers
            return
        if name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._coding = value if self._coding is None else self._coding + b", " + value
            self._odd = True
        elif name == b"expect":
            self._expectation = value
            self._odd = True
        elif name in (b"upgrade", b"connection"):
            self._odd = True

    def on_headers_complete(self) -> None:
        exchange = self._reading
        assert exchange is not None
        parser = self._parser
        exchange.method = parser.get_method()
        if self._odd or not parser.should_keep_alive():
            self._begin_odd(exchange)
        else:
            self._coding = None
            self._begin(exchange)

    def _begin(self, exchange: Exchange) -> None:
        """Find who answers a request, and let it decide."""
        if self._head_since and not self._is_head_within_limit(exchange):
            return
        lane = self._find_lane(exchange.method, exchange.target) or self._bridge
        if self._length > lane.max_body:
            self._refuse_body(lane.max_body)
            return
        exchange.lane = lane
        if self.front is None:
            self.front = exchange
        else:
            self.behind.append(exchange)
        try:
            if not lane.admit(exchange):
                exchange.pieces = DROPPED
        except Exception:
            self._fail(exchange)

    def on_body(self, piece: bytes) -> None:
        exchange = self._reading
        if exchange is None:
            return
        exchange.pieces.append(piece)
        exchange.size += len(piece)
        if exchange.size > exchange.lane.max_body:  # type: ignore[union-attr]
            self._refuse_body(exchange.lane.max_body)  # type: ignore[union-attr]
        elif exchange.on_piece is not None:
            exchange.on_piece()

    def on_message_complete(self) -> None:
        exchange = self._reading
        if exchange is None:
            return
        self._reading = None
        if exchange.close_after:
            self._seal()
        if exchange.state < DONE:
            try:
                exchange.lane.accept(exchange)  # type: ignore[union-attr]
            except Exception:
                self._fail(exchange)
        if self.behind and len(self.behind) >= self._limits.pipeline_depth:
            self.held_up = True

    # ---- what the fast lane does not look at

    def _begin_odd(self, exchange: Exchange) -> None:
        """Begin a request that HTTP/1.0, its headers or a drain make different."""
        if self._sealed:
            self._reading = None
            return
        self._odd = self._is_draining
        coding, self._coding = self._coding, None
        expectation, self._expectation = self._expectation, None
        if self._resumed is not None:
            ...
