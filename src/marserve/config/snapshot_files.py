"""The files of snapshots: their names, the newest of a folder, and writing one whole or not at all.

::

    FOLDER/20260131120000123-startup.cfg     the moment in local time, to the millisecond, and the occasion
    FOLDER/00000000000000000-*               being written; a leftover of a crash is older than every snapshot
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

#: The folder of the log that has them.
FOLDER = "config"
#: TorchServe takes every file of the folder for a snapshot and reads its moment, so this must be one, and the oldest.
_PARTIAL = "0" * 17 + "-"
_NAME = re.compile(r"(\d{17})-\w+\.cfg")
#: They may hold the password of a keystore.
_MODE = 0o600


def newest(folder: Path) -> Path | None:
    """Return the newest snapshot of a folder; None when there is none.

    Raises:
        OSError: the folder is there and cannot be read.
    """
    try:
        names = [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    except FileNotFoundError:
        return None
    return folder / max(names) if names else None


def write(folder: Path, occasion: str, text_of: Callable[[str], str]) -> Path:
    """Write a snapshot, newer than all that the folder has, and return its path.

    Args:
        occasion: ``startup``, ``snapshot`` or ``shutdown``.
        text_of: returns the text of a snapshot of that name, ASCII.

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = newest(folder)
    # A clock that was set back, or a summer that ends, must not make this one older than what is there.
    least = int(last.name[:17]) + 1 if last else 0
    moment = max(int(datetime.now().strftime("%Y%m%d%H%M%S%f")[:17]), least)
    name = f"{moment:017}-{occasion}.cfg"
    partial = folder / f"{_PARTIAL}{uuid.uuid4().hex}"
    try:
        with open(partial, "x", encoding="ascii", opener=lambda path, flags: os.open(path, flags, _MODE)) as out:
            out.write(text_of(name))
            out.flush()
            os.fsync(out.fileno())
        partial.rename(folder / name)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync(folder)
    return folder / name


def _sync(folder: Path) -> None:
    """Put the folder's list of names on the disk: without it a new name may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
