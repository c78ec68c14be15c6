"""The answer of one request: its bytes, its framing, its turn; without sockets."""

from __future__ import annotations

import pytest
from http_fakes import Client, get, post

from marserve.doors.http.exchange import HIGH_WATER, Exchange, render_headers, status_line

KEEP = b"connection: keep-alive\r\n\r\n"
CLOSE = b"connection: close\r\n\r\n"


def asked(client: Client, request_: bytes | None = None) -> Exchange:
    """Send a request that waits for its answer."""
    client.lane.answers_at_once = False
    client.send(request_ or get())
    return client.lane.accepted[-1]


# ---- a whole answer


@pytest.mark.parametrize(
    ("status", "phrase", "line"),
    [
        (200, b"OK", b"HTTP/1.1 200 OK\r\n"),
        (200, b"", b"HTTP/1.1 200 \r\n"),
        (418, b"I'm a teapot", b"HTTP/1.1 418 I'm a teapot\r\n"),
        (599, b"Custom \xc3\xa4", b"HTTP/1.1 599 Custom \xc3\xa4\r\n"),
    ],
)
def test_any_status_and_phrase_can_be_sent(status: int, phrase: bytes, line: bytes) -> None:
    client = Client()

    asked(client).respond(status, phrase, b"x-a: b\r\n", b"body")
    asked(client).respond(status, phrase, b"", b"")

    assert (
        client.out
        == line + b"x-a: b\r\ncontent-length: 4\r\n" + KEEP + b"body" + line + b"content-length: 0\r\n" + KEEP
    )


@pytest.mark.parametrize("status", [99, 100, 199, 1000])
def test_a_status_that_ends_nothing_is_refused(status: int) -> None:
    client = Client()
    exchange = asked(client)

    with pytest.raises(ValueError, match="200 to 999"):
        exchange.respond(status, b"", b"", b"")

    exchange.respond(500, b"", b"", b"")  # it can still be answered
    assert client.statuses == [500]


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 100_000])
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_bodies_of_any_length_are_sent_and_copied(size: int, kind: type) -> None:
    client = Client()
    memory = bytearray(b"x" * size)

    asked(client).respond(200, b"OK", b"", kind(memory))
    memory[:] = b"y" * size

    assert client.answers[0][2] == b"x" * size


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body_have_neither_body_nor_length(status: int) -> None:
    client = Client()

    asked(client).respond(status, b"None", b"", b"dropped")
    exchange = asked(client)
    exchange.begin(status, b"None", b"")
    exchange.chunk(b"dropped")
    exchange.end()

    assert client.out == (b"HTTP/1.1 %d None\r\n" % status + KEEP) * 2


def test_the_answer_to_head_tells_the_length_without_the_body() -> None:
    client = Client()

    asked(client, get(method=b"HEAD")).respond(200, b"OK", b"", b"body")
    exchange = asked(client, get(method=b"HEAD"))
    exchange.begin(200, b"OK", b"")
    assert exchange.chunk(b"dropped")
    exchange.end()

    assert client.out == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n"
        + KEEP
        + b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
        + KEEP
    )


def test_close_after_is_told_and_done() -> None:
    client = Client()
    exchange = asked(client)

    exchange.close_after = True
    exchange.respond(500, b"", b"", b"x")

    assert client.out == b"HTTP/1.1 500 \r\ncontent-length: 1\r\n" + CLOSE + b"x"
    assert client.is_lingering


def test_a_request_is_answered_once() -> None:
    client = Client()
    exchange = asked(client)
    exchange.respond(200, b"OK", b"", b"")
    out = client.out

    for again in (
        lambda: exchange.respond(200, b"OK", b"", b""),
        lambda: exchange.begin(200, b"OK", b""),
        lambda: exchange.chunk(b"x"),
        exchange.end,
    ):
        with pytest.raises(RuntimeError):
            again()

    exchange.break_off()
    assert client.out == out
    assert not client.transport.is_closed


def test_pieces_need_a_beginning() -> None:
    exchange = asked(Client())

    with pytest.raises(RuntimeError):
        exchange.chunk(b"x")
    with pytest.raises(RuntimeError):
        exchange.end()


# ---- nothing splits an answer


@pytest.mark.parametrize("headers", [b"a: b\r\n\r\nHTTP/1.1 200 OK\r\n", b"\r\nx: y\r\n", b"a: b\r\n\r\n"])
def test_header_lines_with_an_empty_line_are_refused(headers: bytes) -> None:
    client = Client()
    exchange = asked(client)

    for size in (1, 5000):
        with pytest.raises(ValueError, match="empty line"):
            exchange.respond(200, b"OK", headers, b"x" * size)
    with pytest.raises(ValueError, match="empty line"):
        exchange.begin(200, b"OK", headers)

    assert client.out == b""
    exchange.respond(500, b"", b"", b"")
    assert client.statuses == [500]


@pytest.mark.parametrize("phrase", [b"OK\r\nx: y", b"OK\n", b"\0"])
def test_a_phrase_cannot_add_lines(phrase: bytes) -> None:
    with pytest.raises(ValueError, match="reason phrase"):
        status_line(200, phrase)


