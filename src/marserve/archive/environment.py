"""Environments for the requirements of archives: made by uv once, and kept by what they were made from.

::

    root/<key>/          a virtual environment; whole once it holds the file ``.ready``
    root/<key>.lock      held by whoever makes it

What the server's own environment has is there too, behind what the archive asked for: an archive need not install
torch again.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List

from marserve.errors import EnvironmentFault

_READY = ".ready"


def environment_key(requirements: bytes) -> str:
    """Return the key of an environment: what is asked for, by whom, and on top of what."""
    lines = sorted(line.strip() for line in requirements.splitlines() if line.strip() and not line.startswith(b"#"))
    parts = [*lines, sys.version.encode(), sys.prefix.encode()]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:32]


def environment_for(requirements: Path, root: Path) -> Path:
    """Return the interpreter of an environment that has what a requirements file asks for; make it if need be.

    Raises:
        EnvironmentFault: it cannot be made; says what uv said.
    """
    import fcntl

    folder = root / environment_key(requirements.read_bytes())
    python = folder / "bin" / "python"
    if (folder / _READY).exists():
        return python
    root.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _READY).exists():  # else somebody else has made it meanwhile
            _make(folder, python, requirements)
    return python


def _make(folder: Path, python: Path, requirements: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what a process left that was killed over it
    uv = _uv()
    _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], requirements)
    _run([uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements)], requirements)
    # Behind its own packages, and with the .pth files that make an editable install work.
    sites = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    lines = [f"import site; site.addsitedir({site!r})" for site in sites]
    target = next(folder.glob("lib/python*/site-packages"))
    (target / "zz-marserve-server.pth").write_text("\n".join(lines) + "\n")
    (folder / _READY).touch()


def _uv() -> str:
    """Return the program that makes environments."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise EnvironmentFault(
            "The requirements of an archive cannot be installed: uv is not there.",
            "Install it beside the server: pip install marserve[environments].",
        )
    return found


def _run(command: List[str], requirements: Path) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=requirements.parent)
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace").strip()
        raise EnvironmentFault(
            f"The requirements {requirements.name} cannot be installed: {said}",
            "Mend the file, pack the archive again, and register it again.",
        )
