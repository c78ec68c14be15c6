"""The logger of release 0.4's handlers."""

from __future__ import annotations

import logging
from typing import Optional


def get_logger(
    name: Optional[str] = "mms",
    filename: Optional[str] = None,
    level: str = "NOTSET",
    rotate_value: str = "H",
    rotate_interval: int = 1,
) -> logging.Logger:
    """Return a logger; what it says goes where all goes that workers say, and not into a file of its own."""
    found = logging.getLogger(name)
    found.setLevel(level)
    return found


#: Its name before.
getLogger = get_logger  # noqa: N816
