"""A request's parts as the row that a service gets, and a service's value as the bytes of an answer.

Three styles: ``native``, ``torchserve``, ``mms``. The old servers' styles use the standard library's ``json``
both ways. Native uses ``orjson`` where it is installed and where its result is proven to be the standard
library's: an answer never depends on what is installed.
Source: contracts of TorchServe ("How a request body becomes data", "How handler output becomes the response")
and Multi Model Server.
"""

from __future__ import annotations

import enum
import json
import re
import sys
import uuid
from io import BytesIO
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from marserve.errors import BadRequest, HandlerFault
from marserve.service.forms import FORM_TYPES, read_form

NATIVE, TORCHSERVE, MMS = "native", "torchserve", "mms"

JSON_TYPE = b"application/json"
TEXT_TYPE = b"text/plain; charset=utf-8"
BINARY_TYPE = b"application/octet-stream"

Bytes = Union[bytes, bytearray, memoryview]
Part = Tuple[bytes, bytes, Bytes]
#: A value that JSON can say.
Json = Any


def _find_orjson() -> Any:
    """Return the module orjson, or None: a worker's own interpreter need not have it."""
    try:
        import orjson
    except ImportError:
        return None
    return orjson


orjson = _find_orjson()

#: Digits become 0, all else a blank: a search for nineteen zeros then finds every number that could pass 64 bits.
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG_NUMBER = b"0" * 19
_DIGITS_AND_E = bytes(48 if 48 <= byte <= 57 else byte if byte == 101 else 32 for byte in range(256))
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
#: A body with fewer opening brackets than this cannot pass either parser's limit of nesting.
_DEEP = 200
#: Floats that orjson may write otherwise than Python does: exponents, and zeros behind the point.
_ODD_FLOAT = re.compile(rb"-?\d+(?:\.\d+)?e[-+]?\d+|(?<!\d)-?0\.0000\d+")


def decode(parts: Sequence[Part], decode_input: bool = True, style: str = NATIVE) -> Dict[str, Any]:
    """Return the row of a request: one entry a part, or a form's field.

    ``application/json`` is parsed, ``text/…`` becomes str, everything else a bytearray. With ``decode_input``
    off every value is a bytearray, but a form is still taken apart.

    Raises:
        BadRequest: a form that cannot be taken apart; in native style also JSON that does not parse. The old
            servers' styles hand such JSON on as raw bytes.
    """
    if len(parts) == 1 and decode_input and parts[0][1] == JSON_TYPE and parts[0][0] == b"body":
        return {"body": _decode_json(parts[0][2], style)}
    row: Dict[str, Any] = {}
    for name, content_type, body in spread(parts):
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
                row[name.decode("utf-8", "replace")] = _decode_text(body)
                continue
        row[name.decode("utf-8", "replace")] = body if type(body) is bytearray else bytearray(body)
    return row


def spread(parts: Sequence[Part]) -> Sequence[Part]:
    """Return the parts with each form replaced by one part a field; a plain request comes back as it is.

    Raises:
        BadRequest: a form that cannot be taken apart.
    """
    if not any(b"form" in part[1].lower() for part in parts):
        return parts
    fields: List[Part] = []
    for part in parts:
        if part[0] == b"body" and part[1].partition(b";")[0].strip().lower() in FORM_TYPES:
            fields.extend(read_form(part[1], bytes(part[2])))
        else:
            fields.append(part)
    return fields


def _decode_text(body: Bytes) -> str:
    """Return a text body; always UTF-8, as the old servers read it."""
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"The body's content type is text, but byte {error.start} is no UTF-8.",
            "Send UTF-8, or application/octet-stream.",
        ) from error


def _decode_json(body: Bytes, style: str) -> Json:
    try:
        return loads(body) if style == NATIVE else _loads_standard(body)
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


def loads(body: Bytes) -> Json:
    """Parse JSON as the standard library does, with orjson where that cannot make a difference.

    Raises:
        ValueError: the body is no JSON.
        RecursionError: it is nested too deeply.
    """
    if orjson is not None and (len(body) < 19 or _is_harmless(body)):
        try:
            return orjson.loads(body)
        except ValueError:
            pass  # NaN, lone surrogates, another encoding, or no JSON at all: the standard library decides
    return _loads_standard(body)


_decode_text_json = json.JSONDecoder().decode


