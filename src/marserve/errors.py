"""Every error that marserve raises on purpose, as one tree.

::

    ServeError                     kind, message, hint
    ├── RequestError               the client must change the request
    │   ├── BadRequest             malformed body, parameter or header
    │   │   └── InvalidData        an input that the signature or the service refuses
    │   ├── NotAuthorized          no key, or a wrong one
    │   ├── RouteNotFound          no such path
    │   ├── MethodNotAllowed       the path is there, the method is not
    │   ├── ModelNotFound          no model of that name
    │   │   └── VersionNotFound    the model is there, the version is not
    │   ├── Conflict               the name and version, or a route, are taken
    │   │   └── ArchiveExists      the store has a file of the download's name
    │   ├── Forbidden              allowed for nobody, e.g. removing a default version
    │   └── TooLarge               body or header over its limit
    ├── BusyError                  the client may try again later
    │   ├── QueueFull              the version's queue is at its bound
    │   ├── NoWorker               no worker can come within the deadline
    │   ├── JobTimeout             the deadline passed, or the client's time is up
    │   ├── Cancelled              the client went away
    │   ├── ShuttingDown           the server drains
    │   └── OutOfMemory            the service or the machine ran out of memory
    ├── ModelError                 the archive's author must act
    │   ├── ArchiveError           the archive cannot be read or written
    │   │   ├── DownloadError      it cannot be fetched from its address
    │   │   ├── EnvironmentFault   what it requires cannot be installed
    │   │   ├── ManifestError      MAR-INF/MANIFEST.json is missing, broken, or names what is not there
    │   │   ├── SignatureError     signature.json does not satisfy its schema
    │   │   └── UnsafeArchive      an entry would leave its folder, is a link, or is a bomb
    │   ├── LoadError              the service does not load or initialize
    │   └── HandlerFault           the service raised, or returned what cannot be sent
    ├── WorkerError                a worker process failed; the supervisor acts
    │   ├── WorkerDied             it ended; says how
    │   ├── WorkerSilent           it did not answer within the response timeout
    │   └── ProtocolError          bytes that the wire does not allow
    │       ├── LocalProtocolError     we were about to break the rules
    │       └── RemoteProtocolError    they did
    └── ConfigError                the operator must change a setting or a flag

An error carries what happened (``message``) and what to do next (``hint``). Its ``kind`` is the name that
the dialects' tables turn into a status and a text (``doors/http/dialects.py``); no status is chosen here.
This file runs in workers too: standard library only, valid Python 3.8.
"""

from typing import Dict, Optional, Type, TypeVar


