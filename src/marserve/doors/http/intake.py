"""The reading half of a connection: from bytes to requests, within the limits, and to the lanes that answer them.

It is written for the fast lane: a request that arrives in one piece costs the parser's callbacks, or a look into the
table of known heads, then ``Lane.admit`` and ``Lane.accept``; no task, no timer, no header look-up. Whatever is rare
(an incomplete message, ``Expect``, HTTP/1.0, ``Upgrade``, input that must wait) has a method of its own, elsewhere.

An ``Upgrade`` is never followed: such a request is answered as plain HTTP/1.1, with its whole body.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import monotonic

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from marserve.doors.http.exchange import DONE, DROPPED, OPEN, Exchange
from marserve.doors.http.heads import END, Head, Heads
from marserve.doors.http.lane import Application, Limits, TurnLane

logger = logging.getLogger("marserve.http")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Lengths of the header names that ``_watch`` knows: asking for the length alone spares most headers the look-up.
_WATCHED = frozenset((len("expect"), len("upgrade"), len("connection"), len("transfer-encoding")))
#: Input is parsed in slices, so that limits between requests hold: the parser cannot be stopped inside one.
_SLICE = 16_384
#: Heads in a row that were not known, after which a connection looks no more: its client never repeats one.
_STRANGE = 16


class Intake(asyncio.Protocol):
    """What ``Connection`` reads with. The other half gives it ``refuse``, ``fail``, ``finish`` and ``advance``.

    Attributes:
        transport, peer: the socket's, once it is connected.
        write, is_closing: the transport's, bound once because every answer needs them.
        front: the exchange whose answer may go out now.
        behind: those that wait for their turn, in order.
        paused: the client is slow to read: the transport's buffer is above its mark.
        held_up: input waits unparsed, or is dropped when the connection is sealed.
    """

    __slots__ = (
        "_application",
        "_backlog",
        "_backlog_size",
        "_bridge",
        "_carried",
        "_coding",
        "_expectation",
        "_feed",
        "_find_lane",
        "_head_since",
        "_headers",
        "_heads",
        "_heard",
        "_is_awaited",
        "_is_backlog_full",
        "_is_body_held",
        "_is_draining",
        "_is_last",
        "_is_resuming",
        "_known_heads",
        "_length",
        "_limits",
        "_loop",
        "_max_body",
        "_odd",
        "_parked",
        "_parser",
        "_reading",
        "_resumed",
        "_sealed",
        "_since",
        "_slice",
        "_strange",
        "_touched",
        "behind",
        "front",
        "held_up",
        "is_closing",
        "paused",
        "peer",
        "transport",
        "write",
    )

    def __init__(
        self,
        application: Application,
        bridge: TurnLane,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        heads: Heads,
    ) -> None:
        self._application = application
        self._heads = heads
        self._known_heads = heads.known
        self._strange = 0  # heads in a row that were not known
        self._find_lane = application.lane
        self._bridge = bridge
        self._limits = limits
        self._loop = loop
        self._slice = min(_SLICE, limits.header_bytes)

        self.transport: asyncio.Transport
        self.peer: tuple[object, ...] | str = ""
        self.write: Callable[[bytes], None]
        self.is_closing: Callable[[], bool]
        self.front: Exchange | None = None
        self.behind: deque[Exchange] = deque()
        self.paused = False

        # The message that is being received.
        self._parser: HttpRequestParser
        self._feed: Callable[[bytes | memoryview], None]
        self._reading: Exchange | None = None
        self._headers: list[bytes] = DROPPED
        self._length = 0  # of its body; -1 when it is chunked, 0 as long as nobody needed to know
        self._max_body = 0
        self._coding: bytes | None = None
        self._expectation: bytes | None = None
        self._is_last = False
        self._is_awaited = False  # the client waits for a 100 before it sends the body
        self._odd = False  # the headers need more than the fast lane looks at
        self._parked: Exchange | None = None  # its parser stops at an upgrade that we do not follow
        self._resumed: Exchange | None = None  # its body is about to come through a new parser
        self._touched = False  # a request began or ended since the flag was cleared
        self._carried = 0  # bytes of incomplete headers, or of a chunked message

        # Input that waits, unparsed.
        self.held_up = False
        self._sealed = False  # no further request is taken; input is dropped
        self._backlog: deque[memoryview] = deque()
        self._backlog_size = 0
        self._is_backlog_full = False
        self._is_body_held = False
        self._is_resuming = False

        # What the sweep looks at; moments on the monotonic clock.
        self._heard = False  # something came since the last sweep
        self._since = 0.0  # the last sign of life
        self._head_since = 0.0  # the first byte of headers that are not complete, 0.0 when there are none
        self._is_draining = False

    # ---- the other half

    def refuse(self, status: int, message: str) -> None:
        """Answer the message that is being received with an error, in its turn; nothing can follow it."""
        raise NotImplementedError

    def fail(self, exchange: Exchange) -> None:
        """Answer for a lane that raised."""
        raise NotImplementedError

    def advance(self) -> None:
        """The answer of ``front`` is complete: give the turn to the next."""
        raise NotImplementedError

    def finish(self, is_broken: bool = False, with_reset: bool = False) -> None:
        """The last answer is complete, or broken off: close."""
        raise NotImplementedError

    # ---- input

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._heard = True
        if self.held_up or len(data) > self._slice:
            self._take(data)
            return
        is_beginning = self._reading is None and not self._odd and not self._head_since and self._strange < _STRANGE
        if is_beginning:
            end = data.find(END) + 4
            head = self._known_heads.get(data[:end])
            if head is not None and len(data) - end == head.length:
                self._take_known(head, data[end:])
                return
        self._touched = False  # from here on as _parse, which would cost a call
        try:
            self._feed(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._parse_on(error, data)
        if self._reading is not None or not self._touched:
            self._note_unfinished(data)
        elif is_beginning:
            self._strange += 1
            self._heads.learn(data)

    def _take_known(self, head: Head, body: bytes) -> None:
        """Take a whole request whose head has been parsed before; what the parser's callbacks would have done."""
        self._strange = 0
        exchange = Exchange(self, head.target, monotonic())
        exchange.method = head.method
        exchange.headers = head.headers
        exchange.head = head
        exchange.lane = lane = head.lane
        if self.front is None:
            self.front = exchange
        else:
            self.behind.append(exchange)
        try:
            if lane.admit(exchange):
                if body:
                    exchange.pieces.append(body)
                    exchange.size = len(body)
                lane.accept(exchange)
            elif exchange.state == OPEN:
                raise RuntimeError("The lane has refused a request without an answer.")
        except Exception:
            self.fail(exchange)
        if exchange.close_after:
            self._seal()
        if self.behind and len(self.behind) >= self._limits.pipeline_depth:
            self.held_up = True

    def _open_parser(self) -> None:
        self._parser = HttpRequestParser(self)
        self._feed = self._parser.feed_data

    def _parse(self, data: bytes | memoryview) -> None:
        self._touched = False
        try:
            self._feed(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._parse_on(error, data)
        if self._reading is not None or not self._touched:
            self._note_unfinished(data)

    def _parse_on(self, error: HttpParserError | HttpParserUpgrade, data: bytes | memoryview) -> None:
        """Go on behind upgrades that we do not follow; refuse what is malformed."""
        while isinstance(error, HttpParserUpgrade):
            data = data[error.args[0] :]
            try:
                self._reparse()
                self._feed(data)
                return
            except (HttpParserError, HttpParserUpgrade) as following:
                error = following
        if isinstance(error, HttpParserCallbackError):
            logger.error("A request could not be read.", exc_info=error.__context__ or error)
        if self._sealed:
            return
        if isinstance(error, HttpParserCallbackError):
            self.refuse(500, "The request could not be read: this is a fault of the server.")
        else:
            self.refuse(400, f"The request is malformed: {error}.")

    def _reparse(self) -> None:
        """Open a new parser in the middle of a request: the old one takes its body for another protocol.

        The new one is given headers that frame the same body; what its callbacks see of them is not kept.
        """
        exchange, self._parked = self._parked, None
        self._open_parser()
        if exchange is None:
            return
        framing = b"transfer-encoding: chunked" if self._length < 0 else b"content-length: %d" % self._length
        self._resumed = exchange
        self._feed(b"POST / HTTP/1.1\r\nupgrade: -\r\n" + framing + b"\r\n\r\n")

    def _note_unfinished(self, data: bytes | memoryview) -> None:
        """Keep the clock and the limits of a message of which this was not the end."""
        if self._sealed:
            return
        exchange = self._reading
        if exchange is not None and exchange.lane is not None:
            if self._length == 0:
                self._measure(exchange)
                if self._length > self._max_body:
                    self._refuse_body()
            elif self._length < 0:
                # Chunk lines, their extensions and trailers are bounded too, but a chunk may be one byte long.
                self._carried += len(data)
                if self._carried > self._limits.header_bytes + 16 * exchange.size:
                    self.refuse(400, "The body is hardly more than chunk extensions or trailers.")
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
        self._backlog.append(memoryview(data))  # slices of it are no copies
        self._backlog_size += len(data)
        self._work_off()

    def _work_off(self) -> None:
        """Parse what waits, as long as nothing holds it up; read no more when too much is left."""
        while self._backlog and not self.held_up:
            data = self._backlog.popleft()
            if len(data) > self._slice:
                self._backlog.appendleft(data[self._slice :])
                data = data[: self._slice]
            self._backlog_size -= len(data)
            self._parse(data)
        is_full = self._backlog_size > self._limits.pipeline_bytes
        if is_full != self._is_backlog_full:
            self._is_backlog_full = is_full
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
        if self._head_since:  # that the headers had to wait was not the client's fault
            self._head_since = monotonic()
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
        if self._is_backlog_full or self._is_body_held:  # go on reading, to see the client close its side
            self._is_backlog_full = self._is_body_held = False
            self._steer_reading()

    # ---- the parser's callbacks; nothing may escape from them, it would break the parser

    def on_url(self, piece: bytes) -> None:
        """Take the target, or a piece of it."""
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
        """Take a header, or a trailer."""
        headers = self._headers
        headers.append(name)
        headers.append(value.rstrip(b" \t"))  # the parser leaves the blanks behind a value, which are no part of it
        if len(name) in _WATCHED:
            self._watch(name.lower(), value)

    def _watch(self, name: bytes, value: bytes) -> None:
        if self._headers is DROPPED:  # a trailer: it may not change what has been decided by the headers
            return
        if name == b"connection":
            # HTTP/1.0 that asks to be kept alive looks like 1.1 from here on; without the header it closes.
            if self._parser.get_http_version() != "1.1":
                self._odd = True
        elif name == b"transfer-encoding":
            self._coding = value if self._coding is None else self._coding + b", " + value
            self._odd = True
        elif name == b"expect":
            self._expectation = value
            self._odd = True
        elif name == b"upgrade":
            self._odd = True

    def on_headers_complete(self) -> None:
        """Decide who answers."""
        exchange: Exchange = self._reading  # type: ignore[assignment]  # its URL came before
        parser = self._parser
        exchange.method = parser.get_method()
        is_odd = self._odd or not parser.should_keep_alive()
        if is_odd and not self._is_odd_welcome(exchange):
            return
        if self._head_since and not self._is_head_within_limit(exchange):
            return
        lane = self._find_lane(exchange.method, exchange.target) or self._bridge
        exchange.lane = lane
        self._max_body = lane.max_body
        if self.front is None:
            self.front = exchange
        else:
            self.behind.append(exchange)
        try:
            if not lane.admit(exchange):
                exchange.pieces = DROPPED
                if exchange.state == OPEN:
                    raise RuntimeError("The lane has refused a request without an answer.")
        except Exception:
            self.fail(exchange)
        if is_odd:
            self._prepare_odd_body(exchange)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        exchange = self._reading
        if exchange is None:
            return
        exchange.pieces.append(piece)
        exchange.size += len(piece)
        if exchange.size > self._max_body:
            self._refuse_body()
        elif exchange.on_piece is not None:
            exchange.on_piece()

    def on_message_complete(self) -> None:
        """Hand the whole message to its lane."""
        exchange = self._reading
        if exchange is None:
            return
        self._reading = None
        self._touched = True  # what ended here is no beginning of a next head
        if exchange.close_after:
            self._seal()
        if exchange.state < DONE:
            try:
                exchange.lane.accept(exchange)  # type: ignore[union-attr]  # it was admitted
            except Exception:
                self.fail(exchange)
        if self.behind and len(self.behind) >= self._limits.pipeline_depth:
            self.held_up = True

    # ---- what the fast lane does not look at

    def _is_odd_welcome(self, exchange: Exchange) -> bool:
        """Look at a request that HTTP/1.0, its headers or a drain make different; refuse what cannot be served."""
        if self._sealed:
            self._reading = None
            return False
        self._odd = self._is_draining
        coding, self._coding = self._coding, None
        if coding is not None:
            self._length, self._carried = -1, 0
            self._headers = DROPPED  # what comes now is trailers, and they come after the decision
        if self._resumed is not None:
            self._reading, self._resumed = self._resumed, None
            return False
        exchange.http_version = version = self._parser.get_http_version()
        expectation, self._expectation = self._expectation, None
        if version not in ("1.1", "1.0"):
            self.refuse(505, f"HTTP/{version} is not spoken here; use HTTP/1.1.")
        elif coding is not None and (version == "1.0" or coding.strip().lower() != b"chunked"):
            self.refuse(501, "The only transfer-encoding that is understood is chunked, on HTTP/1.1.")
        elif expectation is not None and version == "1.1" and expectation.strip().lower() != b"100-continue":
            self.refuse(417, "The only expectation that can be met is 100-continue.")
        self._is_last = self._is_draining or not self._parser.should_keep_alive()
        self._is_awaited = expectation is not None and version == "1.1"
        # An answer before the 100 leaves it open whether the body still comes: then nothing can follow it.
        exchange.close_after = self._is_last or self._is_awaited or self._sealed
        return not self._sealed

    def _prepare_odd_body(self, exchange: Exchange) -> None:
        """Call for the body that the client holds back; keep one from the parser that an upgrade would lose."""
        if self._is_awaited and self._reading is exchange and exchange.state == OPEN:
            exchange.close_after = self._is_last
            self._measure(exchange)
            if self._length > self._max_body:
                self._refuse_body()
            else:
                exchange.emit(_CONTINUE)
        if self._parser.should_upgrade():
            self._measure(exchange)
            self._parked, self._reading = self._reading, None

    def _measure(self, exchange: Exchange) -> None:
        """Look up how long the body will be; a message that comes in one piece never needs it."""
        if self._length == 0:
            self._length = int(exchange.header(b"content-length") or 0)

    def _is_head_within_limit(self, exchange: Exchange) -> bool:
        """Close the clock of headers that came in several pieces, and weigh them; refuse them when too large."""
        self._head_since, self._carried = 0.0, 0
        headers = exchange.headers
        # Four bytes a header are colon, blank and line end, and fourteen go with the method and the version.
        size = len(exchange.method) + len(exchange.target) + sum(map(len, headers)) + 2 * len(headers) + 14
        if size <= self._limits.header_bytes:
            return True
        self._refuse_head()
        return False

    def _refuse_head(self) -> None:
        limit = self._limits.header_bytes
        if self._reading is not None and len(self._reading.target) > limit:
            self.refuse(414, f"The request line is longer than {limit} bytes.")
        else:
            self.refuse(431, f"The request line and the headers together are larger than {limit} bytes.")

    def _refuse_body(self) -> None:
        self.refuse(413, f"The body is larger than {self._max_body} bytes.")
