"""Row F11: downloads that are signed for S3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from marserve.archive.s3 import VARIABLES, Credentials, authorization
from rows import House

KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI", "eu-west-1")
SIGNED = ("host", "x-amz-content-sha256", "x-amz-date")
#: S3 answers a GET that names an encryption with 400.
ENCRYPTION = "x-amz-server-side-encryption"
CODE = "def handle(data, context):\n    return ['said'] * len(data) if data else None\n"


class Bucket(BaseHTTPRequestHandler):
    """Gives an archive to who has signed with the right keys, as S3 does."""

    archive: Path

    def do_GET(self) -> None:
        named = {name: self.headers.get(name, "") for name in SIGNED}
        asked = self.headers.get("Authorization", "")
        wanted = authorization(f"http://{named['host']}{self.path}", named, KEYS) if named["x-amz-date"] else "none"
        is_signed = asked.replace(" ", "") == wanted.replace(" ", "") and ENCRYPTION not in self.headers
        body = self.archive.read_bytes() if is_signed else b"<Error><Code>AccessDenied</Code></Error>"
        self.send_response(200 if is_signed else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def bucket(house: House) -> Iterator[str]:
    house.archive("said", CODE, file="local.mar")
    Bucket.archive = house.store / "local.mar"
    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/bucket"
        server.shutdown()
        thread.join()


@pytest.mark.row("F11")
def test_a_download_is_signed_where_that_is_asked_for(house: House, bucket: str) -> None:
    keys = dict(zip(VARIABLES, (KEYS.key_id, KEYS.secret, KEYS.region), strict=True))
    server = house.start(environment=keys)

    plain = server.manage("POST", f"/models?url={bucket}/far.mar")
    signed = server.manage("POST", f"/models?url={bucket}/far.mar&model_name=far&s3_sse_kms=true&initial_workers=1")
    stored = server.manage("POST", "/models?url=local.mar&s3_sse_kms=true")

    assert (plain.status, plain.json()["message"]) == (400, f"Failed to download archive from: {bucket}/far.mar")
    assert (signed.status, stored.status) == (200, 200)
    assert server.ask("/predictions/far", b"x").text == "said"
