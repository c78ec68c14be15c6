"""Python interpreters of this machine: those that uv finds, pyenv's included."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

from marserve.archive.uv import Tell, ask_uv, run_uv
from marserve.errors import EnvironmentFault

#: Oldest Python that workers run on.
OLDEST = (3, 8)
_HINT = "Name one of these in the model-config, as python."
_ASK_PLACE = "import sys; print(sys.executable); print(sys.prefix)"
_ASK_VERSION = "import platform, sys; print(list(sys.version_info[:3]), platform.python_implementation())"


class Interpreter(NamedTuple):
    """One interpreter.

    Attributes:
        path: absolute, with links resolved only as far as uv does.
        version: such as ``3.11.7``.
    """

    path: str
    version: str


def find_interpreter(wanted: str, tell: Tell, downloads: bool = False) -> Interpreter:
    """Return the interpreter that an archive names.

    Args:
        wanted: a version, a range of versions, the name of a program, or an absolute path.
        downloads: whether uv may download one that is not here.

    Raises:
        EnvironmentFault: there is none, or it is too old; lists those that there are.
    """
    if "/" in wanted:
        path = os.path.expanduser(wanted)
        if not (os.path.isabs(path) and os.access(path, os.X_OK) and os.path.isfile(path)):
            raise EnvironmentFault(f"There is no interpreter {wanted}. {_what_there_is()}", _HINT)
        return _checked(path)
    search = ["python", "find", "--system", "--no-project", "--no-python-downloads", wanted]
    found = ask_uv(search)
    if found is None and downloads:
        failed = run_uv(["python", "install", wanted], Path("/"), tell)
        if failed is not None:
            raise EnvironmentFault(f"Python {wanted} cannot be downloaded: {failed} {_what_there_is()}", _HINT)
        found = ask_uv(search)
    if found is None:
        raise EnvironmentFault(
            f"There is no Python {wanted}. {_what_there_is()}",
            "Install it, or set install_python=true to have uv download it.",
        )
    return _checked(found)


def program_interpreter(program: str) -> str:
    """Return the interpreter that a program of the path runs; "" without one, or where it is this environment's.

    The program is asked, because it may be a script that chooses one, as pyenv's are. Source: Multi Model Server,
    whose runtimes are such programs, but for ``python``.

    Raises:
        EnvironmentFault: it is no Python, or is too old.
    """
    found = shutil.which(program)
    if found is None:
        return ""
    try:
        asked = subprocess.run([found, "-c", _ASK_PLACE], stdin=subprocess.DEVNULL, capture_output=True)
        path, prefix = asked.stdout.decode().splitlines()
    except (OSError, ValueError) as error:
        raise EnvironmentFault(f"{found} is no Python that runs. {_what_there_is()}", _HINT) from error
    return "" if os.path.realpath(prefix) == os.path.realpath(sys.prefix) else _checked(path).path


def known_interpreters() -> List[Interpreter]:
    """Return every interpreter that workers could run on, one a version, oldest first."""
    answer = ask_uv(["python", "list", "--only-installed", "--no-python-downloads", "--output-format", "json"])
    found: Dict[Tuple[int, int, int], Interpreter] = {}
    for each in json.loads(answer or "[]"):
        parts = each["version_parts"]
        number = (parts["major"], parts["minor"], parts["patch"])
        if number >= OLDEST and each["implementation"] == "cpython" and each.get("variant", "default") == "default":
            found.setdefault(number, Interpreter(each["path"], each["version"]))
    return [found[number] for number in sorted(found)]


def _checked(path: str) -> Interpreter:
    """Ask an interpreter for its version.

    Raises:
        EnvironmentFault: it does not answer, or is too old.
    """
    try:
        asked = subprocess.run([path, "-I", "-c", _ASK_VERSION], stdin=subprocess.DEVNULL, capture_output=True)
        parts = json.loads(asked.stdout.decode().partition("]")[0] + "]")
    except (OSError, ValueError) as error:
        raise EnvironmentFault(f"{path} is no Python that runs. {_what_there_is()}", _HINT) from error
    version = ".".join(map(str, parts))
    if tuple(parts[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise EnvironmentFault(f"{path} is Python {version}, older than {oldest}. {_what_there_is()}", _HINT)
    return Interpreter(path, version)


def _what_there_is() -> str:
    found = [f"{each.version} ({each.path})" for each in known_interpreters()]
    return f"Workers run on: {', '.join(found)}." if found else "None that workers run on is here."
