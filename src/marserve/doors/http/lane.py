"""What a connection asks of those above it, and the limits that it keeps for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from marserve.errors import ConfigError

if TYPE_CHECKING:
    from marserve.doors.http.exchange import Exchange

#: The three callables of ASGI; the mappings hold what the ASGI specification says, of any type.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Lane(Protocol):
    """Who answers a request. One lane serves all connections; what it knows of a request is in ``exchange.owner``.

    It is called from inside the parser: it must not block, and what it raises becomes a 500.
    """

    #: Most bytes of a body; beyond it the connection answers 413 itself.
    max_body: int

    def admit(self, exchange: Exchange) -> bool:
        """Take or refuse a request whose headers are complete; the body is not there yet.

        False says that it has been answered here already. What is left of its body is then read and dropped, up
        to ``max_body``, so that the connection can serve the next request; beyond that the connection closes.
        """

    def accept(self, exchange: Exchange) -> None:
        """The whole message of an admitted request is there."""

    def gone(self, exchange: Exchange) -> None:
        """Nobody waits for the answer any more; told once, and only while the answer is not complete.

        The client left, was too slow, sent a broken body, or was cut by a drain. Whatever the lane still calls
        on the exchange does nothing.
        """


class TurnLane(Lane, Protocol):
    """A lane that begins with a request only when the answers to all before it on its connection are complete."""

    def turn(self, exchange: Exchange) -> None:
        """All before it have been answered; not called for a request that was first when it was admitted."""


class Application(Protocol):
    """What a listener serves."""

    #: Serves every request for which ``lane`` returns None.
    asgi: ASGIApp

    def lane(self, method: bytes, target: bytes) -> Lane | None:
        """Return the fast lane of a request, or None when it is for the ASGI application.

        A lane is kept for requests whose head comes again, so it must know by itself when it answers no more; None
        is not kept.
        """

    def refuse(self, status: int, message: str) -> tuple[bytes, bytes]:
        """Return rendered header lines and body for an error that the connection answers itself."""

    def refused(self, exchange: Exchange, status: int) -> None:
        """The connection has answered with such an error; method and target are empty where there were none."""


@dataclass(frozen=True)
class Limits:
    """What one client may take; timeouts in seconds, sizes in bytes.

    Timeouts are kept by one sweep a second for all connections, so each may last up to a second longer.

    Attributes:
        header_bytes: request line and headers together; beyond it 431, or 414 when the request line alone is.
        body_bytes: body of a request for the ASGI application; lanes have their own ``max_body``.
        header_timeout: from the first byte of a request until its headers are complete; beyond it 408.
        body_timeout: without a byte of an unfinished body; beyond it 408.
        keep_alive_timeout: without a request; beyond it the connection closes.
        write_timeout: without the client taking a byte of what waits for it; beyond it the connection is cut.
        linger_timeout: after the last answer, for the client to read it and close its side. Closing at once
            would reset the connection under a client that still sends, and destroy the answer.
        pipeline_depth: requests of one connection that may wait behind the one that is being answered. Checked
            at every 16 KB of input, so that many tiny requests in one packet may pass it once.
        pipeline_bytes: input beyond ``pipeline_depth`` that is kept, unread, before reading pauses. As long as
            it does not, a client that leaves is noticed.
    """

    header_bytes: int = 65_536
    body_bytes: int = 6_553_500
    header_timeout: float = 20.0
    body_timeout: float = 60.0
    keep_alive_timeout: float = 75.0
    write_timeout: float = 60.0
    linger_timeout: float = 2.0
    pipeline_depth: int = 32
    pipeline_bytes: int = 262_144

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ConfigError(
                    f"The HTTP limit {field.name} is {getattr(self, field.name)}.", "It must be above 0."
                )
