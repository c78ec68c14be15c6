"""When the dead workers of one pool are replaced, and when the tries are over."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial

from marserve.errors import LoadError
from marserve.observer import Observer
from marserve.supervisor.lifecycle import RestartPolicy, Row
from marserve.supervisor.worker import Worker

log = logging.getLogger("marserve.pool")

#: Tries of a worker that dies while it loads before the version counts as failed: a service that ends its own
#: process never gets as far as an error that could be told.
LOAD_TRIES = 3
#: Why a process could not be started although the next try may work: descriptors, memory or processes had run out.
SHORT_OF = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN))


class Restarts:
    """Arranges for the next tries; who dies comes back under its own number.

    Args:
        name: of the version, for the log.
        start: starts a worker under a number.

    Attributes:
        count: how many have been arranged for.
    """

    def __init__(self, name: str, policy: RestartPolicy, observer: Observer, start: Callable[[int], None]) -> None:
        self.count = 0
        self._name = name
        self._policy = policy
        self._observer = observer
        self._start = start
        #: by number of the worker
        self._rows: defaultdict[int, Row] = defaultdict(partial(Row, policy))
        self._load_deaths = 0
        self._timers: dict[int, asyncio.TimerHandle] = {}

    @property
    def waiting_count(self) -> int:
        """Workers whose next try has been arranged for."""
        return len(self._timers)

    def begin_anew(self) -> None:
        """Forget what went wrong: the operator asks for new tries."""
        self.call_off()
        self._load_deaths = 0
        self._rows.clear()

    def call_off(self) -> None:
        """Drop what has been arranged for."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def worker_loaded(self) -> None:
        """A worker can answer."""
        self._load_deaths = 0

    def worker_died(self, worker: Worker, reason: str) -> LoadError | None:
        """Arrange for the next try; return why there is none, None when there is one."""
        now = time.monotonic()
        if not (worker.ready_at or worker.was_blameless or self._policy.repeats_failed_loads):
            self._load_deaths += 1
            if self._load_deaths >= LOAD_TRIES:
                lines = "\n".join(worker.autopsy.log) if worker.autopsy else ""
                return LoadError(f"{reason} It was tried {LOAD_TRIES} times.", None, lines)
        wait = self._rows[worker.number].next_wait(now, now - worker.ready_at if worker.ready_at else 0.0)
        if wait is None:
            return LoadError(f"{reason} Workers of {self._name} kept dying; there is no further try.")
        self._start_in(wait, worker.number)
        self._observer.worker_retried(worker, wait)
        return None

    def not_started(self, number: int, error: OSError) -> LoadError | None:
        """Arrange for another try where the machine has run out of something that may come back; see above."""
        wait = self._rows[number].next_wait(time.monotonic(), 0.0) if error.errno in SHORT_OF else None
        told = f"No worker process for {self._name} could be started: {error}."
        if wait is None:
            return LoadError(told)
        log.error("%s", told)
        self._start_in(wait, number)
        return None

    def _start_in(self, wait: float, number: int) -> None:
        self.count += 1
        log.info("A new worker for %s starts in %g s.", self._name, wait)
        self._timers[number] = asyncio.get_running_loop().call_later(wait, partial(self._due, number))

    def _due(self, number: int) -> None:
        del self._timers[number]
        self._start(number)