@pytest.mark.parametrize(
    "pair", [(b"a", b"b\r\nc: d"), (b"a", b"b\n"), (b"a\r\nb", b"c"), (b"a", b"\0"), (b"", b"a"), (b"a: b", b"c")]
)
def test_a_header_cannot_add_lines(pair: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        render_headers([(b"fine", b"value"), pair])


def test_headers_are_rendered_as_lines() -> None:
    assert render_headers([(b"a", b"b"), (b"c", b"")]) == b"a: b\r\nc: \r\n"


# ---- an answer in pieces


def test_each_piece_is_one_chunk() -> None:
    client = Client()
    exchange = asked(client)

    assert not exchange.has_begun
    exchange.begin(200, b"OK", b"x-a: b\r\n")
    assert exchange.has_begun
    assert exchange.chunk(b"one")
    assert exchange.chunk(b"")
    assert exchange.chunk(b"twenty-six letters or more")
    exchange.end()
    assert not exchange.has_begun

    assert client.out == (
        b"HTTP/1.1 200 OK\r\nx-a: b\r\ntransfer-encoding: chunked\r\n" + KEEP
        + b"3\r\none\r\n1a\r\ntwenty-six letters or more\r\n0\r\n\r\n"
    )  # fmt: skip
    assert client.connection.pending_count == 0


def test_on_1_0_the_end_of_the_connection_is_the_end_of_the_body() -> None:
    client = Client()
    exchange = asked(client, get(b"/a", b"Connection: keep-alive", version=b"1.0"))

    exchange.begin(200, b"OK", b"")
    exchange.chunk(b"one")
    exchange.chunk(b"two")
    exchange.end()

    assert client.out == b"HTTP/1.1 200 OK\r\n" + CLOSE + b"onetwo"
    assert client.is_lingering


def test_a_told_length_needs_no_chunks() -> None:
    client = Client()
    exchange = asked(client)

    exchange.begin(200, b"OK", b"", 6)
    exchange.chunk(b"one")
    exchange.chunk(b"two")
    exchange.end()

    assert client.out == b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n" + KEEP + b"onetwo"


def test_a_slow_reader_is_told_and_its_return_too() -> None:
    client = Client()
    exchange = asked(client)
    exchange.begin(200, b"OK", b"")
    drained: list[str] = []

    client.connection.pause_writing()
    assert not exchange.chunk(b"x")
    exchange.on_drained = lambda: drained.append("again")
    client.connection.resume_writing()
    client.connection.pause_writing()
    client.connection.resume_writing()

    assert drained == ["again"]
    assert exchange.chunk(b"x")


def test_what_waits_for_its_turn_is_bounded_and_told_when_it_comes() -> None:
    client = Client()
    first = asked(client)
    second = asked(client)
    drained: list[str] = []

    second.begin(200, b"OK", b"")
    assert second.chunk(b"x" * 100)
    assert not second.chunk(b"x" * HIGH_WATER)
    second.on_drained = lambda: drained.append("turn")
    assert drained == []
    first.respond(200, b"OK", b"", b"")

    assert drained == ["turn"]
    assert second.chunk(b"x")


def test_an_answer_may_begin_before_the_body_is_there() -> None:
    client = Client()
    client.lane.answers_at_once = False
    request_ = post(b"/a", b"body")
    client.send(request_[:-2])
    (exchange,) = client.lane.admitted

    exchange.begin(200, b"OK", b"")
    client.send(request_[-2:])
    exchange.chunk(exchange.body())
    exchange.end()
    client.send(get(b"/next"))

    assert client.answers[0][2] == b"body"
    assert client.lane.accepted[1].target == b"/next"


def test_an_answer_before_the_end_of_the_body_keeps_the_connection() -> None:
    client = Client()
    request_ = post(b"/a", b"body")
    client.send(request_[:-2])

    client.lane.admitted[0].respond(503, b"", b"", b"")
    client.send(request_[-2:] + get(b"/next"))

    assert client.statuses == [503, 200]
    assert [exchange.target for exchange in client.lane.accepted] == [b"/next"]


# ---- an answer that breaks off


def test_a_broken_off_answer_lacks_its_last_chunk() -> None:
    client = Client()
    exchange = asked(client)
    exchange.begin(200, b"OK", b"")
    exchange.chunk(b"one")

    exchange.break_off()

    assert client.out.endswith(b"\r\n3\r\none\r\n")
    assert client.transport.is_closed
    assert not client.transport.is_aborted  # what was sent before still reaches the client
    assert exchange.is_gone


def test_a_broken_off_answer_without_chunks_is_reset() -> None:
    client = Client()
    exchange = asked(client, get(version=b"1.0"))
    exchange.begin(200, b"OK", b"")

    exchange.break_off()

    assert client.is_reset


def test_breaking_off_waits_for_the_answers_before_it() -> None:
    client = Client()
    first, second, third = asked(client), asked(client), asked(client)

    second.begin(200, b"OK", b"")
    second.break_off()
    assert not client.transport.is_closed
    first.respond(200, b"OK", b"", b"first")

    assert [body for _, _, body in client.answers] == [b"first"]
    assert client.is_lingering
    assert client.lane.abandoned == [third]
