r"""The text format of ``config.properties``: the grammar of ``java.util.Properties``.

A logical line is ``key``, then ``=``, ``:`` or blanks, then the value up to the end, blanks there included.
``#`` and ``!`` open a comment line; an odd number of backslashes at the end continues a line, whose next
part loses its leading blanks. ``\t \n \r \f \uXXXX`` stand for a character; before any other character a
backslash vanishes, so that ``\=`` puts a separator into a key. Only ``\n``, ``\r`` and ``\r\n`` end a line.

Source: the Java platform's description of ``Properties.load``. Files are read as UTF-8.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from marserve.errors import ConfigError

_BLANKS = " \t\f"
_NAMED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.|\Z)", re.DOTALL)
_LINE_END = re.compile(r"\r\n|\n|\r")
#: What a text must not hold as it is; Java reads files as Latin-1, we read UTF-8, and both read ASCII.
_SPECIAL = re.compile(r"[^ -~]|[\\=:#!]")
_BLANK = r"\ "
_ESCAPED = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\f": r"\f"}


class Entry(NamedTuple):
    """One value, the line on which its key stands, and the earlier lines that set the same key in vain."""

    value: str
    line: int
    earlier: tuple[int, ...] = ()


def parse(text: str, name: str = "config.properties") -> dict[str, Entry]:
    """Return the entries of a properties text by key; of equal keys the last one counts, as in Java.

    Args:
        text: the whole file.
        name: what the file is called in errors.

    Raises:
        ConfigError: a backslash-u without four hexadecimal digits, or half of a surrogate pair.
    """
    entries: dict[str, Entry] = {}
    for number, line in _logical_lines(text):
        raw_key, raw_value = _split(line)
        try:
            key, value = _unescape(raw_key), _unescape(raw_value)
        except ValueError as error:
            raise ConfigError(f"{name} line {number}: {error}.") from None
        before = entries.get(key)
        earlier = (*before.earlier, before.line) if before else ()
        entries[key] = Entry(value, number, earlier)
    return entries


def dump(entries: Iterable[tuple[str, str]]) -> str:
    """Return the text of keys and values, a line each, as ``parse`` and Java read them back; ASCII alone."""
    return "".join(f"{_escape(key).replace(' ', _BLANK)}={_escape_value(value)}\n" for key, value in entries)


def _escape_value(value: str) -> str:
    escaped = _escape(value)
    return "\\" + escaped if escaped.startswith(" ") else escaped  # the first blanks would belong to the separator


def _escape(text: str) -> str:
    return _SPECIAL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character.isascii() and character.isprintable():
        return "\\" + character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return _ESCAPED.get(character) or "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first natural line, joined line), without comments and blank lines.

    As long as nothing has come but backslashes that continue, a line may still be a comment or blank.
    """
    first, joined = 0, ""
    for number, line in enumerate(_LINE_END.split(text), start=1):
        part = line.lstrip(_BLANKS)
        if not joined:
            if not part or part[0] in "#!":
                continue
            first = number
        joined += part
        if _continues(joined):
            joined = joined[:-1]
            continue
        yield first, joined
        joined = ""
    if joined:
        yield first, joined


def _continues(line: str) -> bool:
    """Tell whether an odd number of backslashes ends the line; an even number is escaped backslashes."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _split(line: str) -> tuple[str, str]:
    """Cut a logical line at its first separator that no backslash protects."""
    end = 0
    while end < len(line) and line[end] not in "=:" + _BLANKS:
        end += 2 if line[end] == "\\" else 1
    value = line[end:].lstrip(_BLANKS)
    if value[:1] in ("=", ":"):
        value = value[1:].lstrip(_BLANKS)
    return line[:end], value


def _unescape(raw: str) -> str:
    if "\\" not in raw:
        return raw
    # Java's characters are UTF-16 units: two \u escapes may make one character.
    units = _ESCAPE.sub(_character, raw).encode("utf-16-le", "surrogatepass")
    try:
        return units.decode("utf-16-le")
    except UnicodeDecodeError:
        raise ValueError(r"half of a surrogate pair: write both \u escapes of the character") from None


def _character(found: re.Match[str]) -> str:
    code = found[1]
    if len(code) == 5:
        return chr(int(code[1:], 16))
    if code == "u":
        raise ValueError(r"\u needs four hexadecimal digits after it")
    return _NAMED.get(code, code)
