"""The inputs of a request checked against a signature, and turned into numpy arrays when asked.

A shape is that of one request's value; a leading dimension of 1 beyond it is let pass, since many clients send
a batch of one. An entry of 0 is free. An integer input takes 3.0 but not 3.5. What a request holds beside the
signature's inputs is ignored.

Shapes in the form of Multi Model Server, and those of a model file, begin with the batch dimension and say what
the model takes, which need not be what a request holds: such inputs are used to make arrays, not to refuse.
"""

from __future__ import annotations

import base64
import binascii
import json
from itertools import chain
from typing import TYPE_CHECKING, Any, Dict, List, NoReturn, Optional, Protocol, Sequence, Set, Tuple, Union

from marserve.errors import InvalidData

if TYPE_CHECKING:
    import numpy

#: An input of this name is the whole body. Source: ``archive/signature.py``.
WHOLE_BODY = "body"

#: Least and greatest number of each integer type.
_RANGES = {f"uint{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)}
_RANGES.update({f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)})

#: Python types of one element, by data type; a type that is not listed is a float's.
_KINDS: Dict[str, Set[type]] = {"bool": {bool}, "string": {str}, **{name: {int, float} for name in _RANGES}}
#: Data types that are handed on unchecked.
_OPEN_TYPES = ("json", "scores")
#: Data types whose arrays are of another type.
_ARRAY_TYPES = {"bfloat16": "float32", "string": "object", "bytes": "object", "json": "object", "scores": "object"}

_ARTICLES = {
    str: "text",
    type(None): "null",
    bool: "true or false",
    bytearray: "bytes",
    bytes: "bytes",
    dict: "an object",
}


class Spec(Protocol):
    """What a signature says of one input: ``archive.signature.TensorSpec``, or a model file's own words."""

    @property
    def name(self) -> str:
        """The input's name."""

    @property
    def shape(self) -> Tuple[int, ...]:
        """Its dimensions, 0 for a free one."""

    @property
    def data_type(self) -> str:
        """``float32`` and the like."""

    @property
    def content_type(self) -> Optional[str]:
        """The content type in which it may also be sent as it is, encoded."""

    @property
    def minimum(self) -> Optional[float]:
        """Its smallest value, itself allowed."""

    @property
    def maximum(self) -> Optional[float]:
        """Its largest value, itself allowed."""


class Row(Dict[str, Any]):
    """A request as a service gets it, and the arrays that the check has made of it (None: none yet)."""

    arrays: Optional[Tuple[numpy.ndarray, ...]] = None


class Input:
    """One input, with all that its check needs worked out once.

    Attributes:
        shape: the shape of one request's value, 0 for a free dimension.
        takes_bytes: whether the value may come as bytes that this module does not look into.
    """

    def __init__(self, spec: Spec, is_batch_first: bool) -> None:
        self.name = spec.name
        self.shape = tuple(spec.shape[1:] if is_batch_first else spec.shape)
        self.data_type = spec.data_type
        self.content_type = spec.content_type or ""
        self.takes_bytes = bool(self.content_type) or self.data_type in ("bytes", "string", *_OPEN_TYPES)
        self.array_type = _ARRAY_TYPES.get(self.data_type, self.data_type)
        self.minimum, self.maximum = spec.minimum, spec.maximum
        self._kinds = _KINDS.get(self.data_type, {int, float})
        self._range = _RANGES.get(self.data_type)

    @property
    def expected(self) -> str:
        """What a request has to send, in words."""
        sizes = ", ".join(str(size or "any") for size in self.shape)
        words = f"{self.data_type} of shape ({sizes}{',' if len(self.shape) == 1 else ''})"
        if not self.shape:
            words = f"a single {self.data_type}"
        low, high = self.minimum, self.maximum
        if low is not None or high is not None:
            words += f" from {low}" * (low is not None) + f" up to {high}" * (high is not None)
        return f"{words}, or {self.content_type}" if self.content_type else words

    def refuse(self, got: str) -> NoReturn:
        """Raise the error that names the input, what was expected and what came."""
        raise InvalidData(f"input {self.name!r}: expected {self.expected}, got {got}.")

    def raw(self, value: object) -> Optional[bytes]:
        """Return a value that came as encoded bytes, by itself or as ``{"b64": text}``; None if it did not.

        Raises:
            InvalidData: the text is no base64.
        """
        if not self.takes_bytes:
            return None
        if isinstance(value, (bytes, bytearray)):
            return bytes(value)
        if isinstance(value, dict) and list(value) == ["b64"] and self.data_type != "json":
            return self.from_base64(value["b64"])
        return None

    def from_base64(self, text: object) -> bytes:
        """Return the bytes of base64 text, with or without the ``data:`` prefix of a URL.

        Raises:
            InvalidData: it is no base64.
        """
        if not isinstance(text, str):
            self.refuse("base64 that is no text")
        try:
            return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
        except (binascii.Error, ValueError) as error:
            self.refuse(f"text that is no base64: {error}")

    def check(self, value: object) -> None:
        """Check a value without numpy.

        Raises:
            InvalidData: type, shape or range do not fit.
        """
        if self.takes_bytes and (self.data_type in _OPEN_TYPES or self.raw(value) is not None):
            return
        if self.data_type == "bytes":
            self.refuse(_in_words([value]))
        shape, leaves, kinds = self._flatten(value)
        if not kinds <= self._kinds:
            self.refuse(_in_words([leaf for leaf in leaves if type(leaf) not in self._kinds]))
        if shape != self.shape and not self._fits(shape):
            self.refuse(f"shape {shape}" if shape else repr(value))
        if leaves and self._range is not None:
            self._check_integers(leaves, kinds)
        if self.minimum is not None or self.maximum is not None:
            self._check_bounds(leaves)

    def _flatten(self, value: object) -> Tuple[Tuple[int, ...], List[Any], Set[type]]:
        """Return the shape of nested lists, their leaves and the leaves' types, in loops that run in C."""
        shape: List[int] = []
        leaves: List[Any] = value if type(value) is list else [value]
        if leaves is value:
            shape.append(len(leaves))
        while True:
            kinds = set(map(type, leaves))
            if list not in kinds and tuple not in kinds:
                return tuple(shape), leaves, kinds
            if not kinds <= {list, tuple} or len(set(map(len, leaves))) > 1:
                self.refuse("rows of different lengths")
            shape.append(len(leaves[0]))
            leaves = list(chain.from_iterable(leaves))

    def _fits(self, shape: Tuple[int, ...]) -> bool:
        """Whether a value of ``shape`` is one request's, with or without a batch dimension of 1."""
        if len(shape) == len(self.shape) + 1 and shape[0] == 1:
            shape = shape[1:]
        return len(shape) == len(self.shape) and all(size in (0, found) for size, found in zip(self.shape, shape))

    def _check_integers(self, leaves: List[Any], kinds: Set[type]) -> None:
        low, high = self._range or (0, 0)
        if float in kinds:
            for leaf in leaves:
                if leaf != leaf or leaf - leaf != 0 or leaf != int(leaf):  # NaN, an infinity, a fraction
                    self.refuse(repr(leaf))
        if min(leaves) < low or max(leaves) > high:
            self.refuse(repr(min(leaves) if min(leaves) < low else max(leaves)))

    def _check_bounds(self, leaves: List[Any]) -> None:
        low = float("-inf") if self.minimum is None else self.minimum
        high = float("inf") if self.maximum is None else self.maximum
        for leaf in leaves:
            if not low <= leaf <= high:
                self.refuse(repr(leaf))

    def array(self, value: object) -> numpy.ndarray:
        """Return a checked value as an array of the input's type and shape; bytes as a single object.

        Raises:
            InvalidData: type, shape or range do not fit.
        """
        import numpy as np

        self.check(value)
        raw = self.raw(value)
        if raw is not None:
            return np.array(raw, dtype=object)
        if self.array_type == "object":
            return np.asarray(value, dtype=object)
        try:
            with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, as in every framework
                array = np.asarray(value, dtype=self.array_type)
        except OverflowError:  # an integer of more than 308 digits
            self.refuse("an integer that no float can hold")
        return array[0] if array.ndim > len(self.shape) else array


