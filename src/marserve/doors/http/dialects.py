"""What the ``native``, ``torchserve`` and ``mms`` dialects differ in, as data, so that no door is written twice.

Sources: TorchServe 0.12 and Multi Model Server 1.1 as their clients see them: bodies, texts, statuses, standing
headers. Everything that does not depend on one request is made once, when this module is loaded.

An error may carry ``model`` and ``version`` (texts; "" for none), set by ``errors.about``; a ``HandlerFault`` may
carry ``fault``, a key of ``_HANDLER_FAULTS``. An error without them is told in its own words.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple

from marserve.errors import PredictionException, ServeError

_JSON = (b"content-type", b"application/json")
_NO_CACHE = (
    b"Pragma: no-cache\r\n"
    b"Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
    b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)
#: Phrases that the standard library lacks, or words in more than one way.
_PHRASES = {413: "Request Entity Too Large", 499: "Client Closed Request", 507: "Insufficient Storage"}


class ErrorRow(NamedTuple):
    """How a dialect answers one kind of error.

    ``text`` may name ``{model}`` and ``{version}``; it counts when the error carries a model, or when it names
    neither. "" is the error's own message. ``headers`` is flat: name, value, name, value.
    """

    status: int
    type: str
    text: str = ""
    headers: tuple[bytes, ...] = ()
    has_body: bool = True


class ErrorAnswer(NamedTuple):
    """An error as a response; ``headers`` is flat: name, value, name, value."""

    status: int
    phrase: bytes
    headers: tuple[bytes, ...]
    body: bytes


class Ping(NamedTuple):
    """Status and word that ``/ping`` answers with."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """One dialect.

    Attributes:
        name: native, torchserve or mms.
        errors: by kind of error; what is not there is answered as ``Internal``.
        standing_headers: raw header lines of every answer, beside x-request-id.
        json_indent: blanks a level, None for the compact form.
        closes_on_error: whether an answer of 400 or more ends the connection.
        keeps_request_id: whether a client's own x-request-id is the request's; else each gets a fresh one.
        prediction_type: content type of a JSON answer of a service that chose none, b"" for no header.
        prediction_phrase: reason phrase of a service's answer that chose none.
        describes_list: whether a model is described by a list of its versions; else by one object.
        registers_synchronously: whether registering waits for its workers unless told otherwise.
        texts: what management answers as its status, by event; they name model, version and workers.
        ping: by state of the server: healthy, partial (some worker is missing), unhealthy.
        error_members: what an error's JSON object holds, in order.
    """

    name: str
    errors: Mapping[str, ErrorRow]
    texts: Mapping[str, str]
    ping: Mapping[str, Ping]
    standing_headers: bytes = b""
    json_indent: int | None = None
    closes_on_error: bool = False
    keeps_request_id: bool = False
    prediction_type: bytes = b""
    prediction_phrase: bytes = b""
    describes_list: bool = True
    registers_synchronously: bool = True
    error_members: tuple[str, ...] = ("code", "type", "message")
    _bodies: dict[str, bytes] = field(default_factory=dict)

    def json_body(self, value: object) -> bytes:
        """Return a management answer as JSON: members that are None left out, a newline at the end."""
        separators = None if self.json_indent else (",", ":")
        known = _without_none(value)
        text = json.dumps(known, indent=self.json_indent, separators=separators, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace") + b"\n"

    def status_body(self, event: str, **values: object) -> bytes:
        """Return ``{"status": …}`` with the text of an event."""
        return self.json_body({"status": self.texts[event].format(**values)})

    def error_body(self, error: ServeError) -> ErrorAnswer:
        """Return an error as this dialect answers it."""
        row = self.errors.get(error.kind, self.errors["Internal"])
        status = _own_status(error) if isinstance(error, PredictionException) else row.status
        phrase = status_phrase(status)
        if not row.has_body:
            return ErrorAnswer(status, phrase, row.headers, b"")
        members = {
            "code": status,
            "type": row.type,
            "message": _message(row, error),
            "hint": error.hint or None,
        }
        told: dict[str, object] = {name: members[name] for name in self.error_members}
        # The author of an archive that does not load needs to know why; a prediction's client does not.
        told["traceback"] = getattr(error, "traceback", None) if error.kind == "LoadError" else None
        return ErrorAnswer(status, phrase, (*_JSON, *row.headers), self.json_body(told))


def status_phrase(status: int) -> bytes:
    """Return the reason phrase of a status, also of one that nobody has defined."""
    if status in _PHRASES:
        return _PHRASES[status].encode()
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return f"{'Client Error' if status < 500 else 'Server Error'} ({status})".encode()
