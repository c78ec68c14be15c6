"""An answer or an error as a response, in the words and the JSON style of a dialect."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from marserve.doors.http.dialects import Dialect
from marserve.errors import ServeError


class Replies:
    """Makes the responses of one dialect. What all answers carry is added once, by ``app.Front``."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    @property
    def is_native(self) -> bool:
        """Whether this is the server's own dialect: strict, and telling more than the old servers."""
        return self.dialect.name == "native"

    def json(self, value: object, status: int = 200, headers: Sequence[bytes] = ()) -> Response:
        """Return a JSON answer; members that are None are left out.

        Args:
            headers: flat, name, value, name, value; a content type among them counts.
        """
        response = Response(self.dialect.json_body(value), status)
        pairs = list(zip(headers[::2], headers[1::2], strict=True))
        if not any(name.lower() == b"content-type" for name, _ in pairs):
            pairs.append((b"content-type", b"application/json"))
        response.raw_headers.extend(pairs)
        return response

    def status(self, event: str, status: int = 200, **values: object) -> Response:
        """Return ``{"status": …}`` with the dialect's text for an event."""
        return Response(self.dialect.status_body(event, **values), status, media_type="application/json")

    def error(self, error: ServeError) -> Response:
        """Return an error as the dialect tells it."""
        told = self.dialect.error_body(error)
        response = Response(told.body, told.status)
        response.raw_headers.extend(zip(told.headers[::2], told.headers[1::2], strict=True))
        return response
