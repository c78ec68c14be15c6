"""The dialects' statuses, texts and bodies, byte by byte."""

import json
import re
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette

from marserve import __version__
from marserve.doors.http.application import HttpApplication, https_only
from marserve.doors.http.dialects import DIALECTS, MMS, NATIVE, TORCHSERVE, Dialect, status_phrase
from marserve.doors.http.exchange import Exchange
from marserve.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    HandlerFault,
    InvalidData,
    LoadError,
    MethodNotAllowed,
    ModelNotFound,
    NotAuthorized,
    NoWorker,
    OutOfMemory,
    PredictionException,
    QueueFull,
    RouteNotFound,
    ServeError,
    ShuttingDown,
    TooLarge,
    VersionNotFound,
    WorkerDied,
    WorkerSilent,
    about,
    by_kind,
)
from marserve.observer import NullObserver
from marserve.testing import RecordingObserver

NO_WORKER = (
    'Model "m"{} has no worker to serve inference request. Please use scale workers API to add workers. If this is a '
    "sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)
BUSY = "No worker is available to serve request for model: m. Consider increasing job queue size."


def told(dialect: Dialect, error: ServeError) -> tuple[int, str, str]:
    answer = dialect.error_body(error)
    body = json.loads(answer.body)
    assert body["code"] == answer.status
    return answer.status, body["type"], body["message"]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_every_kind_of_error_has_a_row(dialect: Dialect) -> None:
    assert set(by_kind()) | {"PredictionException"} == {kind.partition(".")[0] for kind in dialect.errors}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_every_error_has_an_answer_that_says_something(dialect: Dialect) -> None:
    for kind, cls in by_kind().items():
        for error in (
            cls("What happened."),
            about(cls("What happened."), "m"),
            about(cls("What happened."), "m", "1.0"),
        ):
            answer = dialect.error_body(error)
            assert 400 <= answer.status <= 599, kind
            assert answer.phrase, kind
            assert answer.body or (kind == "TooLarge" and dialect is not NATIVE)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadRequest("x"), 400),
        (InvalidData("x"), 400),
        (NotAuthorized("x"), 401),
        (Forbidden("x"), 403),
        (RouteNotFound("x"), 404),
        (VersionNotFound("x"), 404),
        (MethodNotAllowed("x"), 405),
        (Conflict("x"), 409),
        (TooLarge("x"), 413),
        (QueueFull("x"), 503),
        (NoWorker("x"), 503),
        (OutOfMemory("x"), 507),
        (HandlerFault("x"), 500),
        (WorkerDied("x"), 500),
        (WorkerSilent("x"), 504),
        (PredictionException("x", 418), 418),
        (ServeError("x"), 500),
    ],
)
def test_native_tells_the_kind_and_the_message(error: ServeError, status: int) -> None:
    about(error, "m", "1.0")
    assert told(NATIVE, error) == (status, error.kind if type(error) is not ServeError else "Internal", "x")


def test_a_native_body_is_compact_with_a_hint() -> None:
    answer = NATIVE.error_body(InvalidData("The number 1024 is too large.", "Send 0 to 1023."))
    assert answer.body == (
        b'{"code":400,"type":"InvalidData","message":"The number 1024 is too large.","hint":"Send 0 to 1023."}\n'
    )
    assert answer.headers == (b"content-type", b"application/json")
    assert answer.phrase == b"Bad Request"


def test_a_native_body_without_a_hint_has_no_member_for_it() -> None:
    assert NATIVE.error_body(BadRequest("x", "")).body == b'{"code":400,"type":"BadRequest","message":"x"}\n'


@pytest.mark.parametrize("error", [QueueFull("x"), NoWorker("x"), ShuttingDown("x")])
def test_native_says_when_to_try_again(error: ServeError) -> None:
    assert NATIVE.error_body(error).headers[2:] == (b"retry-after", b"1")


