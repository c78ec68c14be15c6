"""JSON texts, fast and the same everywhere: what is written and read never depends on what is installed.

The standard library's ``json`` is the measure. orjson is used where it is installed and where its result is
proven to be the same; tests hold both roads against each other.
"""

from __future__ import annotations

import enum
import json
import re
import sys
import uuid
from typing import Any, Sequence, Tuple, Union

Bytes = Union[bytes, bytearray, memoryview]
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
    return loads_standard(body)


_decode_text_json = json.JSONDecoder().decode


def loads_standard(body: Bytes) -> Json:
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
    except (TypeError, RecursionError):
        return json.dumps(value, indent=2).encode("ascii")


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
            raise TypeError("a key that is no text")
        lines = [f"{inner}{_quoted(key)}: {_indented(item, inner)}" for key, item in value.items()]
        return "{" + ",".join(lines) + line + "}" if lines else "{}"
    if kind is list or kind is tuple:
        lines = [inner + _indented(item, inner) for item in value]
        return "[" + ",".join(lines) + line + "]" if lines else "[]"
    raise TypeError(f"{kind.__name__} is left to the standard library")


def to_plain(value: object) -> Json:
    """Return what JSON can say of a value that ``json`` does not know.

    Raises:
        TypeError: nothing can be said of it.
    """
    for module, names in (("numpy", ("ndarray", "generic")), ("torch", ("Tensor",))):
        if isinstance(value, library_classes(module, names)):
            return value.tolist()  # type: ignore[attr-defined]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be said in JSON")


def library_classes(module: str, names: Sequence[str]) -> Tuple[type, ...]:
    """Return classes of a library if anybody has imported it: without, no value can be an instance."""
    library = sys.modules.get(module)
    return tuple(getattr(library, name) for name in names if hasattr(library, name))
