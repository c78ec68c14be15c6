"""Answers in pieces: each piece is one HTTP chunk, as soon as the service sends it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from live import LiveServer, make_archive, serving
from services import STREAMING


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    store = tmp_path_factory.mktemp("streams") / "store"
    make_archive(store, "stream", STREAMING)
    make_archive(store, "together", STREAMING, config={"batchSize": 2, "maxBatchDelay": 200})
    make_archive(store, "hasty", STREAMING, config={"responseTimeout": 1})
    with serving(store, "stream,together,hasty") as running:
        yield running


def chunks(server: LiveServer, model: str, body: dict[str, object]) -> tuple[bytes, list[bytes]]:
    """Return the head of an answer and its HTTP chunks, as they are on the connection."""
    host, port = server.inference.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = f"POST /predictions/{model} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(f"{head}Connection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    told, _, rest = received.partition(b"\r\n\r\n")
    found = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if length:
            found.append(rest[:length])
        rest = rest[length + 2 :]
    return told, found


def test_each_piece_is_one_chunk(server: LiveServer) -> None:
    head, found = chunks(server, "stream", {"name": "a", "pieces": 4})
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"transfer-encoding: chunked" in head
    assert found == [b"a0 ", b"a1 ", b"a2 ", b"a ends"]


def test_requests_of_one_batch_get_their_own_pieces(server: LiveServer) -> None:
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.predict, "together", {"name": name, "pieces": 3}) for name in "ab"]
        assert [one.result().text for one in asked] == ["a0 a1 a ends", "b0 b1 b ends"]


@pytest.mark.parametrize("how", ["exit_after", "raise_after"])
def test_an_answer_that_breaks_off_is_seen_to(server: LiveServer, how: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        server.predict("stream", {"name": "a", "pieces": 9, how: 1})
    assert server.predict("stream", {"name": "b", "pieces": 2}).text == "b0 b ends"


def test_a_piece_is_a_sign_of_life(server: LiveServer) -> None:
    """Slower in all than the response timeout of 1 s, and never silent for so long."""
    answer = server.predict("hasty", {"name": "a", "pieces": 4, "sleep": 0.5})
    assert answer.text == "a0 a1 a2 a ends"


def test_a_client_that_leaves_in_the_middle_costs_nobody_else(server: LiveServer) -> None:
    with server.client.stream(
        "POST", server.inference + "/predictions/stream", json={"name": "a", "pieces": 5, "sleep": 0.1}
    ) as answer:
        assert next(answer.iter_bytes()) == b"a0 "
    assert server.predict("stream", {"name": "b", "pieces": 2}).text == "b0 b ends"
