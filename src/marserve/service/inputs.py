"""The inputs of a request checked against a signature, and turned into numpy arrays when asked.

The first entry of a signature's shape is the batch dimension when it is 0 or 1: a request brings one item, so
for ``(1, 10)`` it may send ten numbers or one row of ten. Otherwise the shape is the item's own. An entry of 0
is free. ``true`` and ``false`` count as 1 and 0; an integer input takes 3.0 but not 3.5.
Source of the batch dimension's place: Multi Model Server's signature.json.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Dict, Iterator, NoReturn, Optional, Protocol, Sequence, Set, Tuple

from marserve.errors import InvalidData, SignatureError

if TYPE_CHECKING:
    import numpy

#: Least and greatest number of each integer type.
_INTEGER_RANGES = {
    f"{sign}int{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for bits in (8, 16, 32, 64)
    for sign in ("", "u")
}
_INTEGER_RANGES["bool"] = (0, 1)
_FLOATS = ("float16", "float32", "float64")
_TEXTS = ("string", "bytes")
_NUMBERS = {int, float, bool}


class Spec(Protocol):
    """What a signature says of one input."""

    @property
    def name(self) -> str:
        """The input's name."""

    @property
    def shape(self) -> Sequence[int]:
        """Its dimensions, 0 for a free one."""

    @property
    def data_type(self) -> str:
        """``float32`` and the like, or ``string``."""

    @property
    def content_type(self) -> str:
        """The content type that clients send it in, empty for any."""


class Row(Dict[str, Any]):
    """A request as a service gets it, and the arrays that the check has made of it (None: not yet)."""

    arrays: Optional[Tuple["numpy.ndarray", ...]] = None


class Input:
    """One input of a signature, with all that its check needs worked out once.

    Attributes:
        has_batch_axis: whether the shape begins with the batch dimension.
        item_shape: the shape of one item, 0 for a free dimension.
        takes_bytes: whether a value may be text or bytes that this module does not look into (images, text).
    """

    def __init__(self, spec: Spec) -> None:
        shape = tuple(spec.shape)
        self.name = spec.name
        self.data_type = spec.data_type or "float32"
        self.has_batch_axis = bool(shape) and shape[0] in (0, 1)
        self.item_shape = shape[1:] if self.has_batch_axis else shape
        self.is_image = spec.content_type.startswith("image/")
        self.takes_bytes = self.is_image or self.data_type in _TEXTS or spec.content_type.startswith("text/")
        self.range = _INTEGER_RANGES.get(self.data_type)
        if self.range is None and self.data_type not in _FLOATS + _TEXTS:
            raise SignatureError(
                f"Input {self.name!r} has the data type {self.data_type!r}.",
                f"Use one of {', '.join([*_FLOATS, *sorted(_INTEGER_RANGES), *_TEXTS])}.",
            )

    @property
    def expected(self) -> str:
        """What a request has to send, in words."""
        shape = (1, *self.item_shape) if self.has_batch_axis else self.item_shape
        sizes = ", ".join(str(size or "any") for size in shape) + ("," if len(shape) == 1 else "")
        return f"{self.data_type} of shape ({sizes})"

    def refuse(self, got: str) -> NoReturn:
        """Raise the error that names the input, what was expected and what came."""
        raise InvalidData(f"input {self.name!r}: expected {self.expected}, got {got}.")

    def fits(self, shape: Tuple[int, ...]) -> bool:
        """Whether values of ``shape`` are one item, with or without a batch dimension of 1."""
        if len(shape) == len(self.item_shape) + 1 and self.has_batch_axis and shape[0] == 1:
            shape = shape[1:]
        if shape == self.item_shape:
            return True
        return len(shape) == len(self.item_shape) and all(
            size in (0, found) for size, found in zip(self.item_shape, shape)
        )

    def check(self, value: object) -> None:
        """Check a value without numpy.

        Raises:
            InvalidData: type, shape or range do not fit.
        """
        if self.takes_bytes and isinstance(value, (str, bytes, bytearray)):
            return
        kinds: Set[type] = set()
        try:
            shape = _measure(value, kinds)
        except ValueError as error:
            self.refuse(str(error))
        wanted = {str} if self.data_type in _TEXTS else _NUMBERS
        if not kinds <= wanted:
            self.refuse(_in_words(kinds - wanted))
        if not self.fits(shape):
            self.refuse(str(shape))
        if self.range is not None:
            for number in _leaves(value):
                self._check_integer(number)

    def _check_integer(self, number: float) -> None:
        low, high = self.range or (0, 0)
        if not low <= number <= high or number != int(number):
            self.refuse(repr(number))

    def array(self, value: object) -> "numpy.ndarray":
        """Return one item's value as an array of ``data_type`` and of the item's shape.

        Raises:
            InvalidData: type, shape or range do not fit.
        """
        import numpy as np

        if self.data_type in _TEXTS:
            self.check(value)
            return np.asarray(value, dtype=object)
        try:
            found = np.asarray(value)
        except ValueError:
            self.check(value)  # says where the rows differ
            raise
        if found.dtype.kind not in "fiub":
            self.check(value)
            self.refuse("numbers that do not fit")
        if found.shape != self.item_shape:
            if not self.fits(found.shape):
                self.refuse(str(found.shape))
            if found.ndim > len(self.item_shape):
                found = found[0]
        if found.dtype == self.data_type:
            return found
        if self.range is not None:
            for number in found.flat:
                self._check_integer(number)
            return found.astype(self.data_type)
        with np.errstate(over="ignore"):
            return found.astype(self.data_type)


