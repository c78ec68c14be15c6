"""What reaches a service through the doors, and on which addresses they listen."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from live import LiveServer, make_archive, serving
from services import DEADLINE, MIRROR, STEERED


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("doors") / "store"
    make_archive(store, "mirror", MIRROR)
    make_archive(store, "steered", STEERED)
    make_archive(store, "deadline", DEADLINE)
    return store


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[LiveServer]:
    with serving(store, "mirror,steered,deadline") as running:
        yield running


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ({"json": {"a": [1, 2.5, "ü"]}}, {"body": ["dict", {"a": [1, 2.5, "ü"]}]}),
        ({"content": "grüß".encode(), "headers": {"content-type": "text/plain"}}, {"body": ["str", "grüß"]}),
        ({"content": b"\x00\xff"}, {"body": ["bytearray", "\x00\xff"]}),
        ({"content": b""}, {"body": ["bytearray", ""]}),
        ({"data": {"a": "1", "b": "two"}}, {"a": ["bytearray", "1"], "b": ["bytearray", "two"]}),
        (
            {"files": {"picture": ("p.png", b"\x89PNG\r\n\xff", "image/png")}, "data": {"size": "3"}},
            {"size": ["bytearray", "3"], "picture": ["bytearray", "\x89PNG\r\n\xff"]},
        ),
    ],
    ids=["json", "text", "binary", "empty", "form", "multipart"],
)
def test_a_body_reaches_the_service_as_its_content_type_says(
    server: LiveServer, sent: dict[str, Any], seen: dict[str, object]
) -> None:
    answer = server.predict("mirror", **sent)
    assert answer.status_code == 200, answer.text
    assert answer.json()["row"] == seen


def test_an_answer_says_where_its_time_went_to_who_asks(server: LiveServer) -> None:
    asked = server.predict("mirror", content=b"", headers={"Server-Timing": "1"}).headers["server-timing"]
    named = [part.split(";dur=")[0] for part in asked.split(", ")]
    assert named[0] == "batch_wait"
    assert {"queue", "wire", "decode", "preprocess", "inference", "postprocess", "encode", "total"} <= {*named}
    assert "server-timing" not in server.predict("mirror", content=b"").headers
    refused = server.predict("nobody", content=b"", headers={"Server-Timing": "1"})
    assert (refused.status_code, "server-timing" in refused.headers) == (404, False)


def test_headers_path_and_request_id_reach_the_service(server: LiveServer) -> None:
    answer = server.predict("mirror/1.0/a/b", content=b"", headers={"X-Mixed-Case": "kept", "url_path": "forged"})
    told = answer.json()
    assert (told["header"], told["explain"], told["url_path"]) == ("kept", "False", "a/b")
    assert told["id"] == answer.headers["x-request-id"]
    explained = server.client.post(server.inference + "/explanations/mirror", json={})
    assert explained.json()["explain"] == "True"


@pytest.mark.parametrize(
    ("tail", "seen"), [("a%0AX-Mixed-Case%0Aforged", "a%0AX-Mixed-Case%0Aforged"), ("%C3%BC/b%20c", "ü/b c")]
)
def test_a_path_reaches_the_service_and_forges_no_header(server: LiveServer, tail: str, seen: str) -> None:
    told = server.predict(f"mirror/1.0/{tail}", content=b"", headers={"X-Mixed-Case": "true"}).json()
    assert (told["url_path"], told["header"]) == (seen, "true")


def test_a_service_is_told_how_long_its_answer_is_wanted(server: LiveServer) -> None:
    left = server.predict("deadline", {}).json()["left"]
    assert 60 < left < 120  # of the job_timeout, which is 120 s


def test_a_service_chooses_status_phrase_and_body(server: LiveServer) -> None:
    answer = server.predict("steered", {"status": 418, "phrase": "I am a teapot", "answer": "short and stout"})
    assert (answer.status_code, answer.reason_phrase, answer.text) == (418, "I am a teapot", "short and stout")


@pytest.mark.parametrize("size", [1, 300_000, 5_000_000, 20_000_000])
def test_bodies_of_every_size_go_in_and_out_whole(server: LiveServer, size: int) -> None:
    """From 256 KB through the arena, beyond the arena through the socket."""
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    answer = server.predict("steered", content=body)
    assert answer.json()["body"] == {"bytes": size}
    assert len(server.predict("steered", {"size": size}).content) == size


def test_all_doors_may_share_one_unix_socket(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "all.sock"
    address = f"unix:{path}"
    settings = {"inference_address": address, "management_address": address, "metrics_address": address}
    with serving(store, "mirror", settings=settings) as server:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://server") as client:
            assert client.get("/ping").json() == {"status": "Healthy"}
            assert client.get("/models/mirror").json()[0]["modelName"] == "mirror"
            assert client.post("/predictions/mirror", json=1).json()["row"] == {"body": ["int", 1]}
            assert "marserve_info" in client.get("/metrics").text
        assert server.process.poll() is None
    assert not path.exists()


def test_tls_with_a_certificate_and_its_key(store: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    settings = {
        "inference_address": "https://127.0.0.1:0",
        "certificate_file": certificate,
        "private_key_file": key,
    }
    with serving(store, "mirror", settings=settings) as server:
        trust = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(verify=trust) as client:
            answer = client.post(server.inference + "/predictions/mirror", content=b"x" * 300_000)
            assert len(answer.json()["row"]["body"][1]) == 300_000
        plain = httpx.get(server.inference.replace("https", "http") + "/ping")
        assert (plain.status_code, plain.json()["message"]) == (400, "This address speaks https alone.")
        with httpx.Client(verify=trust) as client:
            assert client.get(server.inference + "/ping").status_code == 200
