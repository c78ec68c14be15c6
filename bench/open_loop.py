"""An open load: requests leave when their time has come, whether or not those before them were answered.

Latency counts from the moment at which a request should have left, so a server that stalls pays for all that had to
wait meanwhile (no coordinated omission). The schedule is drawn from a seed, so all servers get the same arrivals.
``send lag`` is what this program itself was late; where its 99th percentile passes ``MOST_LAG`` the run is void.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import random
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from bench.load import MeasureError, Target, answer_end, percentile, request_bytes

#: Own lateness, 99th percentile, seconds, beyond which a run says nothing.
MOST_LAG = 0.001
#: Seconds after the last request until what is not answered counts as lost.
PATIENCE = 2.0
#: Connections: requests that no connection is free for wait for one, and their latency goes on.
CONNECTIONS = 128
#: Below this many seconds until the next request nothing sleeps: waking up takes about as long.
_SPIN = 0.00002
#: The number of ``sched_setattr`` on x86_64, which the C library has no function for.
_SCHED_SETATTR = 314
_SEED = 4
_CHUNK = 1 << 18


def schedule(rate: float, seconds: float) -> list[float]:
    """Return when requests should leave, seconds from the beginning: gaps as of many independent clients.

    Args:
        rate: requests a second on average.
    """
    chance = random.Random(_SEED)
    due, moments = 0.0, []
    while (due := due + chance.expovariate(rate)) < seconds:
        moments.append(due)
    return moments


@dataclass
class Flight:
    """What is on its way, and what has come back; knows no clock and no socket.

    Attributes:
        due: when each request should leave, ascending.
        latencies: of those answered, in order of their answers, counted from ``due``.
        lags: how late this program came to each.
    """

    due: Sequence[float]
    latencies: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    waiting: deque[float] = field(default_factory=deque)
    _next: int = 0
    _sent: dict[int, float] = field(default_factory=dict)

    @property
    def next_due(self) -> float | None:
        """When the next request should leave, None after the last."""
        return self.due[self._next] if self._next < len(self.due) else None

    @property
    def is_over(self) -> bool:
        """Whether every request has left and is answered or lost."""
        return self._next == len(self.due) and not self.waiting and not self._sent

    def take_due(self, now: float) -> None:
        """Move all whose time has come into ``waiting``."""
        while self._next < len(self.due) and self.due[self._next] <= now:
            self.lags.append(now - self.due[self._next])
            self.waiting.append(self.due[self._next])
            self._next += 1

    def send(self, connection: int) -> None:
        """Put the one that waits longest on a connection."""
        self._sent[connection] = self.waiting.popleft()

    def answered(self, connection: int, now: float) -> None:
        """Note the answer of what is on a connection."""
        self.latencies.append(now - self._sent.pop(connection))

    def lost(self, connection: int) -> bool:
        """Forget what is on a connection; tell whether there was something."""
        return self._sent.pop(connection, None) is not None

    def give_up(self, now: float) -> int:
        """Count what is not answered as if it were answered now, which is the least it can be; return how many."""
        left = [*self._sent.values(), *self.waiting, *self.due[self._next :]]
        self.latencies.extend(max(0.0, now - due) for due in left)
        self._sent.clear()
        self.waiting.clear()
        self._next = len(self.due)
        return len(left)


@dataclass(frozen=True)
class OpenFindings:
    """What an open load found; spans in seconds.

    Attributes:
        requests: answers, good and bad.
        rate: requests a second that were asked for.
        lag: own lateness, 99th percentile.
        own_time: share of a core that this program took for itself, 0..1; the server had to do without.
        is_prompt: whether the system gave this program short turns, soon after it asked for them.
        errors: by kind; empty when nothing went wrong.
    """

    requests: int
    seconds: float
    rate: float
    p50: float
    p90: float
    p99: float
    p999: float
    lag: float
    errors: dict[str, int]
    is_prompt: bool = False
    own_time: float = 0.0

    @property
    def is_void(self) -> bool:
        """Whether this program was too late itself to say anything of the server."""
        return self.lag > MOST_LAG


def findings(flight: Flight, rate: float, seconds: float, errors: dict[str, int]) -> OpenFindings:
    """Return the figures of a flight that is over."""
    ordered = sorted(flight.latencies) or [0.0]
    p50, p90, p99, p999 = (percentile(ordered, share) for share in (0.5, 0.9, 0.99, 0.999))
    lag = percentile(sorted(flight.lags) or [0.0], 0.99)
    return OpenFindings(len(flight.latencies), seconds, rate, p50, p90, p99, p999, lag, errors)


class _Generator:
    """Sockets around a flight. No event loop: uvloop's timers are whole milliseconds, all that is allowed."""

    def __init__(self, port: int, request: bytes, flight: Flight) -> None:
        self._port, self._request, self._flight = port, request, flight
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._received: dict[int, bytes] = {}
        self._unsent: dict[int, memoryview] = {}
        self._free: deque[int] = deque()
        self.errors: dict[str, int] = {}

    def connect(self) -> None:
        """Open one more connection."""
        made = socket.create_connection(("127.0.0.1", self._port), timeout=5)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        number = made.fileno()
        self._sockets[number], self._received[number] = made, b""
        self._poll.register(number, select.EPOLLIN)
        self._free.append(number)

    def run(self) -> None:
        """Send all in time and take the answers."""
        flight, poll, clock = self._flight, self._poll, time.perf_counter
        began = clock()
        end = flight.due[-1] + PATIENCE
        while not flight.is_over:
            now = clock() - began
            if now > end:
                break
            flight.take_due(now)
            while flight.waiting and self._free:
                self._send(self._free.popleft())
            until = flight.next_due
            pause = (end if until is None else until) - (clock() - began)
            if pause > _SPIN:
                # A descriptor of epoll inside select: its pauses are microseconds, epoll's own are milliseconds.
                select.select([poll], [], [], pause - _SPIN)
            for number, event in poll.poll(0):
                if event & select.EPOLLOUT:
                    self._send_rest(number)
                if event & ~select.EPOLLOUT:
                    self._receive(number, clock() - began)
        left = flight.give_up(clock() - began)
        if left:
            self._count("timeout", left)

    def _count(self, kind: str, count: int = 1) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + count

    def _send(self, number: int) -> None:
        self._flight.send(number)
        self._unsent[number] = memoryview(self._request)
        self._send_rest(number)

    def _send_rest(self, number: int) -> None:
        rest = self._unsent.get(number)
        if rest is None:
            return
        try:
            done = self._sockets[number].send(rest)
        except BlockingIOError:
            done = 0
        except OSError:
            self._lose(number)
            return
        if done == len(rest):
            del self._unsent[number]
            if len(rest) != len(self._request):
                self._poll.modify(number, select.EPOLLIN)
            return
        self._unsent[number] = rest[done:]
        self._poll.modify(number, select.EPOLLIN | select.EPOLLOUT)

    def _receive(self, number: int, now: float) -> None:
        try:
            data = self._sockets[number].recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(number)
            return
        received = self._received[number] + data
        try:
            found = answer_end(received)
        except MeasureError:
            self._lose(number)
            return
        self._received[number] = received
        if found is None:
            return
        status, end = found
        self._received[number] = received[end:]
        self._flight.answered(number, now)
        if not 200 <= status < 300:
            self._count("status")
        self._free.append(number)

    def _lose(self, number: int) -> None:
        """Drop a connection that the server has closed, and open another; what was on it is an error."""
        if self._flight.lost(number):
            self._count("read")
        self._poll.unregister(number)
        self._sockets.pop(number).close()
        self._received.pop(number)
        self._unsent.pop(number, None)
        if number in self._free:
            self._free.remove(number)
        try:
            self.connect()
        except OSError:
            self._count("connect")

    def close(self) -> None:
        """Close all connections."""
        for each in self._sockets.values():
            each.close()
        self._poll.close()


