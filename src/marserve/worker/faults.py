"""Exceptions of the author's code as failures that can be answered."""

from __future__ import annotations

import importlib.util
import os
import traceback
from typing import NamedTuple, Optional

from marserve.errors import HandlerFault, OutOfMemory, PredictionException, ServeError

#: Why a HandlerFault came about; the old servers' doors have a text for each.
RAISED, NOT_A_LIST, WRONG_COUNT, UNSENDABLE = "raised", "not_a_list", "wrong_count", "unsendable"

#: Beginnings of the paths of frames that are left out of an author's traceback.
_SILENT = (
    os.path.dirname(os.path.abspath(__file__)) + os.sep,
    os.path.dirname(os.path.abspath(importlib.util.__file__)) + os.sep,
    "<frozen importlib",
)


class Failure(NamedTuple):
    """Why a request is answered with an error.

    Attributes:
        kind: key of the dialects' tables, see ``errors.py``.
        message, hint: what happened, and what to do next.
        code: status that the service chose by ``PredictionException``, 0 otherwise.
        reason: of a HandlerFault: ``raised``, ``not_a_list``, ``wrong_count`` or ``unsendable``; else empty.
        traceback: the author's, empty when nothing was raised.
    """

    kind: str
    message: str
    hint: str = ""
    code: int = 0
    reason: str = ""
    traceback: str = ""


def failure_of(error: Exception, style: str = "native", reason: str = RAISED) -> Failure:
    """Return the failure that an exception of a service, or of our own, stands for."""
    code = getattr(error, "error_code", None)
    if isinstance(error, PredictionException) or (type(error).__name__ == "PredictionException" and code is not None):
        return Failure("PredictionException", str(getattr(error, "message", error)), code=_status(code))
    if is_out_of_memory(error, style):
        return Failure(
            OutOfMemory.kind,
            f"The service ran out of memory: {_words(error)}.",
            "Send smaller requests or a smaller batch, or give the worker more memory.",
            traceback=author_traceback(error),
        )
    if isinstance(error, HandlerFault):
        trace = error.traceback or author_traceback(error)
        return Failure(error.kind, error.message, error.hint, reason=error.fault or reason, traceback=trace)
    if isinstance(error, ServeError):
        return Failure(error.kind, error.message, error.hint)
    return Failure(
        HandlerFault.kind,
        f"The service raised {_words(error)}.",
        "The worker's log holds the traceback.",
        reason=reason,
        traceback=author_traceback(error),
    )


def check_result(result: object, count: int) -> Optional[Failure]:
    """Return why a service's result cannot be dealt out to ``count`` requests, None when it can."""
    if not isinstance(result, list):
        hint = "Return a list with one element a request."
        if hasattr(result, "__await__") or hasattr(result, "__anext__"):
            hint = "Declare it with async def, or await in it what it returns."
        return Failure(
            HandlerFault.kind, f"The service returned {type(result).__name__}, not a list.", hint, reason=NOT_A_LIST
        )
    if len(result) != count:
        return Failure(
            HandlerFault.kind,
            f"The service returned {len(result)} results for {count} requests.",
            "Return a list with one element a request, in their order.",
            reason=WRONG_COUNT,
        )
    return None


def is_out_of_memory(error: BaseException, style: str = "native") -> bool:
    """Whether an exception says that memory ran out. TorchServe takes every mention of CUDA for it."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    return "CUDA out of memory" in text or (style == "torchserve" and "CUDA" in text)


def author_traceback(error: BaseException) -> str:
    """Return the traceback as text without our own frames and those of the import system, which say nothing."""
    told = traceback.TracebackException(type(error), error, error.__traceback__)
    _trim(told)
    return "".join(told.format())


def _trim(told: Optional[traceback.TracebackException]) -> None:
    if told is not None:
        kept = [frame for frame in told.stack if not frame.filename.startswith(_SILENT)]
        told.stack = traceback.StackSummary.from_list(kept)
        _trim(told.__cause__)
        _trim(told.__context__)


def _words(error: BaseException) -> str:
    """Return class and text of an exception in one line, whatever its ``__str__`` does."""
    return traceback.format_exception_only(type(error), error)[-1].strip().rstrip(".")


def _status(code: object) -> int:
    """Return a status that HTTP allows; a service that chose another has a fault, so 500."""
    return code if isinstance(code, int) and 200 <= code <= 999 else 500
