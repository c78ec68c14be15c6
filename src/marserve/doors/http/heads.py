"""Heads of requests that have come before: clients repeat theirs byte for byte, so each is parsed once.

A head is the request line and the headers, up to and with the empty line. What the parser says of the same bytes at
the beginning of a message is always the same, so a request whose head is known, and whose whole body came with it,
need not go through the parser at all.
"""

from __future__ import annotations

from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from marserve.doors.http.lane import Lane

#: What ends a head.
END = b"\r\n\r\n"
#: Most heads that are known, and the longest, bytes; clients whose heads always differ only empty the table.
MOST, LONGEST = 1024, 2048
#: Headers that make a request more than the fast lane looks at.
_ODD = (b"expect", b"upgrade", b"transfer-encoding")
_LENGTH = b"content-length"


class Head:
    """A head that may come again.

    Attributes:
        method, target, headers: as an exchange has them; the list is shared, and must not be changed.
        length: bytes of the body that belongs to it.
        lane: who answers.
        told: free for the lane: what it has made of the headers.
    """

    __slots__ = ("headers", "lane", "length", "method", "target", "told")

    def __init__(self, method: bytes, target: bytes, headers: list[bytes], length: int, lane: Lane) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.length = length
        self.lane = lane
        self.told: object = None


class _Reader:
    """Takes down what a parser finds in one head."""

    def __init__(self) -> None:
        self.parser = HttpRequestParser(self)
        self.method = self.target = b""
        self.headers: list[bytes] = []
        self.is_complete = False
        self.is_odd = False

    def on_url(self, piece: bytes) -> None:
        self.is_odd |= bool(self.target)  # a second request: this was not one head
        self.target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers += (name, value.rstrip(b" \t"))
        self.is_odd |= name.lower() in _ODD

    def on_headers_complete(self) -> None:
        self.is_complete = True
        parser = self.parser  # which forgets these with the end of the message
        self.method = parser.get_method()
        self.is_odd |= parser.should_upgrade() or not parser.should_keep_alive()
        self.is_odd |= parser.get_http_version() != "1.1"

    def on_body(self, piece: bytes) -> None:
        self.is_odd = True  # the head has ended before its last byte


class Heads:
    """The heads that the connections of one listener know.

    Args:
        find_lane: says who answers a request, None when that is nobody fast.
    """

    def __init__(self, find_lane: Callable[[bytes, bytes], Lane | None]) -> None:
        self._find_lane = find_lane
        self.known: dict[bytes, Head] = {}

    def learn(self, data: bytes) -> None:
        """Know the head that ``data`` begins with, if it is one for the fast lane and has nothing odd."""
        end = data.find(END) + len(END)
        if not len(END) <= end <= LONGEST:
            return
        raw = data[:end]
        head = self._read(raw)
        if head is None:
            return
        if len(self.known) >= MOST:
            self.known.clear()
        self.known[raw] = head

    def _read(self, raw: bytes) -> Head | None:
        reader = _Reader()
        try:
            reader.parser.feed_data(raw)
        except (HttpParserError, HttpParserUpgrade):
            return None
        finally:
            del reader.parser  # each holds the other: only the garbage collector would free them
        if not reader.is_complete or reader.is_odd:
            return None
        headers = reader.headers
        lengths = [value for name, value in zip(headers[::2], headers[1::2], strict=True) if name.lower() == _LENGTH]
        length = int(lengths[0]) if lengths else 0
        lane = self._find_lane(reader.method, reader.target)
        if lane is None or length > lane.max_body:
            return None
        return Head(reader.method, reader.target, headers, length, lane)
