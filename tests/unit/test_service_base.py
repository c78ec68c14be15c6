"""The base class: five steps that compose, and the way to an input."""

import pytest

from marserve.archive.tensors import TensorSpec
from marserve.service.base import InvalidData, Service
from marserve.service.context import Context
from marserve.service.inputs import Inputs


def test_the_steps_run_in_their_order():
    class Chain(Service):
        def preprocess(self, data):
            return [*data, "pre"]

        def inference(self, data):
            return [*data, "inf"]

        def postprocess(self, data):
            return [*data, "post"]

    assert Chain().handle([], None) == ["pre", "inf", "post"]


def test_steps_that_are_not_written_change_nothing():
    rows = [{"body": 1}]
    assert Service().handle(rows, None) is rows


def test_initialize_keeps_the_context():
    service, context = Service(), Context("m", "/m", {})
    service.initialize(context)
    assert service.context is context


def test_the_signature_checks_by_default():
    service = Service()
    service.check({"body": {}})  # nothing to hold it against
    service.inputs = Inputs([TensorSpec("n", (), "int64")])
    service.check({"body": {"n": 1}})
    with pytest.raises(InvalidData, match="'n' is missing"):
        service.check({"body": {}})


@pytest.mark.parametrize(
    ("row", "name", "value"),
    [
        ({"body": 1}, "", 1),
        ({"data": 1}, "", 1),
        ({"body": {"a": 1}}, "a", 1),
        ({"data": {"a": 1}}, "a", 1),
        ({"a": 1}, "a", 1),
        ({"a": 1, "body": bytearray()}, "a", 1),
        ({"body": bytearray(b'{"a": 1}')}, "a", 1),
        ({"body": {"a": 1}}, "body", {"a": 1}),
    ],
)
def test_an_inputs_value(row, name, value):
    assert Service.value(row, name) == value


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"body": {"b": 1}}, "'a' is missing, the request has 'b'"),
        ({}, "'a' is missing, the request has nothing"),
        ({"body": bytearray(b"\x00")}, "'a' is missing: expected a JSON object, got 1 bytes that are no JSON"),
    ],
)
def test_a_missing_input_is_named_with_what_came(row, said):
    with pytest.raises(InvalidData, match=said):
        Service.value(row, "a")
