"""Environments of archives: made by uv once, and kept by what they were made from.

::

    root/<key>/          a virtual environment; whole once it holds the file ``.ready``
    root/<key>.lock      held by whoever makes it
    root/<key>.view/     links to the files of an unpacked archive, and one called ``venv`` to its environment

What the server's own environment has is there too, behind what the archive asked for: an archive need not install
torch again.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List, Optional

from marserve.errors import EnvironmentFault

_READY = ".ready"
#: Where TorchServe makes the environment of a model, in its folder.
_VENV = "venv"


def environment_key(requirements: bytes, folder: str = "") -> str:
    """Return the key of an environment: what is asked for, by whom, and on top of what.

    Args:
        folder: where the requirements lie; counts where they name files beside them.
    """
    lines = sorted(line.strip() for line in requirements.splitlines() if line.strip() and not line.startswith(b"#"))
    parts = [*lines, sys.version.encode(), sys.prefix.encode()]
    if any(line.startswith((b".", b"-")) or (b"/" in line and b"://" not in line) for line in lines):
        parts.append(folder.encode())
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:32]


def environment_for(requirements: Optional[Path], root: Path) -> Path:
    """Return the environment that has what a requirements file asks for; make it if need be.

    Args:
        requirements: None for an environment that adds nothing.

    Raises:
        EnvironmentFault: it cannot be made; says what uv said.
    """
    import fcntl

    if requirements is not None and not requirements.is_file():
        raise EnvironmentFault(f"The archive has no file {requirements.name}.", "Pack it again with that file.")
    asked = b"" if requirements is None else requirements.read_bytes()
    folder = root / environment_key(asked, "" if requirements is None else str(requirements.parent))
    if (folder / _READY).exists():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _READY).exists():  # else somebody else has made it meanwhile
            _make(folder, requirements)
    return folder


def interpreter(environment: Path) -> Path:
    """Return the interpreter of an environment."""
    return environment / "bin" / "python"


def view_of(folder: Path, environment: Path, root: Path) -> Path:
    """Return a folder that shows the files of another one, with an environment as ``venv`` among them.

    The other one itself may be somebody's own folder, or serve the same bytes to a server with another Python.

    Raises:
        EnvironmentFault: the name is taken by a file; ``fault`` is "venv".
    """
    if (folder / _VENV).is_file():
        raise _venv_fault("The archive holds a file venv, where its environment has to be.", "Rename the file.")
    shown = sorted(path.name for path in folder.iterdir() if path.name not in (_VENV, "__pycache__"))
    parts = [str(folder), str(environment), *shown]
    view = root / (hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32] + ".view")
    view.mkdir(parents=True, exist_ok=True)
    # The key says all that is in it: whoever else makes it now makes the same links.
    for name, target in [(_VENV, environment), *((name, folder / name) for name in shown)]:
        with contextlib.suppress(FileExistsError):
            (view / name).symlink_to(target)
    return view


def _make(folder: Path, requirements: Optional[Path]) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what a process left that was killed over it
    uv = _uv()
    failed = _said([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], folder.parent)
    if failed is not None:
        raise _venv_fault(f"Its environment cannot be made: {failed}", "Check the disk and the rights.")
    if requirements is not None:
        command = [uv, "pip", "install", "--quiet", "--python", str(interpreter(folder)), "-r", str(requirements)]
        failed = _said(command, requirements.parent)
        if failed is not None:
            raise EnvironmentFault(
                f"The requirements {requirements.name} cannot be installed: {failed}",
                "Mend the file, pack the archive again, and register it again.",
            )
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
        raise _venv_fault(
            "The environment of an archive cannot be made: uv is not there.",
            "Install it beside the server: pip install marserve[environments].",
        )
    return found


def _said(command: List[str], folder: Path) -> Optional[str]:
    """Run a command in a folder; return what it said if it failed, else None."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder)
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode else None


def _venv_fault(message: str, hint: str) -> EnvironmentFault:
    fault = EnvironmentFault(message, hint)
    fault.fault = "venv"
    return fault
