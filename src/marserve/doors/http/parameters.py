"""The parameters of a management request: read from the query or a JSON body, strictly or as the old servers do.

Strictly, what is unknown, given twice or malformed is refused, and the refusal names what is allowed. Leniently it
counts as not given, as clients of the old servers have it, and the log names it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast
from urllib.parse import parse_qsl

from starlette.requests import Request

from marserve.errors import BadRequest, TooLarge

log = logging.getLogger("marserve.management")

#: Most bytes of a body with parameters, natively.
MOST_BODY = 65_536
#: The largest number that the old servers read; what is above counts as malformed.
_MOST = 2**31 - 1

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """How a parameter's text is read.

    Attributes:
        read: returns the value, or None for a text that is none of this kind.
        allowed: ends the sentence "it must be".
        schema: JSON Schema of the value.
        lenient: reads what ``read`` refuses, where the old servers see more in it than "not given".
    """

    read: Callable[[str], T_co | None]
    allowed: str
    schema: dict[str, object]
    lenient: Callable[[str], T_co | None] = field(default=lambda text: None)


def _integer(text: str) -> int | None:
    value = int(text) if re.fullmatch(r"[+-]?[0-9]{1,10}", text) else None
    return value if value is not None and -_MOST - 1 <= value <= _MOST else None


def _at_least(least: int) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        value = _integer(text)
        return value if value is not None and value >= least else None

    return read


def _between(least: int, most: int) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        value = _integer(text)
        return value if value is not None and least <= value <= most else None

    return read


def _number(text: str) -> float | None:
    value = float(text) if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,9})?", text) else None
    return value if value is not None and value <= _MOST else None


def _positive(text: str) -> float | None:
    return _number(text) or None


def _milliseconds(text: str) -> float | None:
    value = _number(text)
    return None if value is None else value / 1000.0


TEXT: Kind[str] = Kind(lambda text: text, "a text", {"type": "string"})
FLAG: Kind[bool] = Kind(
    {"true": True, "false": False}.get, "true or false", {"type": "boolean"}, lambda text: text.lower() == "true"
)
INTEGER: Kind[int] = Kind(_integer, "a whole number", {"type": "integer"})
#: Leniently, a negative number of workers is none.
COUNT: Kind[int] = Kind(
    _at_least(0),
    "a whole number from 0 on",
    {"type": "integer", "minimum": 0},
    lambda text: None if _integer(text) is None else 0,
)
SIZE: Kind[int] = Kind(_at_least(1), "a whole number from 1 on", {"type": "integer", "minimum": 1})
PAGE: Kind[int] = Kind(
    _between(0, 100), "a whole number from 0 to 100", {"type": "integer", "minimum": 0, "maximum": 100}
)
#: Leniently, none at all is a time too: what has to be done in it fails at once.
SECONDS: Kind[float] = Kind(_positive, "seconds, above 0", {"type": "number", "exclusiveMinimum": 0}, _number)
#: Milliseconds outside, seconds inside.
MILLISECONDS: Kind[float] = Kind(_milliseconds, "milliseconds, from 0 on", {"type": "number", "minimum": 0})


@dataclass(frozen=True, slots=True)
class Parameter(Generic[T_co]):
    """One parameter: its name, how it is read, what it does, and what counts when it is not given."""

    name: str
    kind: Kind[T_co]
    meaning: str
    default: str = ""
    is_required: bool = False


class Given:
    """The parameters of one request, by their row; ``is_of_body`` says that they came in the body."""

    def __init__(self, values: dict[str, object], is_of_body: bool = False) -> None:
        self._values = values
        self.is_of_body = is_of_body

    def __getitem__(self, parameter: Parameter[T]) -> T | None:
        """Return the value of a parameter, None when it was not given."""
        return cast("T | None", self._values.get(parameter.name))


def parameters_of(query: str) -> list[tuple[str, str]]:
    """Return names and values of a query as the old servers read it: a semicolon separates them too."""
    return parse_qsl(query.replace(";", "&"), keep_blank_values=True)


async def read_parameters(
    request: Request, known: Sequence[Parameter[object]], *, takes_body: bool, is_lenient: bool
) -> Given:
    """Return the parameters of a request.

    Args:
        takes_body: whether they may come as a JSON object in the body, instead of the query.
        is_lenient: see the head of this file.

    Raises:
        BadRequest: (strictly) a parameter is unknown, given twice or malformed; the body is no JSON object.
        TooLarge: the body is larger than parameters can be.
    """
    pairs = request.query_params.multi_items()
    if is_lenient:  # of several the first counts
        pairs = list(dict(reversed(parameters_of(request.scope["query_string"].decode("latin-1")))).items())
    inside: list[tuple[str, str]] = []
    if takes_body:
        inside = await _of_body(request, is_lenient)
        if inside and pairs and not is_lenient:
            raise BadRequest("Parameters came in the query and in the body.", "Give all of them in one place.")
        pairs = inside or pairs
    rows = {row.name: row for row in known}
    values: dict[str, object] = {}
    for name, text in pairs:
        problem = _read_one(rows, name, text, values, is_lenient)
        if problem and not is_lenient:
            raise BadRequest(problem, f"The parameters are {', '.join(rows)}." if rows else "There are none.")
        if problem:
            log.warning("%s %s: %s It was ignored.", request.method, request.url.path, problem)
    return Given(values, bool(inside))


def _read_one(
    rows: dict[str, Parameter[object]], name: str, text: str, values: dict[str, object], is_lenient: bool
) -> str:
    """Read one parameter into ``values``; return what is wrong with it, "" for nothing."""
    row = rows.get(name)
    if row is None:
        return f"Unknown parameter {name!r}."
    if name in values and not is_lenient:
        return f"Parameter {name} was given twice."
    value = row.kind.read(text)
    if value is None and is_lenient:
        value = row.kind.lenient(text)
    if value is None:
        return f"Parameter {name} is {text!r}; it must be {row.kind.allowed}."
    values[name] = value
    return ""


async def _of_body(request: Request, is_lenient: bool) -> list[tuple[str, str]]:
    """Return the parameters of a JSON body; [] when there is none."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BODY and not is_lenient:  # in the old servers max_request_size is all that counts
            raise TooLarge(f"A body with parameters may have {MOST_BODY} bytes.", "Archives are named by their url.")
    if not body.strip():
        return []
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        if is_lenient:
            return []
        raise BadRequest(
            f"The body is {content_type or 'of no content type'}.",
            "Send parameters in the query, or as a JSON object with content-type: application/json.",
        )
    value = _parsed(body, is_lenient)
    if not isinstance(value, dict):
        raise BadRequest("The body is no JSON object.", "Send an object that holds the parameters by name.")
    return [(str(name), _text(member)) for name, member in value.items() if member is not None]


def _parsed(body: bytes, is_lenient: bool) -> object:
    text = body.decode("utf-8-sig", "replace")
    try:
        return cast(object, json.loads(text))
    except (ValueError, RecursionError) as error:
        if is_lenient:
            # The JSON reader of the old servers takes texts in single quotes too.
            try:
                return cast(object, json.loads(re.sub(r"'([^']*)'", lambda found: json.dumps(found[1]), text)))
            except (ValueError, RecursionError):
                pass
        raise BadRequest(
            f"The body is no JSON: {error}.", "Send an object that holds the parameters by name."
        ) from None


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)
