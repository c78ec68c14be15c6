"""The fast lane of predictions: from a whole request on a connection to a job, and from its answer back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from time import monotonic
from typing import cast
from urllib.parse import unquote, unquote_to_bytes

from marserve.batching.job import Job, JobKind
from marserve.doors.auth import INFERENCE, Keys, authorization_in
from marserve.doors.http.connection import Exchange
from marserve.doors.http.dialects import Dialect, status_phrase
from marserve.doors.http.parameters import parameters_of
from marserve.doors.http.routes import no_route
from marserve.doors.http.timing import ASKED, is_wanted, timing_header
from marserve.errors import BadRequest, ModelNotFound, ServeError
from marserve.models.routes import segments_of
from marserve.observer import Observer
from marserve.planes.inference import InferencePlane
from marserve.service.forms import is_form, is_urlencoded, read_form
from marserve.wire.frames import encode_meta

#: What KServe's paths end with. Source: its protocols V1 and V2, as TorchServe 0.12 serves them.
_VERBS = {"predict": JobKind.PREDICT, "explain": JobKind.EXPLAIN}
_V2_VERBS = {"infer": JobKind.PREDICT, "explain": JobKind.EXPLAIN}
#: First segments of other routes, which no path of the form ``/{model}/predict`` may take away.
_NO_MODELS = ("predictions", "explanations", "models", "ping", "api-description", "metrics", "token")

#: Most raw URLs whose lane is remembered; a client that varies them endlessly only empties the table.
MOST_LANES = 4096
#: Bytes of a form's field that are looked at; no model has a longer name.
LONGEST_NAME = 4096


class Prediction:
    """The reply of one prediction: renders what a worker answered as an HTTP answer; implements ``Reply``."""

    __slots__ = ("_exchange", "_lane", "is_timed", "job")

    def __init__(self, exchange: Exchange, lane: PredictionLane) -> None:
        self._exchange = exchange
        self._lane = lane
        self.job: Job | None = None
        #: whether the answer says where its time went
        self.is_timed = False

    def _headers(self, headers: Sequence[bytes]) -> bytes:
        door = self._lane.door
        job = self.job
        number = job.id if job is not None else door.plane.next_id()
        lines = b"%b%012x\r\n%b" % (door.before_id, number, _rendered(tuple(headers)))
        return lines + timing_header(job) if self.is_timed and job is not None else lines

    def answer(self, status: int, phrase: bytes, headers: Sequence[bytes], body: bytes | memoryview) -> None:
        """See ``Reply``."""
        if status >= 400 and self._lane.door.dialect.closes_on_error:
            self._exchange.close_after = True
        self._exchange.respond(status, phrase or self._lane.door.phrase(status), self._headers(headers), body)
        self.let_go()

    def start(self, status: int, phrase: bytes, headers: Sequence[bytes]) -> None:
        """See ``Reply``."""
        self._exchange.begin(status, phrase or self._lane.door.phrase(status), self._headers(headers))

    def chunk(self, data: bytes) -> bool:
        """See ``Reply``."""
        return self._exchange.chunk(data)

    def end(self) -> None:
        """See ``Reply``."""
        self._exchange.end()
        self.let_go()

    def let_go(self) -> None:
        """Forget the request: the job is kept until it has been counted, and holds its reply."""
        self.job = None
        del self._exchange

    def fail(self, error: ServeError) -> int:
        """See ``Reply``; returns the status that the dialect has chosen."""
        dialect = self._lane.door.dialect
        told = dialect.error_body(error)
        if self.job is not None:
            self.job.status = told.status
        if self._exchange.has_begun:
            self._exchange.break_off()  # the status is gone already: only a broken answer still tells of it
        else:
            if dialect.closes_on_error:
                self._exchange.close_after = True
            self._exchange.respond(told.status, told.phrase, self._headers(told.headers), told.body)
        self.let_go()
        return told.status


@lru_cache(64)
def _rendered(headers: tuple[bytes, ...]) -> bytes:
    """Return header lines, of names and values in turn: services send the same ones again and again."""
    return b"".join(b"%b: %b\r\n" % (name, value) for name, value in zip(headers[::2], headers[1::2], strict=True))


class PredictionLane:
    """All requests of one method and raw URL that ask for a prediction; implements ``Lane``."""

    __slots__ = ("_inputs", "_kind", "_model", "_prefix", "_version", "door", "max_body")

    def __init__(
        self, door: InferenceDoor, kind: JobKind, model: str, version: str | None, tail: str = "", query: str = ""
    ) -> None:
        self.door = door
        self.max_body = door.max_body
        self._kind = kind
        self._model = model
        self._version = version
        # A line feed that is escaped in the path stays so: bare, it would begin a header of the client's choice.
        self._prefix = encode_meta((b"", tail.encode().replace(b"\n", b"%0A"), b""), ())
        # Inputs of the query; the body's come after them, because of two that share a name the last one counts.
        self._inputs = tuple((name.encode(), b"", value.encode()) for name, value in parameters_of(query))

    def admit(self, exchange: Exchange) -> bool:
        """See ``Lane``; refused is who lacks the key, where one is asked for."""
        keys = self.door.keys
        if keys is None:
            return True
        authorization = authorization_in(exchange.headers)
        if keys.fits(INFERENCE, authorization):
            return True
        error = keys.refusal((INFERENCE,), authorization)
        self.door.refused(exchange, Prediction(exchange, self).fail(error), error)
        return False

    def accept(self, exchange: Exchange) -> None:
        """See ``Lane``."""
        reply = Prediction(exchange, self)
        head = exchange.head
        told = self._told(exchange) if head is None else head.told
        if told is None:
            assert head is not None
            told = head.told = self._told(exchange)
        content_type, meta, reply.is_timed = cast("tuple[bytes, bytes, bool]", told)
        pieces = exchange.pieces
        body = pieces[0] if len(pieces) == 1 else pieces if exchange.size > 65536 else b"".join(pieces)
        try:
            reply.job = job = self.door.plane.job(
                self.model_of(exchange, content_type),
                self._version,
                self._kind,
                meta,
                (*self._inputs, (b"body", content_type, body)),
                exchange.size,
                reply,
                exchange.arrived,
            )
            job.target = exchange.target
            job.method = exchange.method
            job.client = exchange.client
            exchange.owner = reply
            self.door.plane.start(job)
        except ServeError as error:
            self.door.refused(exchange, reply.fail(error), error)

    def _told(self, exchange: Exchange) -> tuple[bytes, bytes, bool]:
        """Return what the headers say: content type, what the worker is told, whether the answer tells its times."""
        headers = exchange.headers
        if self.door.dialect.tells_length and exchange.header(b"content-length") is None:
            headers = _with_length(headers, exchange.size)
        meta = b"\n".join((self._prefix, *headers))
        return exchange.header(b"content-type") or b"", meta, is_wanted(self.door.timing, meta)

    def model_of(self, exchange: Exchange, content_type: bytes) -> str:
        """Return the name of the model that a request is for."""
        return self._model

    def gone(self, exchange: Exchange) -> None:
        """See ``Lane``."""
        reply = exchange.owner
        if isinstance(reply, Prediction) and reply.job is not None:
            self.door.plane.give_up(reply.job)
            reply.let_go()


class InvocationsLane(PredictionLane):
    """``/invocations``: the model's name is in the query, in a form field, or there is only one."""

    __slots__ = ("_query_model",)

    def __init__(self, door: InferenceDoor, query: str) -> None:
        super().__init__(door, JobKind.PREDICT, "", None, query=query if door.dialect.name != "native" else "")
        named = [value for name, value in parameters_of(query) if name == "model_name"]
        self._query_model = self._counting(named[0] if named else None)

    def _counting(self, name: str | None) -> str | None:
        """Return a name that was given; an empty one is one for TorchServe alone."""
        return name if name or self.door.dialect.name == "torchserve" else None

    def model_of(self, exchange: Exchange, content_type: bytes) -> str:
        """See ``PredictionLane``.

        Raises:
            BadRequest: no name was given, and several models are served.
            ModelNotFound: an empty one was given, which TorchServe then takes for a name.
        """
        only = self.door.only_model()
        name = self._query_model
        if name is None and not (only and self.door.dialect.name == "mms"):
            # Multi Model Server promises to look at the form, and does not: who sends one asks the only model.
            name = self._counting(_form_field(exchange, content_type, b"model_name"))
        if name or only:
            return name or only
        if name is not None:
            raise ModelNotFound("Model not found: ")
        raise BadRequest(
            "Parameter model_name is required.",
            "Name the model in the query (?model_name=…) or in a form field model_name.",
        )