def _loads_standard(body: Bytes) -> Json:
    """Return ``json.loads(body)``, without its search for the encoding where the first bytes show UTF-8."""
    start = bytes(body[:4])
    if start[:1] in (b"{", b"[") and 0 not in start:
        try:
            return _decode_text_json(str(body, "utf-8"))
        except UnicodeDecodeError:
            pass  # json lets lone surrogates pass
    return json.loads(bytes(body))


def _is_harmless(body: Bytes) -> bool:
    """Whether orjson would read the body as the standard library does: no long integer, no deep nesting."""
    if type(body) is memoryview:
        body = bytes(body)
    if _LONG_NUMBER in body.translate(_DIGITS):
        return False
    if body.count(b"[") + body.count(b"{") < _DEEP:
        return True
    brackets = body.translate(None, _NOT_BRACKETS)
    for _ in range(8):  # each round takes the innermost level away
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return len(brackets) < _DEEP


def dumps(value: Json) -> bytes:
    """Return compact JSON in UTF-8, as the standard library writes it with ``ensure_ascii=False``.

    Beyond what ``json`` knows: numpy arrays and scalars and tensors are written as lists and numbers, UUIDs as
    text, enumerations as their value. NaN and infinities are written as Python does.

    Raises:
        TypeError, ValueError, RecursionError: the value cannot be said in JSON.
    """
    if orjson is None:
        return _dumps_standard(value)
    try:
        out: bytes = orjson.dumps(value, to_plain, _ORJSON_OPTIONS)
    except TypeError:
        return _dumps_standard(value)  # a long integer, a key that is no text, a subclass, or nothing sendable
    if b"null" in out:
        return _dumps_standard(value)  # None, or a NaN that orjson turned into null
    if b"0.0000" in out or (b"e" in out and b"0e" in out.translate(_DIGITS_AND_E)):
        if b'"' in out:
            return _dumps_standard(value)
        return _ODD_FLOAT.sub(_as_python_writes, out)  # numbers only: nothing else can look like one
    return out


_ORJSON_OPTIONS = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
    if orjson is not None
    else 0
)


def _as_python_writes(match: "re.Match[bytes]") -> bytes:
    return repr(float(match.group())).encode()


def _dumps_standard(value: Json) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=to_plain).encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8; its escape has
        return json.dumps(value, separators=(",", ":"), default=to_plain).encode()


def dumps_indented(value: Json) -> bytes:
    """Return ``json.dumps(value, indent=2)`` in ASCII, three times as fast for what consists of plain types.

    Raises:
        TypeError, ValueError, RecursionError: as ``json.dumps``.
    """
    try:
        return _indented(value, "\n").encode("ascii")
    except (_NotPlain, RecursionError):
        return json.dumps(value, indent=2).encode("ascii")


class _NotPlain(Exception):
    """A value, or a key, that is left to the standard library."""


_quoted = json.encoder.encode_basestring_ascii
_WORDS = {True: "true", False: "false", None: "null"}


def _indented(value: Json, line: str) -> str:
    """Return JSON text; ``line`` is a line feed and the blanks before the closing bracket."""
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if kind is int:
        return repr(value)
    if kind is float and value - value == 0:  # neither NaN nor infinite
        return repr(value)
    if kind is bool or value is None:
        return _WORDS[value]
    inner = line + "  "
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise _NotPlain
        lines = [f"{inner}{_quoted(key)}: {_indented(item, inner)}" for key, item in value.items()]
        return "{" + ",".join(lines) + line + "}" if lines else "{}"
    if kind is list or kind is tuple:
        lines = [inner + _indented(item, inner) for item in value]
        return "[" + ",".join(lines) + line + "]" if lines else "[]"
    raise _NotPlain


def to_plain(value: object) -> Json:
    """Return what JSON can say of a value that ``json`` does not know.

    Raises:
        TypeError: nothing can be said of it.
    """
    for module, names in (("numpy", ("ndarray", "generic")), ("torch", ("Tensor",))):
        if isinstance(value, _loaded(module, names)):
            return value.tolist()  # type: ignore[attr-defined]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be said in JSON")


def _loaded(module: str, names: Sequence[str]) -> Tuple[type, ...]:
    """Return classes of a library if anybody has imported it: without, no value can be an instance."""
    library = sys.modules.get(module)
    return tuple(getattr(library, name) for name in names if hasattr(library, name))


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
        if isinstance(value, _loaded("torch", ("Tensor",))):
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
        return None if plain is None else _find_unsendable(plain(value), path, plain, depth + 1)
    except TypeError:
        return path, type(value).__name__
