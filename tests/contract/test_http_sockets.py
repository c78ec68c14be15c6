"""The HTTP listener over real sockets, on both event loops: what clients of every kind may rely on."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from marserve.config.address import Address
from marserve.doors.http.connection import Exchange, Lane, Limits
from marserve.doors.http.listener import Listener
from marserve.doors.http.tls import TlsContext, tls_context
from marserve.errors import ConfigError

TLS = Path(__file__).parent / "tls"
LIMITS = Limits(body_bytes=1_000_000)
ANY = Address("http", "127.0.0.1", 0)

Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def loop_factory(request: pytest.FixtureRequest) -> Loop:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _swept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marserve.doors.http.listener._SWEEP_INTERVAL", 0.02)


def play(loop_factory: Loop, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario; what goes wrong in the loop behind its back fails it too."""

    async def run() -> None:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        async with asyncio.timeout(30):
            await scenario()
        assert faults == []

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())


class EventLane:
    """Answers with the body at once, or keeps requests until told; tells what happens through events."""

    def __init__(self) -> None:
        self.max_body = 5_000_000
        self.answers_at_once = True
        self.admits = True
        self.news = asyncio.Condition()
        self.admitted: list[Exchange] = []
        self.accepted: list[Exchange] = []
        self.abandoned: list[Exchange] = []

    def admit(self, exchange: Exchange) -> bool:
        self._tell(self.admitted, exchange)
        if not self.admits:
            exchange.respond(503, b"Full", b"", b"full")
        return self.admits

    def accept(self, exchange: Exchange) -> None:
        self._tell(self.accepted, exchange)
        if self.answers_at_once:
            exchange.respond(200, b"OK", b"x-target: " + exchange.target + b"\r\n", exchange.body())

    def gone(self, exchange: Exchange) -> None:
        self._tell(self.abandoned, exchange)

    def _tell(self, kind: list[Exchange], exchange: Exchange) -> None:
        kind.append(exchange)
        self._task = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self.news:
            self.news.notify_all()

    async def until(self, kind: list[Exchange], count: int) -> None:
        async with self.news:
            await self.news.wait_for(lambda: len(kind) >= count)


class EchoApplication:
    """``/asgi…`` is a Starlette application, everything else the lane."""

    def __init__(self) -> None:
        self.fast = EventLane()
        routes = [Route("/asgi/echo", self._echo, methods=["POST"]), Route("/asgi/parts", self._parts)]
        self.asgi = Starlette(routes=routes)

    async def _echo(self, request: Request) -> Response:
        parts = [part async for part in request.stream()]
        return PlainTextResponse(b"".join(parts))

    async def _parts(self, request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield b"x" * 20_000

        return StreamingResponse(parts())

    def lane(self, method: bytes, target: bytes) -> Lane | None:
        return None if target.startswith(b"/asgi") else self.fast

    def refuse(self, status: int, message: str) -> tuple[bytes, bytes]:
        return b"content-type: text/plain\r\n", message.encode()

    def refused(self, exchange: Exchange, status: int) -> None:
        pass


class Served:
    """A listener on a free port, and how to reach it."""

    def __init__(self, limits: Limits) -> None:
        self.application = EchoApplication()
        self.lane = self.application.fast
        self.listener = Listener(self.application, limits, name="inference")
        self.address = ""

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    async def connect(self, context: ssl.SSLContext | None = None) -> Peer:
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port, ssl=context))


