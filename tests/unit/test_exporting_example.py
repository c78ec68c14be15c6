"""The example of an export: what the options make of it, and the inputs that are drawn like it."""

import json

import pytest
import torch

from marserve.errors import ConfigError
from marserve.exporting.example import DRAWN, read_example, with_fixed_batch


class Sum(torch.nn.Module):
    def forward(self, left, right=None):
        return left if right is None else left + right


def read(given="", shapes=(), data_types="", free=(), module=None):
    return read_example(module or Sum(), given, shapes, data_types, free)


def test_an_object_names_the_inputs_and_their_types_follow_the_values():
    example = read('{"a": [[1, 2]], "b": [[0.5]], "c": [true]}')
    assert example.names == ("a", "b", "c")
    assert [tensor.dtype for tensor in example.tensors] == [torch.int64, torch.float32, torch.bool]
    assert [tuple(tensor.shape) for tensor in example.tensors] == [(1, 2), (1, 1), (1,)]
    assert example.free == (frozenset({0}),) * 3


def test_a_list_is_the_only_input_and_is_called_as_forward_calls_it(tmp_path):
    file = tmp_path / "example.json"
    file.write_text("[[1.5]]")
    for given in ("[[1.5]]", f"@{file}"):
        assert read(given).names == ("left",)
    assert read("[[1.5]]").tensors[0].tolist() == [[1.5]]


def test_torchscript_and_modules_that_take_anything_have_names_too():
    class Anything(torch.nn.Module):
        def forward(self, *values):
            return values

    with pytest.warns(DeprecationWarning, match="torch.jit"):
        script = torch.jit.script(torch.nn.Linear(1, 1))
    assert read("[[1.5]]", module=script).names == ("input",)
    assert read(shapes=["1,2", "1,3"], module=Anything()).names == ("input_0", "input_1")


def test_a_shape_is_drawn_the_same_each_time():
    one, two = (read(shapes=["2,3", "other=2,1"], data_types="float32,int64") for _ in range(2))
    assert one.names == ("left", "other")
    assert [tuple(tensor.shape) for tensor in one.tensors] == [(2, 3), (2, 1)]
    assert [tensor.dtype for tensor in one.tensors] == [torch.float32, torch.int64]
    assert all(torch.equal(left, right) for left, right in zip(one.tensors, two.tensors, strict=True))
    assert set(one.tensors[1].flatten().tolist()) <= {0, 1}


def test_one_data_type_is_for_all():
    example = read('{"left": [[1]], "right": [[2]]}', data_types="float64")
    assert [tensor.dtype for tensor in example.tensors] == [torch.float64] * 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"given": "{cut"}, "--example is no JSON"),
        ({"given": "@/no/such"}, "/no/such cannot be read"),
        ({"given": "3"}, "neither an object of inputs nor a list"),
        ({"given": "[]"}, "neither an object of inputs nor a list"),
        ({"given": '{"x": [[1], [1, 2]]}'}, "example of 'x' is no array"),
        ({"given": '{"x": "text"}'}, "example of 'x' is no array"),
        ({"given": '{"x": 3}'}, "'x' holds no batch"),
        ({"given": '{"x": []}'}, "'x' holds no batch"),
        ({"given": '{"x": [1], "y": [1, 2]}'}, "differ in the size of their batch: x 1, y 2"),
        ({"given": '{"right": [1], "left": [1]}'}, "forward takes them as left, right"),
        ({"shapes": ["1,x"]}, "--example-shape 1,x is no shape"),
        ({"shapes": ["1,0"]}, "--example-shape 1,0 is no shape"),
        ({"shapes": ["x=1", "x=1"]}, "same name: x, x"),
        ({"given": "[[1]]", "data_types": "float"}, "--dtype float is no data type"),
        ({"given": "[[1]]", "data_types": "string"}, "--dtype string is no data type"),
        ({"given": "[[1]]", "data_types": "int8,int8"}, "--dtype names 2 types for 1 inputs"),
        ({"given": "[[1]]", "free": ["left:0"]}, "--free left:0 names no axis"),
        ({"given": "[[1]]", "free": ["left:2"]}, "--free left:2 names no axis"),
        ({"given": "[[1]]", "free": ["left"]}, "--free left names no axis"),
        ({"given": "[[1]]", "free": ["y:1"]}, "--free y:1 names no axis"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, reason):
    with pytest.raises(ConfigError) as caught:
        read(**options)
    assert reason in str(caught.value)
    assert caught.value.hint


def test_drawn_inputs_are_as_large_as_the_example_and_whole_numbers_keep_its_span():
    example = read(json.dumps({"left": [[200.0, -3.0]] * 2, "right": [[3, 9]] * 2}))
    asked = dict(example.to_compare())
    floats = torch.cat([asked[f"drawn input {number}"][0] for number in range(1, DRAWN + 1)])
    assert floats.min() < -100
    assert floats.max() > 100
    numbers = torch.cat([asked[f"drawn input {number}"][1] for number in range(1, DRAWN + 1)])
    assert set(numbers.flatten().tolist()) <= set(range(3, 10))
    assert len(set(numbers.flatten().tolist())) > 3


def test_other_sizes_are_asked_where_they_are_free():
    example = read("[[[1.5, 2.5]]]", free=["left:1"])
    shapes = {what: tuple(inputs[0].shape) for what, inputs in example.to_compare()}
    assert shapes["the example"] == shapes["drawn input 1"] == (1, 1, 2)
    assert {shapes["a batch of 1"], shapes["a batch of 3"]} == {(1, 1, 2), (3, 1, 2)}
    assert shapes["free axes longer by 3"] == (1, 4, 2)


def test_a_fixed_batch_is_asked_as_it_is():
    example = with_fixed_batch(read("[[1.5], [2.5]]"))
    assert {len(inputs[0]) for _, inputs in example.to_compare()} == {2}


def test_a_batch_of_one_is_doubled_for_the_exporters_unless_it_is_fixed():
    example = read("[[1.5]]")
    assert example.for_tracing()[0].tolist() == [[1.5], [1.5]]
    assert with_fixed_batch(example).for_tracing()[0].tolist() == [[1.5]]
    assert read("[[1.5], [2.5], [3.5]]").for_tracing()[0].tolist() == [[1.5], [2.5], [3.5]]


@pytest.mark.parametrize("data_type", ["bool", "uint8", "int16", "float16", "bfloat16"])
def test_inputs_of_any_type_can_be_drawn(data_type):
    example = read(shapes=["2,3"], data_types=data_type)
    kinds = {inputs[0].dtype for _, inputs in example.to_compare()}
    assert kinds == {getattr(torch, data_type)}
