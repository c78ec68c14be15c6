"""The signature that an export writes: what a request holds, and what a service of the library answers."""

import math

import pytest
import torch

from marserve.archive.signature import Signature
from marserve.errors import ModelError, SignatureError
from marserve.exporting.example import Example, with_fixed_batch
from marserve.exporting.signature import MOST_SHOWN, signature_of


def example(*tensors, free=()):
    names = tuple(f"in{at}" for at in range(len(tensors)))
    return Example(names, tensors, tuple(frozenset({0, *free}) for _ in tensors))


def test_inputs_and_outputs_are_told_without_the_batch():
    inputs = example(torch.tensor([[0.1, 2.0], [5.0, 6.0]]), torch.tensor([3, 4]))
    answer = {"boxes": torch.tensor([[[1, 2]], [[3, 4]]]), "is_there": torch.tensor([True, False])}
    raw = signature_of("a model", inputs, answer, [])
    assert raw == {
        "description": "a model",
        "inputs": [
            {"name": "in0", "shape": [2], "data_type": "float32", "example": [0.1, 2.0]},
            {"name": "in1", "shape": [], "data_type": "int64", "example": 3},
        ],
        "outputs": [
            {"name": "boxes", "shape": [1, 2], "data_type": "int64", "example": [[1, 2]]},
            {"name": "is_there", "shape": [], "data_type": "bool", "example": True},
        ],
    }
    assert Signature.parse(raw).example_input() == {"in0": [0.1, 2.0], "in1": 3}


def test_the_only_output_is_the_whole_answer():
    raw = signature_of("m", example(torch.ones(1, 2)), {"scores": torch.ones(1, 3)}, [])
    assert raw["outputs"][0]["name"] == "body"
    assert "'scores'" in raw["outputs"][0]["description"]
    assert Signature.parse(raw).answer_schema()["type"] == "array"


def test_axes_that_may_differ_are_free():
    inputs = example(torch.ones(1, 4, 2), free=[1])
    others = [{"y": torch.ones(3, 4, 5)}, {"y": torch.ones(1, 7, 5)}]
    raw = signature_of("m", inputs, {"y": torch.ones(1, 4, 5)}, others)
    assert raw["inputs"][0]["shape"] == [0, 2]
    assert raw["outputs"][0]["shape"] == [0, 5]


def test_large_examples_and_what_json_cannot_say_are_left_out():
    inputs = example(torch.ones(1, MOST_SHOWN + 1))
    raw = signature_of("m", inputs, {"a": torch.tensor([[1.0, math.nan]]), "b": torch.ones(1, MOST_SHOWN)}, [])
    assert "example" not in raw["inputs"][0]
    assert "example" not in raw["outputs"][0]
    assert len(raw["outputs"][1]["example"]) == MOST_SHOWN


@pytest.mark.parametrize("shape", [(), (2,), (1, 3)])
def test_an_output_that_does_not_begin_with_the_batch_cannot_be_served(shape):
    inputs = example(torch.ones(1, 2))
    others = [{"y": torch.ones(shape)}, {"y": torch.ones(shape)}]
    with pytest.raises(ModelError, match="'y' has shape"):
        signature_of("m", inputs, {"y": torch.ones(shape)}, others)


def test_with_a_fixed_batch_its_size_is_all_that_can_be_asked_for():
    inputs = with_fixed_batch(example(torch.ones(1, 2)))
    others = [{"y": torch.ones(1, 3)}]
    assert signature_of("m", inputs, {"y": torch.ones(1, 3)}, others)["outputs"][0]["shape"] == [3]


def test_a_type_that_no_signature_has_is_refused():
    with pytest.raises(SignatureError, match="complex64"):
        signature_of("m", example(torch.ones(1, 2)), {"y": torch.ones(1, 2, dtype=torch.complex64)}, [])