def ask_for_short_turns() -> bool:
    """Let this program run soon when it has something to do; return False where the system does not know of that.

    A short slice lets it go before those who have run for long (Linux 6.12 and newer). Real-time priority would too,
    but takes the processor away from a server that is then not moved to one that idles: at 8,000 requests a second a
    server of two processes answered after 4 ms, and after 0.6 without it, with half a core idle.
    """
    slice_ns = 100_000
    attributes = struct.pack("=IIQiIQQQII", 56, os.SCHED_OTHER, 0, 0, 0, slice_ns, 0, 0, 0, 0)
    return platform.machine() == "x86_64" and ctypes.CDLL(None).syscall(_SCHED_SETATTR, 0, attributes, 0) == 0


def put_open_load(port: int, request: bytes, rate: float, seconds: float) -> OpenFindings:
    """Put an open load on a port of this machine, from this process, which should do nothing else.

    Raises:
        OSError: the server cannot be reached.
    """
    flight = Flight(schedule(rate, seconds))
    if not flight.due:
        raise MeasureError(f"Not one request falls into {seconds:g} s at {rate:g} a second.")
    generator = _Generator(port, request, flight)
    for _ in range(CONNECTIONS):
        generator.connect()
    is_prompt = ask_for_short_turns()
    gc.disable()  # a collection takes longer than the lag that is allowed
    try:
        began, worked = time.perf_counter(), time.process_time()
        generator.run()
        took, worked = time.perf_counter() - began, time.process_time() - worked
    finally:
        gc.enable()
        generator.close()
    return replace(findings(flight, rate, took, generator.errors), is_prompt=is_prompt, own_time=worked / took)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.open_loop", description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("path", help="as /predictions/fizbuz_package")
    parser.add_argument("body", help="the body, or @ and a file that holds it")
    parser.add_argument("-r", "--rate", type=float, default=1000.0, help="requests a second")
    parser.add_argument("-d", "--seconds", type=float, default=4.0)
    parser.add_argument("-t", "--content-type", default="application/json")
    told = parser.parse_args(argv)
    target = Target(told.port, told.path, told.body, told.content_type)
    print(json.dumps(asdict(put_open_load(told.port, request_bytes(target), told.rate, told.seconds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
