"""Bodies become rows, values become bodies, in each style."""

import sys

import numpy as np
import pytest
import torch

from marserve.errors import BadRequest, HandlerFault
from marserve.service.codec import MMS, NATIVE, TORCHSERVE, decode, encode

OLD = [TORCHSERVE, MMS]
STYLES = [NATIVE, *OLD]


def body(content_type, data):
    return [(b"body", content_type, data)]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("content_type", "data", "value"),
    [
        (b"application/json", b'{"a": [1]}', {"a": [1]}),
        (b"application/json; charset=utf-8", b"3", 3),
        (b"text/plain", "grün".encode(), "grün"),
        (b"text/csv; header=absent", b"1,2", "1,2"),
        (b"", b"\x00\xff", bytearray(b"\x00\xff")),
        (b"application/octet-stream", b"{}", bytearray(b"{}")),
        (b"image/png", b"\x89PNG", bytearray(b"\x89PNG")),
    ],
)
def test_a_body_is_decoded_by_its_content_type(style, content_type, data, value):
    for held in (data, bytearray(data), memoryview(data)):
        row = decode(body(content_type, held), style=style)
        assert row == {"body": value}
        assert type(row["body"]) is type(value)


def test_letter_case_of_a_content_type_counts_for_the_old_servers_alone():
    assert decode(body(b"Application/JSON", b"1")) == {"body": 1}
    assert decode(body(b"Application/JSON", b"1"), style=MMS) == {"body": bytearray(b"1")}


@pytest.mark.parametrize("style", STYLES)
def test_without_decoding_everything_is_raw(style):
    assert decode(body(b"application/json", b"1"), False, style) == {"body": bytearray(b"1")}
    assert decode(body(b"text/plain", b"1"), False, style) == {"body": bytearray(b"1")}


@pytest.mark.parametrize("data", [b"", b"{", b'{"a": 1,}', b"\xff\xfe", b"[" * 100_000])
def test_malformed_json(data):
    for style in OLD:
        assert decode(body(b"application/json", data), style=style) == {"body": bytearray(data)}
    with pytest.raises(BadRequest, match="not JSON"):
        decode(body(b"application/json", data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b'{"a": 1,}', "line 1, column 9 (byte 8)"),
        ('{"ü": x}'.encode(), "byte 7): Expecting value, got 'x'"),
        (b"[1", "Expecting ',' delimiter, the body ends there"),
    ],
)
def test_malformed_json_is_told_where_and_what_was_expected(data, said):
    with pytest.raises(BadRequest) as caught:
        decode(body(b"application/json", data))
    assert said in caught.value.message


def test_text_that_is_no_utf8_is_refused():
    for style in OLD:
        assert decode(body(b"text/plain", b"a\xff"), style=style) == {"body": bytearray(b"a\xff")}
    with pytest.raises(BadRequest, match="byte 1 is no UTF-8"):
        decode(body(b"text/plain", b"a\xff"))


@pytest.mark.parametrize("style", STYLES)
def test_parts_by_name(style):
    parts = [(b"a", b"", b"1"), (b"b", b"application/json", b"[1]"), (b"a", b"text/plain", b"2")]
    assert decode(parts, style=style) == {"a": "2", "b": [1]}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("decode_input", [True, False])
def test_a_urlencoded_form(style, decode_input):
    row = decode(body(b"application/x-www-form-urlencoded", b"a=1+2%26&b=&a=last&%C3%BC=%FF"), decode_input, style)
    assert row == {"a": bytearray(b"last"), "b": bytearray(), "ü": bytearray(b"\xff")}


MULTIPART = (
    b"preamble\r\n--XX\r\n"
    b'Content-Disposition: form-data; name="plain"\r\nContent-Type: application/json\r\n\r\n[1]\r\n--XX\r\n'
    b'Content-Disposition: form-data; name="file"; filename="a.json"\r\nContent-Type: application/json\r\n\r\n'
    b"[1]\r\n--XX\r\n"
    b'Content-Disposition: form-data; name="raw"; filename="a \\"b\\".bin"\r\n\r\n\r\n--X\r\n\x00\xff\r\n\r\n--XX\r\n'
    b'Content-Disposition: form-data; name="raw2"; filename=x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhi'
    b"\r\n--XX--\r\nepilogue"
)


