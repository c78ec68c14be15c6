"""The ASGI bridge: what an application is given, and what its messages become; without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from http_fakes import Client, get, post
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from marserve.doors.http.lane import ASGIApp, Message, Receive, Send

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


def body(data: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def play(asgi: ASGIApp, scenario: Callable[[Client], Awaitable[None]] | bytes) -> Client:
    """Run a scenario, or just send some bytes, against an application; return the client after it."""

    async def run() -> Client:
        client = Client(asgi=asgi)
        if isinstance(scenario, bytes):
            client.send(scenario)
        else:
            await scenario(client)
        await settle()
        client.bridge.close()
        await settle()
        return client

    return asyncio.run(run())


def sending(*messages: Message) -> ASGIApp:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(dict(message))

    return app


# ---- the scope and the body


def test_the_scope_says_what_was_asked() -> None:
    seen: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send(dict(START))
        await send(body(b""))

    play(app, get(b"/asgi/caf%C3%A9/a%2Fb?x=1&y=%20", b"X-Upper: Value"))

    (scope,) = seen
    assert scope["path"] == "/asgi/café/a/b"
    assert scope["raw_path"] == b"/asgi/caf%C3%A9/a%2Fb"
    assert scope["query_string"] == b"x=1&y=%20"
    assert scope["headers"] == [(b"host", b"x"), (b"x-upper", b"Value")]
    assert (scope["type"], scope["method"], scope["http_version"], scope["scheme"]) == ("http", "GET", "1.1", "http")
    assert (scope["client"], scope["root_path"]) == (("10.0.0.9", 5555), "")


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"/asgi", "/asgi"), (b"/asgi*", "/asgi*"), (b"/asgi/%FF", "/asgi/\N{REPLACEMENT CHARACTER}")],
)
def test_odd_targets_still_have_a_path(target: bytes, path: str) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["path"] == path
        await send(dict(START))
        await send(body(b"seen"))

    assert play(app, get(target)).answers[0][2] == b"seen"


def test_starlette_is_served_with_keep_alive_in_order() -> None:
    async def echo(request: Request) -> Response:
        return JSONResponse({"path": request.url.path, "body": (await request.body()).decode()}, 201)

    app = Starlette(routes=[Route("/asgi/{name}", echo, methods=["GET", "POST"])])
    client = play(app, post(b"/asgi/1", b"one") + get(b"/fast") + get(b"/asgi/2") + get(b"/asgi/"))

    assert [(status, data) for status, _, data in client.answers] == [
        (201, b'{"path":"/asgi/1","body":"one"}'),
        (200, b"/fast"),
        (201, b'{"path":"/asgi/2","body":""}'),
        (404, b"Not Found"),
    ]
    assert client.answers[0][1] == {
        b"content-type": b"application/json",
        b"content-length": b"31",
        b"connection": b"keep-alive",
    }
    assert client.connection.pending_count == 0


def test_pipelined_requests_begin_when_those_before_them_are_answered() -> None:
    order: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        order.append("begin " + scope["path"])
        await asyncio.sleep(0)
        await send(dict(START))
        order.append("end " + scope["path"])
        await send(body(b""))

    play(app, get(b"/asgi/1") + get(b"/asgi/2"))

    assert order == ["begin /asgi/1", "end /asgi/1", "begin /asgi/2", "end /asgi/2"]


def test_a_body_comes_in_parts_and_a_slow_application_stops_the_reading() -> None:
    parts: list[bytes] = []
    may_read = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        has_more = True
        while has_more:
            await may_read.wait()
            message = await receive()
            parts.append(message["body"])
            has_more = message["more_body"]
        assert (await receive())["type"] == "http.disconnect"
        await send(dict(START))
        await send(body(b"done"))

    async def scenario(client: Client) -> None:
        client.bridge.max_body = 1_000_000
        client.send(post(b"/asgi", b"x" * 100_000)[:-10])
        assert client.transport.is_reading_paused
        client.sweep(0)
        client.sweep(1000)
        assert client.out == b""  # the client is not to blame for the application
        may_read.set()
        await settle()
        assert not client.transport.is_reading_paused
        client.send(b"x" * 10)
        await settle()
        client.leave()

    play(app, scenario)

    assert b"".join(parts) == b"x" * 100_000
    assert len(parts) > 1


def test_a_body_over_the_limit_is_refused() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        message = await receive()
        assert message["type"] == "http.disconnect"

    client = play(app, post(b"/asgi", b"x" * 2001))

    assert client.statuses == [413]


def test_a_body_that_the_application_leaves_is_dropped() -> None:
    async def scenario(client: Client) -> None:
        client.bridge.max_body = 1_000_000
        request_ = post(b"/asgi", b"x" * 200_000)
        client.send(request_[:100_000])
        await settle()
        assert not client.transport.is_reading_paused
        client.send(request_[100_000:-1])
        assert not client.transport.is_reading_paused
        assert client.connection._reading is not None
        assert client.connection._reading.body() == b""
        client.send(request_[-1:] + get(b"/fast"))
        await settle()

    client = play(sending(START, body(b"early")), scenario)

    assert [data for _, _, data in client.answers] == [b"early", b"/fast"]


# ---- the answer


def test_an_answer_in_parts_is_chunked() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one", b"two"):
            yield part

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await StreamingResponse(parts(), media_type="text/x")(scope, receive, send)

    client = play(app, get(b"/asgi"))

    assert client.out.endswith(b"\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert client.answers[0][1][b"transfer-encoding"] == b"chunked"


def test_an_answer_with_its_own_length_is_not_chunked() -> None:
    start = START | {"headers": [(b"Content-Length", b"6"), (b"X-Case", b"Kept")]}

    client = play(sending(start, body(b"one", True), body(b"two")), get(b"/asgi"))

    assert client.answers == [
        (200, {b"X-Case": b"Kept", b"content-length": b"6", b"connection": b"keep-alive"}, b"onetwo")
    ]


@pytest.mark.parametrize("status", [200, 204, 304])
def test_head_and_bodiless_statuses_keep_the_connection(status: int) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await PlainTextResponse("body" if status == 200 else "", status)(scope, receive, send)

    request_ = get(b"/asgi", method=b"HEAD")
    client = play(app, request_ * 2)

    assert client.out.count(b"HTTP/1.1 %d " % status) == 2
    assert (b"content-length: 4" in client.out) is (status == 200)
    assert b"body" not in client.out


def test_the_length_of_an_answer_to_head_is_the_applications() -> None:
    start = START | {"headers": [(b"content-length", b"1234")]}

    client = play(sending(start, body(b"")), get(b"/asgi", method=b"HEAD"))

    assert client.out == b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nconnection: keep-alive\r\n\r\n"


def test_an_application_may_close_the_connection() -> None:
    start = START | {"headers": [(b"connection", b"close"), (b"transfer-encoding", b"chunked")]}

    client = play(sending(start, body(b"x")), get(b"/asgi"))

    assert client.answers == [(200, {b"content-length": b"1", b"connection": b"close"}, b"x")]
    assert client.is_lingering


def test_a_slow_reader_stops_the_application() -> None:
    sent: list[int] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(dict(START))
        for number in range(3):
            await send(body(b"x", True))
            sent.append(number)
        await send(body(b""))

    async def scenario(client: Client) -> None:
        client.send(get(b"/asgi"))
        client.connection.pause_writing()
        await settle()
        assert sent == []
        client.connection.resume_writing()
        await settle()

    client = play(app, scenario)

    assert sent == [0, 1, 2]
    assert client.answers[0][2] == b"xxx"


# ---- applications that fail, clients that leave


def test_an_application_that_fails_costs_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise LookupError("a fault of the application")

    client = play(app, get(b"/asgi") + get(b"/fast"))

    assert client.statuses == [500, 200]
    assert client.application.refusals[0][0] == 500
    assert "a fault of the application" in caplog.text


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (START,),
        (START, START),
        (body(b"x"),),
        (START, {"type": "websocket.send"}),
        (START | {"headers": [(b"x", b"a\r\nb: c")]}, body(b"")),
        (START | {"status": 99}, body(b"")),
        (START | {"headers": [(b"content-length", b"3")]}, body(b"toolong", True)),
    ],
)
def test_an_application_that_breaks_the_rules_costs_a_500(
    messages: tuple[Message, ...], caplog: pytest.LogCaptureFixture
) -> None:
    client = play(sending(*messages), get(b"/asgi"))

    assert client.statuses == [500]
    assert client.connection.pending_count == 0
    assert "GET /asgi failed" in caplog.text


def test_a_body_that_outgrows_its_length_breaks_off(caplog: pytest.LogCaptureFixture) -> None:
    start = START | {"headers": [(b"content-length", b"4")]}

    client = play(sending(start, body(b"one", True), body(b"two")), get(b"/asgi"))

    assert client.out.endswith(b"one")
    assert client.transport.is_closed
    assert "not as long as its content-length" in caplog.text


def test_an_application_that_fails_in_its_answer_breaks_it_off(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(dict(START))
        await send(body(b"half", True))
        raise LookupError("a fault of the application")

    client = play(app, get(b"/asgi"))

    assert client.out.endswith(b"4\r\nhalf\r\n")
    assert client.transport.is_closed


def test_a_fault_after_the_answer_is_logged_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(dict(START))
        await send(body(b"whole"))
        with pytest.raises(RuntimeError, match="after the end"):
            await send(body(b"more"))
        raise LookupError("a fault of the application")

    client = play(app, get(b"/asgi") + get(b"/fast"))

    assert client.statuses == [200, 200]
    assert "a fault of the application" in caplog.text


def test_a_client_that_leaves_is_told_to_the_application(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        told.append((await receive())["type"])
        with pytest.raises(OSError, match="has left"):
            await send(dict(START))
        raise ConnectionError("as an application would that cannot send")

    async def scenario(client: Client) -> None:
        client.send(get(b"/asgi") + get(b"/asgi/never"))
        await settle()
        client.leave()

    client = play(app, scenario)

    assert told == ["http.disconnect"]
    assert client.out == b""
    assert caplog.text == ""


def test_an_application_that_waits_for_a_slow_reader_is_told_that_it_left() -> None:
    told: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(dict(START))
        await send(body(b"x", True))
        with pytest.raises(OSError, match="has left"):
            await send(body(b"x", True))
        told.append("left")

    async def scenario(client: Client) -> None:
        client.send(get(b"/asgi"))
        client.connection.pause_writing()
        await settle()
        client.leave()
        await settle()
        assert told == ["left"]

    play(app, scenario)


def test_closing_cancels_what_still_runs() -> None:
    ended: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(scope["path"])

    client = play(app, get(b"/asgi"))

    assert ended == ["/asgi"]
    assert client.transport.is_closed
