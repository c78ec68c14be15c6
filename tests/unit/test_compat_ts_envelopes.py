"""The envelopes of TorchServe's handlers: rows of its form in, answers of its form out, one for each request."""

import json

import pytest
from ts_modules import asked, context_of, module

from marserve.archive.manifest import Manifest
from marserve.worker.loader import load_entry
from marserve.worker.steps import NoSteps


def envelope(name, cls, handle):
    return getattr(module(f"torch_handler.request_envelope.{name}"), cls)(handle)


@pytest.fixture
def context(tmp_path):
    return asked(context_of(tmp_path), count=2)


def test_bodies_alone(context):
    run = envelope("body", "BodyEnvelope", lambda rows, context: [row * 2 for row in rows])

    assert run.handle([{"data": "a"}, {"body": "b"}], context) == ["aa", "bb"]
    assert run.handle([], context) == []


def test_instances_of_several_requests_make_one_batch(context):
    batches = []

    def handle(rows, context):
        batches.append(rows)
        return [row * 2 for row in rows]

    run = envelope("json", "JSONEnvelope", handle)
    found = run.handle([{"body": {"instances": [1]}}, {"data": b'{"instances": [2, 3]}'}], context)

    assert batches == [[1, 2, 3]]
    assert found == ['{"predictions": [2]}', '{"predictions": [4, 6]}']


def test_base64_stands_for_bytes(context):
    run = envelope("json", "JSONEnvelope", lambda rows, context: [str(row) for row in rows])
    rows = [{"instances": [{"b64": "YQ=="}, {"image": {"b64": "YQ=="}, "n": 1}]}]

    (answer,) = run.handle(rows, context)

    assert json.loads(answer)["predictions"] == ["b'a'", "{'image': b'a', 'n': 1}"]


def test_a_subclass_opens_and_closes_each_request_in_its_own_way(context):
    class Mine(module("torch_handler.request_envelope.json").JSONEnvelope):
        def _from_json(self, data):
            return data["body"]["rows"]

        def _to_json(self, output):
            return {"found": output}

    bodies = [{"body": {"rows": [1, 2]}}, {"body": {"rows": [3]}}]

    assert Mine(lambda rows, context: rows).handle(bodies, context) == [{"found": [1, 2]}, {"found": [3]}]


def test_kserve_version_1(context):
    run = envelope("kserve", "KServeEnvelope", lambda rows, context: [row["data"] for row in rows])
    rows = [{"body": {"instances": [{"data": 1}]}}, {"body": b'{"instances": [{"data": 2}, {"data": 3}]}'}]

    assert run.handle(rows, context) == [{"predictions": [1]}, {"predictions": [2, 3]}]
    asked(context, b"explain", b"True")
    assert run.handle(rows[:1], context) == [{"explanations": [1]}]


def test_kserve_version_2(context):
    seen = []

    def handle(rows, context):
        seen.extend((row["data"], name) for row, name in zip(rows, context.input_names, strict=True))
        return [1, [2.5, 3.5], "text"]

    first = {"id": "mine", "inputs": [{"name": "a", "shape": [2, 1], "datatype": "INT64", "data": [1, 2]}]}
    second = {
        "inputs": [
            {"name": "b", "shape": [1], "datatype": "FP32", "data": [0.5]},
            {"name": "c", "shape": [1], "datatype": "BYTES", "data": ["aGk="]},
        ]
    }
    run = envelope("kservev2", "KServev2Envelope", handle)

    found = run.handle([{"body": first}, {"body": json.dumps(second).encode()}], context)

    assert seen == [([[1], [2]], "a"), ([0.5], "b"), ("aGk=", "c")]
    assert [(each["id"], each["model_name"], each["model_version"]) for each in found] == [
        ("mine", "m", "1.0"),
        ("id1", "m", "1.0"),
    ]
    assert found[0]["outputs"] == [{"name": "a", "datatype": "INT64", "data": [1], "shape": [1]}]
    assert found[1]["outputs"] == [
        {"name": "b", "datatype": "FP64", "data": [2.5, 3.5], "shape": [2]},
        {"name": "c", "datatype": "BYTES", "data": ["text"], "shape": [1]},
    ]
    assert not hasattr(context, "input_names")


def test_kserve_version_2_has_no_names_for_more_outputs_than_inputs(context):
    one = {"inputs": [{"name": "a", "shape": [1], "datatype": "INT64", "data": [1]}]}

    with pytest.raises(ValueError, match="2 outputs, and 1 inputs"):
        envelope("kservev2", "KServev2Envelope", lambda rows, context: [1, 2]).handle([{"body": one}], context)


def test_an_envelope_of_the_authors_own(context):
    base = module("torch_handler.request_envelope.base").BaseEnvelope

    class Halved(base):
        def parse_input(self, data):
            return [row["body"] / 2 for row in data]

        def format_output(self, data):
            return [{"half": value} for value in data]

    assert Halved(lambda rows, context: rows).handle([{"body": 3}], context) == [{"half": 1.5}]


@pytest.mark.parametrize(
    ("base", "row"), [("BaseHandler", '{"predictions": ["a"]}'), ("object", {"predictions": ["a"]})]
)
def test_a_service_of_torchserves_classes_gets_torchserves_envelope(tmp_path, monkeypatch, base, row):
    module("torch_handler.base_handler")
    (tmp_path / f"svc_{base}.py").write_text(
        f"""
from ts.torch_handler.base_handler import BaseHandler

class Mine({base}):
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return data
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    context = context_of(tmp_path)

    entry = load_entry(tmp_path, Manifest(), f"svc_{base}.py", context, NoSteps(), "json")

    assert entry.handle([{"body": {"instances": ["a"]}}], context) == [row]