class RouteLane(PredictionLane):
    """A route that an archive has named; its model is looked up for each request, because routes come and go."""

    __slots__ = ("_method", "_path", "_segments")

    def __init__(self, door: InferenceDoor, method: str, path: str) -> None:
        super().__init__(door, JobKind.PREDICT, "", None)
        self._method = method
        self._path = path
        self._segments = segments_of(path)

    def model_of(self, exchange: Exchange, content_type: bytes) -> str:
        """See ``PredictionLane``.

        Raises:
            RouteNotFound: the last version that named the route has gone since this lane was found.
        """
        name = self.door.plane.methods_at(self._segments).get(self._method)
        if name is None:
            raise no_route(self._path)
        return name


def _with_length(headers: Sequence[bytes], size: int) -> list[bytes]:
    """Return headers with the length of the body, and nothing of the chunks that it came in."""
    kept = [pair for pair in zip(headers[::2], headers[1::2], strict=True) if pair[0].lower() != b"transfer-encoding"]
    return [*(part for pair in kept for part in pair), b"content-length", b"%d" % size]


def _form_field(exchange: Exchange, content_type: bytes, name: bytes) -> str | None:
    """Return a form's field, the first of that name, None when there is none: all that the server reads of a body."""
    if not is_form(content_type, needs_boundary=True):
        return None
    body = exchange.body()
    if name not in body:  # to look for it takes a hundredth of the time of taking a form with a file apart
        return None
    if is_urlencoded(content_type):
        return _urlencoded_field(body, name)
    try:
        fields = read_form(content_type, body)
    except BadRequest:  # the worker tells what is wrong with it
        return None
    return next((value.decode("utf-8", "replace") for field, _, value in fields if field == name), None)


