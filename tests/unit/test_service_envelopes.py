"""Envelopes are taken off and put on per request, also when the server has batched several."""

import numpy as np
import pytest

from marserve.errors import HandlerFault, InvalidData
from marserve.service.context import Context, RequestInfo
from marserve.service.envelopes import ENVELOPES, wrapped


@pytest.fixture
def context():
    context = Context("m", "/m", {"model": {"modelVersion": "2.0"}})
    context.begin([RequestInfo("a"), RequestInfo("b", extra=[b"explain", b"True"])])
    return context


def run(name, context, *bodies, handle=lambda data, context: [item * 2 for item in data]):
    return wrapped(handle, name)([{"body": body} for body in bodies], context)


def test_body_hands_over_the_values_themselves(context):
    assert run("body", context, 1, "b") == [2, "bb"]
    assert wrapped(lambda data, context: data, "body")([{"data": 1}], context) == [1]


@pytest.mark.parametrize("name", ["json", "kserve"])
def test_instances_of_all_requests_run_together_and_go_back_to_theirs(context, name):
    seen = []

    def handle(data, context):
        seen.append(data)
        return [item * 2 for item in data]

    bodies = [{"instances": [1, {"b64": "AAE="}]}, bytearray(b'{"instances": [3]}')]
    answers = run(name, context, *bodies, handle=handle)
    assert seen == [[1, b"\x00\x01", 3]]
    assert answers == [{"predictions": [2, b"\x00\x01\x00\x01"]}, {"explanations": [6]}]


def test_a_single_request_may_get_more_results_than_it_has_instances(context):
    assert run("kserve", context, {"instances": [1]}, handle=lambda d, c: [1, 2]) == [{"predictions": [1, 2]}]
    with pytest.raises(HandlerFault, match="3 results for 2 items of 2 requests"):
        run("kserve", context, {"instances": [1]}, {"instances": [1]}, handle=lambda d, c: [1, 2, 3])


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("json", [1], "JSON object with 'instances'"),
        ("json", {"instances": 3}, "'instances' as a list"),
        ("json", bytearray(b"{"), "got no JSON"),
        ("json", {"instances": [{"b64": "%"}]}, "no base64"),
        ("kservev2", {"inputs": [3]}, "must be an object"),
        ("kservev2", {"inputs": [{"name": "x", "datatype": "FP99", "data": [1]}]}, "datatype 'FP99'"),
        ("kservev2", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1]}]}, "does not fit"),
    ],
)
def test_what_is_no_such_envelope_is_refused(context, name, body, said):
    with pytest.raises(InvalidData, match=said):
        run(name, context, body)


def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def test_tensors_of_v2(context):
    seen = []

    def handle(data, context):
        seen.extend(data)
        return [np.array([[1, 2]]), "text"] if len(data) == 2 else [0.5]

    body = {"id": "42", "inputs": [tensor("x", "FP32", [2, 1], [1, 2]), tensor("t", "BYTES", [1], ["hello"])]}
    (answer,) = run("kservev2", context, body, handle=handle)
    assert seen[0].dtype == np.float32
    assert seen[0].tolist() == [[1.0], [2.0]]
    assert seen[1] == "hello"
    assert context.input_names == ["x", "t"]
    assert context.input_request_id == "42"
    assert answer == {
        "id": "42",
        "model_name": "m",
        "model_version": "2.0",
        "outputs": [tensor("x", "INT64", [1, 2], [1, 2]), tensor("t", "BYTES", [1], ["text"])],
    }


def test_v2_requests_that_were_batched_keep_their_ids(context):
    bodies = [{"id": name, "inputs": [tensor(name, "INT64", [1], [at])]} for at, name in enumerate("xy")]
    del bodies[1]["id"]
    first, second = run("kservev2", context, *bodies)
    assert first["id"] == "x"
    assert second["id"] == "b"
    assert second["outputs"] == [tensor("y", "INT64", [1], [2])]


def test_what_is_no_list_is_left_for_the_loop_to_refuse(context):
    for name in ENVELOPES:
        body = {"instances": [1], "inputs": [tensor("x", "INT64", [1], [1])]}
        assert run(name, context, body, handle=lambda data, context: None) is None