def test_native_says_how_to_authorize() -> None:
    assert NATIVE.error_body(NotAuthorized("x")).headers[2:] == (b"www-authenticate", b"Bearer")


@pytest.mark.parametrize(
    ("fault", "native", "word"),
    [
        ("", 401, "Authorization"),
        ("wrong_kind", 403, "Authorization"),
        ("renewal", 401, "Authentication"),
        ("renewal_wrong_kind", 403, "Authentication"),
    ],
)
def test_a_good_key_for_something_else_is_forbidden_natively_and_refused_alike_by_torchserve(
    fault: str, native: int, word: str
) -> None:
    error = NotAuthorized("x", fault=fault)
    assert NATIVE.error_body(error).status == native
    message = f"Token {word} failed. Token either incorrect, expired, or not provided correctly"
    assert told(TORCHSERVE, error) == (400, "InvalidKeyException", message)


@pytest.mark.parametrize(
    ("error", "status", "type", "message"),
    [
        (ModelNotFound("x"), 404, "ModelNotFoundException", "Model not found: m"),
        (
            VersionNotFound("x"),
            404,
            "ModelVersionNotFoundException",
            "Model version: 1.0 does not exist for model: m",
        ),
        (Forbidden("x"), 403, "InvalidModelVersionException", "Cannot remove default version for model m"),
        (Conflict("x"), 409, "ConflictStatusException", "Model version 1.0 is already registered for model m"),
        (NoWorker("x"), 503, "ServiceUnavailableException", NO_WORKER.format(' Version 1.0"')),
        (QueueFull("x"), 503, "ServiceUnavailableException", NO_WORKER.format(' Version 1.0"')),
        (HandlerFault("x"), 503, "InternalServerException", "Prediction failed"),
        (HandlerFault("x", fault="raised"), 503, "InternalServerException", "Prediction failed"),
        (HandlerFault("x", fault="not_a_list"), 503, "InternalServerException", "Invalid model predict output"),
        (
            HandlerFault("x", fault="wrong_count"),
            503,
            "InternalServerException",
            "number of batch response mismatched",
        ),
        (
            HandlerFault("x", fault="unsendable"),
            503,
            "InternalServerException",
            "Unsupported model output data type.",
        ),
        (OutOfMemory("x"), 507, "InternalServerException", "Out of resources"),
        (WorkerDied("x"), 500, "InternalServerException", "Worker died."),
        (WorkerSilent("x"), 500, "InternalServerException", "Worker died."),
        (
            LoadError("x"),
            500,
            "InternalServerException",
            "Failed to start workers for model m version: 1.0",
        ),
        (PredictionException("no such word", 599), 599, "InternalServerException", "no such word"),
        (PredictionException("oh"), 500, "InternalServerException", "oh"),
        (BadRequest("Parameter url is required."), 400, "BadRequestException", "Parameter url is required."),
        (
            NotAuthorized("x"),
            400,
            "InvalidKeyException",
            "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
        ),
    ],
)
def test_torchserve_texts(error: ServeError, status: int, type: str, message: str) -> None:
    assert told(TORCHSERVE, about(error, "m", "1.0")) == (status, type, message)


def test_torchserve_texts_without_a_version() -> None:
    assert told(TORCHSERVE, about(NoWorker("x"), "m"))[2] == NO_WORKER.format("")
    assert told(TORCHSERVE, about(LoadError("x"), "m"))[2] == "Failed to start workers for model m version: null"


def test_texts_that_name_a_model_wait_for_one() -> None:
    assert told(TORCHSERVE, ModelNotFound("empty url"))[2] == "empty url"
    assert told(MMS, NoWorker("no worker at all"))[2] == "no worker at all"


def test_a_model_name_with_braces_is_only_a_name() -> None:
    assert told(TORCHSERVE, about(ModelNotFound("x"), "{version}"))[2] == "Model not found: {version}"


