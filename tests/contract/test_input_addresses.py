"""Inputs by address from a real origin: what is read, how far it is followed, and where it is cut off."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from marserve.errors import InvalidData
from marserve.service.addresses import fetch

TLS = Path(__file__).parent / "tls"
CONTENT = b"picture" * 1000
MOVED = {
    "/open/moved": "/open/a.png",
    "/open/moved-away": "http://elsewhere.invalid/a.png",
    "/open/moved-up": "/closed/a.png",
    "/open/moved-home": "file:///etc/hostname",
    "/open/moved-in": "data:,a",
    "/open/round": "/open/round",
}


class _Origin(BaseHTTPRequestHandler):
    """Answers by path; what is asked of it is in ``server.asked``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked: list[tuple[str, dict[str, str]]] = self.server.asked  # type: ignore[attr-defined]
        asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        path = self.path.partition("?")[0]
        if path in MOVED:
            self.begin(302, location=MOVED[path], content_length="0")
        elif path == "/open/gone":
            self.begin(404, content_length="0")
        elif path == "/open/chunked":
            self.begin(200, transfer_encoding="chunked")
            self.wfile.write(b"".join(b"7\r\npicture\r\n" for _ in range(1000)) + b"0\r\n\r\n")
        elif path == "/open/endless":
            self.begin(200, transfer_encoding="chunked")
            self.write_for_ever(b"7\r\npicture\r\n")
        elif path == "/open/slow":
            self.begin(200, content_length="1000000")
            self.write_for_ever(b".", 0.02)
        elif path == "/open/slow-head":
            self.write_for_ever(b"H", 0.02)
        else:
            self.begin(200, content_length=str(len(CONTENT)))
            self.wfile.write(CONTENT[:100] if path == "/open/cut" else CONTENT)
            self.close_connection = True

    def begin(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def write_for_ever(self, piece: bytes, pause: float = 0.0) -> None:
        """Write until the client is gone, or the test is over."""
        over: threading.Event = self.server.over  # type: ignore[attr-defined]
        try:
            while not over.wait(pause):
                self.wfile.write(piece)
                self.wfile.flush()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


class Origin(ThreadingHTTPServer):
    """A real HTTP server."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Origin)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.allowed = [rf"http://127\.0\.0\.1:{self.server_port}/open/.*"]

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: clients that leave are what is tested."""


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def secure(origin: Origin) -> Origin:
    """The origin behind https, with a certificate that nobody vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "test-certificate.pem", TLS / "test-key.pem")
    origin.socket = context.wrap_socket(origin.socket, server_side=True)
    origin.url = origin.url.replace("http:", "https:")
    origin.allowed = [one.replace("http:", "https:") for one in origin.allowed]
    return origin


@pytest.mark.parametrize("path", ["/open/a.png", "/open/a.png?size=2", "/open/chunked", "/open/moved"])
def test_what_is_allowed_is_read(origin: Origin, path: str) -> None:
    assert fetch(origin.url + path, origin.allowed) == CONTENT
    _, headers = origin.asked[0]
    assert headers["host"] == origin.url.removeprefix("http://")
    assert headers["user-agent"].startswith("marserve/")


def test_what_is_not_allowed_is_never_asked_for(origin: Origin) -> None:
    for path in ("/closed/a.png", "/open/../closed/a.png"):
        with pytest.raises(InvalidData, match="Allowed are data: URIs, and"):
            fetch(origin.url + path, origin.allowed)
    assert origin.asked == []


@pytest.mark.parametrize("path", ["/open/moved-away", "/open/moved-up", "/open/moved-home", "/open/moved-in"])
def test_a_redirection_to_what_is_not_allowed_is_refused(origin: Origin, path: str) -> None:
    with pytest.raises(InvalidData, match="Allowed are data: URIs, and"):
        fetch(origin.url + path, origin.allowed)
    assert [asked for asked, _ in origin.asked] == [path]


def test_redirections_end(origin: Origin) -> None:
    with pytest.raises(InvalidData, match="moved more than 3 times"):
        fetch(f"{origin.url}/open/round", origin.allowed)
    assert len(origin.asked) == 4


@pytest.mark.parametrize(
    ("path", "most_bytes", "why"),
    [
        ("/open/gone", 10_000, "its host answered 404"),
        ("/open/cut", 10_000, "the connection broke after 100 of 7000 bytes"),
        ("/open/a.png", 6_999, "it has 7000 bytes, and 6999 are the most"),
        ("/open/chunked", 6_999, "it has more than 6999 bytes"),
        ("/open/endless", 10_000, "it has more than 10000 bytes"),
    ],
)
def test_what_cannot_be_read_is_told(origin: Origin, path: str, most_bytes: int, why: str) -> None:
    with pytest.raises(InvalidData, match=why):
        fetch(origin.url + path, origin.allowed, most_bytes)


@pytest.mark.parametrize("path", ["/open/slow", "/open/slow-head"])
def test_a_host_that_never_comes_to_its_end_is_left(origin: Origin, path: str) -> None:
    with pytest.raises(InvalidData, match=r"it took longer than 0\.2 s"):
        fetch(origin.url + path, origin.allowed, timeout=0.2)


def test_a_port_where_nobody_listens_is_told(origin: Origin) -> None:
    with pytest.raises(InvalidData, match=r"cannot be read: .*[Rr]efused"):
        fetch("http://127.0.0.1:1/open/a.png", [r"http://127\.0\.0\.1:1/.*"])


def test_proxies_of_the_environment_are_not_used(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch(f"{origin.url}/open/a.png", origin.allowed) == CONTENT


def test_over_https_a_certificate_has_to_be_vouched_for(secure: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidData, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(f"{secure.url}/open/a.png", secure.allowed)
    assert secure.asked == []

    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "test-certificate.pem"))
    assert fetch(f"{secure.url}/open/a.png", secure.allowed) == CONTENT
