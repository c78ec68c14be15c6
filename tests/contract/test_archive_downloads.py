"""Archives by http: what a real origin can do to a download, and what is left of it in the store."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from marserve.archive.store import resolve
from marserve.errors import ArchiveError, ModelNotFound

ALLOWED = ["http://127\\.0\\.0\\.1:[0-9]+/.*"]


def an_archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("service.py", "x" * 1000)
    return stream.getvalue()


class _Origin(BaseHTTPRequestHandler):
    """Answers by path: an archive, junk, half an archive, a redirection or an error."""

    def do_GET(self) -> None:
        path, body = self.path.split("?")[0], an_archive()
        if path == "/gone.mar":
            self.send_error(404)
            return
        if path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/m.mar" if path == "/moved.mar" else "http://elsewhere.invalid/m.mar")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if path == "/junk.mar":
            self.wfile.write(b"x" * len(body))
        else:
            self.wfile.write(body[: len(body) // 2] if path == "/cut.mar" else body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def origin() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Origin) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/m.mar", "/m.mar?token=1", "/folder/m.mar"])
def test_archive_is_stored_under_its_base_name(tmp_path: Path, origin: str, path: str) -> None:
    found = resolve(origin + path, tmp_path, ALLOWED)

    assert found == tmp_path / "m.mar"
    assert found.read_bytes() == an_archive()


def test_allowed_redirection_is_followed_and_keeps_the_first_name(tmp_path: Path, origin: str) -> None:
    assert resolve(f"{origin}/moved.mar", tmp_path, ALLOWED) == tmp_path / "moved.mar"


def test_redirection_to_what_is_not_allowed_is_refused(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ModelNotFound, match=r"http://elsewhere\.invalid/m\.mar does not match any allowed URL"):
        resolve(f"{origin}/moved-away.mar", tmp_path, ALLOWED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/gone.mar", "404"),
        ("/cut.mar", "the connection broke after"),
        ("/junk.mar", "neither a zip nor a gzip file"),
    ],
)
def test_failed_download_leaves_nothing(tmp_path: Path, origin: str, path: str, why: str) -> None:
    with pytest.raises(ArchiveError, match=why):
        resolve(origin + path, tmp_path, ALLOWED)
    assert list(tmp_path.iterdir()) == []


def test_failed_download_is_told_in_the_known_words(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ArchiveError) as found:
        resolve(f"{origin}/gone.mar", tmp_path, ALLOWED)
    assert found.value.message == f"Failed to download archive from: {origin}/gone.mar"
    assert "404" in found.value.hint


def test_download_over_the_limit_is_refused(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ArchiveError, match="limit of 100 bytes"):
        resolve(f"{origin}/m.mar", tmp_path, ALLOWED, max_bytes=100)
    assert list(tmp_path.iterdir()) == []


def test_origin_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="Failed to download archive from: "):
        resolve("http://127.0.0.1:9/m.mar", tmp_path, ALLOWED, timeout=5)


def test_stored_file_is_replaced_when_that_is_wanted(tmp_path: Path, origin: str) -> None:
    (tmp_path / "m.mar").write_text("old")

    resolve(f"{origin}/m.mar", tmp_path, ALLOWED, replace=True)

    assert (tmp_path / "m.mar").read_bytes() == an_archive()