@pytest.mark.parametrize("style", STYLES)
def test_a_multipart_form_is_exact_to_the_byte(style):
    row = decode(body(b'multipart/form-data; boundary="XX"', MULTIPART), style=style)
    assert row == {
        "plain": bytearray(b"[1]"),  # what a plain field declares is ignored
        "file": [1],
        "raw": bytearray(b"\r\n--X\r\n\x00\xff\r\n"),
        "raw2": "hi",
    }


def test_a_form_without_a_boundary_is_refused_natively_alone():
    sent = body(b"multipart/form-data; charset=utf-8", MULTIPART)

    with pytest.raises(BadRequest, match="no boundary"):
        decode(sent)
    assert [decode(sent, style=style) for style in STYLES if style != NATIVE] == [{"body": bytearray(MULTIPART)}] * 2


@pytest.mark.parametrize(
    ("content_type", "data", "said"),
    [
        (b"multipart/form-data; boundary=YY", MULTIPART, "does not hold the boundary"),
        (b"multipart/form-data; boundary=XX", MULTIPART[:-20], "breaks off"),
        (b"multipart/form-data; boundary=XX", b"--XX\r\nX: y\r\n\r\nz\r\n--XX--", "no Content-Disposition"),
    ],
)
def test_a_broken_form_is_refused_with_the_reason(content_type, data, said):
    for style in STYLES:
        with pytest.raises(BadRequest, match=said):
            decode(body(content_type, data), style=style)


@pytest.mark.parametrize(
    ("value", "native", "old"),
    [
        (b"\x00", (b"\x00", b"application/octet-stream"), b"\x00"),
        (bytearray(b"a"), (b"a", b"application/octet-stream"), b"a"),
        ("grün", ("grün".encode(), b"text/plain; charset=utf-8"), "grün".encode()),
        ({"a": [1]}, (b'{"a":[1]}', b"application/json"), b'{\n  "a": [\n    1\n  ]\n}'),
        (["ü"], ('["ü"]'.encode(), b"application/json"), b'[\n  "\\u00fc"\n]'),
        (None, (b"null", b"application/json"), b"null"),
        (3, (b"3", b"application/json"), b"3"),
        (np.float64(0.5), (b"0.5", b"application/json"), b"0.5"),
    ],
)
def test_values_are_encoded_by_their_type(value, native, old):
    assert encode(value) == native
    for style in OLD:
        assert encode(value, style) == (old, b"")


def test_arrays_and_tensors_are_json_natively():
    assert encode(np.arange(3))[0] == b"[0,1,2]"
    assert encode({"t": torch.tensor([[0.5]])})[0] == b'{"t":[[0.5]]}'


def test_a_tensor_is_saved_in_the_old_styles(tmp_path):
    data, content_type = encode(torch.tensor([1.0, 2.0]), TORCHSERVE)
    (tmp_path / "t.pt").write_bytes(data)
    assert torch.load(tmp_path / "t.pt", weights_only=True).tolist() == [1.0, 2.0]
    assert content_type == b""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1, {"b": {1}}]}, "set at result['a'][1]['b']"),
        ({"a": b"x"}, "bytes at result['a']"),
        ({(1,): 2}, "a key of type tuple at result[(1,)]"),
        ([object()], "object at result[0]"),
        (1j, "complex at result"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_place(value, said):
    for style in STYLES:
        with pytest.raises(HandlerFault) as caught:
            encode(value, style)
        assert said in caught.value.message


def test_arrays_are_not_sendable_in_the_old_styles():
    with pytest.raises(HandlerFault, match=r"ndarray at result\[0\]"):
        encode([np.zeros(2)], MMS)


def test_a_value_that_holds_itself_is_refused():
    circle = []
    circle.append(circle)
    for style in STYLES:
        with pytest.raises(HandlerFault, match=r"cannot be sent: list"):
            encode(circle, style)


def test_text_without_utf8_is_refused():
    with pytest.raises(HandlerFault, match="surrogates"):
        encode("\ud800")


def test_a_library_that_nobody_imported_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    assert encode([1.5], NATIVE)[0] == b"[1.5]"
    assert encode(1.5, TORCHSERVE)[0] == b"1.5"
    assert "torch" not in sys.modules
