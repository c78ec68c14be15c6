"""Tells of the life of workers in the phrases of TorchServe's console, which its users' tests and alarms look for.

Source: TorchServe 0.12, class ``WorkerThread``; the texts are its own.
"""

from __future__ import annotations

import logging
import time
from logging import ERROR, INFO, WARNING
from typing import Protocol, cast

from marserve.errors import ServeError, WorkerSilent
from marserve.observer import Observer

log = logging.getLogger("marserve.recovery")

#: By event, the lines in order: level and text.
PHRASES: dict[str, tuple[tuple[int, str], ...]] = {
    "silent": (
        (ERROR, "Number or consecutive unsuccessful inference {silences}"),
        # Two lines of one record: whoever looks for the first expects the second right behind it.
        (
            ERROR,
            "Backend worker error\n"
            "org.pytorch.serve.wlm.WorkerInitializationException: Backend worker did not respond in given time",
        ),
    ),
    "ended": ((INFO, "{number} Worker disconnected. {state}"),),
    "first_retry": (
        (INFO, "Auto recovery start timestamp: {now}"),
        (INFO, "Retry worker: {number} in {wait} seconds."),
    ),
    "next_retry": ((INFO, "Retry worker: {number} in {wait} seconds."),),
    "failed_again": ((WARNING, "Auto recovery failed again"),),
    "recovered": ((INFO, "Auto recovery succeeded, reset recoveryStartTS"),),
}


class Phrases:
    """Implements ``Observer``: hands everything on to another one, and writes what becomes of workers."""

    def __init__(self, inner: Observer) -> None:
        self.jobs_ended, self.metrics_reported = inner.jobs_ended, inner.metrics_reported
        self.version_changed, self.request_answered = inner.version_changed, inner.request_answered
        self._inner = inner
        #: times in a row that a worker was ended for its silence, and whether it has been tried again, by its number
        self._silences: dict[int, int] = {}
        self._retried: set[int] = set()

    def worker_changed(self, worker: object) -> None:
        """See ``Observer``."""
        self._inner.worker_changed(worker)
        changed = cast(_Worker, worker)
        if changed.state == "ready":
            self._silences.pop(changed.number, None)
            if changed.number in self._retried:
                self._retried.discard(changed.number)
                _tell("recovered")
        elif changed.state in ("died", "gone"):
            self._ended(changed)

    def _ended(self, worker: _Worker) -> None:
        why = worker.sentence
        if isinstance(why, WorkerSilent) or (why is not None and why.fault == "late"):
            self._silences[worker.number] = self._silences.get(worker.number, 0) + 1
            _tell("silent", silences=self._silences[worker.number])
        state = "WORKER_MODEL_LOADED" if worker.ready_at else "WORKER_STARTED"
        _tell("ended", number=worker.number, state=state if worker.state == "died" else "WORKER_SCALED_DOWN")
        if worker.state == "died" and worker.number in self._retried:
            _tell("failed_again")

    def worker_retried(self, worker: object, wait: float) -> None:
        """See ``Observer``."""
        self._inner.worker_retried(worker, wait)
        number = cast(_Worker, worker).number
        event = "next_retry" if number in self._retried else "first_retry"
        self._retried.add(number)
        _tell(event, number=number, wait=round(wait), now=int(time.time() * 1000))


def _tell(event: str, **values: object) -> None:
    for level, text in PHRASES[event]:
        log.log(level, "%s", text.format(**values))


class _Worker(Protocol):
    """What is read of a worker."""

    number: int
    state: str
    ready_at: float
    sentence: ServeError | None
