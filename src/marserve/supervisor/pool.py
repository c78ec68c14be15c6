"""The workers of one model version: starts, scales and stops them, and replaces those that die."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from marserve.batching.job import Job
from marserve.batching.queue import JobQueue
from marserve.errors import LoadError, NoWorker, ServeError, ShuttingDown, WorkerDied, WorkerSilent
from marserve.observer import Observer
from marserve.supervisor.concurrency import end_silent
from marserve.supervisor.crowd import Crowd
from marserve.supervisor.dispatch import Dispatcher
from marserve.supervisor.gate import Gate
from marserve.supervisor.lifecycle import RestartPolicy, Row, VersionState, WorkerState, version_state
from marserve.supervisor.process import Starter
from marserve.supervisor.worker import LAST_SECONDS, Autopsy, Worker

log = logging.getLogger("marserve.pool")

#: Tries of a worker that dies while it loads before the version counts as failed: a service that ends its own
#: process never gets as far as an error that could be told.
LOAD_TRIES = 3
#: Times that a job is given to a worker before it is answered with an error.
MOST_ATTEMPTS = 4
#: Why a process could not be started although the next try may work: descriptors, memory or processes had run out.
SHORT_OF = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN))


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What a pool is told, as plain values.

    Attributes:
        response_timeout: longest run of one batch, seconds.
        startup_timeout: longest time from the start of a worker to a loaded service, seconds.
        arena_bytes: shared memory of each link for large bodies.
        environment: environment of the workers.
        python: interpreter of the workers, None for the server's.
        restart: when dead workers are replaced.
    """

    response_timeout: float = 120.0
    startup_timeout: float = 120.0
    arena_bytes: int = 64 << 20
    environment: dict[str, str] = field(default_factory=dict)
    python: str | None = None
    restart: RestartPolicy = RestartPolicy()