class Inputs:
    """All inputs of a model, in their order.

    Args:
        specs: what the signature, or the model file, says of each.
        is_batch_first: whether the shapes begin with the batch dimension; see the module's first lines.
    """

    def __init__(self, specs: Sequence[Spec], is_batch_first: bool = False) -> None:
        self.all = [Input(spec, is_batch_first) for spec in specs]
        self.can_refuse = not is_batch_first

    def value(self, row: Dict[str, Any], wanted: Input) -> object:
        """Return the value of one input: an entry of a JSON body, a form's field, or the whole body.

        Raises:
            InvalidData: it is not there, or it is bytes where numbers are wanted and does not parse as JSON.
        """
        body = row.get("body")
        if body is None:
            body = row.get("data")
        if isinstance(body, (bytes, bytearray)) and not wanted.takes_bytes:
            body = _parsed(body, wanted)
        if body is not None and wanted.name == WHOLE_BODY:
            return body
        if isinstance(body, dict):
            if wanted.name in body:
                return body[wanted.name]
            raise _missing(wanted, body)
        if wanted.name in row:
            value = row[wanted.name]
            is_raw = isinstance(value, (bytes, bytearray)) and not wanted.takes_bytes
            return _parsed(value, wanted) if is_raw else value
        if body is None or len(self.all) != 1:
            raise _missing(wanted, row)
        return body

    def check(self, row: Dict[str, Any]) -> None:
        """Check every input of a row without numpy.

        Raises:
            InvalidData: an input is missing, or its type, shape or range does not fit.
        """
        for wanted in self.all:
            wanted.check(self.value(row, wanted))

    def arrays(self, row: Dict[str, Any]) -> Tuple[numpy.ndarray, ...]:
        """Return one array an input, each of the shape of one request's value.

        Raises:
            InvalidData: as ``check``.
        """
        return tuple([wanted.array(self.value(row, wanted)) for wanted in self.all])


def _parsed(body: Union[bytes, bytearray], wanted: Input) -> object:
    """Return JSON that came without saying so, as form fields do."""
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError):
        wanted.refuse(f"{len(body)} bytes that are no JSON" if body else "an empty body")


def _missing(wanted: Input, received: Dict[str, Any]) -> InvalidData:
    names = ", ".join(repr(name) for name in received) or "nothing"
    return InvalidData(f"input {wanted.name!r} is missing: expected {wanted.expected}, the request has {names}.")


def _in_words(values: Sequence[object]) -> str:
    """Say what the first of some values is."""
    return _ARTICLES.get(type(values[0]), type(values[0]).__name__)
