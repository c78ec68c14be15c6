"""The one field of a form that the server reads itself: the model's name, found without decoding the rest."""

from types import SimpleNamespace

import pytest

from marserve.doors.http import inference

URLENCODED = b"application/x-www-form-urlencoded; charset=utf-8"


def field(body: bytes, content_type: bytes = URLENCODED) -> str | None:
    return inference._form_field(SimpleNamespace(body=lambda: body), content_type, b"model_name")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"model_name=a", "a"),
        (b"x=1&model_name=a%2Fb+c&y=2", "a/b c"),
        (b"model_name=first&model_name=second", "first"),
        (b"my_model_name=a", None),
        (b"x=model_name=a", None),
        (b"x=1&model_name=", ""),
        (b"data=" + b"%41" * 1000, None),
        (b"model_name=" + b"a" * 10_000, "a" * inference.LONGEST_NAME),
    ],
)
def test_the_field_of_a_form_in_one_line(body: bytes, found: str | None) -> None:
    assert field(body) == found


def test_values_of_others_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    monkeypatch.setattr(inference, "unquote_to_bytes", lambda value: decoded.append(value) or value)

    assert field(b"data=%41%41&model_name=m&more=%41") == "m"
    assert decoded == [b"m"]


def test_a_form_in_parts_is_taken_apart_only_when_it_can_hold_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = b"multipart/form-data; boundary=b"
    part = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\nm\r\n'
    assert field(part % b"model_name" + b"--b--\r\n", kind) == "m"
    monkeypatch.setattr(inference, "read_form", None)
    assert field(part % b"data" + b"--b--\r\n", kind) is None
