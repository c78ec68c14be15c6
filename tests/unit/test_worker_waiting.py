"""How a worker waits for work: it watches the page while work mostly comes at once, and blocks otherwise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from marserve.wire import page
from marserve.worker import loop as loops
from marserve.worker.loop import LOOKS, Loop

#: Seconds that a worker may watch for.
POLL = 0.0002


class FakeServer:
    """The other end of the link, and the clock, at which a look takes a microsecond."""

    def __init__(self) -> None:
        self.now = 0.0
        self.words = [0] * 64
        self.words[page.POLL_MICROSECONDS] = round(POLL * 1e6)
        self.looks: list[int] = []
        self.due = 0.0

    def perf_counter(self) -> float:
        self.now += 1e-6
        if self.now >= self.due:
            self.words[page.SENT] = 1
        return self.now

    def receive(self, looks: int) -> bytes:
        self.looks.append(looks)
        self.now = max(self.now, self.due)
        return b"work"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    server = FakeServer()
    monkeypatch.setattr(loops, "time", SimpleNamespace(perf_counter=server.perf_counter))
    return server


@pytest.fixture
def loop(server: FakeServer) -> Loop:
    made = Loop.__new__(Loop)
    made._stream, made._words, made._last, made._short_waits = server, server.words, 0, 1.0  # type: ignore[assignment]
    return made


def wait(loop: Loop, server: FakeServer, delay: float, times: int = 1) -> int:
    """Wait so often for work that comes after ``delay``; return how often the worker saw it on the page."""
    server.looks.clear()
    for _ in range(times):
        server.words[page.SENT] = 0
        server.due = server.now + delay
        assert loop._wait() == b"work"
    return server.looks.count(LOOKS)


def test_work_that_comes_soon_is_seen_on_the_page(loop: Loop, server: FakeServer) -> None:
    assert wait(loop, server, POLL / 2, 100) == 100


def test_a_worker_blocks_once_work_comes_late(loop: Loop, server: FakeServer) -> None:
    began = server.now
    wait(loop, server, 10 * POLL, 100)
    watched = server.now - began
    wait(loop, server, 10 * POLL, 100)
    # What it does not watch for, it does not look at the clock for either; it blocks until the work is there.
    assert loop._short_waits < 0.1
    assert server.looks == [0] * 100
    assert server.now - began - watched == pytest.approx(100 * 10 * POLL, rel=0.01)


def test_it_watches_again_when_work_comes_soon_again(loop: Loop, server: FakeServer) -> None:
    wait(loop, server, 10 * POLL, 1000)
    wait(loop, server, POLL / 2, 40)
    assert wait(loop, server, POLL / 2, 10) == 10


def test_now_and_then_a_late_one_changes_nothing(loop: Loop, server: FakeServer) -> None:
    for _ in range(20):
        assert wait(loop, server, POLL / 2, 4) == 4
        wait(loop, server, 10 * POLL)


def test_without_a_while_it_never_watches(loop: Loop, server: FakeServer) -> None:
    server.words[page.POLL_MICROSECONDS] = 0
    assert wait(loop, server, POLL / 2, 10) == 0
    assert server.looks == [0] * 10
