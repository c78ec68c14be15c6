"""What a listener serves: the fast lane of predictions, the ASGI application of all else, and refusals."""

from __future__ import annotations

import uuid
from http.client import BAD_REQUEST
from time import monotonic

from marserve.doors.http.dialects import Dialect, status_phrase
from marserve.doors.http.exchange import Exchange, render_headers, status_line
from marserve.doors.http.inference import InferenceDoor, PredictionLane
from marserve.doors.http.lane import ASGIApp
from marserve.errors import BadRequest, ServeError, ShuttingDown, TooLarge
from marserve.observer import Observer

#: Errors that the connection answers itself and that the dialects know under a kind of their own.
_KINDS: dict[int, type[ServeError]] = {400: BadRequest, 413: TooLarge, 503: ShuttingDown}


def https_only(dialect: Dialect) -> bytes:
    """Return the whole answer for a client that speaks plain HTTP to an https address."""
    if dialect.https_text:
        status, body = 403, dialect.json_body({"status": dialect.https_text})
    else:
        told = dialect.error_body(BadRequest("This address speaks https alone.", "Begin the URL with https://."))
        status, body = told.status, told.body
    length = b"%d" % len(body)
    lines = ((b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close"))
    head = status_line(status, status_phrase(status)) + dialect.standing_headers + render_headers(lines)
    return head + b"\r\n" + body


class HttpApplication:
    """The doors that share one address; implements ``Application``.

    Args:
        asgi: serves what is no prediction.
        inference: finds the lane of a prediction; None where the address does not serve any.
        dialect: chooses the texts of refusals.
        observer: is told of them.
    """

    def __init__(self, asgi: ASGIApp, inference: InferenceDoor | None, dialect: Dialect, observer: Observer) -> None:
        self.asgi = asgi
        self._inference = inference
        self._dialect = dialect
        self._observer = observer

    def lane(self, method: bytes, target: bytes) -> PredictionLane | None:
        """See ``Application``."""
        return None if self._inference is None else self._inference.lane(method, target)

    def refuse(self, status: int, message: str) -> tuple[bytes, bytes]:
        """See ``Application``."""
        error = _KINDS.get(status, ServeError)(message)
        if status == BAD_REQUEST:
            error.fault = "unreadable"
        told = self._dialect.error_body(error)
        standing = self._dialect.standing_headers + b"x-request-id: %s\r\n" % str(uuid.uuid4()).encode()
        if told.status == status:
            pairs = list(zip(told.headers[::2], told.headers[1::2], strict=True))
            return standing + render_headers(pairs), told.body
        body = self._dialect.json_body({"code": status, "type": "HttpError", "message": message})
        return standing + b"content-type: application/json\r\n", body

    def refused(self, exchange: Exchange, status: int) -> None:
        """See ``Application``."""
        seconds = monotonic() - exchange.arrived
        method, target = exchange.method.decode("latin-1"), exchange.target.decode("latin-1")
        self._observer.request_answered(exchange.client, method, target, status, seconds)
