"""The five steps of a batch: their numbers, and who is told when one begins and ends."""

from __future__ import annotations

from typing import Any, Callable, Protocol

STEPS = ("decode", "preprocess", "inference", "postprocess", "encode")
DECODE, PREPROCESS, INFERENCE, POSTPROCESS, ENCODE = range(5)


class Steps(Protocol):
    """Told of every step, whoever calls it; a service may call one inside another."""

    def enter(self, step: int) -> None:
        """A step begins; ``step`` is an index into ``STEPS``."""

    def leave(self, step: int) -> None:
        """It ends, by a result or by an exception."""


class NoSteps:
    """For those who do not ask for spans."""

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
