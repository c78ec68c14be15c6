"""A request's parts as the row that a service gets, and a service's value as the bytes of an answer.

Three styles: ``native``, ``torchserve``, ``mms``. The old servers' styles write JSON with an indentation of two
and no content type, native writes it compact; see ``json_text.py``.
Source: contracts of TorchServe ("How a request body becomes data", "How handler output becomes the response")
and Multi Model Server.
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from marserve.errors import BadRequest, HandlerFault
from marserve.service.forms import is_form, read_form
from marserve.service.json_text import (
    Bytes,
    Json,
    dumps,
    dumps_indented,
    library_classes,
    loads,
    loads_standard,
    to_plain,
)

NATIVE, TORCHSERVE, MMS = "native", "torchserve", "mms"

JSON_TYPE = b"application/json"
TEXT_TYPE = b"text/plain; charset=utf-8"
BINARY_TYPE = b"application/octet-stream"

Part = Tuple[bytes, bytes, Bytes]


def decode(parts: Sequence[Part], decode_input: bool = True, style: str = NATIVE) -> Dict[str, Any]:
    """Return the row of a request: one entry a part, or a form's field.

    ``application/json`` is parsed, ``text/…`` becomes str, everything else a bytearray. With ``decode_input``
    off every value is a bytearray, but a form is still taken apart.

    Raises:
        BadRequest: a form that cannot be taken apart; in native style also JSON that does not parse and text
            that is no UTF-8. The old servers' styles hand these on as raw bytes.
    """
    if len(parts) == 1 and decode_input and parts[0][1] == JSON_TYPE and parts[0][0] == b"body":
        return {"body": _decode_json(parts[0][2], style)}
    row: Dict[str, Any] = {}
    for name, content_type, body in spread(parts, is_strict=style == NATIVE):
        mime = content_type
        if decode_input and mime:
            if b";" in mime:
                mime = mime.partition(b";")[0].rstrip()
            if style == NATIVE:
                mime = mime.lower()
            if mime == JSON_TYPE:
                row[name.decode("utf-8", "replace")] = _decode_json(body, style)
                continue
            if mime.startswith(b"text"):
                row[name.decode("utf-8", "replace")] = _decode_text(body, style)
                continue
        row[name.decode("utf-8", "replace")] = body if type(body) is bytearray else bytearray(body)
    return row


def spread(parts: Sequence[Part], is_strict: bool = False) -> Sequence[Part]:
    """Return the parts with each form replaced by one part a field; a plain request comes back as it is.

    So does a multipart form that names no boundary, unless ``is_strict``: clients that send bytes under that
    content type were served by the old servers.

    Raises:
        BadRequest: a form that cannot be taken apart.
    """
    if not any(b"form" in part[1].lower() for part in parts):
        return parts
    fields: List[Part] = []
    for part in parts:
        if part[0] == b"body" and is_form(part[1], needs_boundary=not is_strict):
            fields.extend(read_form(part[1], bytes(part[2])))
        else:
            fields.append(part)
    return fields


def _decode_text(body: Bytes, style: str) -> Union[str, bytearray]:
    """Return a text body; always UTF-8, as the old servers read it."""
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError as error:
        if style != NATIVE:
            return bytearray(body)
        raise BadRequest(
            f"The body's content type is text, but byte {error.start} is no UTF-8.",
            "Send UTF-8, or application/octet-stream.",
        ) from error


def _decode_json(body: Bytes, style: str) -> Json:
    try:
        return loads(body) if style == NATIVE else loads_standard(body)
    except (ValueError, RecursionError) as error:
        if style != NATIVE:
            return bytearray(body)
        raise BadRequest(f"The body is not JSON: {_where(error, body)}.", _JSON_HINT) from error


_JSON_HINT = "Send JSON (RFC 8259), or another content type."


def _where(error: Exception, body: Bytes) -> str:
    """Say where JSON breaks and what was expected there."""
    if not len(body):
        return "it is empty"
    if isinstance(error, json.JSONDecodeError):
        found = error.doc[error.pos : error.pos + 1]
        said = f"got {found!r}" if found else "the body ends there"
        return f"line {error.lineno}, column {error.colno} (byte {_byte(error)}): {error.msg}, {said}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)


def _byte(error: json.JSONDecodeError) -> int:
    return len(error.doc[: error.pos].encode("utf-8", "surrogatepass"))


def encode(value: object, style: str = NATIVE) -> Tuple[bytes, bytes]:
    """Return an answer's body and content type (empty in the old servers' styles, which send none).

    Bytes are sent as they are, str as UTF-8, tensors by ``torch.save`` in the old servers' styles, everything
    else as JSON: compact in native style, with an indentation of two in the others.

    Raises:
        HandlerFault: the value cannot be sent; names its type and where in the value it stands.
    """
    kind = type(value)
    native = style == NATIVE
    if kind is bytes:
        return value, BINARY_TYPE if native else b""  # type: ignore[return-value]
    try:
        if kind is dict or kind is list:
            return (dumps(value), JSON_TYPE) if native else (dumps_indented(value), b"")
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value), BINARY_TYPE if native else b""
        if isinstance(value, str):
            return value.encode(), TEXT_TYPE if native else b""
        if native:
            return dumps(value), JSON_TYPE
        if isinstance(value, library_classes("torch", ("Tensor",))):
            return _saved(value), b""
        return dumps_indented(value), b""
    except (TypeError, ValueError, RecursionError) as error:
        raise _unsendable(value, error, to_plain if native else None) from error


def _saved(tensor: object) -> bytes:
    import torch

    buffer = BytesIO()
    torch.save(tensor, buffer)
    return buffer.getvalue()


def _unsendable(value: object, error: Exception, plain: Optional[Callable[[object], Json]]) -> HandlerFault:
    found = _find_unsendable(value, "", plain, 0)
    said = f"{found[1]} at result{found[0]}" if found else f"{type(value).__name__} ({error})"
    return HandlerFault(
        f"The service returned what cannot be sent: {said}.",
        "Return dicts with text keys, lists, numbers, text, bytes, or None.",
    )


def _find_unsendable(
    value: object, path: str, plain: Optional[Callable[[object], Json]], depth: int
) -> Optional[Tuple[str, str]]:
    """Return path and type of the first thing in ``value`` that JSON cannot say, None when there is none."""
    if depth > 100:  # a value that holds itself; the caller's error says so
        return None
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, int, float, type(None))):
                return f"{path}[{key!r}]", f"a key of type {type(key).__name__}"
            found = _find_unsendable(item, f"{path}[{key!r}]", plain, depth + 1)
            if found:
                return found
        return None
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            found = _find_unsendable(item, f"{path}[{index}]", plain, depth + 1)
            if found:
                return found
        return None
    if value is None or isinstance(value, (str, int, float)):
        return None
    try:
        if plain is not None:
            return _find_unsendable(plain(value), path, plain, depth + 1)
    except TypeError:
        pass
    return path, type(value).__name__
