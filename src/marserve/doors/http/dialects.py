"""What the ``native``, ``torchserve`` and ``mms`` dialects differ in, as data, so that no door is written twice.

Sources: TorchServe 0.12 and Multi Model Server 1.1 as their clients see them: bodies, texts, statuses, standing
headers. Everything that does not depend on one request is made once, when this module is loaded.

An error may carry ``model`` and ``version`` (texts; "" for none), set by ``errors.about``; a ``HandlerFault`` may
carry ``fault`` (``not_a_list``, ``wrong_count``, ``unsendable``), and so may a ``NotAuthorized`` (``wrong_kind``,
``renewal``, ``renewal_wrong_kind``), what is no HTTP (``unreadable``) and what management refuses (``describe``,
``set_default``, ``negative``, ``nameless``, ``unregister``), a ``WorkerDied`` (``killed``) and an ``OutOfMemory``
(``load``), or an ``EnvironmentFault`` (``venv``, ``own``). An error without them is told in its own words.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from marserve import __version__
from marserve.errors import LoadError, PredictionException, ServeError

_JSON = (b"content-type", b"application/json")
_NO_CACHE = (
    b"Pragma: no-cache\r\n"
    b"Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
    b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)
#: Phrases that the standard library lacks, or words in another way than the old servers.
_PHRASES = {
    413: "Request Entity Too Large",
    418: "Client Error (418)",
    499: "Client Closed Request",
    507: "Insufficient Storage",
}
#: What the old servers call a status that nobody has defined, by its first digit.
_CLASSES = {2: "Success", 3: "Redirection", 4: "Client Error", 5: "Server Error"}


class ErrorRow(NamedTuple):
    """How a dialect answers one kind of error.

    ``text`` takes the place of the error's message; "" is the message itself. It may name ``{model}``,
    ``{version}`` and ``{with_version}`` (" Version 1.0", or nothing), and then counts for errors that carry a
    model alone. ``headers`` is flat: name, value, name, value.
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
        version: release that clients and services are told: that of the old server whose contract is kept, since
            what they do may depend on it; natively our own.
        errors: by kind of error, or ``kind.fault``; what is not there is answered as ``Internal``.
        standing_headers: raw header lines of every answer, beside x-request-id.
        json_indent: blanks a level, None for the compact form.
        closes_on_error: whether an answer of 400 or more ends the connection.
        prediction_phrase: reason phrase of a service's answer that chose none.
        describes_list: whether a model is described by a list of its versions; else by one object.
        registers_synchronously: whether registering waits for its workers unless told otherwise.
        texts: what management answers as its status, by event; they name model, version and workers.
        ping: by state of the server: starting, healthy, partial (some worker is missing), unhealthy.
        error_members: what an error's JSON object holds, in order.
        has_open_ping: whether ``/ping`` answers without a key, where keys are asked for.
        has_old_paths: whether TorchServe's paths of KServe are served, and a description in the service's own words.
        has_versions: whether a model has several, which paths name.
        query_minutes: whether ``response_timeout`` is minutes in a query; in a body it is seconds everywhere.
        runtimes: what a registration may name as the runtime; () for everything.
        tells_length: whether services find the length of the body among the headers of every request.
        https_text: what is told, as a status with a 403, to who speaks plain HTTP to an https address; "" for an
            error like every other.
    """

    name: str
    errors: Mapping[str, ErrorRow]
    texts: Mapping[str, str]
    ping: Mapping[str, Ping]
    version: str = __version__
    standing_headers: bytes = b""
    json_indent: int | None = None
    closes_on_error: bool = False
    prediction_phrase: bytes = b""
    describes_list: bool = True
    registers_synchronously: bool = True
    error_members: tuple[str, ...] = ("code", "type", "message")
    has_open_ping: bool = False
    has_old_paths: bool = False
    has_versions: bool = True
    query_minutes: bool = False
    runtimes: tuple[str, ...] = ()
    tells_length: bool = False
    https_text: str = ""

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
        row = self._row(error)
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
        told["traceback"] = (error.traceback.splitlines() or None) if isinstance(error, LoadError) else None
        return ErrorAnswer(status, phrase, (*_JSON, *row.headers), self.json_body(told))

    def _row(self, error: ServeError) -> ErrorRow:
        by_fault = self.errors.get(f"{error.kind}.{getattr(error, 'fault', '')}")
        return by_fault or self.errors.get(error.kind) or self.errors["Internal"]


@lru_cache(1024)
def status_phrase(status: int) -> bytes:
    """Return the reason phrase of a status, also of one that nobody has defined."""
    if status in _PHRASES:
        return _PHRASES[status].encode()
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return f"{_CLASSES.get(status // 100, 'Unknown Status')} ({status})".encode()


def _own_status(error: PredictionException) -> int:
    """Return the status that a service chose, or 500 for one that no client would understand."""
    code = error.error_code
    return code if isinstance(code, int) and 200 <= code <= 999 else 500


def _message(row: ErrorRow, error: ServeError) -> str:
    model, version = error.model, error.version
    if not row.text or ("{model}" in row.text and not model):
        return error.message
    # "null" is what the old servers, written in Java, print for a version that nobody named.
    # So is the quotation mark that nothing opens.
    with_version = f' Version {version}"' if version else ""
    return row.text.format(model=model, version=version or "null", with_version=with_version)


def _without_none(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_none(member) for key, member in value.items() if member is not None}
    if isinstance(value, list | tuple):
        return [_without_none(member) for member in value]
    return value


# --- native --------------------------------------------------------------------------------------------

_RETRY = (b"retry-after", b"1")

_NATIVE_STATUSES: dict[str, ErrorRow] = {
    kind: ErrorRow(status, kind)
    for kind, status in {
        "BadRequest": 400,
        "InvalidData": 400,
        "Forbidden": 403,
        "RouteNotFound": 404,
        "ModelNotFound": 404,
        "VersionNotFound": 404,
        "MethodNotAllowed": 405,
        "Conflict": 409,
        "TooLarge": 413,
        "JobTimeout": 504,
        "Cancelled": 499,
        "OutOfMemory": 507,
        "ArchiveError": 400,
        "DownloadError": 400,
        "EnvironmentFault": 400,
        "ManifestError": 400,
        "SignatureError": 400,
        "UnsafeArchive": 400,
        "LoadError": 500,
        "HandlerFault": 500,
        "PredictionException": 500,
        "WorkerDied": 500,
        "WorkerSilent": 504,
        "ProtocolError": 500,
        "ConfigError": 500,
        "Internal": 500,
    }.items()
}

_TORCHSERVE_TEXTS = {
    "registered_idle": 'Model "{model}" Version: {version} registered with 0 initial workers. '
    "Use scale workers API to add workers for the model.",
    "registered": 'Model "{model}" Version: {version} registered with {workers} initial workers',
    "scaling": "Processing worker updates...",
    "scaled": "Workers scaled to {workers} for model: {model}",
    "version_scaled": "Workers scaled to {workers} for model: {model}, version: {version}",
    "default_set": 'Default version successfully updated for model "{model}" to "{version}"',
    "unregistered": 'Model "{model}" unregistered',
}

NATIVE = Dialect(
    name="native",
    errors={
        **_NATIVE_STATUSES,
        "NotAuthorized": ErrorRow(401, "NotAuthorized", headers=(b"www-authenticate", b"Bearer")),
        "NotAuthorized.wrong_kind": ErrorRow(403, "NotAuthorized"),
        "NotAuthorized.renewal_wrong_kind": ErrorRow(403, "NotAuthorized"),
        "ArchiveExists": ErrorRow(409, "Conflict"),
        "QueueFull": ErrorRow(503, "QueueFull", headers=_RETRY),
        "NoWorker": ErrorRow(503, "NoWorker", headers=_RETRY),
        "ShuttingDown": ErrorRow(503, "ShuttingDown", headers=_RETRY),
    },
    texts=_TORCHSERVE_TEXTS,
    ping={
        "starting": Ping(503, "Starting"),
        "healthy": Ping(200, "Healthy"),
        "partial": Ping(200, "Degraded"),
        "unhealthy": Ping(503, "Unhealthy"),
    },
    prediction_phrase=b"OK",
    error_members=("code", "type", "message", "hint"),
    has_open_ping=True,
)

# --- the old servers -----------------------------------------------------------------------------------

_NO_WORKER = (
    'Model "{model}"{with_version} has no worker to serve inference request. Please use scale workers API to add '
    "workers. If this is a sequence inference, please check if it is closed, or expired; or exceeds "
    "maxSequenceJobQueueSize"
)
_UNAUTHORIZED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
#: "Authen-" where keys are renewed, "Author-" everywhere else.
_NOT_RENEWED = "Token Authentication failed. Token either incorrect, expired, or not provided correctly"
_INTERNAL = "InternalServerException"
_UNAVAILABLE = "ServiceUnavailableException"

_TORCHSERVE_ERRORS: dict[str, ErrorRow] = {
    "BadRequest": ErrorRow(400, "BadRequestException"),
    "BadRequest.unreadable": ErrorRow(400, "BadRequestException", "Invalid HTTP message."),
    "InvalidData": ErrorRow(400, "BadRequestException"),
    "NotAuthorized": ErrorRow(400, "InvalidKeyException", _UNAUTHORIZED),
    "NotAuthorized.renewal": ErrorRow(400, "InvalidKeyException", _NOT_RENEWED),
    "NotAuthorized.renewal_wrong_kind": ErrorRow(400, "InvalidKeyException", _NOT_RENEWED),
    "Forbidden": ErrorRow(403, "InvalidModelVersionException", "Cannot remove default version for model {model}"),
    "RouteNotFound": ErrorRow(
        404,
        "ResourceNotFoundException",
        "Requested resource is not found, please refer to API document.",
    ),
    "ModelNotFound": ErrorRow(404, "ModelNotFoundException", "Model not found: {model}"),
    "ModelNotFound.store": ErrorRow(404, "ModelNotFoundException", "Model not found at: {model}"),
    "VersionNotFound": ErrorRow(
        404, "ModelVersionNotFoundException", "Model version: {version} does not exist for model: {model}"
    ),
    "MethodNotAllowed": ErrorRow(
        405,
        "MethodNotAllowedException",
        "Requested method is not allowed, please refer to API document.",
    ),
    "Conflict": ErrorRow(
        409, "ConflictStatusException", "Model version {version} is already registered for model {model}"
    ),
    "ArchiveExists": ErrorRow(409, "ConflictStatusException"),
    "TooLarge": ErrorRow(413, "", has_body=False),
    "QueueFull": ErrorRow(503, _UNAVAILABLE, _NO_WORKER),
    "NoWorker": ErrorRow(503, _UNAVAILABLE, _NO_WORKER),
    "JobTimeout": ErrorRow(503, _UNAVAILABLE),
    "JobTimeout.unregister": ErrorRow(408, "RequestTimeoutException", "Timed out while cleaning resources: {model}"),
    "Cancelled": ErrorRow(503, _UNAVAILABLE),
    "ShuttingDown": ErrorRow(503, _UNAVAILABLE),
    "OutOfMemory": ErrorRow(507, _INTERNAL, "Out of resources"),
    "ArchiveError": ErrorRow(400, "InvalidModelException"),
    "DownloadError": ErrorRow(400, "DownloadArchiveException"),
    "EnvironmentFault": ErrorRow(400, "ModelException", "Custom pip package installation failed for model {model}"),
    # TorchServe knows no environments like these, so there is no text of its own to keep.
    "EnvironmentFault.own": ErrorRow(400, "ModelException"),
    "EnvironmentFault.venv": ErrorRow(400, "ModelException", "Virtual environment creation failed for model {model}"),
    "ManifestError": ErrorRow(400, "InvalidModelException"),
    "SignatureError": ErrorRow(400, "InvalidModelException"),
    "UnsafeArchive": ErrorRow(400, "InvalidModelException"),
    "LoadError": ErrorRow(500, _INTERNAL, "Failed to start workers for model {model} version: {version}"),
    "HandlerFault": ErrorRow(503, _INTERNAL, "Prediction failed"),
    "HandlerFault.not_a_list": ErrorRow(503, _INTERNAL, "Invalid model predict output"),
    "HandlerFault.wrong_count": ErrorRow(503, _INTERNAL, "number of batch response mismatched"),
    "HandlerFault.unsendable": ErrorRow(503, _INTERNAL, "Unsupported model output data type."),
    "PredictionException": ErrorRow(500, _INTERNAL),
    "WorkerDied": ErrorRow(500, _INTERNAL, "Worker died."),
    "WorkerSilent": ErrorRow(500, _INTERNAL, "Worker died."),
    "ProtocolError": ErrorRow(500, _INTERNAL, "Worker died."),
    "ConfigError": ErrorRow(500, _INTERNAL),
    "Internal": ErrorRow(500, _INTERNAL),
}

_NO_DESCRIBER = (
    'Model "{model}" has no worker to serve describe request. Please use scale workers API to add workers.'
)

TORCHSERVE = Dialect(
    name="torchserve",
    version="0.12.0",
    errors={
        **_TORCHSERVE_ERRORS,
        "ArchiveExists": ErrorRow(500, _INTERNAL),
        "BadRequest.nameless": ErrorRow(400, "InvalidModelException", "Model name is not defined."),
        "BadRequest.negative": ErrorRow(500, "IndexOutOfBoundsException", "Index -1 out of bounds for length 0"),
        "NoWorker.describe": ErrorRow(503, _UNAVAILABLE, _NO_DESCRIBER),
        "OutOfMemory.load": ErrorRow(507, _INTERNAL, "Failed to start workers for model {model} version: {version}"),
        "WorkerDied.killed": ErrorRow(507, _INTERNAL, "Worker died."),
        "VersionNotFound.set_default": ErrorRow(
            404, "ModelVersionNotFoundException", "Model version {version} does not exist for model {model}"
        ),
    },
    texts=_TORCHSERVE_TEXTS,
    ping={
        "starting": Ping(500, "Unhealthy"),
        "healthy": Ping(200, "Healthy"),
        "partial": Ping(500, "Unhealthy"),
        "unhealthy": Ping(500, "Unhealthy"),
    },
    standing_headers=_NO_CACHE,
    json_indent=2,
    closes_on_error=True,
    has_old_paths=True,
    runtimes=("python", "python3", "LSP"),
    tells_length=True,
    https_text="This TorchServe instance only accepts HTTPS requests",
)

_MMS_NO_WORKER = "No worker is available to serve request for model: {model}. Consider increasing job queue size."

MMS = Dialect(
    name="mms",
    version="1.1.11",
    errors={
        **_TORCHSERVE_ERRORS,
        "ModelNotFound.store": ErrorRow(404, "ModelNotFoundException", "Model not found in model store: {model}"),
        # One version a model: a version that is not there is a model that is not there.
        "VersionNotFound": ErrorRow(404, "ModelNotFoundException", "Model not found: {model}"),
        "BadRequest.nameless": ErrorRow(400, "InvalidModelException", "Model name is not defined."),
        "Conflict": ErrorRow(409, "ConflictStatusException", "Model {model} is already registered."),
        "QueueFull": ErrorRow(503, _UNAVAILABLE, _MMS_NO_WORKER),
        "NoWorker": ErrorRow(503, _UNAVAILABLE, _MMS_NO_WORKER),
        "LoadError": ErrorRow(500, _INTERNAL, "Failed to start workers"),
        "LoadError.no_handler": ErrorRow(400, "InvalidModelException", "Model handler is not defined."),
        "OutOfMemory.load": ErrorRow(507, _INTERNAL, "Failed to start workers"),
        "DownloadError": ErrorRow(400, "DownloadModelException", "Failed to download model from: {model}"),
    },
    texts={
        **_TORCHSERVE_TEXTS,
        "registered_idle": 'Model "{model}" registered',
        "registered": "Workers scaled",
        "scaled": "Workers scaled",
        "version_scaled": "Workers scaled",
    },
    # MMS answers 200 whatever it says.
    ping={
        "starting": Ping(200, "Unhealthy"),
        "healthy": Ping(200, "Healthy"),
        "partial": Ping(200, "Partial Healthy"),
        "unhealthy": Ping(200, "Unhealthy"),
    },
    standing_headers=_NO_CACHE,
    json_indent=2,
    closes_on_error=True,
    describes_list=False,
    has_versions=False,
    query_minutes=True,
    runtimes=("python", "python2", "python3"),
    tells_length=True,
)

#: By name, as settings hold it.
DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (NATIVE, TORCHSERVE, MMS)}
