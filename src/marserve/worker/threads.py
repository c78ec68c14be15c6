"""How many threads the libraries of this process compute with: one while a service loads for others, more later.

A pool of threads does not survive a fork, and a library that has one waits for it for ever in the forked process.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Dict, Optional, Tuple

#: What the libraries read when they are loaded, and never again.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: By the file name of a library: its variable, and the names that its function for the same may have.
_SETTERS = (
    (re.compile(r"lib(gomp|iomp5|omp)\b"), "OMP_NUM_THREADS", ("omp_set_num_threads",)),
    (re.compile(r"libmkl_rt\b"), "MKL_NUM_THREADS", ("MKL_Set_Num_Threads",)),
    (
        re.compile(r"lib(scipy_)?openblas"),
        "OPENBLAS_NUM_THREADS",
        tuple(f"{prefix}openblas_set_num_threads{suffix}" for prefix in ("", "scipy_") for suffix in ("", "64_")),
    ),
)

Said = Dict[str, Optional[str]]


def hold_to_one() -> Said:
    """Let libraries that are loaded from now on start no threads; return what the environment has said before."""
    said = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
    return said


def set_threads(count: int, said: Said) -> None:
    """Undo ``hold_to_one``: in the environment, for what is loaded later, and in what is loaded already.

    Args:
        count: threads where the environment had said nothing.
        said: what ``hold_to_one`` returned.
    """
    told = {name: value or str(count) for name, value in said.items()}
    os.environ.update(told)
    torch = sys.modules.get("torch")
    own = torch.get_num_threads() if torch is not None else 1
    for path in _libraries():
        for pattern, variable, names in _SETTERS:
            if pattern.match(os.path.basename(path)):
                _call(path, names, _number(told[variable], count))
    if torch is not None:  # more than one is the choice of the service, which stays
        torch.set_num_threads(own if own > 1 else _number(told["OMP_NUM_THREADS"], count))


def _libraries() -> Dict[str, None]:
    """Return the files that are mapped into this process, each once."""
    lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    return dict.fromkeys(line.split(None, 5)[-1] for line in lines if ".so" in line)


def _call(path: str, names: Tuple[str, ...], number: int) -> None:
    with suppress(OSError):  # the file has been replaced since
        library = ctypes.CDLL(path)
        for name in names:
            setter = getattr(library, name, None)
            if setter is not None:
                setter(ctypes.c_int(number))


def _number(text: str, default: int) -> int:
    """Return the first number of a variable, which may hold one for each level of nesting."""
    with suppress(ValueError):
        return max(1, int(text.split(",")[0]))
    return default
