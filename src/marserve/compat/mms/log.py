"""The logger of release 0.4's handlers."""

from __future__ import annotations

import logging


def get_logger(name: str = "mms") -> logging.Logger:
    """Return a logger."""
    return logging.getLogger(name)