class Pool:
    """The workers of one version; implements ``WorkerOwner`` and ``Staff``."""

    def __init__(
        self,
        name: str,
        version: object,
        queue: JobQueue,
        load: Callable[[int], dict[str, object]],
        settings: PoolSettings,
        starter: Starter,
        gate: Gate,
        observer: Observer,
        numbers: count[int],
        crowd: Crowd,
    ) -> None:
        # Lifetime of the pool
        self.name = name
        self.queue = queue
        self.settings = settings
        self._version = version
        self._load = load
        self._starter = starter
        self._gate = gate
        self._observer = observer
        self._crowd = crowd
        self.jobs = Dispatcher(name, queue, observer.job_ended, self)
        self.submit, self.cancel, self.job_ended = self.jobs.submit, self.jobs.cancel, observer.job_ended
        self._numbers = numbers
        self._loop = asyncio.get_running_loop()
        # Workers
        self.target = 0
        self.workers: list[Worker] = []
        self.failure: ServeError | None = None
        self.last_autopsy: Autopsy | None = None
        self._row = Row(settings.restart)
        self._load_deaths = 0
        self._restarts: set[asyncio.TimerHandle] = set()
        self.is_draining = False
        self._changed: set[asyncio.Future[None]] = set()
        self.restart_count = 0

    # State

    @property
    def ready_count(self) -> int:
        """Workers that can answer."""
        return len(self.jobs.links)

    @property
    def starting_count(self) -> int:
        """Workers that load, or wait for their restart."""
        return sum(worker.is_loading for worker in self.workers) + len(self._restarts)

    def why_degraded(self) -> str:
        """Return why workers are missing, "" when they are only on their way."""
        if self.failure is not None:
            return self.failure.message
        return self.last_autopsy.reason if self.last_autopsy is not None else ""

    @property
    def state(self) -> VersionState:
        """State of the version, derived from its workers."""
        return version_state(
            self.target, self.ready_count, self.starting_count, self.failure is not None, self.is_draining
        )

    def _has_changed(self) -> None:
        for waiter in self._changed:
            if not waiter.done():
                waiter.set_result(None)
        self._changed.clear()
        self._observer.version_changed(self._version)

    async def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return once ``is_so`` holds; it is asked again after each change of a worker."""
        while not is_so():
            waiter = self._loop.create_future()
            self._changed.add(waiter)
            try:
                await waiter
            finally:
                self._changed.discard(waiter)

    async def wait_ready(self, wanted: int) -> None:
        """Return once ``wanted`` workers can answer.

        Raises:
            ServeError: the tries to start them are over, or the version is being removed; says why.
        """
        await self.wait_until(lambda: self.ready_count >= wanted or self.failure is not None or self.target < wanted)
        if self.ready_count >= wanted:
            return
        if self.failure is not None:
            raise self.failure
        if self.is_draining:
            raise ShuttingDown(f"{self.name} was removed before its workers could answer.")

    # Staff

    def refuse_if_hopeless(self) -> None:
        """See ``Staff``."""
        if self.is_draining:
            raise ShuttingDown(f"{self.name} is being removed.")
        if self.target == 0:
            raise NoWorker(f"{self.name} has no worker.")
        if self.failure is not None and not self.starting_count:
            raise NoWorker(
                f"{self.name} has no worker, because none could be started: {self.failure.message}",
                "Mend the archive and register it again, or scale the model to try again.",
            )

    def most_in_flight(self) -> int:
        """See ``Staff``. A worker that is being stopped may hang in its last batch: it counts."""
        return max((worker.in_flight_count for worker in self.workers), default=0)

    def has_starting(self) -> bool:
        """See ``Staff``."""
        return self.starting_count > 0

    def why_none(self) -> str:
        """See ``Staff``."""
        return f" ({self.failure.message})" if self.failure is not None else ""

    def look_at_workers(self, now: float) -> None:
        """See ``Staff``."""
        now_ns = time.monotonic_ns()
        limit = self.settings.response_timeout
        for worker in self.workers:
            if worker.is_loading and now - worker.born > self.settings.startup_timeout:
                self._too_slow_to_load(worker)
            elif worker.link is not None:
                patience = limit
                if worker.link.is_concurrent:
                    end_silent(worker.link, now, limit, partial(self._silent, "handle"))
                    patience += LAST_SECONDS  # for it to let go of what it was told to
                if worker.link.silent_for(now_ns) > patience:
                    worker.kill(self._silent(worker.link.running_step))

    def _silent(self, step: str) -> WorkerSilent:
        return WorkerSilent(
            f"{self.name} did not answer within the response timeout of {self.settings.response_timeout:g} s; "
            f"it was in {step}.",
            "Raise response_timeout if the model needs longer.",
        )

    def _too_slow_to_load(self, worker: Worker) -> None:
        limit = self.settings.startup_timeout
        error = LoadError(
            f"{self.name} did not load within the startup timeout of {limit:g} s.",
            "Raise startup_timeout if the model needs longer.",
        )
        self._fail(error)
        worker.kill(error)

    # Scaling

    def scale(self, target: int) -> None:
        """Set how many workers there should be; starts or stops the difference. ``wait_ready`` waits for it."""
        self.target = target
        self.failure = None
        self._load_deaths = 0
        self._row.reset()
        self._fill()
        surplus = len(self._serving()) - target
        if surplus > 0:
            self._stop_some(surplus)
        if target == 0:
            self.jobs.end_waiting(NoWorker(f"{self.name} was scaled to no worker."))
        self._has_changed()

    def _serving(self) -> list[Worker]:
        stays = (WorkerState.STARTING, WorkerState.LOADING, WorkerState.READY)
        return [worker for worker in self.workers if worker.state in stays]

    def _fill(self) -> None:
        for handle in self._restarts:
            handle.cancel()
        self._restarts.clear()
        for _ in range(self.target - len(self._serving())):
            self._start_one()

    def _start_one(self) -> None:
        number = next(self._numbers)
        worker = Worker(number, f"{self.name}#{number}", self, self._load(number), self.settings.arena_bytes)
        self.workers.append(worker)
        try:
            worker.start(self._starter, self._gate, self.settings.environment, self.settings.python)
        except OSError as error:
            self.workers.remove(worker)
            self._not_started(error)
            return
        self._observer.worker_changed(worker)
        self.jobs.keep_looking()

    def _stop_some(self, surplus: int) -> None:
        """Stop those first that are not ready yet, then those with the least in their hands."""
        order = sorted(self._serving(), key=lambda worker: (not worker.is_loading, worker.in_flight_count))
        back: list[Job] = []
        for worker in order[:surplus]:
            self._take_off(worker)
            back += worker.stop()
            self._observer.worker_changed(worker)
        self.jobs.put_back(back)

    def _take_off(self, worker: Worker) -> None:
        """Give a worker no more work."""
        self.jobs.remove(worker.link)
        if worker.link is not None:
            self._crowd.leave(worker.link)

    async def drain(self, timeout: float) -> None:
        """Answer what was accepted, then stop every worker; what is left after ``timeout`` seconds is told so."""
        self.is_draining = True
        self._has_changed()
        try:
            async with asyncio.timeout(timeout):
                while self.jobs.is_busy and (self.ready_count or self.starting_count):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            log.warning("%s did not finish its work within %g s of draining.", self.name, timeout)
        await self.close()

    async def close(self) -> None:
        """Stop every worker, and wait until their processes are gone."""
        self.is_draining = True
        self.target = 0
        self._fill()
        self._stop_some(len(self._serving()))
        self.jobs.end_waiting(ShuttingDown(f"{self.name} was stopped before the request's turn came."))
        await self.wait_until(lambda: not self.workers)
        self.jobs.close()

    def kill_all(self, sentence: ServeError) -> None:
        """End every worker at once; the jobs that they run get ``sentence``."""
        self.is_draining = True
        self.target = 0
        self._fill()
        self.jobs.end_waiting(sentence)
        for worker in list(self.workers):
            worker.kill(sentence)

    # WorkerOwner

    def worker_ready(self, worker: Worker) -> None:
        """See ``WorkerOwner``."""
        assert worker.link is not None
        self._load_deaths = 0
        self._crowd.join(worker.link)
        self.jobs.add(worker.link)
        self._observer.worker_changed(worker)
        self._has_changed()

    def worker_answered(self, worker: Worker) -> None:
        """See ``WorkerOwner``."""
        if self.queue.has_jobs:
            self.jobs.dispatch(time.monotonic())

    def worker_load_failed(self, worker: Worker, error: ServeError) -> None:
        """See ``WorkerOwner``."""
        log.error("%s cannot load its service: %s\n%s", worker.name, error.message, getattr(error, "traceback", ""))
        self._fail(error)
        worker.kill(error)

    def worker_metrics(self, metrics: bytes) -> None:
        """See ``WorkerOwner``."""
        self._observer.metrics_reported(self._version, metrics)

    def worker_ended(self, worker: Worker, suspects: list[Job], innocents: list[Job]) -> None:
        """See ``WorkerOwner``."""
        self.workers.remove(worker)
        self._take_off(worker)
        self._observer.worker_changed(worker)
        if worker.state is WorkerState.DIED:
            self._bury(worker, suspects)
        self._put_back(worker, innocents)
        if not self.ready_count and (self.failure is not None or not self.target) and not self.starting_count:
            self.jobs.end_waiting(
                NoWorker(f"{self.name} has no worker left: {self.failure or 'it was scaled to none'}")
            )
        self._has_changed()
        self.jobs.dispatch(time.monotonic())
        self.jobs.keep_looking()

    def _put_back(self, worker: Worker, innocents: list[Job]) -> None:
        """Let other workers run what a gone one had not; but not for ever, and nothing that was answered in part."""
        again: list[Job] = []
        for job in innocents:
            if job.attempts < MOST_ATTEMPTS and not job.has_begun:
                again.append(job)
            else:
                reason = worker.autopsy.reason if worker.autopsy else "its worker is gone."
                self.jobs.end(
                    job,
                    WorkerDied(f"{job.attempts} workers ended with the request in their hands; the last: {reason}"),
                )
        self.jobs.put_back(again)

    def _bury(self, worker: Worker, suspects: list[Job]) -> None:
        """Tell about a death, answer the jobs that ran, and arrange for a new worker."""
        autopsy = worker.autopsy
        assert autopsy is not None
        self.last_autopsy = autopsy
        log.error("%s Its last lines:\n%s", autopsy.reason, "\n".join(autopsy.log) or "(none)")
        tail = autopsy.log[-1] if autopsy.log else ""
        error = worker._sentence or WorkerDied(
            autopsy.reason + (f" Its last line: {tail}" if tail else ""),
            "GET /models/{model} on the management port shows the worker's last lines.",
        )
        for job in suspects:
            self.jobs.end(job, error)
        if worker.ready_at:  # the service does load: an earlier failure of another worker ends no tries for this one
            self.failure = None
        if self.target > len(self._serving()) + len(self._restarts) and self.failure is None:
            self._plan_restart(worker, autopsy.reason)

    def _plan_restart(self, worker: Worker, reason: str) -> None:
        now = time.monotonic()
        if not (worker.ready_at or worker.was_blameless):
            self._load_deaths += 1
            if self._load_deaths >= LOAD_TRIES:
                lines = "\n".join(worker.autopsy.log) if worker.autopsy else ""
                self._fail(LoadError(f"{reason} It was tried {LOAD_TRIES} times.", None, lines))
                return
        wait = self._row.next_wait(now, now - worker.ready_at if worker.ready_at else 0.0)
        if wait is None:
            self._fail(LoadError(f"{reason} Workers of {self.name} kept dying; there is no further try."))
        else:
            self._restart_in(wait)

    def _not_started(self, error: OSError) -> None:
        """Try again where the machine has run out of something that may come back; else end the tries."""
        wait = self._row.next_wait(time.monotonic(), 0.0) if error.errno in SHORT_OF else None
        told = f"No worker process for {self.name} could be started: {error}."
        if wait is None:
            self._fail(LoadError(told))
        else:
            log.error("%s", told)
            self._restart_in(wait)

    def _restart_in(self, wait: float) -> None:
        self.restart_count += 1
        log.info("A new worker for %s starts in %g s.", self.name, wait)
        handle: asyncio.TimerHandle

        def restart() -> None:
            self._restarts.discard(handle)
            if self.target > len(self._serving()):
                self._start_one()
            self._has_changed()

        handle = self._loop.call_later(wait, restart)
        self._restarts.add(handle)

    def _fail(self, error: ServeError) -> None:
        """End the tries: who waits for workers is told why."""
        self.failure = error
        for handle in self._restarts:
            handle.cancel()
        self._restarts.clear()
        if not self.ready_count and not self.starting_count:  # else the last of those ends what waits
            self.jobs.end_waiting(
                NoWorker(f"{self.name} has no worker, because none could be started: {error.message}")
            )
        self._has_changed()
