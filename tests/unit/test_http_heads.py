"""Known heads: a connection that recognizes them does what one does that parses everything."""

from __future__ import annotations

import pytest
from http_fakes import Client, RecordingLane, get, post
from hypothesis import given, settings
from hypothesis import strategies as some

from marserve.doors.http.heads import LONGEST, MOST, Heads
from marserve.doors.http.intake import _STRANGE

LANE = RecordingLane()
#: Requests that may come one after the other, or in pieces; some are known when they come again, some never.
REQUESTS = (
    post(body=b"abc"),
    post(body=b"abd"),
    post(body=b"a longer one"),
    post(b"/b", b"", b"Content-Type: text/plain"),
    post(b"/b?x=1", b"\r\n\r\n"),
    post(b"/asgi", b"abc"),
    get(),
    get(b"/b", b"Connection: keep-alive"),
    get(b"/b", b"Connection: close"),
    get(version=b"1.0"),
    get(b"/a", b"Connection: keep-alive", version=b"1.0"),
    get(b"/a", b"Upgrade: h2c", b"Connection: Upgrade"),
    post(b"/a", b"abc", b"Expect: 100-continue"),
    b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"\r\n" + post(body=b"abc"),
    b"POST /a HTTP/1.1\nHost: x\nContent-Length: 3\n\nabc",
    b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /a HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
    b"GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
    b"\x16\x03\x01 no HTTP at all",
)


class NoHeads(Heads):
    """Knows nothing, whatever it is told."""

    def learn(self, data: bytes) -> None:
        pass


def plain_client(**limits: float) -> Client:
    """Return a client whose connection parses everything."""
    client = Client(asgi=_nobody, **limits)
    heads = NoHeads(client.application.lane)
    client.connection._heads, client.connection._known_heads = heads, heads.known
    return client


async def _nobody(*_: object) -> None:
    raise AssertionError("no task runs here")


def seen(client: Client) -> object:
    """Return all that is to be seen of a connection from outside and from above."""
    told = [
        (one.method, one.target, one.headers, one.body(), one.http_version, one.close_after, one.state)
        for one in (*client.lane.admitted, *client.lane.accepted)
    ]
    ends = (client.transport.is_closed, client.transport.has_written_eof, client.transport.is_reading_paused)
    return told, client.out, ends, client.application.refusals, client.connection.pending_count


@settings(max_examples=400, deadline=None)
@given(
    requests=some.lists(some.sampled_from(REQUESTS), min_size=2, max_size=10),
    is_joined=some.lists(some.booleans(), min_size=10, max_size=10),
    cuts=some.lists(some.integers(1, 400), max_size=3),
    admits=some.booleans(),
    answers_at_once=some.booleans(),
)
def test_known_heads_make_no_difference(
    requests: list[bytes], is_joined: list[bool], cuts: list[int], admits: bool, answers_at_once: bool
) -> None:
    packets = [b""]
    for request, joins in zip(requests, is_joined, strict=False):
        if joins:
            packets[-1] += request
        else:
            packets.append(request)
    for cut in cuts:  # of the last packet, so that others come whole
        packets[-1:] = [packets[-1][:cut], packets[-1][cut:]]
    clients = [Client(asgi=_nobody), plain_client()]
    for client in clients:
        client.lane.admits, client.lane.answers_at_once = admits, answers_at_once
        for packet in filter(None, packets):
            client.send(packet)
        client.loop.turn()
    first, second = map(seen, clients)
    assert first == second


def test_a_head_that_comes_again_is_not_parsed() -> None:
    client = Client()
    client.send(post(body=b"abc"))
    client.connection._feed = None  # type: ignore[assignment]
    client.send(post(body=b"xyz"))
    assert client.statuses == [200, 200]
    assert client.lane.accepted[1].body() == b"xyz"


def test_what_one_connection_has_learned_others_know() -> None:
    one, other = Client(), Client()
    other.connection._heads = one.connection._heads
    other.connection._known_heads = one.connection._known_heads
    one.send(get())
    other.connection._feed = None  # type: ignore[assignment]
    other.send(get())
    assert other.statuses == [200]


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(post(b"/asgi"), id="nobody fast"),
        pytest.param(get(version=b"1.0"), id="1.0"),
        pytest.param(get(b"/a", b"Connection: close"), id="close"),
        pytest.param(get(b"/a", b"Expect: 100-continue"), id="expect"),
        pytest.param(get(b"/a", b"Upgrade: h2c", b"Connection: Upgrade"), id="upgrade"),
        pytest.param(b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", id="chunked"),
        pytest.param(b"POST /a HTTP/1.1\r\nContent-Length: 100001\r\n\r\n", id="a body over the lane's limit"),
        pytest.param(get(b"/" + b"a" * LONGEST), id="long"),
        pytest.param(b"GET /a HTTP/1.1\r\nHost: x\r\n", id="no end"),
        pytest.param(b"\r\n\r\n" + get(), id="blank lines before it"),
        pytest.param(b"\x16\x03\x01\r\n\r\n", id="no head"),
    ],
)
def test_what_is_odd_is_never_known(head: bytes) -> None:
    heads = Heads(lambda method, target: None if target == b"/asgi" else LANE)
    heads.learn(head)
    assert heads.known == {}


def test_the_table_is_bounded() -> None:
    heads = Heads(lambda method, target: LANE)
    for number in range(MOST + 1):
        heads.learn(get(b"/%d" % number))
    assert list(heads.known) == [get(b"/%d" % MOST)]


def test_a_client_that_never_repeats_a_head_is_not_looked_up_for_ever() -> None:
    client = Client()
    for number in range(2 * _STRANGE):
        client.send(get(b"/%d" % number))
    assert client.statuses == [200] * 2 * _STRANGE
    assert len(client.connection._known_heads) == _STRANGE


def test_a_drained_connection_parses_what_it_knows() -> None:
    """Its answer says that the connection closes, which no known head does."""
    client = Client()
    client.lane.answers_at_once = False
    client.send(get())
    client.lane.accepted[0].respond(200, b"OK", b"", b"")
    client.connection._reading = None
    client.connection._odd = True
    client.send(get())
    assert len(client.lane.accepted) == 2
    assert client.lane.accepted[1].head is None
