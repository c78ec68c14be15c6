"""Loading and serving as TorchServe's worker had it: for unit tests that go through its loader and messages."""

import json
import struct

import pytest
from ts_modules import context_of, module

from marserve.errors import LoadError, PredictionException

otf = module("protocol.otf_message_handler")


class Wire:
    """A socket that holds what it will be read for."""

    def __init__(self, *parts):
        self._left = b"".join(part if isinstance(part, bytes) else struct.pack("!i", part) for part in parts)

    def recv(self, count):
        taken, self._left = self._left[: min(count, 3)], self._left[min(count, 3) :]
        return taken


def text(value):
    return struct.pack("!i", len(value)) + value


def numbers_and_texts(message):
    """Return a message as its texts and numbers, taken apart by hand: ``[code, message, answers…]``."""
    at = 0

    def number():
        nonlocal at
        at += 4
        return struct.unpack("!i", message[at - 4 : at])[0]

    def piece(length):
        nonlocal at
        at += length
        return bytes(message[at - length : at])

    found = [number(), piece(number())]
    while (length := number()) != -1:
        answer = [piece(length), piece(number()), number(), piece(number())]
        headers = {piece(number()): piece(number()) for _ in range(number())}
        found.append([*answer, headers, piece(number())])
    assert at == len(message)
    return found


def test_an_order_to_load():
    wire = Wire(b"L", text(b"m"), text(b"/x"), 2, text(b"svc.py"), -1, text(b""), b"\1")

    kind, message = otf.retrieve_msg(wire)

    assert kind == otf.LOAD_MSG
    assert message == {
        "modelName": b"m",
        "modelPath": b"/x",
        "batchSize": 2,
        "handler": b"svc.py",
        "envelope": b"",
        "limitMaxImagePixels": True,
    }


BATCH = (
    b"I",
    *(text(b"r1"), text(b"Key"), text(b"value"), -1),
    *(text(b"body"), text(b"application/json"), text(b"[1]"), text(b"t"), text(b"text/plain"), text(b"hi"), -1),
    *(text(b"r2"), -1, text(b"body"), text(b""), text(b"raw"), -1),
    -1,
)


def test_a_batch_to_predict():
    kind, batch = otf.retrieve_msg(Wire(*BATCH))

    assert kind == otf.PREDICT_MSG
    assert [request["requestId"] for request in batch] == [b"r1", b"r2"]
    assert batch[0]["headers"] == [{"name": b"Key", "value": b"value"}]
    assert [(part["name"], part["contentType"], part["value"]) for part in batch[0]["parameters"]] == [
        ("body", "application/json", [1]),
        ("t", "text/plain", "hi"),
    ]
    assert batch[1]["parameters"][0]["value"] == b"raw"


def test_messages_of_no_known_kind_and_streams_that_end():
    with pytest.raises(ValueError, match="Invalid command"):
        otf.retrieve_msg(Wire(b"X"))
    with pytest.raises(SystemExit):
        otf.retrieve_msg(Wire(b"I", b"\0"))


def test_the_answer_to_an_order_to_load():
    assert otf.create_load_model_response(200, "ok") == b"\0\0\0\xc8\0\0\0\2ok\xff\xff\xff\xff"


def test_answers_with_what_the_context_says_of_them(tmp_path):
    context = context_of(tmp_path)
    context.set_response_content_type(0, "text/x")
    context.set_response_status(201, "Made", 0)

    message = otf.create_predict_response([{"a": 1}], {0: "r1"}, "fine", 200, context)

    headers = {b"content-type": b"text/x"}
    body = json.dumps({"a": 1}, indent=2).encode()
    assert numbers_and_texts(message) == [200, b"fine", [b"r1", b"text/x", 201, b"Made", headers, body]]


def test_answers_without_a_context_errors_and_what_cannot_be_sent():
    plain = otf.create_predict_response(["x", b"y"], {0: "r1", 1: "r2"}, "fine", 200)
    error = otf.create_predict_response(None, {0: "r1"}, "bad", 503)
    unsendable = otf.create_predict_response([{1, 2}], {0: "r1"}, "fine", 200)

    assert [answer[-1] for answer in numbers_and_texts(plain)[2:]] == [b"x", b"y"]
    assert numbers_and_texts(error) == [503, b"bad", [b"r1", b"", 503, b"", {}, b"error"]]
    assert numbers_and_texts(unsendable)[:2] == [503, b"Unsupported model output data type."]


