"""The kinds of values that a setting can have: how each is read from text and shown again.

``read`` raises ValueError with the end of a sentence that begins with the value. ``show`` gives a text in the
native notation that ``read`` turns back into an equal value, so settings can travel as text.
"""

import os.path
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from marserve.config.address import Address, parse_address

T = TypeVar("T")


class Notation(NamedTuple):
    """How a number is written: the unit that a plain one has, and whether it may carry one of its own."""

    unit: str = ""
    takes_units: bool = True


#: The notation of ``show``.
NATIVE = Notation()


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of value: what the docs call it, text to value, value to native text.

    ``is_quantity`` marks numbers with a unit.
    """

    name: str
    read: Callable[[str, Notation], T]
    show: Callable[[T], str] = str
    is_quantity: bool = False


TEXT: Kind[str] = Kind("text", lambda text, _: text)
#: A text that is shown to nobody.
SECRET: Kind[str] = Kind("text", lambda text, _: text)

# --- words ---------------------------------------------------------------------------------------------


def choice(*words: str) -> Kind[str]:
    """One of a few words, in either case."""

    def read(text: str, _: Notation) -> str:
        if text.lower() not in words:
            raise ValueError(f"is none of {', '.join(words)}")
        return text.lower()

    return Kind(" or ".join(words), read)


def _read_flag(text: str, _: Notation) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return text.lower() == "true"


FLAG: Kind[bool] = Kind("true or false", _read_flag, lambda value: "true" if value else "false")

# --- numbers -------------------------------------------------------------------------------------------

_QUANTITY = re.compile(r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*([a-zA-Z]*)")
_SECONDS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600}
_BYTES = {"b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


def count(least: int = 0) -> Kind[int]:
    """A whole number from ``least`` up."""

    def read(text: str, _: Notation) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError("is no whole number") from None
        return _at_least(value, least, str(least))

    return Kind("whole number", read)


def span(least: float = 0.0) -> Kind[float]:
    """A span of time from ``least`` seconds up; inside it is float seconds."""

    def read(text: str, notation: Notation) -> float:
        return _at_least(float(_quantity(text, notation, _SECONDS)), least, _show_span(least))

    return Kind("time", read, _show_span, is_quantity=True)


def size(least: int = 1, most: int | None = None) -> Kind[int]:
    """A number of bytes from ``least`` up, to ``most`` where there is such."""

    def read(text: str, notation: Notation) -> int:
        value = _quantity(text, notation, _BYTES)
        if value != int(value):
            raise ValueError("is no whole number of bytes")
        if most is not None and value > most:
            raise ValueError(f"is more than {_show_size(most)}")
        return _at_least(int(value), least, _show_size(least))

    return Kind("size", read, _show_size, is_quantity=True)


def _quantity(text: str, notation: Notation, units: Mapping[str, float]) -> float:
    found = _QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"is no number of {notation.unit}")
    own = found[2].lower()
    if own and not notation.takes_units:
        raise ValueError(f"carries a unit, and this format takes a plain number of {notation.unit}")
    if own and own not in units:
        raise ValueError(f"has a unit that is none of {', '.join(units)}")
    number = int(found[1]) if found[1].lstrip("-").isdecimal() else float(found[1])
    return number * units[own or notation.unit.lower()]


_Number = TypeVar("_Number", int, float)


def _at_least(value: _Number, least: _Number, shown: str) -> _Number:
    if value < least:
        raise ValueError(f"is below the least, {shown}")
    return value


def _show_span(seconds: float) -> str:
    return f"{int(seconds) if seconds == int(seconds) else repr(seconds)}s"


def _show_size(size: int) -> str:
    for unit, factor in (("MiB", 1024**2), ("KiB", 1024)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


# --- paths and expressions -----------------------------------------------------------------------------


def _read_path(text: str, _: Notation) -> Path | None:
    if not text:
        return None
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise ValueError("begins with a home folder that is not there; name the path in full")
    return Path(path)


#: A file or folder, ``~`` for the home folder; empty for none.
PATH: Kind[Path | None] = Kind("path", _read_path, lambda path: "" if path is None else str(path))


def _read_required_path(text: str, notation: Notation) -> Path:
    path = _read_path(text, notation)
    if path is None:
        raise ValueError("names no path")
    return path


REQUIRED_PATH: Kind[Path] = Kind("path", _read_required_path)


def _read_pattern(text: str, _: Notation) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


def _read_patterns(text: str, notation: Notation) -> tuple[str, ...]:
    return tuple(_read_pattern(part.strip(), notation) for part in text.split(",") if part.strip())


#: A regular expression; empty for none.
PATTERN: Kind[str] = Kind("regular expression", _read_pattern)
#: Regular expressions with commas between; empty for none.
PATTERNS: Kind[tuple[str, ...]] = Kind("regular expressions", _read_patterns, ",".join)

# --- addresses and models ------------------------------------------------------------------------------


def listen(http_port: int, https_port: int) -> Kind[Address]:
    """An address to listen on; the ports are those of an address that names none."""
    return Kind("address", lambda text, _: parse_address(text, http_port, https_port))


class ModelChoice(NamedTuple):
    """A model to load at start: its name, "" for the one in its manifest, and where its archive is.

    ``location`` is a file or folder of the store, a URL, or, nameless and alone, ``ALL``; "" where none was given.
    """

    name: str
    location: str


#: The location that stands for every archive of the store.
ALL = "all"
#: A name before ``=``, empty where a script has none; any other ``=`` belongs to the location, e.g. to a URL's query.
_NAMED = re.compile(r"([^=/:]*)=(.*)")


def _read_models(text: str, _: Notation) -> tuple[ModelChoice, ...]:
    # Names may hold blanks.
    items = [item.strip() for item in text.split(",") if item.strip()]
    if [item.lower() for item in items] == [ALL]:
        return (ModelChoice("", ALL),)
    return tuple(_model_choice(item) for item in items)


def _model_choice(item: str) -> ModelChoice:
    found = _NAMED.fullmatch(item)
    return ModelChoice(found[1].rstrip(), found[2].lstrip()) if found else ModelChoice("", item)


def _show_models(models: tuple[ModelChoice, ...]) -> str:
    return ",".join(f"{model.name}={model.location}" if model.name else model.location for model in models)


#: ``[name=]location`` with commas between, or ``all``; empty for none.
MODELS: Kind[tuple[ModelChoice, ...]] = Kind("models", _read_models, _show_models)