@pytest.mark.parametrize("dialect", [TORCHSERVE, MMS], ids=lambda dialect: dialect.name)
def test_the_old_bodies_are_indented_and_end_with_a_newline(dialect: Dialect) -> None:
    answer = dialect.error_body(RouteNotFound("x"))
    assert answer.body == (
        b'{\n  "code": 404,\n  "type": "ResourceNotFoundException",\n  "message": '
        b'"Requested resource is not found, please refer to API document."\n}\n'
    )


@pytest.mark.parametrize("dialect", [TORCHSERVE, MMS], ids=lambda dialect: dialect.name)
def test_a_body_over_the_limit_gets_a_bare_413(dialect: Dialect) -> None:
    assert dialect.error_body(TooLarge("x")) == (413, b"Request Entity Too Large", (), b"")


@pytest.mark.parametrize(
    ("error", "status", "type", "message"),
    [
        (VersionNotFound("x"), 404, "ModelNotFoundException", "Model not found: m"),
        (Conflict("x"), 409, "ConflictStatusException", "Model m is already registered."),
        (NoWorker("x"), 503, "ServiceUnavailableException", BUSY),
        (QueueFull("x"), 503, "ServiceUnavailableException", BUSY),
        (LoadError("x"), 500, "InternalServerException", "Failed to start workers"),
        (HandlerFault("x"), 503, "InternalServerException", "Prediction failed"),
    ],
)
def test_mms_texts(error: ServeError, status: int, type: str, message: str) -> None:
    assert told(MMS, about(error, "m", "1.0")) == (status, type, message)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_failed_load_shows_the_authors_traceback_and_a_failed_prediction_does_not(dialect: Dialect) -> None:
    load = json.loads(dialect.error_body(LoadError("x", traceback="Traceback …\n  boom")).body)
    prediction = json.loads(dialect.error_body(HandlerFault("x", traceback="Traceback …")).body)
    assert load["traceback"] == ["Traceback …", "  boom"]
    assert "traceback" not in prediction


@pytest.mark.parametrize("code", [0, 199, 1000, -1, "404"])
def test_a_status_that_is_none_becomes_500(code: int) -> None:
    assert NATIVE.error_body(PredictionException("x", code)).status == 500


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (404, b"Not Found"),
        (413, b"Request Entity Too Large"),
        (418, b"Client Error (418)"),
        (499, b"Client Closed Request"),
        (420, b"Client Error (420)"),
        (599, b"Server Error (599)"),
        (299, b"Success (299)"),
        (399, b"Redirection (399)"),
        (600, b"Unknown Status (600)"),
    ],
)
def test_phrases(status: int, phrase: bytes) -> None:
    assert status_phrase(status) == phrase


def test_standing_headers() -> None:
    assert NATIVE.standing_headers == b""
    assert TORCHSERVE.standing_headers == MMS.standing_headers
    assert TORCHSERVE.standing_headers.split(b"\r\n") == [
        b"Pragma: no-cache",
        b"Cache-Control: no-cache; no-store, must-revalidate, private",
        b"Expires: Thu, 01 Jan 1970 00:00:00 UTC",
        b"",
    ]


def test_json_leaves_out_what_is_none_at_every_depth() -> None:
    value = {"a": None, "b": [{"c": None, "d": 1}], "e": {"f": None}}
    assert NATIVE.json_body(value) == b'{"b":[{"d":1}],"e":{}}\n'


def test_json_keeps_letters_and_survives_half_a_surrogate_pair() -> None:
    assert TORCHSERVE.json_body({"a": "ü<&>"}) == '{\n  "a": "ü<&>"\n}\n'.encode()
    assert json.loads(NATIVE.json_body({"a": "\udc80"})) == {"a": "\udc80"}


