"""Inputs are checked against a signature, and refused with what was expected and what came."""

import math

import numpy as np
import pytest

from marserve.archive.tensors import TensorSpec
from marserve.errors import InvalidData
from marserve.service.inputs import Inputs


def inputs(*specs, **more):
    return Inputs([TensorSpec(*spec) if isinstance(spec, tuple) else spec for spec in specs], **more)


TEN = inputs(("x", (10,), "float32"))
ONE = inputs(TensorSpec("n", (), "int64", minimum=0, maximum=1022))
IMAGE = inputs(TensorSpec("body", (8, 8), "float32", "image/*"))


def numbers(count):
    return [0.5] * count


@pytest.mark.parametrize(
    "row",
    [
        {"body": {"x": numbers(10), "parameters": {}}},
        {"body": {"x": [numbers(10)]}},  # a batch of one
        {"body": numbers(10)},  # the only input is the whole body
        {"data": {"x": numbers(10)}},
        {"x": bytearray(b"[1,2,3,4,5,6,7,8,9,10]")},  # a form's field
        {"body": bytearray(b'{"x": [1,2,3,4,5,6,7,8,9,10]}')},  # JSON that did not say so
    ],
)
def test_an_input_is_found_where_clients_put_it(row):
    TEN.check(row)
    (array,) = TEN.arrays(row)
    assert array.shape == (10,)
    assert array.dtype == np.float32


@pytest.mark.parametrize(
    ("checker", "row", "said"),
    [
        (TEN, {"body": {"x": [numbers(9)]}}, "input 'x': expected float32 of shape (10,), got shape (1, 9)."),
        (TEN, {"body": {"x": 1}}, "expected float32 of shape (10,), got 1."),
        (TEN, {"body": {"x": [numbers(10), numbers(9)]}}, "got rows of different lengths."),
        (TEN, {"body": {"x": [1, [2]]}}, "got rows of different lengths."),
        (TEN, {"body": {"x": [*numbers(9), "1"]}}, "got text."),
        (TEN, {"body": {"x": [*numbers(9), None]}}, "got null."),
        (TEN, {"body": {"x": [*numbers(9), True]}}, "got true or false."),
        (TEN, {"body": {"x": {}}}, "got an object."),
        (TEN, {"body": {"y": 1}}, "input 'x' is missing: expected float32 of shape (10,), the request has 'y'."),
        (TEN, {"body": {}}, "the request has nothing."),
        (TEN, {"y": bytearray(b"1")}, "the request has 'y'."),
        (TEN, {"body": bytearray()}, "got an empty body."),
        (TEN, {"body": bytearray(b"\x89PNG")}, "got 4 bytes that are no JSON."),
        (TEN, {"body": None}, "is missing"),
        (ONE, {"body": {"n": 1023}}, "input 'n': expected a single int64 from 0 up to 1022, got 1023."),
        (ONE, {"body": {"n": -1}}, "got -1."),
        (ONE, {"body": {"n": 1.5}}, "got 1.5."),
        (ONE, {"body": {"n": math.nan}}, "got nan."),
        (ONE, {"body": {"n": math.inf}}, "got inf."),
        (ONE, {"body": {"n": "14"}}, "got text."),
        (ONE, {"body": {"n": 2**70}}, f"got {2**70}."),
        (ONE, {"body": {"n": [1, 2]}}, "got shape (2,)."),
        (IMAGE, {"body": {"b64": "%"}}, "expected float32 of shape (8, 8), or image/*, got text that is no base64"),
        (IMAGE, {"body": "text"}, "got text."),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_expected(checker, row, said):
    for call in (checker.check, checker.arrays):
        with pytest.raises(InvalidData) as caught:
            call(row)
        assert said in caught.value.message


@pytest.mark.parametrize("data_type", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_every_integer_type_has_its_range(data_type):
    info = np.iinfo(data_type)
    checker = inputs(("n", (2,), data_type))
    (array,) = checker.arrays({"body": {"n": [int(info.min), int(info.max)]}})
    assert array.tolist() == [info.min, info.max]
    for beyond in (int(info.min) - 1, int(info.max) + 1):
        with pytest.raises(InvalidData, match=str(beyond)):
            checker.arrays({"body": {"n": [0, beyond]}})


def test_whole_floats_are_integers():
    assert ONE.arrays({"body": {"n": 3.0}})[0].tolist() == 3


def test_free_dimensions_take_any_size_and_are_named_any():
    free = inputs(("x", (0, 3), "float32"))
    assert free.arrays({"body": {"x": [[1, 2, 3]] * 5}})[0].shape == (5, 3)
    with pytest.raises(InvalidData, match=r"shape \(any, 3\), got shape \(5, 2\)"):
        free.check({"body": {"x": [[1, 2]] * 5}})
    empty = inputs(("x", (0,), "int64"))
    assert empty.arrays({"body": {"x": []}})[0].shape == (0,)


def test_a_number_beyond_float32_becomes_infinite():
    one = inputs(("x", (), "float32"))
    for number in (1e300, 10**40):
        assert one.arrays({"body": number})[0] == np.inf
    with pytest.raises(InvalidData, match="an integer that no float can hold"):
        one.arrays({"body": 10**400})


def test_several_inputs_come_in_the_signatures_order():
    both = inputs(("b", (), "int64"), ("a", (2,), "string"), ("c", (), "bool"))
    b, a, c = both.arrays({"body": {"a": ["x", "y"], "b": 1, "c": True}})
    assert (b.tolist(), a.tolist(), c.tolist()) == (1, ["x", "y"], True)
    with pytest.raises(InvalidData, match="'b' is missing"):
        both.check({"body": [1]})
    with pytest.raises(InvalidData, match="a single bool, got int"):
        both.check({"body": {"a": ["x", "y"], "b": 1, "c": 1}})


def test_encoded_values_pass_by_themselves_in_base64_and_as_numbers():
    for row in ({"body": bytearray(b"\x89PNG")}, {"body": {"b64": "iVBORw=="}}):
        IMAGE.check(row)
        assert IMAGE.arrays(row)[0].item() == b"\x89PNG"
    assert IMAGE.arrays({"body": [[1] * 8] * 8})[0].shape == (8, 8)
    blob = inputs(("file", (), "bytes"))
    assert blob.arrays({"file": bytearray(b"\x00")})[0].item() == b"\x00"
    with pytest.raises(InvalidData, match="a single bytes, got list"):
        blob.check({"body": {"file": [1]}})


def test_open_types_are_not_looked_into():
    inputs(("anything", (), "json")).check({"body": {"anything": {"a": [1, "x"]}}})


def test_shapes_with_the_batch_first_make_arrays_and_refuse_nothing_beforehand():
    loose = inputs(("x", (1, 2), "float32"), is_batch_first=True)
    assert loose.can_refuse is False
    assert loose.arrays({"body": {"x": [1, 2]}})[0].shape == (2,)
    assert TEN.can_refuse is True


def test_large_nested_lists_are_checked_whole():
    picture = inputs(("x", (3, 32, 32), "uint8"))
    value = [[[255] * 32 for _ in range(32)] for _ in range(3)]
    assert picture.arrays({"body": value})[0].shape == (3, 32, 32)
    value[2][31][31] = 256
    with pytest.raises(InvalidData, match="got 256"):
        picture.check({"body": value})
    value[2][31] = [0] * 31
    with pytest.raises(InvalidData, match="different lengths"):
        picture.check({"body": value})
