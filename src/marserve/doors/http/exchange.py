"""One request on a connection, and the handle through which it is answered, in turn and exactly once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from http.client import responses
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from marserve.doors.http.heads import Head
    from marserve.doors.http.intake import Intake
    from marserve.doors.http.lane import Lane

# Where an answer is. The order counts: below DONE the owner still owes something.
OPEN = 0  # nothing has been answered
CHUNKED = 1  # begun; pieces go out as HTTP chunks
RAW = 2  # begun; pieces go out as they are: length told, or the end of the connection is the end of the body
MUTE = 3  # begun; the answer has no body (HEAD, 204, 304)
DONE = 4
GONE = 5  # nobody waits any more; whatever is still sent is dropped

#: Bytes that an answer may gather while it waits for its turn, or from one reading of a slow client.
HIGH_WATER = 65_536

#: Takes the place of a list whose items nobody wants.
DROPPED = cast("list[bytes]", deque(maxlen=0))

_BODILESS = (204, 304)
_KEEP = b"connection: keep-alive\r\n\r\n"
_CLOSE = b"connection: close\r\n\r\n"
#: The lines after an answer's own headers, by length of the body; formatting them costs five times the look-up.
_TAILS = tuple(b"content-length: %d\r\n" % size + _KEEP for size in range(2048))
#: Status lines of answers with a body, as they are asked for.
_LINES: dict[tuple[int, bytes], bytes] = {}
_LINES_BOUND = 1024
_SPLIT = "The header lines hold an empty line, which would split the answer."


def standard_phrase(status: int) -> bytes:
    """Return the reason phrase of RFC 9110 for a status, b"" for one that it does not name."""
    return responses.get(status, "").encode()


def render_headers(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return names and values as header lines.

    Raises:
        ValueError: a name or a value holds CR, LF or NUL, which would let it end the header or the answer.
    """
    lines: list[bytes] = []
    for name, value in pairs:
        if not name or any(byte in name or byte in value for byte in (b"\r", b"\n", b"\0")) or b":" in name:
            raise ValueError(f"{name!r}: {value!r} cannot be sent as a header.")
        lines += (name, b": ", value, b"\r\n")
    return b"".join(lines)


def status_line(status: int, phrase: bytes) -> bytes:
    """Return the first line of an answer; any status from 200 on, any phrase, the empty one too.

    Raises:
        ValueError: the status is not one of a final answer, or the phrase holds CR, LF or NUL.
    """
    if not 200 <= status <= 999:
        raise ValueError(f"{status} is not the status of a final answer (200 to 999).")
    if any(byte in phrase for byte in b"\r\n\0"):
        raise ValueError(f"{phrase!r} cannot be sent as a reason phrase.")
    line = b"HTTP/1.1 %d %b\r\n" % (status, phrase)
    if status not in _BODILESS:
        if len(_LINES) >= _LINES_BOUND:  # phrases come from handlers: keep no endless list of them
            _LINES.clear()
        _LINES[status, phrase] = line
    return line


