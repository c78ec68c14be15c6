"""Signatures of requests to S3, held against those that its reference publishes."""

from __future__ import annotations

import re
import urllib.request

import pytest

from marserve.archive.s3 import Credentials, SignedRequests, authorization, credentials_of
from marserve.errors import DownloadError

ORIGIN = "https://examplebucket.s3.amazonaws.com"
KEYS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
HEADERS = {
    "Host": "examplebucket.s3.amazonaws.com",
    "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "x-amz-date": "20130524T000000Z",
}


@pytest.mark.parametrize(
    ("target", "more", "signature"),
    [
        ("/test.txt", {"Range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("/?lifecycle", {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("?prefix=J&max-keys=2", {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_the_published_signatures(target: str, more: dict[str, str], signature: str) -> None:
    names = ";".join(sorted(name.lower() for name in (*HEADERS, *more)))

    assert authorization(ORIGIN + target, {**HEADERS, **more}, KEYS) == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders={names},Signature={signature}"
    )


def test_a_path_is_signed_as_it_is_meant_however_it_is_written() -> None:
    ways = ["/a%20b/caf%C3%A9~.mar", "/a b/café~.mar", "/a%20b/caf%c3%a9%7E.mar"]

    assert len({authorization(ORIGIN + way, HEADERS, KEYS) for way in ways}) == 1


def test_a_request_is_signed_for_its_host_and_takes_the_signature_nowhere_else() -> None:
    request = urllib.request.Request("http://127.0.0.1:9000/bucket/m.mar")

    SignedRequests(KEYS).http_request(request)

    sent = dict(request.header_items())
    signed = {name: sent[name.capitalize()] for name in ("x-amz-content-sha256", "x-amz-date")}
    assert re.fullmatch(r"\d{8}T\d{6}Z", signed["x-amz-date"])
    assert sent["Authorization"] == authorization(request.full_url, {"Host": "127.0.0.1:9000", **signed}, KEYS)
    assert request.headers == {}  # those are what a redirection repeats


def test_what_is_missing_is_named_and_secrets_are_not_shown() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "a secret", "AWS_DEFAULT_REGION": "r"}

    found = credentials_of(environment, ORIGIN)

    assert (found, "a secret" in repr(found)) == (Credentials("id", "a secret", "r"), False)
    with pytest.raises(DownloadError, match=r"needs AWS_ACCESS_KEY_ID and AWS_DEFAULT_REGION in the environment"):
        credentials_of({**environment, "AWS_ACCESS_KEY_ID": "", "AWS_DEFAULT_REGION": ""}, ORIGIN)
