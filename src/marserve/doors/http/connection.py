"""One HTTP/1.x connection: keeps answers in turn, ends in order, and holds a client to its timeouts.

What it reads is ``intake.py``'s; what one answer looks like is ``exchange.py``'s.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from time import monotonic
from typing import cast

from marserve.doors.http.exchange import DONE, DROPPED, GONE, HIGH_WATER, OPEN, Exchange, standard_phrase
from marserve.doors.http.heads import Heads
from marserve.doors.http.intake import Intake
from marserve.doors.http.lane import Application, Lane, Limits, TurnLane

__all__ = ["Application", "Connection", "Exchange", "Lane", "Limits"]

logger = logging.getLogger("marserve.http")

#: Longest lingering of a connection while the server drains, seconds: many clients never close their side.
_DRAIN_LINGER = 0.5


class Connection(Intake):
    """The protocol of one socket.

    Args:
        application: where requests go.
        bridge: the lane of requests for which ``application.lane`` returns None.
        limits: what the client may take.
        loop: the running loop.
        heads: those that the application's clients have sent before.
        made, lost: called with the connection when it is open and when it is gone; a TLS handshake that fails
            makes neither.
    """

    __slots__ = ("_is_ending", "_linger_timeout", "_lost", "_made", "_unsent")

    def __init__(
        self,
        application: Application,
        bridge: TurnLane,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        heads: Heads,
        made: Callable[[Connection], None],
        lost: Callable[[Connection], None],
    ) -> None:
        super().__init__(application, bridge, limits, loop, heads)
        self._made = made
        self._lost = lost
        self._unsent = 0
        self._is_ending = False  # the last answer has been written
        self._linger_timeout = limits.linger_timeout

    # ---- the socket's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self.transport = transport = cast(asyncio.Transport, transport)
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.peer = transport.get_extra_info("peername") or ""
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._since = monotonic()
        self._open_parser()
        self._made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._seal()
        self._abandon_all()
        # The parser holds methods of this object: without this only the garbage collector would free both.
        del self._parser, self._feed
        self._lost(self)

    def eof_received(self) -> None:
        """Treat a client that closes its side as gone, even if it only half-closes: nobody can tell."""
        self._begin_end()
        self._abandon_all()

    def pause_writing(self) -> None:
        """The client is slow: read no further requests either, their answers would pile up."""
        self.paused = self.held_up = True
        self._unsent, self._since = self.transport.get_write_buffer_size(), monotonic()

    def resume_writing(self) -> None:
        """The client has taken what had piled up."""
        self.paused = False
        if self.front is not None:
            self._tell_drained(self.front)
        self._resume_later()

    # ---- answers of its own

    def refuse(self, status: int, message: str) -> None:
        """Answer the message that is being received with an error, in its turn; nothing can follow it."""
        exchange = self._reading or Exchange(self, b"", monotonic())
        self._seal()
        exchange.close_after = True
        if exchange.lane is None:  # nobody was asked yet
            if self.front is None:
                self.front = exchange
            else:
                self.behind.append(exchange)
            self._answer(exchange, status, message)
        elif exchange.state < DONE:
            self._replace_answer(exchange, status, message)
        elif exchange not in self.behind:  # its answer has left already
            self.finish()

    def fail(self, exchange: Exchange) -> None:
        """Answer for a lane that raised."""
        logger.exception("%s %s failed.", exchange.method.decode("latin-1"), exchange.target.decode("latin-1"))
        exchange.pieces = DROPPED
        self._replace_answer(exchange, 500, "The request failed: this is a fault of the server.")

    def _replace_answer(self, exchange: Exchange, status: int, message: str) -> None:
        """Answer for a lane, and tell it that its own answer is not wanted any more."""
        if exchange.state == OPEN:
            self._abandon(exchange)
            exchange.state = OPEN
            self._answer(exchange, status, message)
            exchange.state = GONE  # what the lane may still send is dropped, not an error
        elif exchange.state < DONE:
            exchange.break_off()
            self._tell_gone(exchange)

    def _answer(self, exchange: Exchange, status: int, message: str) -> None:
        headers, body = self._application.refuse(status, message)
        exchange.respond(status, standard_phrase(status), headers, body)
        if not exchange.method and exchange.target:  # its headers have no end
            exchange.method = self._parser.get_method()
        self._application.refused(exchange, status)

    # ---- the turn

    def advance(self) -> None:
        """The answer of ``front`` is complete: give the turn to the next, writing what is ready on the way."""
        self.front = None
        behind = self.behind
        while behind:
            self.front = exchange = behind.popleft()
            held, exchange.held = exchange.held, None
            if held and not self.is_closing():
                self.write(b"".join(held))
            if exchange.state < DONE:
                if exchange.lane is self._bridge:
                    self._bridge.turn(exchange)
                if not self.paused:
                    self._tell_drained(exchange)
                break
            self.front = None
            if exchange.close_after:
                self.finish()
                return
        self._resume_later()

    def finish(self, is_broken: bool = False, with_reset: bool = False) -> None:
        """Close behind the last answer, so that the client can still read it; those behind it are abandoned."""
        is_read = self._reading is None
        self.front = None
        self._begin_end()
        self._abandon_all()
        transport = self.transport
        if self.is_closing():
            return
        if with_reset:
            socket = transport.get_extra_info("socket")
            socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        elif not is_broken and transport.can_write_eof():
            transport.write_eof()  # the client closes when it has read all, or the sweep does
        elif is_broken or is_read:
            transport.close()

    def _begin_end(self) -> None:
        self._seal()
        self._is_ending = True
        self._since = monotonic()
        self._unsent = self.transport.get_write_buffer_size()

    def _abandon_all(self) -> None:
        pending = [*self.behind] if self.front is None else [self.front, *self.behind]
        self.front = None
        self.behind.clear()
        for exchange in pending:
            self._abandon(exchange)

    def _abandon(self, exchange: Exchange) -> None:
        if exchange.state < DONE:
            exchange.state = GONE
            self._tell_gone(exchange)

    def _tell_gone(self, exchange: Exchange) -> None:
        exchange.on_drained = exchange.on_piece = None
        try:
            exchange.lane.gone(exchange)  # type: ignore[union-attr]  # it was admitted
        except Exception:
            logger.exception("A request could not be given up.")

    def _tell_drained(self, exchange: Exchange) -> None:
        callback, exchange.on_drained = exchange.on_drained, None
        if callback is not None:
            callback()

    # ---- the listener's side

    @property
    def pending_count(self) -> int:
        """Requests whose answers are not complete."""
        return len(self.behind) + (self.front is not None)

    def sweep(self, now: float) -> None:
        """Hold the client to the timeouts; called about once a second with ``time.monotonic()``."""
        limits = self._limits
        was_heard, self._heard = self._heard, False
        if self.paused or self._is_ending:
            unsent = self.transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._since = now
            self._unsent = unsent
            patience = limits.write_timeout if unsent or self.paused else self._linger_timeout
            if now - self._since > patience:
                self.transport.abort()
        elif self._head_since and not self.held_up and now - self._head_since > limits.header_timeout:
            self.refuse(408, f"The headers were not complete within {limits.header_timeout:g} seconds.")
        elif was_heard or self.held_up or self._is_body_held:
            self._since = now
        elif self._reading is not None and self._reading.lane is not None:
            if now - self._since > limits.body_timeout:
                self.refuse(408, f"Nothing of the body came for {limits.body_timeout:g} seconds.")
        elif self.front is not None:
            self._since = now
        elif now - self._since > limits.keep_alive_timeout and not self._head_since:
            self._close_idle()

    def drain(self) -> None:
        """Answer what has been accepted, then close; close at once when nothing has been."""
        self._is_draining = self._odd = True
        self._linger_timeout = min(self._linger_timeout, _DRAIN_LINGER)
        reading = self._reading
        last = self.behind[-1] if self.behind else self.front
        if last is not None:
            last.close_after = True
            if reading is not last:
                self._seal()
        elif reading is not None and reading.lane is not None:  # it was refused, its body is only being dropped
            self.finish()
        elif reading is None and not self._head_since and not self._is_ending:
            self._close_idle()

    def cut(self) -> None:
        """Close at once, whatever is not answered."""
        self.transport.abort()

    def _close_idle(self) -> None:
        self._begin_end()
        self.transport.close()