class Exchange:
    """One request and its answer.

    Rendered header lines are the caller's duty (``render_headers`` checks them): a CR or LF of a handler's value
    in them would split the answer. As the last guard, a block that holds an empty line is refused with ValueError.
    Answering twice raises RuntimeError; answering a client that is gone does nothing.

    Attributes:
        connection: where it came from; for this room alone.
        method, target: as on the request line, the target raw.
        http_version: "1.1" or "1.0".
        headers: flat: name, value, name, value, in order of arrival and in their original letter case.
        head: where these come from when they are shared with all requests that have the same; they stay as they are.
        pieces: the body as it arrived; a caller may take the list away and leave another one.
        size: bytes of the body until now.
        arrived: ``time.monotonic()`` when the request line was complete.
        owner: free for the lane.
        lane: who answers; None until it was asked to admit.
        on_drained: called once when more may be written, after ``chunk`` has returned False.
        on_piece: called after each piece of the body, for lanes that do not wait for the whole.
        close_after: set it before answering, and the answer says ``connection: close`` and the socket closes.
        state: where the answer is; for this room alone.
        held: what waits for its turn, None unless it does; for this room alone.
        held_size: bytes of ``held``.
    """

    __slots__ = (
        "arrived",
        "close_after",
        "connection",
        "head",
        "headers",
        "held",
        "held_size",
        "http_version",
        "lane",
        "method",
        "on_drained",
        "on_piece",
        "owner",
        "pieces",
        "size",
        "state",
        "target",
    )

    def __init__(self, connection: Intake, target: bytes, arrived: float) -> None:
        self.connection = connection
        self.target = target
        self.arrived = arrived
        self.method = b""
        self.http_version = "1.1"
        self.headers: list[bytes] = []
        self.head: Head | None = None
        self.pieces: list[bytes] = []
        self.size = 0
        self.lane: Lane | None = None
        self.owner: object = None
        self.on_drained: Callable[[], None] | None = None
        self.on_piece: Callable[[], None] | None = None
        self.close_after = False
        self.state = OPEN
        self.held: list[bytes] | None = None

    @property
    def client(self) -> tuple[object, ...] | str:
        """The peer's address: a tuple as the socket gives it, "" on a unix socket."""
        return self.connection.peer

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.state == GONE

    @property
    def has_begun(self) -> bool:
        """Whether an answer in pieces has begun and not ended: then a failure can only break it off."""
        return OPEN < self.state < DONE

    def header(self, name_lower: bytes) -> bytes | None:
        """Return the value of a header, given its name in lower case; of several the last."""
        headers = self.headers
        for index in range(len(headers) - 2, -1, -2):
            if headers[index].lower() == name_lower:
                return headers[index + 1]
        return None

    def body(self) -> bytes:
        """Return what has arrived of the body, joined."""
        pieces = self.pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # ---- a whole answer

    def respond(self, status: int, phrase: bytes, headers: bytes, body: bytes | memoryview) -> None:
        """Send a whole answer; the connection adds the status line, ``content-length`` and ``connection``.

        Args:
            status: 200 to 999. 204 and 304 go without body and length, an answer to HEAD without body.
            phrase: reason phrase, b"" for none.
            headers: rendered lines, each ended by CRLF; b"" for none.
            body: a memoryview of bytes is copied before this returns, so that its memory may be used again.
        """
        if self.state:
            if self.state == GONE:
                return
            raise RuntimeError("The request has been answered already.")
        line = _LINES.get((status, phrase))
        size = len(body)
        rest = b""
        if line is None or size >= 2048 or self.close_after or self.method == b"HEAD":
            payload, rest = self._render(status, phrase, headers, body)
        else:
            if headers and (headers[0] == 13 or headers.rfind(b"\n\r\n") >= 0):
                raise ValueError(_SPLIT)
            payload = b"".join((line, headers, _TAILS[size], body))
        self.state = DONE
        connection = self.connection
        if connection.front is not self:
            self._hold(payload)
            if rest:
                self._hold(rest)
            return
        if not connection.is_closing():  # uvloop raises when a closed transport is written to
            connection.write(payload)
            if rest:
                connection.write(rest)  # goes out with the one before, and is not copied to it
        if self.close_after:
            connection.finish()
        elif connection.behind or connection.held_up:
            connection.advance()
        else:
            connection.front = None

    def _render(self, status: int, phrase: bytes, headers: bytes, body: bytes | memoryview) -> tuple[bytes, bytes]:
        """Return what is to be written first, and a large body that is to follow."""
        line = _LINES.get((status, phrase)) or status_line(status, phrase)
        length = b"" if status in _BODILESS else b"content-length: %d\r\n" % len(body)
        head = b"".join((line, headers, length, _CLOSE if self.close_after else _KEEP))
        if head.find(b"\r\n\r\n") != len(head) - 4:
            raise ValueError(_SPLIT)
        if status in _BODILESS or self.method == b"HEAD":
            return head, b""
        return (b"".join((head, body)), b"") if len(body) < HIGH_WATER else (head, bytes(body))

    # ---- an answer in pieces

    def begin(self, status: int, phrase: bytes, headers: bytes, length: int | None = None) -> None:
        """Begin an answer in pieces.

        Chunked for HTTP/1.1; for 1.0 the end of the connection is the end of the body. When ``length`` is given
        it is told instead, and the caller sends exactly so many bytes. The other arguments are ``respond``'s.
        """
        if self.state:
            if self.state == GONE:
                return
            raise RuntimeError("The request has been answered already.")
        line = status_line(status, phrase)
        framing, state = b"", RAW
        if status in _BODILESS:
            state = MUTE
        elif length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self.http_version == "1.0":
            self.close_after = True
        else:
            framing, state = b"transfer-encoding: chunked\r\n", CHUNKED
        head = b"".join((line, headers, framing, _CLOSE if self.close_after else _KEEP))
        if head.find(b"\r\n\r\n") != len(head) - 4:
            raise ValueError(_SPLIT)
        self.state = MUTE if self.method == b"HEAD" else state
        self.emit(head)

    def chunk(self, data: bytes) -> bool:
        """Send one piece: exactly one HTTP chunk, never merged with another; nothing for an empty one.

        Returns False when the client, or those before it, are slow: wait for ``on_drained`` before the next one.
        """
        state = self.state
        if state == CHUNKED:
            if data:  # an empty chunk would end the body
                self.emit(b"".join((b"%x\r\n" % len(data), data, b"\r\n")))
        elif state == RAW:
            self.emit(data)
        elif state in (OPEN, DONE):
            raise RuntimeError("No answer has been begun, or it has ended already.")
        if self.held is not None:
            return self.held_size <= HIGH_WATER
        return state >= MUTE or not self.connection.paused

    def end(self) -> None:
        """End an answer in pieces."""
        state = self.state
        if state == GONE:
            return
        if state in (OPEN, DONE):
            raise RuntimeError("No answer has been begun, or it has ended already.")
        if state == CHUNKED:
            self.emit(b"0\r\n\r\n")
        self._done()

    def break_off(self) -> None:
        """Close the connection so that the client sees that the begun answer is not complete."""
        if self.state >= DONE:
            return
        # Without chunks or a length, an orderly close would pass for the end of the body.
        is_ambiguous = self.state == RAW
        self.state = GONE
        self.close_after = True
        self.held = None
        if self.connection.front is self:
            self.connection.finish(is_broken=True, with_reset=is_ambiguous)

    # ---- the turn

    def emit(self, data: bytes) -> None:
        """Write raw bytes of the answer, or hold them until its turn; for this room alone."""
        connection = self.connection
        if connection.front is not self:
            self._hold(data)
        elif not connection.is_closing():
            connection.write(data)

    def _hold(self, data: bytes) -> None:
        if self.held is None:
            self.held, self.held_size = [], 0
        self.held.append(data)
        self.held_size += len(data)

    def _done(self) -> None:
        self.state = DONE
        self.on_drained = None
        if self.connection.front is self:
            if self.close_after:
                self.connection.finish()
            else:
                self.connection.advance()
