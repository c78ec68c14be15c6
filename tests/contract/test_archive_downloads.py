"""Archives by http: what a real origin can do to a download, and what is left of it in the store."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from marserve.archive.s3 import VARIABLES, Credentials, authorization
from marserve.archive.store import resolve
from marserve.errors import ArchiveError, DownloadError, ModelNotFound

KEYS = Credentials("AKIDEXAMPLE", "secret", "eu-west-1")
MOVED = {"/moved.mar": "/m.mar", "/moved_signed.mar": "/signed.mar?partNumber=1"}
ALLOWED = ["http://127\\.0\\.0\\.1:[0-9]+/.*"]


def an_archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("service.py", "x" * 1000)
    return stream.getvalue()


class _Origin(BaseHTTPRequestHandler):
    """Answers by path: an archive, junk, half an archive, a redirection or an error; signed, to who has signed."""

    def do_GET(self) -> None:
        path, body = self.path.split("?")[0], an_archive()
        if path.startswith("/signed") and not self._is_signed():
            fault = b"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(fault)))
            self.end_headers()
            self.wfile.write(fault)
            return
        if path == "/gone.mar":
            self.send_error(404)
            return
        if path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", MOVED.get(path, "http://elsewhere.invalid/m.mar"))
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

    def _is_signed(self) -> bool:
        """Tell whether this very request carries the signature that the right keys give."""
        names = ("Host", "x-amz-content-sha256", "x-amz-date")
        headers = {name: self.headers.get(name, "") for name in names}
        if not headers["x-amz-date"]:
            return False
        url = f"http://{headers['Host']}{self.path}"
        return self.headers.get("Authorization") == authorization(url, headers, KEYS)

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


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the right keys into the environment."""
    for name, value in zip(VARIABLES, (KEYS.key_id, KEYS.secret, KEYS.region), strict=True):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("name", ["signed.mar", "signed%20one.mar", "moved_signed.mar"])
def test_signed_download_is_what_s3_asks_for_also_behind_a_redirection(
    tmp_path: Path, origin: str, name: str
) -> None:
    found = resolve(f"{origin}/{name}", tmp_path, ALLOWED, sign=True)

    assert found.read_bytes() == an_archive()


@pytest.mark.usefixtures("keys")
def test_wrong_keys_and_missing_ones_are_told_apart(
    tmp_path: Path, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{origin}/signed.mar"
    with pytest.raises(DownloadError, match="The origin answered 403 SignatureDoesNotMatch"):
        resolve(url, tmp_path, ALLOWED)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(DownloadError, match="The origin answered 403 SignatureDoesNotMatch"):
        resolve(url, tmp_path, ALLOWED, sign=True)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(DownloadError, match="s3_sse_kms needs AWS_DEFAULT_REGION in the environment"):
        resolve(url, tmp_path, ALLOWED, sign=True)
    assert list(tmp_path.iterdir()) == []
