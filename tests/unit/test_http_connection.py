"""The connection: parsing, the order of answers, limits, timeouts, drain; without sockets."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
from http_fakes import Client, FakeLoop, FakeTransport, RecordingApplication, get, post

from marserve.doors.http.asgi import AsgiBridge
from marserve.doors.http.connection import Connection, Exchange, Limits
from marserve.doors.http.heads import Heads

H2C = (
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)
CHUNKED = (
    b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n"
)


# ---- requests, however they arrive


def test_a_request_reaches_its_lane_as_it_was_sent() -> None:
    client = Client()

    client.send(post(b"/a%20b?c=d", b"body", b"X-Mixed-Case: Val", b"x-twice: 1", b"X-TWICE: 2", b"X-Empty:"))

    (exchange,) = client.lane.accepted
    assert (exchange.method, exchange.target, exchange.http_version) == (b"POST", b"/a%20b?c=d", "1.1")
    assert exchange.headers[2:10] == [b"X-Mixed-Case", b"Val", b"x-twice", b"1", b"X-TWICE", b"2", b"X-Empty", b""]
    assert (exchange.header(b"x-twice"), exchange.header(b"x-empty"), exchange.header(b"x-none")) == (b"2", b"", None)
    assert (exchange.pieces, exchange.size, exchange.body()) == ([b"body"], 4, b"body")
    assert exchange.client == ("10.0.0.9", 5555)


def test_blanks_around_the_value_of_a_header_are_no_part_of_it() -> None:
    client = Client()

    for _ in range(2):  # the second head is known
        client.send(post(b"/a", b"body", b"X-Key:  Bearer k \t", b"X-Blank: \t "))

    for exchange in client.lane.accepted:
        assert (exchange.header(b"x-key"), exchange.header(b"x-blank")) == (b"Bearer k", b"")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 0])
def test_requests_may_be_split_and_joined_anywhere(size: int) -> None:
    client = Client()
    requests = [post(b"/1", b"one"), get(b"/2"), CHUNKED, post(b"/h2c", b"h2c body", *H2C), post(b"/4", b"4" * 300)]

    client.send(b"\r\n".join(requests), size)

    assert [exchange.body() for exchange in client.lane.accepted] == [b"one", b"", b"abcde", b"h2c body", b"4" * 300]
    assert [body for _, _, body in client.answers] == [b"/1", b"/2", b"/c", b"/h2c", b"/4"]
    assert not client.transport.is_closed
    assert client.lane.admitted == client.lane.accepted


def test_a_request_in_one_piece_is_answered_by_one_write() -> None:
    client = Client()

    client.send(post(b"/a", b"body"))

    assert client.transport.write_count == 1
    assert client.out == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\n/a"


def test_a_body_above_the_slice_of_parsing_arrives_whole() -> None:
    client = Client()
    body = bytes(range(256)) * 300

    client.send(post(b"/a", body), 30_000)
    client.send(CHUNKED)

    assert [exchange.body() for exchange in client.lane.accepted] == [body, b"abcde"]
    assert client.statuses == [200, 200]


def test_trailers_change_nothing() -> None:
    client = Client()

    client.send(CHUNKED.replace(b"X-Trailer: t", b"Expect: odd\r\nUpgrade: h2c\r\nX-A: b"))
    client.send(get())

    assert client.lane.accepted[0].headers == [b"Transfer-Encoding", b"chunked"]
    assert client.statuses == [200, 200]


# ---- Upgrade is never followed


@pytest.mark.parametrize(
    "framing",
    [(b"Content-Length: 4\r\n\r\n", b"body"), (b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\nbody\r\n0\r\n\r\n")],
)
@pytest.mark.parametrize("size", [1, 5, 0])
def test_an_upgrade_to_h2c_keeps_its_body_and_the_connection(framing: tuple[bytes, bytes], size: int) -> None:
    client = Client()
    head = b"\r\n".join([b"POST /j HTTP/1.1", b"Host: x", *H2C, b""])

    client.send((head + framing[0] + framing[1]) * 2 + post(b"/next", b"n"), size)

    assert [exchange.body() for exchange in client.lane.accepted] == [b"body", b"body", b"n"]
    assert [exchange.headers[2:6] for exchange in client.lane.accepted[:2]] == [
        [b"Connection", b"Upgrade, HTTP2-Settings", b"Upgrade", b"h2c"]
    ] * 2
    assert client.statuses == [200, 200, 200]
    assert not client.transport.is_closed


@pytest.mark.parametrize(
    "request_", [get(b"/w", b"Connection: Upgrade", b"Upgrade: websocket"), get(b"x:1", method=b"CONNECT")]
)
def test_an_upgrade_without_a_body_is_an_ordinary_request(request_: bytes) -> None:
    client = Client()

    client.send(request_ + get(b"/next"))

    assert client.statuses == [200, 200]


def test_many_upgrades_in_one_packet_are_answered() -> None:
    client = Client(header_bytes=60_000)

    client.send(get(b"/w", b"Connection: Upgrade", b"Upgrade: x") * 1200)

    assert client.statuses == [200] * 1200


def test_an_upgrade_with_close_is_the_last_request() -> None:
    client = Client()

    client.send(post(b"/j", b"body", b"Connection: Upgrade, close", b"Upgrade: h2c") + get(b"/next"))

    assert [exchange.body() for exchange in client.lane.accepted] == [b"body"]
    assert client.answers[0][1][b"connection"] == b"close"
    assert client.is_lingering


def test_an_upgrade_with_a_body_over_the_limit_is_refused() -> None:
    client = Client()
    client.lane.max_body = 10

    client.send(post(b"/j", b"x" * 11, *H2C))

    assert client.statuses == [413]
    assert client.lane.accepted == []


# ---- Expect


def test_the_body_is_called_for_when_the_lane_admits() -> None:
    client = Client()
    request_ = post(b"/a", b"body", b"Expect: 100-Continue")

    client.send(request_[:-4])
    assert client.out == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"body")

    assert client.answers[1][2] == b"/a"
    assert client.answers[1][1][b"connection"] == b"keep-alive"


def test_the_body_is_not_called_for_when_the_lane_refuses() -> None:
    client = Client()
    client.lane.admits = False

    client.send(post(b"/a", b"body", b"Expect: 100-continue")[:-4])

    assert client.statuses == [404]
    assert client.answers[0][1][b"connection"] == b"close"
    assert client.is_lingering


def test_the_body_is_not_called_for_when_it_is_over_the_limit() -> None:
    client = Client()
    client.lane.max_body = 3

    client.send(post(b"/a", b"body", b"Expect: 100-continue")[:-4])

    assert client.statuses == [413]
    assert client.lane.abandoned == client.lane.admitted


def test_the_call_for_a_pipelined_body_waits_for_the_answers_before_it() -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(get(b"/1") + post(b"/2", b"body", b"Expect: 100-continue")[:-4])
    assert client.out == b""

    client.lane.accepted[0].respond(200, b"", b"", b"1")

    assert client.statuses == [200, 100]


@pytest.mark.parametrize(("version", "statuses"), [(b"1.1", [417]), (b"1.0", [200])])
def test_an_unknown_expectation_is_refused_but_ignored_on_1_0(version: bytes, statuses: list[int]) -> None:
    client = Client()

    client.send(post(b"/a", b"body", b"Expect: miracles", version=version))

    assert client.statuses == statuses


# ---- pipelining


def test_answers_go_out_in_the_order_of_requests() -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(get(b"/0") + get(b"/1") + get(b"/2") + get(b"/3"))
    first, second, third, fourth = client.lane.accepted

    third.respond(200, b"OK", b"", b"third")
    second.begin(200, b"OK", b"")
    second.chunk(b"sec")
    assert client.out == b""
    first.respond(200, b"OK", b"", b"first")
    second.chunk(b"ond")
    fourth.respond(200, b"OK", b"", b"fourth")
    second.end()

    assert [body for _, _, body in client.answers] == [b"first", b"second", b"third", b"fourth"]
    assert client.connection.pending_count == 0


def test_pipelined_input_waits_at_the_depth_and_goes_on_when_answers_leave() -> None:
    client = Client(header_bytes=40)
    client.lane.answers_at_once = False

    client.send(b"".join(get(b"/%d" % index) for index in range(20)))
    waiting = len(client.lane.accepted)
    assert 4 <= waiting < 8  # one that is answered, three behind it, and what the last slice held
    client.lane.answers_at_once = True
    for exchange in list(client.lane.accepted):
        exchange.respond(200, b"OK", b"", exchange.target)
    client.loop.turn()

    assert [body for _, _, body in client.answers] == [b"/%d" % index for index in range(20)]


def test_reading_pauses_only_when_waiting_input_is_over_its_limit() -> None:
    client = Client(header_bytes=40)
    client.lane.answers_at_once = False
    client.send(get() * 8)
    assert client.connection.held_up

    client.send(get() * 3)
    assert not client.transport.is_reading_paused  # so that a client that leaves is noticed
    client.send(get() * 20)
    assert client.transport.is_reading_paused
    client.lane.answers_at_once = True
    for exchange in list(client.lane.accepted):
        exchange.respond(200, b"OK", b"", b"")
    client.loop.turn()

    assert not client.transport.is_reading_paused


def test_an_answer_from_inside_the_parser_does_not_feed_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(header_bytes=150, pipeline_depth=1)
    waiting: list[Exchange] = []

    def answer() -> None:
        for exchange in waiting:
            exchange.respond(200, b"OK", b"", exchange.target)
        waiting.clear()

    def answer_three_at_once(exchange: Exchange) -> None:
        waiting.append(exchange)
        if len(waiting) == 3:
            answer()

    monkeypatch.setattr(client.lane, "accept", answer_three_at_once)
    client.send(b"".join(get(b"/%02d" % index) for index in range(32)))
    while waiting or client.loop.soon:
        answer()
        client.loop.turn()

    assert [body for _, _, body in client.answers] == [b"/%02d" % index for index in range(32)]


def test_headers_that_had_to_wait_are_given_their_time_again() -> None:
    client = Client(header_bytes=50)
    client.lane.answers_at_once = False
    client.send((get() * 6)[:150])
    assert client.connection.held_up
    client.connection._head_since -= 1000
    client.sweep(0)
    assert client.statuses == []

    client.lane.answers_at_once = True
    for exchange in list(client.lane.accepted):
        exchange.respond(200, b"OK", b"", b"")
    client.loop.turn()
    client.sweep(1)
    client.send((get() * 6)[150:])

    assert client.statuses == [200] * 6


def test_reading_goes_on_behind_the_last_answer_to_see_the_client_close() -> None:
    client = Client(header_bytes=40)
    client.lane.answers_at_once = False
    client.send(get() * 40)
    assert client.transport.is_reading_paused

    client.lane.accepted[0].close_after = True
    client.lane.accepted[0].respond(200, b"OK", b"", b"")

    assert not client.transport.is_reading_paused


def test_what_waits_behind_a_malformed_request_is_answered_first() -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(get(b"/1") + b"NO HTTP\r\n\r\n")
    assert client.out == b""

    client.lane.accepted[0].respond(200, b"OK", b"", b"1")

    assert client.statuses == [200, 400]
    assert client.is_lingering


def test_a_close_in_the_middle_abandons_what_was_behind_it() -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(get(b"/1") + get(b"/2"))
    first, second = client.lane.accepted

    first.close_after = True
    first.respond(500, b"", b"", b"1")
    second.respond(200, b"", b"", b"2")

    assert client.statuses == [500]
    assert client.lane.abandoned == [second]
    assert second.is_gone


# ---- keep-alive, HTTP/1.0, HEAD


@pytest.mark.parametrize(
    ("request_", "told", "stays"),
    [
        (get(), b"keep-alive", True),
        (get(b"/a", b"Connection: keep-alive"), b"keep-alive", True),
        (get(b"/a", b"Connection: close"), b"close", False),
        (get(version=b"1.0"), b"close", False),
        (get(b"/a", b"connection: Keep-Alive", version=b"1.0"), b"keep-alive", True),
    ],
)
def test_the_connection_stays_as_both_sides_want(request_: bytes, told: bytes, stays: bool) -> None:
    client = Client()

    client.send(request_)

    assert client.answers[0][1][b"connection"] == told
    assert client.is_lingering is not stays
    client.send(get(b"/b"))
    assert client.statuses == ([200, 200] if stays else [200])


def test_tls_closes_at_once_as_it_cannot_close_one_side() -> None:
    client = Client(has_eof=False)

    client.send(get(b"/a", b"Connection: close"))

    assert client.transport.is_closed


@pytest.mark.parametrize("rest", [b"", b"more", get(b"/b")])
def test_data_behind_the_last_request_is_dropped(rest: bytes) -> None:
    client = Client()
    client.lane.answers_at_once = False

    client.send(get(b"/a", b"Connection: close") + rest)
    client.send(rest)
    client.lane.accepted[0].respond(200, b"OK", b"", b"a")

    assert client.statuses == [200]


def test_nothing_is_admitted_behind_an_answer_that_will_close(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    client.lane.answers_at_once = False

    def admit(exchange: Exchange) -> bool:
        client.lane.admitted.append(exchange)
        exchange.close_after = True
        return True

    monkeypatch.setattr(client.lane, "admit", admit)
    client.send(get(b"/1") + get(b"/2"))
    client.send(get(b"/3"))

    assert [exchange.target for exchange in client.lane.admitted] == [b"/1"]


# ---- bodies and headers over their limits


@pytest.mark.parametrize("size", [1, 0])
def test_a_body_over_its_limit_is_refused_before_it_is_read(size: int) -> None:
    client = Client()
    client.lane.max_body = 10
    client.send(post(b"/a", b"0123456789"), size)

    client.send(post(b"/b", b"0123456789a"), size)

    assert client.statuses == [200, 413]
    assert client.answers[1][1:] == (
        {b"x-refused": b"yes", b"content-length": b"33", b"connection": b"close"},
        b"The body is larger than 10 bytes.",
    )
    assert [exchange.target for exchange in client.lane.abandoned] == [b"/b"]
    assert client.is_lingering
    client.send(b"the rest of the body is dropped")
    assert client.statuses == [200, 413]


def test_a_large_body_is_refused_while_it_is_announced() -> None:
    client = Client()

    client.send(post(b"/a", b"", b"X: y").replace(b"Content-Length: 0", b"Content-Length: 100001"))

    assert client.statuses == [413]


def test_a_chunked_body_is_refused_when_it_grows_over_its_limit() -> None:
    client = Client()
    client.lane.max_body = 10
    client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n")
    assert client.out == b""

    client.send(b"6\r\nabcdef\r\n")

    assert client.statuses == [413]
    assert client.lane.abandoned == client.lane.admitted
    client.lane.admitted[0].respond(200, b"OK", b"", b"too late")
    assert client.statuses == [413]


@pytest.mark.parametrize("junk", [b"1;" + b"x" * 40, b"0\r\n" + b"X-Trailer: y\r\n" * 8])
def test_chunk_extensions_and_trailers_are_bounded(junk: bytes) -> None:
    client = Client()
    client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")

    client.send(junk)
    for _ in range(60):
        client.send(b"x" * 20 if junk.startswith(b"1") else b"X-Trailer: y\r\n" * 2)

    assert client.statuses == [400]


def test_one_byte_chunks_are_allowed() -> None:
    client = Client()

    client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n", 6)

    assert client.lane.accepted[0].size == 1000


@pytest.mark.parametrize("size", [1, 100, 0])
def test_headers_over_their_limit_are_refused(size: int) -> None:
    client = Client()
    client.send(get(b"/ok", b"X: " + b"x" * 900), size)

    client.send(get(b"/large", b"X: " + b"x" * 1000), size)

    assert client.statuses == [200, 431]
    assert client.is_lingering


def test_headers_without_an_end_are_refused() -> None:
    client = Client()

    client.send(b"GET / HTTP/1.1\r\nX: ")
    for _ in range(100):
        client.send(b"x" * 100)

    assert client.statuses == [431]


def test_a_request_line_over_the_limit_is_told_apart() -> None:
    client = Client()

    client.send(get(b"/" + b"x" * 3000))

    assert client.statuses == [414]


# ---- malformed requests and smuggling


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"NO HTTP\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 501),
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
@pytest.mark.parametrize("size", [1, 0])
def test_what_is_malformed_is_refused_once_and_ends_the_connection(request_: bytes, status: int, size: int) -> None:
    client = Client()

    client.send(request_ + get(b"/smuggled"), size)

    assert client.statuses == [status]
    assert client.answers[0][1][b"connection"] == b"close"
    assert client.lane.accepted == []
    assert client.lane.abandoned == client.lane.admitted
    assert client.is_lingering


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (b"NO HTTP\r\n\r\n", (b"", b"", 400)),
        (b"POST /large HTTP/1.1\r\nX: " + b"x" * 2000, (b"POST", b"/large", 431)),
        (b"POST /body HTTP/1.1\r\nContent-Length: 999999\r\n\r\nx", (b"POST", b"/body", 413)),
    ],
)
def test_the_application_is_told_of_what_the_connection_has_refused(request_: bytes, told: object) -> None:
    client = Client()

    client.send(request_, 500)

    assert client.application.told == [told]


def test_a_body_that_breaks_under_a_begun_answer_breaks_that_off() -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    client.lane.admitted[0].begin(200, b"OK", b"")

    client.send(b"zz\r\n")

    assert client.transport.is_closed
    assert not client.out.endswith(b"0\r\n\r\n")
    assert client.lane.abandoned == client.lane.admitted


# ---- lanes that refuse or fail


def test_the_body_of_a_refused_request_is_dropped_and_the_connection_stays() -> None:
    client = Client()
    client.lane.admits = False

    client.send(post(b"/a", b"x" * 50), 20)
    client.lane.admits = True
    client.send(get(b"/b"))

    assert client.statuses == [404, 200]
    assert client.lane.admitted[0].body() == b""
    assert [exchange.target for exchange in client.lane.accepted] == [b"/b"]


@pytest.mark.parametrize(
    "body", [b"Content-Length: 30\r\n\r\n" + b"x" * 8, b"Transfer-Encoding: chunked\r\n\r\n1e\r\n" + b"x" * 12]
)
def test_the_connection_closes_when_a_refused_body_is_over_the_limit(body: bytes) -> None:
    client = Client()
    client.lane.admits = False
    client.lane.max_body = 10

    client.send(b"POST / HTTP/1.1\r\n" + body, 20)

    assert client.statuses == [404]
    assert client.is_lingering
    assert client.lane.abandoned == []


@pytest.mark.parametrize("method", ["admit", "accept"])
def test_a_lane_that_raises_costs_a_500_and_not_the_connection(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    failed: list[Exchange] = []

    def fail(exchange: Exchange) -> bool:
        failed.append(exchange)
        raise LookupError("a fault of the lane")

    with monkeypatch.context() as patch:
        patch.setattr(client.lane, method, fail)
        client.send(post(b"/a", b"body"))
    client.send(get(b"/b"))

    assert client.statuses == [500, 200]
    assert client.lane.abandoned == failed
    assert failed[0].body() == b""
    assert "a fault of the lane" in caplog.text


def test_a_lane_that_refuses_without_an_answer_costs_a_500(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()

    monkeypatch.setattr(client.lane, "admit", lambda exchange: False)
    client.send(post(b"/a", b"body"))

    assert client.statuses == [500]
    assert client.lane.accepted == []
    assert "without an answer" in caplog.text


def test_an_application_that_cannot_choose_a_lane_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()

    def fail(method: bytes, target: bytes) -> None:
        raise LookupError("a fault of the routes")

    monkeypatch.setattr(client.connection, "_find_lane", fail)
    client.send(get())

    assert client.statuses == [500]
    assert "a fault of the routes" in caplog.text


# ---- clients that leave


@pytest.mark.parametrize("leave", ["connection_lost", "eof_received"])
@pytest.mark.parametrize("request_", [get(b"/a"), post(b"/a", b"body")[:-1], get(b"/a") + get(b"/b")])
def test_a_client_that_leaves_is_told_once_for_each_open_request(leave: str, request_: bytes) -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(request_)

    if leave == "eof_received":
        assert not client.connection.eof_received()  # the loop closes the transport then
        client.transport.is_closed = True
    client.leave()

    assert client.lane.abandoned == client.lane.admitted
    assert all(exchange.is_gone for exchange in client.lane.admitted)
    assert client.open_count == 0
    client.lane.admitted[0].respond(200, b"OK", b"", b"nobody reads this")
    client.lane.admitted[0].begin(200, b"OK", b"")
    assert client.lane.admitted[0].chunk(b"x")
    client.lane.admitted[0].end()
    client.lane.admitted[0].break_off()
    assert client.out == b""


def test_a_lane_is_not_told_of_what_it_has_answered() -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(get(b"/a") + get(b"/b"))
    client.lane.accepted[1].respond(200, b"OK", b"", b"held")

    client.leave()

    assert client.lane.abandoned == [client.lane.accepted[0]]


def test_a_closing_transport_is_not_written_to() -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(get(b"/a") + get(b"/b") + get(b"/c"))
    client.transport.is_closed = True  # an error of the socket; the loop tells us at its next turn

    first, second, third = client.lane.accepted
    second.respond(200, b"OK", b"", b"x")
    first.respond(200, b"OK", b"", b"x")
    third.begin(200, b"OK", b"")
    third.break_off()

    assert client.out == b""


def test_a_lane_that_fails_to_give_up_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(get(b"/a") + get(b"/b"))

    def fail(exchange: object) -> None:
        raise LookupError("a fault of the lane")

    monkeypatch.setattr(client.lane, "gone", fail)
    client.leave()

    assert caplog.text.count("LookupError: a fault of the lane") == 2
    assert client.open_count == 0


def test_a_lost_connection_is_freed_without_the_garbage_collector() -> None:
    application = RecordingApplication()
    bridge = AsgiBridge(application, 1)
    connection = Connection(
        application, bridge, Limits(), FakeLoop(), Heads(application.lane), lambda _: None, lambda _: None
    )  # type: ignore[arg-type]
    connection.connection_made(FakeTransport())  # type: ignore[arg-type]
    application.fast.answers_at_once = False
    connection.data_received(get())
    application.fast.admitted.clear()  # they hold the lane, which would hold them
    application.fast.accepted.clear()
    application.fast.gone = lambda exchange: None  # type: ignore[method-assign]
    is_alive = weakref.ref(application)
    gc.disable()
    try:
        connection.connection_lost(None)
        del connection, application, bridge
        assert is_alive() is None
    finally:
        gc.enable()


# ---- slow clients


@pytest.mark.parametrize("begun", [b"P", b"POST /a", b"POST /a HTTP/1.1\r\nHost: x"])
def test_headers_that_do_not_end_are_timed_from_their_first_byte(begun: bytes) -> None:
    client = Client()
    client.send(begun)
    client.sweep(15)
    client.send(b"" if begun == b"P" else b"x")  # a byte now and then does not help

    client.sweep(15)
    assert client.out == b""
    client.sweep(21)

    assert client.statuses == [408]
    assert client.is_lingering


def test_the_clock_of_headers_stops_when_they_are_complete() -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(get(), 5)

    client.sweep(1000)

    assert client.out == b""
    assert not client.transport.is_closed


def test_a_body_without_progress_is_timed_out() -> None:
    client = Client()
    client.send(post(b"/a", b"body")[:-3])
    client.sweep(0)
    client.send(b"o")
    client.sweep(50)
    client.sweep(100)
    assert client.out == b""

    client.sweep(111)

    assert client.statuses == [408]
    assert client.lane.abandoned == client.lane.admitted


def test_an_idle_connection_closes_without_a_word() -> None:
    client = Client()
    client.send(get())
    before = client.out
    client.sweep(0)
    client.send(b"\r\n")  # blank lines are no request
    client.sweep(0)
    client.sweep(74)
    assert not client.transport.is_closed

    client.sweep(76)

    assert client.transport.is_closed
    assert client.out == before


def test_headers_may_take_longer_than_an_idle_connection_may() -> None:
    client = Client(keep_alive_timeout=5, header_timeout=20)
    client.send(b"GET / HT")
    client.sweep(0)

    client.sweep(10)
    assert not client.transport.is_closed
    client.sweep(21)

    assert client.statuses == [408]


def test_a_request_may_take_as_long_as_its_lane_lets_it() -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(get())
    client.sweep(10_000)

    client.lane.accepted[0].respond(200, b"OK", b"", b"late")
    client.sweep(10_070)

    assert not client.transport.is_closed
    assert client.statuses == [200]


def test_a_slow_reader_is_given_no_further_answers_and_cut_in_the_end() -> None:
    client = Client()
    client.send(get(b"/a"))
    client.transport.unsent = 100_000
    client.connection.pause_writing()
    client.send(get(b"/b"))
    assert len(client.lane.admitted) == 1

    client.transport.unsent = 50_000
    client.sweep(59)
    client.sweep(118)
    assert not client.transport.is_closed  # it took something at 59
    client.sweep(120)

    assert client.transport.is_aborted


def test_an_answer_to_a_slow_reader_does_not_end_its_pause() -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(get(b"/a"))
    client.connection.pause_writing()
    client.send(get(b"/b"))

    client.lane.accepted[0].respond(200, b"OK", b"", b"")
    client.loop.turn()

    assert len(client.lane.admitted) == 1


def test_a_slow_reader_that_catches_up_goes_on() -> None:
    client = Client()
    client.connection.pause_writing()
    client.send(get(b"/a") + get(b"/b"))
    assert client.out == b""

    client.connection.resume_writing()
    client.loop.turn()

    assert client.statuses == [200, 200]


@pytest.mark.parametrize(("unsent", "patience"), [(0, 2), (10, 60)])
def test_lingering_is_bounded(unsent: int, patience: int) -> None:
    client = Client()
    client.transport.unsent = unsent
    client.send(get(b"/a", b"Connection: close"))
    client.sweep(patience - 1)
    assert client.is_lingering

    client.sweep(patience + 1)

    assert client.transport.is_aborted


# ---- drain


def test_drain_closes_what_is_idle_and_answers_what_is_not() -> None:
    idle, busy = Client(), Client()
    busy.lane.answers_at_once = False
    busy.send(get(b"/1") + get(b"/2") + b"GET /hal")

    idle.connection.drain()
    busy.connection.drain()
    busy.send(b"f HTTP/1.1\r\n\r\n")
    for exchange in list(busy.lane.accepted):
        exchange.respond(200, b"OK", b"", exchange.target)

    assert idle.transport.is_closed
    assert [(headers[b"connection"], body) for _, headers, body in busy.answers] == [
        (b"keep-alive", b"/1"),
        (b"close", b"/2"),
    ]
    assert busy.is_lingering
    assert busy.lane.abandoned == []


@pytest.mark.parametrize("cut", [3, 25, -2])
def test_drain_lets_a_begun_request_come_to_its_end(cut: int) -> None:
    client = Client()
    request_ = post(b"/a", b"body")
    client.send(request_[:cut])

    client.connection.drain()
    client.send(request_[cut:])

    assert client.answers == [(200, {b"content-length": b"2", b"connection": b"close"}, b"/a")]
    assert client.is_lingering


def test_drain_does_not_wait_for_a_body_that_nobody_wants() -> None:
    client = Client()
    client.lane.admits = False
    client.send(post(b"/a", b"body")[:-1])

    client.connection.drain()

    assert client.is_lingering


def test_lingering_is_short_while_draining() -> None:
    client = Client()
    client.lane.answers_at_once = False
    client.send(get())
    client.connection.drain()
    client.lane.accepted[0].respond(200, b"OK", b"", b"")

    client.sweep(0.6)

    assert client.transport.is_closed


def test_nothing_is_logged_for_what_clients_do(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client = Client()
        client.send(b"NO HTTP\r\n\r\n")
        client.leave()

    assert caplog.text == ""


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_body_that_came_in_its_own_packet_is_no_beginning_of_a_next_request(size: int) -> None:
    client = Client()
    request = post(b"/a", b"hello")
    client.send(request[:-5])
    client.send(request[-5:], size)
    assert client.statuses == [200]

    client.sweep(client.limits.header_timeout + 1)

    assert client.statuses == [200], "an idle connection waits for its next request, not for the end of one"
