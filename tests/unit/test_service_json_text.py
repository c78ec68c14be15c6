"""JSON texts are the standard library's, to the byte, with orjson and without."""

import enum
import json
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marserve.service import json_text
from marserve.service.json_text import dumps, dumps_indented, loads


class Colour(enum.Enum):
    RED = "red"
    DEEP = 3


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.floats(min_value=-1e-3, max_value=1e-3),
    st.text(),
    st.text(st.characters(codec=None)),  # lone surrogates too
    st.uuids(),
    st.sampled_from([Colour.RED, Colour.DEEP, Level.LOW, Text("t"), np.float32(0.1), np.int64(7)]),
)
KEYS = st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner), max_leaves=20
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def on_both_roads(call, argument):
    """Return what ``call`` gives with orjson and without; an exception counts as its class."""
    found = []
    kept = json_text.orjson
    assert kept is not None, "these tests hold the two roads against each other: install orjson"
    try:
        for module in (kept, None):
            json_text.orjson = module
            try:
                found.append(call(argument))
            except (TypeError, ValueError, RecursionError) as error:
                found.append(type(error))
    finally:
        json_text.orjson = kept
    return found


def standard(value):
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=json_text.to_plain).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), default=json_text.to_plain).encode()


@settings(max_examples=500)
@given(VALUES)
def test_written_alike_with_orjson_and_without(value):
    fast, slow = on_both_roads(dumps, value)
    assert fast == slow == standard(value)


@settings(max_examples=300)
@given(st.lists(st.floats()) | st.dictionaries(st.text(), st.floats(min_value=-1e-3, max_value=1e-3)))
def test_floats_are_written_as_python_writes_them(value):
    assert dumps(value) == standard(value)


@settings(max_examples=500)
@given(VALUES.map(lambda value: standard(value)) | st.binary() | st.text().map(lambda text: text.encode("utf-16")))
def test_read_alike_with_orjson_and_without(body):
    fast, slow = on_both_roads(loads, body)
    assert repr(fast) == repr(slow)  # repr: NaN differs from itself, 1 equals 1.0


@pytest.mark.parametrize(
    "body",
    [
        b"18446744073709551616",
        b'{"a": [12345678901234567890123]}',
        b"-9223372036854775809  ",
        b"1e400",
        b'{"a": NaN, "b": -Infinity}',
        b'"\\ud800"',
        b"\xef\xbb\xbf[1]",
        "[1, 2]".encode("utf-32"),
        b"[" * 300 + b"]" * 300,
        b"[" * 1020 + b"]" * 1020,
        b"[[1],[2]]," * 500,
        b'["' + b"[{" * 500 + b'"]',
        b"-0",
        b"0.1e1",
        b'{"a": 1, "a": 2}',
        b"",
        b"nul",
    ],
)
def test_hard_bodies_are_read_as_the_standard_library_reads_them(body):
    try:
        expected = repr(json.loads(body))
    except (ValueError, RecursionError) as error:
        expected = repr(type(error))
    assert [repr(each) for each in on_both_roads(loads, body)] == [expected, expected]


def test_a_memoryview_is_read():
    assert loads(memoryview(b'{"a": [1, 2, 3], "b": "0123456789"}')) == {"a": [1, 2, 3], "b": "0123456789"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True]}, b'{"a":[1,2.5,null,true]}'),
        ("grün", '"grün"'.encode()),
        ([1e-5, 1e16, 0.00012, -2e-7, 10.00001], b"[1e-05,1e+16,0.00012,-2e-07,10.00001]"),
        ({"tiny": 1e-5}, b'{"tiny":1e-05}'),
        ({"1e5": 1.5}, b'{"1e5":1.5}'),
        (float("nan"), b"NaN"),
        ({1: "a", None: "b"}, b'{"1":"a","null":"b"}'),
        (2**80, b"1208925819614629174706176"),
        ("\ud800", b'"\\ud800"'),
        (np.array([[1, 2], [3, 4]], dtype=np.int32), b"[[1,2],[3,4]]"),
        ({"p": np.float32(0.5)}, b'{"p":0.5}'),
        (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        ([Colour.RED, Level.LOW], b'["red",1]'),
    ],
)
def test_native_text(value, text):
    assert on_both_roads(dumps, value) == [text, text]


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), {"a": b""}, {(1, 2): 3}])
def test_what_json_cannot_say_is_refused_on_both_roads(value):
    assert on_both_roads(dumps, value) == [TypeError, TypeError]


@settings(max_examples=300)
@given(PLAIN)
def test_indented_is_the_standard_librarys(value):
    assert dumps_indented(value) == json.dumps(value, indent=2).encode()


def test_indented_leaves_the_rest_to_the_standard_library():
    value = {1: [(), {}, [], Text("t"), Level.LOW, float("inf")], None: (1, [2])}
    assert dumps_indented(value) == json.dumps(value, indent=2).encode()
    with pytest.raises(TypeError):
        dumps_indented({"a": {1}})
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        dumps_indented(circle)