def test_the_marks_of_answers_in_pieces(tmp_path):
    context = context_of(tmp_path)

    def mark(**more):
        message = otf.create_predict_response(["x"], {0: "r1"}, "fine", 200, context, **more)
        return numbers_and_texts(message)[2][4].get(b"ts_stream_next")

    assert mark() is None
    assert mark(ts_stream_next=True) == b"true"
    assert mark() == b"false"
    context.stopping_criteria = [lambda answer: answer != "x"]
    assert mark() == b"true"


def test_only_the_first_of_a_group_answers(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")

    assert otf.create_predict_response(["x"], {0: "r1"}, "fine", 200) is None


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / "config.yaml").write_text("answer: 42\n")
    manifest = {"model": {"modelName": "m", "configFile": "config.yaml"}}
    (tmp_path / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    return tmp_path


def load(folder, name, code):
    (folder / f"{name}.py").write_text(code)
    loader = module("model_loader").ModelLoaderFactory.get_model_loader()
    return loader.load("m", str(folder), name, None, 2, None)


def test_a_model_is_loaded_and_answers_a_batch(folder):
    service = load(
        folder,
        "svc_answers",
        "def handle(data, context):\n"
        "    if data is None:\n        return None\n"
        "    header = context.get_request_header(0, 'Key')\n"
        "    return [context.model_yaml_config['answer'], header]\n",
    )

    message = service.predict(otf.retrieve_msg(Wire(*BATCH))[1])

    found = numbers_and_texts(message)
    assert found[:2] == [200, b"Prediction success"]
    assert [answer[-1] for answer in found[2:]] == [b"42", b"value"]
    assert service.context.system_properties["batch_size"] == 2
    assert [record.name for record in service.context.metrics.store] == ["PredictionTime"]


def raising(error):
    def handle(rows, context):
        raise error

    return handle


@pytest.mark.parametrize(
    ("handle", "code", "message"),
    [
        (raising(ValueError()), 503, b"Prediction failed"),
        (raising(MemoryError()), 507, b"Out of resources"),
        (raising(RuntimeError("CUDA error")), 507, b"Out of resources"),
        (raising(PredictionException("too long", 413)), 413, b"too long"),
        (lambda rows, context: {}, 503, b"Invalid model predict output"),
        (lambda rows, context: [1], 503, b"number of batch response mismatched"),
    ],
)
def test_what_a_batch_is_told_when_it_goes_wrong(tmp_path, handle, code, message):
    service = module("service").Service("m", str(tmp_path), None, handle, None, 1)

    found = numbers_and_texts(service.predict(otf.retrieve_msg(Wire(*BATCH))[1]))

    assert found[:2] == [code, message]
    assert {answer[-1] for answer in found[2:]} == {b"error"}


def test_no_batch_is_refused():
    with pytest.raises(ValueError, match="Received invalid inputs"):
        module("service").Service.retrieve_data_for_inference(None)


def test_a_handler_that_does_not_load_is_told(folder):
    with pytest.raises(LoadError, match="ZeroDivisionError"):
        load(folder, "svc_broken", "1 / 0")


def test_services_of_multi_model_server(tmp_path):
    single = module("model_service.model_service").SingleNodeService

    class Doubles(single):
        def _inference(self, data):
            return data[0] * 2

    (tmp_path / "signature.json").write_text(
        json.dumps({"input_type": "application/json", "inputs": [{"data_name": "x"}]})
    )
    context = context_of(tmp_path)
    context.manifest = {"Model": {"Signature": "signature.json"}}
    service = Doubles("m", str(tmp_path), context.manifest)
    service.initialize(context)

    assert service.handle([{"body": b"4"}], context) == [8]
    assert service.handle([{"x": 5, "body": b"4"}], context) == [10]
    assert service.signature()["inputs"] == [{"data_name": "x"}]
    context.manifest = {"Model": {"Signature": "none.json"}}
    with pytest.raises(ValueError, match="not found"):
        service.initialize(context)
    with pytest.raises(NotImplementedError):
        single("m", "", {}).inference([1])