def _urlencoded_field(body: bytes, name: bytes) -> str | None:
    """Return a field without decoding the others: megabytes of escapes would hold up everybody for half a second."""
    pair = b"&%b=" % name
    at = -1 if body.startswith(pair[1:]) else body.find(pair)
    if at < 0 and not body.startswith(pair[1:]):
        return None
    start = at + len(pair)
    end = body.find(b"&", start)
    value = body[start : min(start + LONGEST_NAME, end if end >= 0 else len(body))]
    return unquote_to_bytes(value.replace(b"+", b" ")).decode("utf-8", "replace")


class InferenceDoor:
    """Finds the lane of a request; holds what the lanes share.

    ``keys`` is None where nobody is asked for one; ``timing`` is the setting ``server_timing``.
    """

    def __init__(
        self,
        plane: InferencePlane,
        dialect: Dialect,
        observer: Observer,
        max_body: int,
        standing: bytes,
        keys: Keys | None = None,
        timing: str = ASKED,
    ) -> None:
        self.plane = plane
        self.dialect = dialect
        self.max_body = max_body
        self.keys = keys
        self.timing = timing
        #: the headers of every answer, up to where the number of its request stands
        self.before_id = standing + b"x-request-id: " + plane.id_prefix.encode()
        self._phrases = bool(dialect.prediction_phrase)
        self._observer = observer
        self._lanes: dict[bytes, PredictionLane | None] = {}

    def lane(self, method: bytes, target: bytes) -> PredictionLane | None:
        """Return the fast lane of a request, None when it is no prediction."""
        if method == b"OPTIONS":
            return None
        try:
            lane = self._lanes[target]
        except KeyError:
            if len(self._lanes) >= MOST_LANES:
                self._lanes.clear()
            lane = self._lanes[target] = self._find(target)
        return self._find_route(method, target) if lane is None else lane

    def _find_route(self, method: bytes, target: bytes) -> RouteLane | None:
        """Return the lane of a route that an archive has named; looked up each time, because routes come and go."""
        path = unquote(target.partition(b"?")[0].decode("latin-1"))
        name = method.decode("latin-1")
        return RouteLane(self, name, path) if name in self.plane.methods_at(segments_of(path)) else None

    def _find(self, target: bytes) -> PredictionLane | None:
        path, _, query = target.decode("latin-1").partition("?")
        segments = list(segments_of(unquote(path)))
        if self.dialect.name != "native" and path.startswith("//"):
            return None  # the old servers forgive slashes at the end alone
        if self.dialect.name == "mms":
            return self._find_mms(segments, query)
        if self.dialect.has_old_paths:
            return self._find_old(segments, query) or self._find_new(segments, query)
        return self._find_new(segments, query)

    def _find_mms(self, segments: list[str], query: str) -> PredictionLane | None:
        """Return the lane of a path as Multi Model Server reads it: what follows a model's name counts nothing."""
        match segments:
            case ["predictions", model, *_]:
                return PredictionLane(self, JobKind.PREDICT, model, None)
            case ["invocations"]:
                return InvocationsLane(self, query)
            case ["models", model, "invoke"]:
                return PredictionLane(self, JobKind.PREDICT, model, None, query=query)
            case [model, "predict"] if model not in _NO_MODELS:
                return PredictionLane(self, JobKind.PREDICT, model, None, query=query)
        return None

    def _find_old(self, segments: list[str], query: str) -> PredictionLane | None:
        """Return the lane of a path that only the old server has."""
        match segments:
            case ["v1", "models", named] if named.rpartition(":")[2] in _VERBS:
                model, _, verb = named.rpartition(":")
                return PredictionLane(self, _VERBS[verb], model, None)
            case ["v2", "models", model, verb] if verb in _V2_VERBS:
                return PredictionLane(self, _V2_VERBS[verb], model, None)
            case ["models", model, "invoke"]:
                return PredictionLane(self, JobKind.PREDICT, model, None, query=query)
            case [model, "predict"] if model not in _NO_MODELS:
                return PredictionLane(self, JobKind.PREDICT, model, None, query=query)
            case [model, version, "predict"] if model not in _NO_MODELS:
                return PredictionLane(self, JobKind.PREDICT, model, version, query=query)
        return None

    def _find_new(self, segments: list[str], query: str) -> PredictionLane | None:
        match segments:
            case ["predictions" | "explanations" as what, model, *rest]:
                kind = JobKind.PREDICT if what == "predictions" else JobKind.EXPLAIN
                return PredictionLane(self, kind, model, rest[0] if rest else None, "/".join(rest[1:]))
            case ["invocations"]:
                return InvocationsLane(self, query)
        return None

    def phrase(self, status: int) -> bytes:
        """Return the reason phrase of an answer whose service chose none."""
        return status_phrase(status) if self._phrases else b""

    def only_model(self) -> str:
        """Return the name of the only model, "" when there is none or several."""
        return self.plane.only_model()

    def refused(self, exchange: Exchange, status: int, error: ServeError) -> None:
        """Tell the observer about a request that never became a job."""
        seconds = monotonic() - exchange.arrived
        method, target = exchange.method.decode(), exchange.target.decode("latin-1")
        self._observer.request_answered(exchange.client, method, target, status, seconds, error)
