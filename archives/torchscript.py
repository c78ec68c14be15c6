"""TorchScript files of the worked archives: the same bytes wherever they are made, and no folder named in them."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import torch

#: Entries that hold the full path of every source, the environment's included, for the traces of errors; and an
#: id that is a checksum of all. torch loads without them.
PLACES = (".debug_pkl", ".data/serialization_id")


def save_script(network: torch.nn.Module, path: Path) -> None:
    """Write a network as a TorchScript program, in evaluation mode; it needs no Python file beside it."""
    program = io.BytesIO()
    with warnings.catch_warnings():
        # torch asks authors to move on from TorchScript; archives that hold it are many, so these stay.
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        torch.jit.save(torch.jit.script(network.eval()), program)
    path.write_bytes(without_places(program.getvalue()))


def without_places(program: bytes) -> bytes:
    """Return a TorchScript file without ``PLACES``.

    With them the bytes would differ from folder to folder, and tell who gets the archive where it was built.
    """
    kept = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(program)) as whole, zipfile.ZipFile(kept, "w") as rest:
        for entry in whole.infolist():
            if not entry.filename.endswith(PLACES):
                rest.writestr(zipfile.ZipInfo(entry.filename), whole.read(entry))
    return kept.getvalue()
