"""uv, the program that makes environments and finds interpreters: looked up, run, and listened to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional

from marserve.errors import EnvironmentFault

#: Takes a line of progress.
Tell = Callable[[str], None]

#: How lines begin that say how far uv is; all others say what is wrong, or belong to the list of what it has done.
_PROGRESS = ("Using ", "Resolved ", "Prepar", "Download", "Build", "Built ", "Updat", "Install", "Creat", "Audited ")
_DONE = (" + ", " - ", " ~ ")


def uv_program() -> str:
    """Return the path of uv, beside the server's interpreter or on the path.

    Raises:
        EnvironmentFault: it is not there; ``fault`` is "venv".
    """
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        error = EnvironmentFault(
            "The environment of an archive cannot be made: uv is not there.",
            "Install it beside the server: pip install marserve[environments].",
        )
        error.fault = "venv"
        raise error
    return found


def run_uv(arguments: List[str], folder: Path, tell: Tell) -> Optional[str]:
    """Run uv in a folder, and tell of its progress; return what it said was wrong if it failed, else None."""
    process = subprocess.Popen(
        [uv_program(), "--color", "never", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environment(),
    )
    assert process.stdout is not None
    wrong = []
    with process, process.stdout as output:
        for raw in output:
            line = raw.decode("utf-8", "replace").rstrip()
            if line.lstrip().startswith(_PROGRESS):
                tell(line.strip())
            elif line and not line.startswith(_DONE):
                wrong.append(line)
    if process.returncode == 0:
        for line in wrong:  # warnings
            tell(line)
        return None
    return "\n".join(wrong).strip() or f"uv ended with code {process.returncode}."


def ask_uv(arguments: List[str]) -> Optional[str]:
    """Return what uv answers on its standard output, None when it has no answer."""
    asked = subprocess.run(
        [uv_program(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, cwd="/", env=environment()
    )
    return None if asked.returncode else asked.stdout.decode("utf-8", "replace").strip()


def environment() -> Dict[str, str]:
    """Return the environment for uv: with pyenv's interpreters on its path, which it would not look for.

    The server's own comes first, so that it is the one where several fit. pyenv's shims are left out: those of
    versions that are not switched on fail.
    """
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    told = os.environ.get("PATH", os.defpath).split(os.pathsep)
    places = [str(Path(os.path.realpath(sys.executable)).parent)]
    places += [place for place in told if place and Path(place) != root / "shims"]
    places += sorted((str(place) for place in root.glob("versions/*/bin")), key=_by_version, reverse=True)
    # What the server was started with must not choose for the archive.
    kept = {
        name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "UV_PYTHON", "PYTHONPATH")
    }
    # An interpreter that is downloaded is for archives alone, not for whoever types its name.
    return {**kept, "PATH": os.pathsep.join(places), "UV_PYTHON_INSTALL_BIN": "0"}


def _by_version(place: str) -> List[int]:
    return [int(part) if part.isdigit() else -1 for part in Path(place).parent.name.split(".")]
