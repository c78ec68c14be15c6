"""The five steps of a batch: their numbers, and who is told when one begins and ends."""

from __future__ import annotations

import time
from typing import Any, Callable, List, Protocol

STEPS = ("decode", "preprocess", "inference", "postprocess", "encode")
DECODE, PREPROCESS, INFERENCE, POSTPROCESS, ENCODE = range(5)

#: Places of the three inner steps among the spans, which begin with the wait.
_PRE, _INFERENCE, _POST = PREPROCESS + 1, INFERENCE + 1, POSTPROCESS + 1


class Steps(Protocol):
    """Told of every step, whoever calls it; a service may call one inside another."""

    #: seconds by ``wire.frames.SPANS``, of the batch that runs
    spans: List[float]

    def enter(self, step: int) -> None:
        """A step begins; ``step`` is an index into ``STEPS``."""

    def leave(self, step: int) -> None:
        """It ends, by a result or by an exception."""


class NoSteps:
    """For those who do not ask for spans."""

    def __init__(self) -> None:
        self.spans = [0.0] * (len(STEPS) + 1)

    def enter(self, step: int) -> None:
        """Do nothing."""

    def leave(self, step: int) -> None:
        """Do nothing."""


def timed(call: Callable[..., Any], step: int, steps: Steps) -> Callable[..., Any]:
    """Return ``call`` with its span told to ``steps``."""
    enter, leave = steps.enter, steps.leave

    def run(*args: Any, **named: Any) -> Any:
        enter(step)
        try:
            return call(*args, **named)
        finally:
            leave(step)

    return run


def timed_whole(handle: Callable[..., Any], steps: Steps) -> Callable[..., Any]:
    """Return a service's ``handle`` with what it spends outside of the three inner steps told as inference.

    A function has no steps, and a ``handle`` of the author's own may call none: their time would be nobody's.
    """
    clock = time.perf_counter

    def run(data: Any, context: Any) -> Any:
        spans = steps.spans
        told = spans[_PRE] + spans[_INFERENCE] + spans[_POST]
        began = clock()
        try:
            return handle(data, context)
        finally:
            outside = clock() - began - (spans[_PRE] + spans[_INFERENCE] + spans[_POST] - told)
            if outside > 0.0:  # steps in threads of their own may overlap
                spans[_INFERENCE] += outside

    return run