class Peer:
    """A client that reads answers as HTTP says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(data)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:-2])
        status = int(head[0].split(" ")[1])
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
            return status, headers, body
        return status, headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def is_closed(self) -> bool:
        """Wait for the server's end; whether it came without a further byte."""
        return await self.reader.read() == b""

    def reset(self) -> None:
        """Vanish as a killed client does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def leave(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass


@asynccontextmanager
async def serve(
    limits: Limits = LIMITS, address: Address = ANY, context: ssl.SSLContext | None = None
) -> AsyncIterator[Served]:
    served = Served(limits)
    served.address = await served.listener.open(address, context)
    try:
        yield served
    finally:
        await served.listener.drain(5)


def post(target: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST " + target + b" HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# ---- requests


def test_answers_on_one_connection(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve() as served:
            peer = await served.connect()
            assert await peer.ask(post(b"/a", b"one")) == (
                200,
                {"x-target": "/a", "content-length": "3", "connection": "keep-alive"},
                b"one",
            )
            assert (await peer.ask(post(b"/asgi/echo", b"two")))[2] == b"two"
            assert (await peer.ask(post(b"/b", b"three")))[2] == b"three"
            assert served.listener.connection_count == 1
            assert served.lane.accepted[0].client == peer.writer.get_extra_info("sockname")
            sock = served.lane.accepted[0].connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await peer.leave()

    play(loop_factory, scenario)


def test_requests_split_at_every_byte(loop_factory: Loop) -> None:
    java = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAB")
    request_ = post(b"/j", b"the whole body", *java)

    async def scenario() -> None:
        async with serve() as served:
            for cut in range(1, len(request_)):
                peer = await served.connect()
                peer.writer.write(request_[:cut])
                await asyncio.sleep(0)
                assert (await peer.ask(request_[cut:]))[2] == b"the whole body"
                assert (await peer.ask(post(b"/next", b"next")))[2] == b"next"
                await peer.leave()

    play(loop_factory, scenario)


def test_pipelined_requests_are_answered_in_order(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve() as served:
            served.lane.answers_at_once = False
            peer = await served.connect()
            peer.writer.write(post(b"/1", b"") + post(b"/2", b"") + post(b"/asgi/echo", b"3") + post(b"/4", b""))
            await served.lane.until(served.lane.accepted, 3)
            for exchange in reversed(served.lane.accepted):
                exchange.respond(200, b"OK", b"", exchange.target)

            assert [(await peer.answer())[2] for _ in range(4)] == [b"/1", b"/2", b"3", b"/4"]
            await peer.leave()

    play(loop_factory, scenario)


def test_large_bodies_both_ways(loop_factory: Loop) -> None:
    body = os.urandom(4_000_000)

    async def scenario() -> None:
        async with serve(replace(LIMITS, body_bytes=5_000_000)) as served:
            peer = await served.connect()
            for target in (b"/a", b"/asgi/echo"):
                asked = asyncio.ensure_future(peer.ask(post(target, body)))
                assert (await asked)[2] == body
            assert (await peer.ask(b"GET /asgi/parts HTTP/1.1\r\n\r\n"))[2] == b"x" * 1_000_000
            await peer.leave()

    play(loop_factory, scenario)


def test_the_body_is_called_for(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve() as served:
            peer = await served.connect()
            request_ = post(b"/a", b"body", b"Expect: 100-continue")
            peer.writer.write(request_[:-4])
            assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await peer.ask(b"body"))[2] == b"body"

            served.lane.admits = False
            assert (await peer.ask(request_[:-4]))[0] == 503
            assert await peer.is_closed()
            await peer.leave()

    play(loop_factory, scenario)


# ---- refusals reach the client


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_client_that_still_sends_can_read_the_refusal(loop_factory: Loop, is_tls: bool) -> None:
    async def scenario() -> None:
        context = server_context() if is_tls else None
        async with serve(address=replace(ANY, scheme="https" if is_tls else "http"), context=context) as served:
            peer = await served.connect(client_context() if is_tls else None)
            peer.writer.write(post(b"/a", b"")[:-2].replace(b"h: 0", b"h: 50000000") + b"\r\n")
            peer.writer.write(b"x" * 2_000_000)  # far more than the sockets' buffers hold

            status, headers, body = await peer.answer()

            assert (status, headers["connection"]) == (413, "close")
            assert body == b"The body is larger than 5000000 bytes."
            peer.writer.transport.abort()

    play(loop_factory, scenario)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"NO HTTP\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"POST / HTTP/1.1\r\nExpect: more\r\nContent-Length: 3\r\n\r\n", 417),
    ],
)
def test_what_cannot_be_served_is_told_and_closed(loop_factory: Loop, request_: bytes, status: int) -> None:
    async def scenario() -> None:
        async with serve() as served:
            peer = await served.connect()
            assert (await peer.ask(request_))[0] == status
            assert await peer.is_closed()
            await peer.leave()

    play(loop_factory, scenario)


def test_http_1_0_closes_and_streams_to_the_end(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve() as served:
            peer = await served.connect()
            peer.writer.write(b"GET /asgi/parts HTTP/1.0\r\n\r\n")
            head, _, body = (await peer.reader.read()).partition(b"\r\n\r\n")
            assert head.endswith(b"connection: close")
            assert body == b"x" * 1_000_000
            await peer.leave()

    play(loop_factory, scenario)


# ---- clients that leave, or are slow


@pytest.mark.parametrize("how", ["close", "half", "reset"])
@pytest.mark.parametrize("cut", [-3, None])
def test_a_client_that_leaves_is_noticed(loop_factory: Loop, how: str, cut: int | None) -> None:
    async def scenario() -> None:
        async with serve() as served:
            served.lane.answers_at_once = False
            peer = await served.connect()
            peer.writer.write(post(b"/a", b"body") + post(b"/b", b"body")[:cut])
            await served.lane.until(served.lane.admitted, 2)

            if how == "half":
                peer.writer.write_eof()
            elif how == "close":
                peer.writer.close()
            else:
                peer.reset()
            await served.lane.until(served.lane.abandoned, 2)

            assert served.lane.abandoned == served.lane.admitted
            for exchange in served.lane.admitted:
                exchange.respond(200, b"OK", b"", b"nobody reads this")
            await peer.leave()

    play(loop_factory, scenario)


def test_answering_a_client_that_has_just_been_reset_does_nothing(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve() as served:
            served.lane.answers_at_once = False
            peer = await served.connect()
            peer.writer.write(post(b"/a", b"") * 20)
            await served.lane.until(served.lane.accepted, 20)
            peer.reset()
            for exchange in served.lane.accepted:
                exchange.respond(200, b"OK", b"", b"x" * 100_000)
                await asyncio.sleep(0)
            await until_empty(served)

    play(loop_factory, scenario)


def test_a_slow_sender_is_told(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve(replace(LIMITS, header_timeout=0.01, body_timeout=0.01)) as served:
            for begun in (b"POST /a HTTP/1.1\r\n", post(b"/a", b"body")[:-1]):
                peer = await served.connect()
                assert (await peer.ask(begun))[0] == 408
                assert await peer.is_closed()
                await peer.leave()

    play(loop_factory, scenario)


def test_an_idle_connection_is_closed(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve(replace(LIMITS, keep_alive_timeout=0.01)) as served:
            peer = await served.connect()
            assert (await peer.ask(post(b"/a", b"")))[0] == 200
            assert await peer.is_closed()
            await peer.leave()

    play(loop_factory, scenario)


def test_a_slow_reader_fills_no_memory_and_is_cut(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve(replace(LIMITS, write_timeout=0.01)) as served:
            served.lane.answers_at_once = False
            peer = await served.connect()
            peer.writer.transport.pause_reading()
            peer.writer.write(post(b"/a", b""))
            await served.lane.until(served.lane.accepted, 1)
            exchange = served.lane.accepted[0]
            exchange.begin(200, b"OK", b"")
            sent = 0
            while exchange.chunk(b"x" * 50_000):
                sent += 50_000
                await asyncio.sleep(0)
            peer.writer.write(post(b"/b", b"") * 10)

            await served.lane.until(served.lane.abandoned, 1)

            assert len(served.lane.accepted) == 1  # nothing more was read for one who does not read
            assert sent < 20_000_000
            peer.writer.transport.abort()

    play(loop_factory, scenario)


def test_a_slow_reader_that_returns_gets_everything(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve() as served:
            served.lane.answers_at_once = False
            peer = await served.connect()
            peer.writer.write(post(b"/a", b""))
            await served.lane.until(served.lane.accepted, 1)
            exchange = served.lane.accepted[0]
            exchange.begin(200, b"OK", b"")
            sent = 1
            while exchange.chunk(b"x" * 50_000):
                sent += 1
                await asyncio.sleep(0)
            drained = asyncio.Event()
            exchange.on_drained = drained.set
            reading = asyncio.ensure_future(peer.answer())
            await drained.wait()
            exchange.end()

            assert len((await reading)[2]) == sent * 50_000
            await peer.leave()

    play(loop_factory, scenario)


def test_a_broken_off_answer_can_be_told_from_a_whole_one(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve() as served:
            served.lane.answers_at_once = False
            chunked, plain = await served.connect(), await served.connect()
            chunked.writer.write(b"GET / HTTP/1.1\r\n\r\n")
            plain.writer.write(b"GET / HTTP/1.0\r\n\r\n")
            await served.lane.until(served.lane.accepted, 2)
            for exchange in served.lane.accepted:
                exchange.begin(200, b"OK", b"")
                exchange.chunk(b"half")
            await chunked.reader.readuntil(b"half")
            await plain.reader.readuntil(b"half")
            for exchange in served.lane.accepted:
                exchange.break_off()

            assert await chunked.reader.read() == b"\r\n"
            with pytest.raises(ConnectionResetError):
                await plain.reader.read()
            await chunked.leave()
            await plain.leave()

    play(loop_factory, scenario)


# ---- drain


async def until_empty(served: Served) -> None:
    while served.listener.connection_count:
        await asyncio.sleep(0.001)


def test_drain_answers_what_is_in_flight(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve() as served:
            served.lane.answers_at_once = False
            idle, busy, sending = await served.connect(), await served.connect(), await served.connect()
            served.lane.answers_at_once = True
            await idle.ask(post(b"/idle", b""))
            served.lane.answers_at_once = False
            busy.writer.write(post(b"/1", b"") + post(b"/2", b""))
            sending.writer.write(post(b"/3", b"body")[:-2])
            await served.lane.until(served.lane.admitted, 4)

            draining = asyncio.ensure_future(served.listener.drain(20))
            assert await idle.is_closed()
            with pytest.raises(OSError):
                await served.connect()
            sending.writer.write(b"dy")
            await served.lane.until(served.lane.accepted, 4)
            for exchange in served.lane.accepted[1:]:
                exchange.respond(200, b"OK", b"", exchange.target)

            assert [(await busy.answer())[1]["connection"] for _ in range(2)] == ["keep-alive", "close"]
            assert (await sending.answer())[1]["connection"] == "close"
            assert await busy.is_closed()
            for peer in (idle, busy, sending):
                await peer.leave()
            assert await draining == 0

    play(loop_factory, scenario)


def test_drain_cuts_what_never_ends(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve() as served:
            served.lane.answers_at_once = False
            peer = await served.connect()
            peer.writer.write(post(b"/1", b"") * 2)
            await served.lane.until(served.lane.accepted, 2)

            assert await served.listener.drain(0.01) == 2

            assert served.lane.abandoned == served.lane.accepted
            assert await peer.is_closed()
            await peer.leave()

    play(loop_factory, scenario)


# ---- addresses


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (Address("http", "127.0.0.1", 0), "http://127.0.0.1:"),
        (Address("http", "::1", 0), "http://[::1]:"),
        (Address("http", "localhost", 0), "http://localhost:"),
    ],
)
def test_the_bound_address_is_told(loop_factory: Loop, address: Address, told: str) -> None:
    async def scenario() -> None:
        async with serve(address=address) as served:
            assert served.address.startswith(told)
            assert served.port > 0
            reader, writer = await asyncio.open_connection(address.host, served.port)
            assert (await Peer(reader, writer).ask(post(b"/a", b"a")))[2] == b"a"
            writer.close()

    play(loop_factory, scenario)


def test_a_taken_port_is_told_with_the_setting(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve() as served:
            with pytest.raises(ConfigError) as raised:
                await Listener(served.application, LIMITS, name="management").open(replace(ANY, port=served.port))

            assert (
                raised.value.message
                == f"management_address {served.address} cannot be listened on: address already in use."
            )
            assert "set management_address" in raised.value.hint

    play(loop_factory, scenario)


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_told(loop_factory: Loop, host: str) -> None:
    async def scenario() -> None:
        listener = Listener(EchoApplication(), LIMITS, name="inference")
        with pytest.raises(ConfigError, match=r"inference_address http://.* cannot be listened on"):
            await listener.open(Address("http", host, 0))

    play(loop_factory, scenario)


def test_a_unix_socket_is_served_and_removed(loop_factory: Loop, tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as stale:  # what a killed server leaves
            stale.bind(str(path))
        async with serve(address=Address("unix", path=str(path))) as served:
            assert served.address == f"unix:{path}"
            with pytest.raises(ConfigError, match="address already in use"):
                await Listener(served.application, LIMITS, name="inference").open(Address("unix", path=str(path)))
            peer = Peer(*await asyncio.open_unix_connection(path))
            assert (await peer.ask(post(b"/a", b"a")))[2] == b"a"
            assert served.lane.accepted[0].client == ""
            assert (await peer.ask(post(b"/asgi/echo", b"a")))[2] == b"a"
            await peer.leave()
        assert not path.exists()

    play(loop_factory, scenario)


def test_a_file_that_is_no_socket_is_left_alone(loop_factory: Loop, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")

    async def scenario() -> None:
        with pytest.raises(ConfigError, match=r"cannot be listened on: file exists\. It is no socket"):
            await Listener(EchoApplication(), LIMITS, name="inference").open(Address("unix", path=str(path)))

    play(loop_factory, scenario)
    assert path.read_text() == "data"


def test_a_socket_that_another_server_has_taken_is_left_alone(loop_factory: Loop, tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def scenario() -> None:
        async with serve(address=Address("unix", path=str(path))):
            path.rename(tmp_path / "ours")
            path.write_text("another's")
        assert path.exists()

    play(loop_factory, scenario)


# ---- TLS


def server_context() -> TlsContext:
    return tls_context(str(TLS / "test-certificate.pem"), str(TLS / "test-key.pem"))


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(TLS / "test-certificate.pem"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def test_tls_is_served(loop_factory: Loop) -> None:
    async def scenario() -> None:
        async with serve(address=replace(ANY, scheme="https"), context=server_context()) as served:
            assert served.address.startswith("https://127.0.0.1:")
            peer = await served.connect(client_context())
            assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            body = os.urandom(500_000)
            assert (await peer.ask(post(b"/a", body)))[2] == body
            assert (await peer.ask(post(b"/asgi/echo", body, b"Connection: close")))[2] == body
            assert await peer.is_closed()
            await peer.leave()

    play(loop_factory, scenario)


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"nonsense"])
def test_plain_http_to_a_tls_port_is_answered_in_plain_http(
    loop_factory: Loop, caplog: pytest.LogCaptureFixture, method: bytes
) -> None:
    context = server_context()
    context.plain_answer = b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno"

    async def scenario() -> None:
        async with serve(address=replace(ANY, scheme="https"), context=context) as served:
            peer = await served.connect()
            peer.writer.write(method + b" /a HTTP/1.1\r\ncontent-length: 300000\r\n\r\n")
            assert await peer.reader.readexactly(len(context.plain_answer)) == context.plain_answer
            peer.writer.write(bytes(300_000))  # a client that sends on is not reset: its answer may be on the way yet
            await peer.writer.drain()
            peer.writer.write_eof()
            assert await peer.reader.read() == b""
            await peer.leave()
            assert served.listener.connection_count == 0

    with caplog.at_level(logging.INFO, "marserve"):
        play(loop_factory, scenario)

    assert [record.getMessage() for record in caplog.records if record.name.startswith("marserve")] == [
        "A client spoke plain HTTP to an https address; it should use https://."
    ]
    assert all(record.exc_info is None for record in caplog.records)


def test_a_handshake_that_fails_is_one_line_in_the_log(loop_factory: Loop, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serve(address=replace(ANY, scheme="https"), context=server_context()) as served:
            peer = await served.connect()
            peer.writer.write(b"\x16" + b"\xff" * 20)
            await peer.reader.read()
            await peer.leave()

    with caplog.at_level(logging.INFO, "marserve"):
        play(loop_factory, scenario)

    told = [record.getMessage() for record in caplog.records if record.name.startswith("marserve")]
    assert len(told) == 1
    assert told[0].startswith("A TLS handshake failed: ")