class Inputs:
    """All inputs of a signature, in its order."""

    def __init__(self, specs: Sequence[Spec]) -> None:
        self.all = [Input(spec) for spec in specs]
        self.has_batch_axis = all(each.has_batch_axis for each in self.all)

    def value(self, row: Dict[str, Any], wanted: Input) -> object:
        """Return the value of one input: an entry of a JSON body, a form's field, or the whole body.

        Raises:
            InvalidData: it is not there, or the body is bytes where numbers are wanted and does not parse.
        """
        body = row.get("body")
        if body is None:
            body = row.get("data")
        if isinstance(body, (bytes, bytearray)) and not wanted.takes_bytes:
            body = _parsed(body, wanted)
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
        """Check every input of a row without numpy; entries that no input asks for are ignored.

        Raises:
            InvalidData: an input is missing, or its type, shape or range does not fit.
        """
        for wanted in self.all:
            wanted.check(self.value(row, wanted))

    def arrays(self, row: Dict[str, Any]) -> Tuple["numpy.ndarray", ...]:
        """Return one array an input, each of its item's shape.

        Raises:
            InvalidData: as ``check``.
        """
        return tuple([wanted.array(self.value(row, wanted)) for wanted in self.all])


def _parsed(body: bytes, wanted: Input) -> object:
    """Return JSON that came without saying so, as form fields do."""
    try:
        return json.loads(bytes(body))
    except ValueError:
        wanted.refuse(f"{len(body)} bytes that are no JSON" if body else "nothing")


def _missing(wanted: Input, received: Dict[str, Any]) -> InvalidData:
    names = ", ".join(repr(name) for name in received) or "nothing"
    return InvalidData(f"input {wanted.name!r} is missing: expected {wanted.expected}, the request has {names}.")


def _measure(value: object, kinds: Set[type]) -> Tuple[int, ...]:
    """Return the shape of nested lists and add the types of their leaves to ``kinds``."""
    if not isinstance(value, (list, tuple)):
        kinds.add(type(value))
        return ()
    found = set(map(type, value))
    if not found & {list, tuple}:
        kinds |= found
        return (len(value),)
    shapes = {_measure(item, kinds) for item in value}
    if len(shapes) > 1:
        raise ValueError("rows of different lengths")
    return (len(value), *shapes.pop())


def _leaves(value: object) -> Iterator[float]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value  # type: ignore[misc]


_WORDS = {str: "text", type(None): "null", dict: "an object", bytearray: "bytes", bytes: "bytes"}


def _in_words(kinds: Set[type]) -> str:
    return " and ".join(sorted(_WORDS.get(kind, kind.__name__) for kind in kinds))
