"""Downloads from S3 that are signed with the operator's keys: AWS Signature Version 4.

What S3 has encrypted with a key of KMS goes to those alone who sign their requests. Such a request names no
encryption: S3 refuses a GET that does.

Source: Amazon S3 API reference, "Authenticating Requests: Using the Authorization Header".
"""

from __future__ import annotations

import hashlib
import hmac
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Mapping

from marserve.errors import DownloadError

#: Variables of the environment that hold the keys.
VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")

_ALGORITHM = "AWS4-HMAC-SHA256"
#: SHA-256 of the body of a GET, which is empty.
_NO_BODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Credentials:
    """Who signs, and for which region."""

    key_id: str
    secret: str = field(repr=False)
    region: str


def credentials_of(environment: Mapping[str, str], url: str) -> Credentials:
    """Return the keys that the environment holds.

    Args:
        url: what they are for.

    Raises:
        DownloadError: one of ``VARIABLES`` is missing or empty; the message names it.
    """
    missing = [name for name in VARIABLES if not environment.get(name)]
    if missing:
        raise DownloadError(
            f"Failed to download archive from: {url}: s3_sse_kms needs {' and '.join(missing)} in the environment "
            "of the server.",
            "Set what is missing and start the server again.",
        )
    return Credentials(*(environment[name] for name in VARIABLES))


def authorization(url: str, headers: Mapping[str, str], credentials: Credentials) -> str:
    """Return the Authorization header of a GET.

    Args:
        headers: what is signed beside the URL; ``Host``, ``x-amz-content-sha256`` and ``x-amz-date``
            (``yyyymmddThhmmssZ``) among them.
    """
    parts = urllib.parse.urlsplit(url)
    named = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed = ";".join(sorted(named))
    query = [
        (urllib.parse.quote(name, ""), urllib.parse.quote(value, ""))
        for name, value in urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    ]
    request = [
        "GET",
        urllib.parse.quote(urllib.parse.unquote_to_bytes(parts.path or "/"), safe="/"),
        "&".join("=".join(pair) for pair in sorted(query)),
        *(f"{name}:{named[name]}" for name in sorted(named)),
        "",
        signed,
        named["x-amz-content-sha256"],
    ]
    moment = named["x-amz-date"]
    scope = (moment[:8], credentials.region, "s3", "aws4_request")
    digest = hashlib.sha256("\n".join(request).encode()).hexdigest()
    key = f"AWS4{credentials.secret}".encode()
    for part in (*scope, "\n".join((_ALGORITHM, moment, "/".join(scope), digest))):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return (
        f"{_ALGORITHM} Credential={credentials.key_id}/{'/'.join(scope)},SignedHeaders={signed},Signature={key.hex()}"
    )


class SignedRequests(urllib.request.BaseHandler):
    """Signs the requests of an opener, those that a redirection leads to as well: each for its own host."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        """Add a signature that goes no further than this request's host."""
        moment = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        added = {"x-amz-content-sha256": _NO_BODY, "x-amz-date": moment}
        signature = authorization(request.full_url, {"Host": request.host, **added}, self._credentials)
        for name, value in (*added.items(), ("Authorization", signature)):
            request.add_unredirected_header(name, value)
        return request

    https_request = http_request
