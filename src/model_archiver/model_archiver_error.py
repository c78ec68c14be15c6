"""``ModelArchiverError``: what stops an archive from being made, but for a file that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from marserve.errors import ServeError


class ModelArchiverError(Exception):
    """The archive cannot be made as asked."""


@contextmanager
def old_errors() -> Iterator[None]:
    """Raise marserve's errors as those that scripts know: ``ModelArchiverError``, or ``FileNotFoundError``."""
    try:
        yield
    except ServeError as error:
        if error.fault == "missing":
            raise FileNotFoundError(error.message) from error
        raise ModelArchiverError("\n".join(filter(None, (error.message, error.hint)))) from error