class ServeError(Exception):
    """The root: a message that says what happened in what, and a hint that says what to do next."""

    #: Key of the dialects' tables. A subclass without one of its own is treated as its parent.
    kind = "Internal"
    #: What the reader should do when the raiser has nothing better to say.
    default_hint = ""
    #: Tells cases of one kind apart that a dialect answers in different ways.
    fault: str = ""

    def __init__(self, message: str, hint: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        #: Which model and version it is about, where that is known: the dialects build their texts from it.
        self.model: Optional[str] = None
        self.version: Optional[str] = None

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        # Texts of the old servers, and of exceptions, end without a full stop.
        stop = "" if self.message.endswith((".", "!", "?", ":", "\n")) else "."
        return f"{self.message}{stop} {self.hint}"


class RequestError(ServeError):
    """The client must change the request."""

    kind = "BadRequest"


class BadRequest(RequestError):
    """A malformed body, parameter or header."""

    kind = "BadRequest"


class InvalidData(BadRequest):
    """An input that the signature or the service's own check refuses; costs only its own request."""

    kind = "InvalidData"


class NotAuthorized(RequestError):
    """No key, or a wrong one.

    ``fault`` tells cases apart that a dialect may answer in its own way: "wrong_kind" (a good key, but for
    something else), "renewal" (keys were to be renewed), "renewal_wrong_kind".
    """

    kind = "NotAuthorized"

    def __init__(self, message: str, hint: Optional[str] = None, fault: str = "") -> None:
        super().__init__(message, hint)
        self.fault = fault


class RouteNotFound(RequestError):
    """No such path."""

    kind = "RouteNotFound"


class MethodNotAllowed(RequestError):
    """The path is there, the method is not."""

    kind = "MethodNotAllowed"


class ModelNotFound(RequestError):
    """No model of that name is registered."""

    kind = "ModelNotFound"
    default_hint = "GET /models on the management port lists what is registered."


class VersionNotFound(ModelNotFound):
    """The model is registered, that version is not."""

    kind = "VersionNotFound"


class Conflict(RequestError):
    """The name and version are taken, or a route."""

    kind = "Conflict"


class ArchiveExists(Conflict):
    """The store has a file of the name that a download would get."""

    kind = "ArchiveExists"


class Forbidden(RequestError):
    """Allowed for nobody in the present state, e.g. removing a default version that has siblings."""

    kind = "Forbidden"


class TooLarge(RequestError):
    """A body over its limit."""

    kind = "TooLarge"
    default_hint = "Send less, or raise max_request_size."


class BusyError(ServeError):
    """The client may try again later."""

    kind = "NoWorker"


class QueueFull(BusyError):
    """The version's queue is at its bound."""

    kind = "QueueFull"
    default_hint = "Try again later, add workers, or raise job_queue_size."


class NoWorker(BusyError):
    """No worker is there, or none can come within the deadline."""

    kind = "NoWorker"
    default_hint = "Add workers: PUT /models/{model}?min_worker=1 on the management port."


class JobTimeout(BusyError):
    """The job's deadline passed before its answer was there."""

    kind = "JobTimeout"


class Cancelled(BusyError):
    """The client went away; nobody reads the answer."""

    kind = "Cancelled"


class ShuttingDown(BusyError):
    """The server has begun to drain and accepts nothing new."""

    kind = "ShuttingDown"
    default_hint = "Send the request to another server, or again once this one is back."


class OutOfMemory(BusyError):
    """The service, or the machine, ran out of memory."""

    kind = "OutOfMemory"


class ModelError(ServeError):
    """The archive's author must act."""

    kind = "HandlerFault"


class ArchiveError(ModelError):
    """An archive cannot be read or written."""

    kind = "ArchiveError"


class DownloadError(ArchiveError):
    """An archive cannot be fetched from where it is said to be."""

    kind = "DownloadError"


class EnvironmentFault(ArchiveError):
    """What an archive requires cannot be installed."""

    kind = "EnvironmentFault"


class ManifestError(ArchiveError):
    """The manifest is missing, broken, or names a file that is not there."""

    kind = "ManifestError"


class SignatureError(ArchiveError):
    """``signature.json`` does not satisfy the schema, or does not fit the model."""

    kind = "SignatureError"


class UnsafeArchive(ArchiveError):
    """An entry would leave its folder, is a link, or passes the size limit."""

    kind = "UnsafeArchive"


class LoadError(ModelError):
    """The service does not load or initialize; ``traceback`` is the author's."""

    kind = "LoadError"

    def __init__(self, message: str, hint: Optional[str] = None, traceback: str = "") -> None:
        super().__init__(message, hint)
        self.traceback = traceback


class HandlerFault(ModelError):
    """The service raised, or returned what cannot be sent; ``traceback`` is the author's.

    ``fault`` says which: "raised", "not_a_list", "wrong_count" or "unsendable".
    """

    kind = "HandlerFault"

    def __init__(self, message: str, hint: Optional[str] = None, traceback: str = "", fault: str = "") -> None:
        super().__init__(message, hint)
        self.traceback = traceback
        self.fault = fault


class WorkerError(ServeError):
    """A worker process failed; the supervisor acts."""

    kind = "WorkerDied"


class WorkerDied(WorkerError):
    """A worker ended with jobs in its hands; the message is its autopsy."""

    kind = "WorkerDied"


class WorkerSilent(WorkerError):
    """A worker did not answer within the response timeout."""

    kind = "WorkerSilent"


class ProtocolError(WorkerError):
    """Bytes or a sequence of messages that the wire does not allow."""

    kind = "ProtocolError"


class LocalProtocolError(ProtocolError):
    """We were about to break the rules of the wire: a bug here."""

    kind = "ProtocolError"


class RemoteProtocolError(ProtocolError):
    """The other side broke the rules of the wire."""

    kind = "ProtocolError"


class ConfigError(ServeError):
    """The operator must change a setting or a flag."""

    kind = "ConfigError"


class PredictionException(ServeError):
    """Raised by a service to answer with a status and message of its own choice.

    ``message`` and ``error_code`` are the names and defaults that handlers written for TorchServe and
    Multi Model Server use.
    """

    kind = "PredictionException"

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message, "")
        self.error_code = error_code

    def __str__(self) -> str:
        # As in both old servers: handlers in the wild catch it, and answer or log this text.
        return f"{self.message} : {self.error_code}"


AnyError = TypeVar("AnyError", bound=ServeError)


def about(error: AnyError, model: str, version: Optional[str] = None) -> AnyError:
    """Return ``error`` with a note of which model and version it is about."""
    error.model = model
    error.version = version
    return error


def by_kind() -> Dict[str, Type[ServeError]]:
    """Return the class that each ``kind`` names: the one of that name, else the most general one."""
    found: Dict[str, Type[ServeError]] = {}
    ahead = [ServeError]
    while ahead:
        cls = ahead.pop(0)
        if cls.__name__ == cls.kind or cls.kind not in found:
            found[cls.kind] = cls
        ahead.extend(cls.__subclasses__())
    return found
