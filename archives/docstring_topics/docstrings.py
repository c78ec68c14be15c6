"""The data of ``docstring_topics``: sentences of the docstrings in the standard library of the Python that runs."""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "handlers"))
from docstring_words import MOST_WORDS, words_in

#: Modules and packages by topic. One that a version of Python lacks is passed over.
TOPICS: dict[str, tuple[str, ...]] = {
    "concurrency": (
        *("_threading_local", "asyncio", "concurrent", "contextvars", "multiprocessing", "queue", "sched", "signal"),
        *("subprocess", "threading"),
    ),
    "data formats": (
        *("base64", "configparser", "csv", "dbm", "email", "html", "json", "mailbox", "netrc", "pickle"),
        *("pickletools", "plistlib", "quopri", "shelve", "sqlite3", "tomllib", "uu", "xdrlib", "xml"),
    ),
    "dates and times": ("_pydatetime", "_strptime", "calendar", "datetime", "zoneinfo"),
    "files": (
        *("_pyio", "bz2", "filecmp", "fileinput", "fnmatch", "genericpath", "glob", "gzip", "lzma", "ntpath", "os"),
        *("pathlib", "posixpath", "shutil", "stat", "tarfile", "tempfile", "zipfile"),
    ),
    "networking": (
        *("asynchat", "asyncore", "ftplib", "http", "imaplib", "ipaddress", "nntplib", "poplib", "selectors"),
        *("smtpd", "smtplib", "socket", "socketserver", "ssl", "telnetlib", "urllib", "wsgiref", "xmlrpc"),
    ),
    "numbers": ("_pydecimal", "bisect", "colorsys", "fractions", "heapq", "numbers", "random", "statistics"),
    "text": (
        *("codecs", "difflib", "encodings", "gettext", "locale", "pprint", "re", "reprlib", "shlex", "sre_compile"),
        *("sre_parse", "string", "stringprep", "textwrap"),
    ),
}
#: Shorter sentences say too little: "Internal use only."
LEAST_WORDS = 4
#: One name of so many is held out.
HELD_OUT_ONE_OF = 5

#: An example of a docstring, with its answer: to the next empty line.
_EXAMPLE = re.compile(r"^[ \t]*>>>.*(?:\n[ \t]*\S.*)*", re.MULTILINE)
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?:;])\s+|\n\s*\n")

#: The sentences of a part, as words, and the place of each one's topic in ``TOPICS``.
Part = dict[tuple[str, ...], int]


def load_parts() -> tuple[Part, Part]:
    """Return the sentences to learn from and those held out; each sentence once.

    Functions and classes are held out as a whole, and with them all others of the same name: ``join`` of one
    module often says what ``join`` of another does. A sentence that is learned from is in no held-out function.
    """
    learned: Part = {}
    held_out: Part = {}
    for topic, modules in enumerate(TOPICS.values()):
        for path in sources_of(modules):
            for name, docstring in docstrings_in(path):
                part = held_out if zlib.crc32(name.encode()) % HELD_OUT_ONE_OF == 0 else learned
                for sentence in sentences_in(docstring):
                    part.setdefault(sentence, topic)
    return learned, {sentence: topic for sentence, topic in held_out.items() if sentence not in learned}


def sources_of(modules: tuple[str, ...]) -> Iterator[Path]:
    """Yield the Python files of modules and packages, always in the same order."""
    library = Path(sysconfig.get_path("stdlib"))
    for module in modules:
        if (library / f"{module}.py").is_file():
            yield library / f"{module}.py"
        yield from sorted((library / module).rglob("*.py"))


def docstrings_in(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of a module and of its classes and functions, as far as they have one."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield getattr(node, "name", path.stem), docstring


def sentences_in(docstring: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each sentence that is long enough; examples of code are left out."""
    for sentence in _BETWEEN_SENTENCES.split(_EXAMPLE.sub("", docstring)):
        words = tuple(words_in(sentence)[:MOST_WORDS])
        if len(words) >= LEAST_WORDS:
            yield words
