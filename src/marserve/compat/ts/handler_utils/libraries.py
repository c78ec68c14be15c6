"""Libraries that some handlers stand on and most installations lack: imported at use, and missed with a remedy."""

from __future__ import annotations

import importlib
from typing import Any


def library(name: str, install: str) -> Any:
    """Return a module of a library.

    Args:
        name: dotted name of the module.
        install: what pip installs it by.

    Raises:
        ModuleNotFoundError: it is not there; says what to install.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        words = f"No module named {error.name!r}: pip install {install}"
        raise ModuleNotFoundError(words, name=error.name) from error
