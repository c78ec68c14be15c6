"""The gate: only a worker that was given a token gets in, once; everybody else is turned away and forgotten."""

from __future__ import annotations

import asyncio
import logging

import pytest

from marserve.supervisor.gate import PAUSE, Gate
from marserve.testing import FakeClock, in_fake_time, settle
from marserve.wire import frames
from marserve.wire.streams import connect

#: Sockets of the running test: one that fails half-way must not disturb the next.
SOCKETS = []


@pytest.fixture
def clock():
    yield FakeClock()
    while SOCKETS:
        SOCKETS.pop().close()


def hello(**changes):
    return frames.encode_message(frames.HELLO, {"version": frames.WIRE_VERSION, "token": "secret", **changes})


class Bench:
    """An open gate that expects one worker."""

    def __init__(self, folder):
        self.gate = Gate(folder / "gate.sock")
        self.gate.open()
        self.let_in = []
        self.gate.expect("secret", self.hear)

    def hear(self, sock, said):
        SOCKETS.append(sock)
        self.let_in.append(said)

    def visit(self, *pieces):
        sock = connect(self.gate.path)
        sock.setblocking(False)
        SOCKETS.append(sock)
        for piece in pieces:
            sock.send(piece)
        return sock

    def close(self):
        self.gate.close()


@in_fake_time
async def test_a_worker_with_its_token_is_let_in_once(clock, tmp_path):
    bench = Bench(tmp_path)
    bench.visit(hello(pid=7))
    await settle()
    again = bench.visit(hello())
    await settle()

    [said] = bench.let_in
    assert said["pid"] == 7
    assert again.recv(1) == b""
    bench.close()


@in_fake_time
async def test_a_hello_may_come_in_pieces(clock, tmp_path):
    bench = Bench(tmp_path)
    whole = hello()
    sock = bench.visit()
    for at in range(len(whole)):
        sock.send(whole[at : at + 1])
        await settle()

    assert len(bench.let_in) == 1
    bench.close()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (hello(token="wrong"), "token"),
        (hello(token=""), "token"),
        (hello(token="sécret"), "token"),
        (hello(token="\ud800"), "token"),
        (hello(token=None), "token"),
        (hello(version=frames.WIRE_VERSION + 1), "version 2"),
        (hello() + hello(), "one hello"),
        (frames.encode_message(frames.LOADED, {"ok": True}), "one hello"),
        (frames.HEAD.pack(3, frames.HELLO, 0, 0, 0) + b"[1]", "JSON"),
        (frames.HEAD.pack(90_000, frames.HELLO, 0, 0, 0) + b"[" * 90_000, "JSON"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "announced"),
    ],
)
@in_fake_time
async def test_others_are_turned_away(clock, tmp_path, caplog, said, why):
    bench = Bench(tmp_path)
    with caplog.at_level(logging.WARNING, "marserve.gate"):
        sock = bench.visit(said)
        await settle()

    assert not bench.let_in
    assert why in caplog.text
    assert sock.recv(1) == b""

    bench.visit(hello())
    await settle()
    assert len(bench.let_in) == 1, "and do not spoil it for the one who is expected"
    bench.close()


@in_fake_time
async def test_a_worker_that_is_no_longer_expected_is_turned_away(clock, tmp_path):
    bench = Bench(tmp_path)
    bench.gate.forget("secret")
    bench.gate.forget("never known")

    sock = bench.visit(hello())
    await settle()

    assert not bench.let_in
    assert sock.recv(1) == b""
    bench.close()


@in_fake_time
async def test_one_who_leaves_without_a_word_is_forgotten(clock, tmp_path):
    bench = Bench(tmp_path)
    bench.visit(hello()[:5]).close()
    await settle()

    bench.visit(hello())
    await settle()

    assert len(bench.let_in) == 1
    bench.close()


@in_fake_time
async def test_the_gate_is_its_owner_s_alone_and_leaves_nothing_behind(clock, tmp_path):
    bench = Bench(tmp_path)
    path = tmp_path / "gate.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    silent = bench.visit()
    await settle()

    bench.gate.close()
    bench.gate.close()

    assert not path.exists()
    assert silent.recv(1) == b""
    bench.close()


class Full:
    """A listening socket for which the process has no descriptors left, at first."""

    def __init__(self, sock):
        self._sock = sock
        self.refusals = 1

    def accept(self):
        if self.refusals:
            self.refusals -= 1
            raise OSError(24, "Too many open files")
        return self._sock.accept()

    def __getattr__(self, name):
        return getattr(self._sock, name)


@in_fake_time
async def test_a_gate_without_descriptors_waits_for_some(clock, tmp_path, caplog):
    bench = Bench(tmp_path)
    bench.gate._socket = Full(bench.gate._socket)

    bench.visit(hello())
    await settle()
    assert bench.let_in == []
    assert "Too many open files" in caplog.text

    await asyncio.sleep(2 * PAUSE)
    assert len(bench.let_in) == 1
    bench.gate.close()