@pytest.mark.parametrize(
    ("dialect", "event", "body"),
    [
        (NATIVE, "scaling", b'{"status":"Processing worker updates..."}\n'),
        (TORCHSERVE, "scaling", b'{\n  "status": "Processing worker updates..."\n}\n'),
        (
            TORCHSERVE,
            "registered_idle",
            b'{\n  "status": "Model \\"m\\" Version: 1.0 registered with 0 initial workers. '
            b'Use scale workers API to add workers for the model."\n}\n',
        ),
        (
            TORCHSERVE,
            "registered",
            b'{\n  "status": "Model \\"m\\" Version: 1.0 registered with 2 initial workers"\n}\n',
        ),
        (TORCHSERVE, "version_scaled", b'{\n  "status": "Workers scaled to 2 for model: m, version: 1.0"\n}\n'),
        (
            TORCHSERVE,
            "default_set",
            b'{\n  "status": "Default version successfully updated for model \\"m\\" to \\"1.0\\""\n}\n',
        ),
        (MMS, "registered_idle", b'{\n  "status": "Model \\"m\\" registered"\n}\n'),
        (MMS, "registered", b'{\n  "status": "Workers scaled"\n}\n'),
        (MMS, "unregistered", b'{\n  "status": "Model \\"m\\" unregistered"\n}\n'),
    ],
)
def test_status_texts(dialect: Dialect, event: str, body: bytes) -> None:
    assert dialect.status_body(event, model="m", version="1.0", workers=2) == body


def test_every_dialect_has_every_text_and_state() -> None:
    assert len({frozenset(dialect.texts) for dialect in DIALECTS.values()}) == 1
    assert {frozenset(dialect.ping) for dialect in DIALECTS.values()} == {
        frozenset(("starting", "healthy", "partial", "unhealthy"))
    }


def test_ping_tells_the_truth_by_status_in_native_and_by_word_alone_in_mms() -> None:
    assert (NATIVE.ping["healthy"], NATIVE.ping["starting"].status) == ((200, "Healthy"), 503)
    assert (TORCHSERVE.ping["healthy"], TORCHSERVE.ping["partial"]) == ((200, "Healthy"), (500, "Unhealthy"))
    assert [MMS.ping[state] for state in ("partial", "unhealthy")] == [(200, "Partial Healthy"), (200, "Unhealthy")]


def test_what_plain_http_gets_of_an_https_address() -> None:
    head, body = https_only(TORCHSERVE).split(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 403 Forbidden"
    assert {b"connection: close", b"Pragma: no-cache", b"content-length: %d" % len(body)} < set(lines)
    assert json.loads(body) == {"status": "This TorchServe instance only accepts HTTPS requests"}

    head, body = https_only(NATIVE).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert json.loads(body)["hint"] == "Begin the URL with https://."


def test_clients_are_told_the_release_whose_contract_is_kept() -> None:
    assert (TORCHSERVE.version, MMS.version, NATIVE.version) == ("0.12.0", "1.1.11", __version__)


def test_what_is_no_http_is_refused_in_the_old_servers_words() -> None:
    for dialect, text in ((TORCHSERVE, "Invalid HTTP message."), (MMS, "Invalid HTTP message."), (NATIVE, "No URL.")):
        head, body = HttpApplication(Starlette(), None, dialect, NullObserver()).refuse(400, "No URL.")
        assert b"content-type: application/json\r\n" in head
        assert json.loads(body)["message"] == text


def test_a_refusal_by_the_connection_has_an_id_too() -> None:
    for dialect in DIALECTS.values():
        for status in (400, 431):
            head, _ = HttpApplication(Starlette(), None, dialect, NullObserver()).refuse(status, "No.")
            assert re.search(rb"^x-request-id: [0-9a-f-]{36}\r$", head, re.MULTILINE)


def test_the_observer_is_told_of_a_refusal_by_the_connection() -> None:
    observer, connection = RecordingObserver(), SimpleNamespace(peer=("192.0.2.7", 4242))
    exchange = Exchange(connection, b"/x\xff", 0.0)  # type: ignore[arg-type]
    exchange.method = b"POST"

    HttpApplication(Starlette(), None, NATIVE, observer).refused(exchange, 413)

    assert observer.requests == [(("192.0.2.7", 4242), "POST", "/x\xff", 413)]
