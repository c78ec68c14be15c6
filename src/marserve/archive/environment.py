"""Environments of archives: made by uv once, and kept by what they were made from.

::

    root/<key>/          a virtual environment; whole once it holds the file ``.ready``
    root/<key>.lock      held by whoever makes it
    root/<key>.view/     links to the files of an unpacked archive, and one called ``venv`` to its environment

An archive that names its interpreter or its packages in its model-config has those alone. In the environment of any
other what the server has is there too, behind what the archive asked for: it need not install torch again.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
import time
from pathlib import Path

from marserve.archive.interpreters import find_interpreter
from marserve.archive.needs import Needs
from marserve.archive.uv import Tell, run_uv
from marserve.errors import EnvironmentFault

_READY = ".ready"
#: Where TorchServe makes the environment of a model, in its folder.
_VENV = "venv"


def environment_key(needs: Needs, python: str = "") -> str:
    """Return the key of an environment: what is asked for, by whom, and on top of what.

    Args:
        python: path and version of the interpreter; "" for the server's own.
    """
    parts = [*needs.lines(), python.encode() or f"{sys.version} {sys.prefix}".encode(), str(needs.is_alone).encode()]
    if needs.names_files:
        parts.append(str(needs.folder).encode())
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:32]


def environment_for(needs: Needs, root: Path, tell: Tell = lambda line: None, downloads: bool = False) -> Path:
    """Return the environment that has what is needed; make it if need be.

    Args:
        tell: takes each line of progress.
        downloads: whether an interpreter that is not here may be downloaded.

    Raises:
        EnvironmentFault: it cannot be made; says what uv said.
    """
    import fcntl

    python, known_as = sys.executable, ""
    if needs.python:
        found = find_interpreter(needs.python, tell, downloads)
        python, known_as = found.path, f"{found.version} {Path(found.path).resolve()}"
    folder = root / environment_key(needs, known_as)
    if (folder / _READY).exists():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _READY).exists():  # else somebody else has made it meanwhile
            try:
                _make(folder, needs, python, tell)
            except EnvironmentFault:
                shutil.rmtree(folder, ignore_errors=True)
                raise
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
    _check_venv(folder)
    shown = sorted(path.name for path in folder.iterdir() if path.name not in (_VENV, "__pycache__"))
    parts = [str(folder), str(environment), *shown]
    view = root / (hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32] + ".view")
    view.mkdir(parents=True, exist_ok=True)
    # The key says all that is in it: whoever else makes it now makes the same links.
    for name, target in [(_VENV, environment), *((name, folder / name) for name in shown)]:
        with contextlib.suppress(FileExistsError):
            (view / name).symlink_to(target)
    return view


def with_venv(folder: Path, environment: Path) -> Path:
    """Return a folder that is a model's own, with an environment as ``venv`` among its files.

    Raises:
        EnvironmentFault: the name is taken by a file; ``fault`` is "venv".
    """
    _check_venv(folder)
    shutil.rmtree(folder / _VENV, ignore_errors=True)
    (folder / _VENV).symlink_to(environment)
    return folder


def _check_venv(folder: Path) -> None:
    if (folder / _VENV).is_file():
        raise _venv_fault("The archive holds a file venv, where its environment has to be.", "Rename the file.")


def _make(folder: Path, needs: Needs, python: str, tell: Tell) -> None:
    began = time.monotonic()
    tell(f"making an environment with {python}")
    shutil.rmtree(folder, ignore_errors=True)  # what a process left that was killed over it
    failed = run_uv(["venv", "--quiet", "--no-project", "--python", python, str(folder)], folder.parent, tell)
    if failed is not None:
        raise _venv_fault(f"Its environment cannot be made: {failed}", "Check the disk and the rights.")
    _install(folder, needs, tell)
    if not needs.is_alone:
        # Behind its own packages, and with the .pth files that make an editable install work.
        sites = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        lines = [f"import site; site.addsitedir({site!r})" for site in sites]
        target = next(folder.glob("lib/python*/site-packages"))
        (target / "zz-marserve-server.pth").write_text("\n".join(lines) + "\n")
    (folder / _READY).touch()
    tell(f"its environment is ready after {time.monotonic() - began:.1f} s")


def _install(folder: Path, needs: Needs, tell: Tell) -> None:
    command = ["pip", "install", "--python", str(interpreter(folder))]
    if needs.requirements is not None:
        what, wanted = needs.requirements.name, ["-r", str(needs.requirements)]
    elif needs.packages:
        what, wanted = ", ".join(needs.packages), ["--", *needs.packages]
    else:
        return
    failed = run_uv([*command, *wanted], needs.folder, tell)
    if failed is not None:
        raise EnvironmentFault(
            f"The requirements {what} cannot be installed: {failed}",
            "Mend them, pack the archive again, and register it again.",
        )


def _venv_fault(message: str, hint: str) -> EnvironmentFault:
    fault = EnvironmentFault(message, hint)
    fault.fault = "venv"
    return fault
