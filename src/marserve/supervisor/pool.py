"""The workers of one model version: starts, scales and stops them, and replaces those that die."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from marserve.batching.job import Job
from marserve.batching.queue import JobQueue
from marserve.errors import LoadError, NoWorker, OutOfMemory, ServeError, ShuttingDown, WorkerDied, WorkerSilent
from marserve.observer import Observer
from marserve.supervisor.changes import Changes
from marserve.supervisor.concurrency import end_silent
from marserve.supervisor.crowd import Crowd
from marserve.supervisor.dispatch import Dispatcher
from marserve.supervisor.gate import Gate
from marserve.supervisor.lifecycle import RestartPolicy, VersionState, WorkerState, version_state
from marserve.supervisor.parallel import Parallel, parallel_environment, program_of
from marserve.supervisor.process import KILLED, Starter
from marserve.supervisor.restarts import Restarts
from marserve.supervisor.worker import LAST_SECONDS, Autopsy, Worker

log = logging.getLogger("marserve.pool")

#: Times that a job is given to a worker before it is answered with an error.
MOST_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What a pool is told, as plain values.

    Attributes:
        response_timeout: longest run of one batch, seconds.
        startup_timeout: longest time from the start of a worker to a loaded service, seconds.
        arena_bytes: shared memory of each link for large bodies.
        environment: environment of the workers.
        python: interpreter of the workers, None for the server's.
        parallel: whether a worker is several processes.
        pinning: see ``supervisor.parallel.program_of``.
        restart: when dead workers are replaced.
        has_tickets: see ``Dispatcher.submit_with_ticket``.
        works_ahead: see ``Dispatcher``.
    """

    response_timeout: float = 120.0
    startup_timeout: float = 120.0
    arena_bytes: int = 64 << 20
    environment: dict[str, str] = field(default_factory=dict)
    python: str | None = None
    parallel: Parallel = Parallel()
    pinning: tuple[str, ...] | None = None
    restart: RestartPolicy = RestartPolicy()
    has_tickets: bool = False
    works_ahead: bool = True


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
        numbers: Iterator[int],
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
        self.jobs = Dispatcher(name, queue, observer.jobs_ended, self, settings.works_ahead)
        self.submit = self.jobs.submit_with_ticket if settings.has_tickets else self.jobs.submit
        self.cancel, self.jobs_ended = self.jobs.cancel, observer.jobs_ended
        self._numbers = numbers
        if settings.parallel.has_ranks and settings.pinning is not None:
            log.warning("%s: cpu_launcher_enable has no effect on workers of several processes.", name)
        # Workers
        self.target = 0
        self.workers: list[Worker] = []
        #: why the tries to start workers are over
        self.failure: ServeError | None = None
        #: why a worker could not load, though it is tried again
        self.setback: ServeError | None = None
        self.last_autopsy: Autopsy | None = None
        self._restarts = Restarts(name, settings.restart, observer, self._start_again)
        self.is_draining = False
        self._changes = Changes()
        self.wait_until = self._changes.wait_until

    # State

    @property
    def ready_count(self) -> int:
        """Workers that can answer."""
        return len(self.jobs.links)

    @property
    def starting_count(self) -> int:
        """Workers that load, or wait for their restart."""
        return sum(worker.is_loading for worker in self.workers) + self._restarts.waiting_count

    @property
    def restart_count(self) -> int:
        """Workers that were replaced, or whose replacement has been arranged for."""
        return self._restarts.count

    def why_degraded(self) -> str:
        """Return why workers are missing, "" when they are only on their way."""
        why = self.failure or self.setback
        if why is not None:
            return why.message
        return self.last_autopsy.reason if self.last_autopsy is not None else ""

    @property
    def state(self) -> VersionState:
        """State of the version, derived from its workers."""
        return version_state(
            self.target, self.ready_count, self.starting_count, self.failure is not None, self.is_draining
        )

    def _has_changed(self) -> None:
        self._changes.tell()
        self._observer.version_changed(self._version)

    async def wait_ready(self, wanted: int) -> None:
        """Return once ``wanted`` workers can answer.

        Raises:
            ServeError: one could not load, whether it is tried again or not, or the version is being removed.
        """
        await self.wait_until(
            lambda: self.ready_count >= wanted or bool(self.failure or self.setback) or self.target < wanted
        )
        if self.ready_count >= wanted:
            return
        why = self.failure or self.setback
        if why is not None:
            raise why
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
        why = self.failure or self.setback
        return f" ({why.message})" if why is not None else ""

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
        error.fault = "late"
        self._load_failed(error)
        worker.kill(error)

    def _load_failed(self, error: ServeError) -> None:
        """Tell who waits; end the tries, unless the next one may do better."""
        if self.settings.restart.repeats_failed_loads and not isinstance(error, OutOfMemory):
            self.setback = error
            self._has_changed()
        else:
            self._fail(error)

    # Scaling

    def scale(self, target: int) -> None:
        """Set how many workers there should be; starts or stops the difference. ``wait_ready`` waits for it."""
        self.target = target
        self.failure = self.setback = None
        self._restarts.begin_anew()
        self._fill()
        surplus = len(self._serving()) - target
        if surplus > 0:
            self._stop_some(surplus)
        if target == 0:
            self._starter.release()
            self.jobs.end_waiting(NoWorker(f"{self.name} was scaled to no worker."))
        self._has_changed()

    def _serving(self) -> list[Worker]:
        stays = (WorkerState.STARTING, WorkerState.LOADING, WorkerState.READY)
        return [worker for worker in self.workers if worker.state in stays]

    def _fill(self) -> None:
        self._restarts.call_off()
        for _ in range(self.target - len(self._serving())):
            self._start_one(next(self._numbers))

    def _start_again(self, number: int) -> None:
        if self.target > len(self._serving()):
            self._start_one(number)
        self._has_changed()

    def _start_one(self, number: int) -> None:
        load = self._load(number)
        worker = Worker(number, f"{self.name}#{number}", self, load, self.settings.arena_bytes)
        self.workers.append(worker)
        try:
            self._launch(worker, load)
        except OSError as error:
            self.workers.remove(worker)
            why = self._restarts.not_started(number, error)
            if why is not None:
                self._fail(why)
            return
        self._observer.worker_changed(worker)
        self.jobs.keep_looking()

    def _launch(self, worker: Worker, load: dict[str, object]) -> None:
        settings, number, folder = self.settings, worker.number, os.path.dirname(self._gate.path)
        parallel, environment = settings.parallel, settings.environment
        devices = load.get("devices")
        more = parallel_environment(
            parallel, devices if isinstance(devices, list) else [], environment.get("CUDA_VISIBLE_DEVICES")
        )
        if parallel.has_ranks:
            more["MARSERVE_RANKS"] = os.path.join(folder, f"r{number}")
        model = self.name.partition(":")[0]
        logs = os.path.join(folder, "torchrun")
        program = program_of(parallel, settings.pinning, model, number, self.target, logs)
        worker.start(self._starter, self._gate, {**environment, **more}, settings.python, program)

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
        await self._starter.close()
        self.jobs.close()

    def kill_all(self, sentence: ServeError) -> None:
        """End every worker at once; the jobs that they run get ``sentence``."""
        self.is_draining = True
        self.target = 0
        self._fill()
        self.jobs.end_waiting(sentence)
        for worker in list(self.workers):
            worker.kill(sentence)
        self._starter.release()

    # WorkerOwner

    def worker_ready(self, worker: Worker) -> None:
        """See ``WorkerOwner``."""
        assert worker.link is not None
        self._restarts.worker_loaded()
        self._crowd.join(worker.link)
        self.jobs.add(worker.link)
        if self.ready_count >= self.target:
            self.setback = None
        self._observer.worker_changed(worker)
        self._has_changed()

    def worker_answered(self, worker: Worker) -> None:
        """See ``WorkerOwner``."""
        if self.queue.has_jobs:
            self.jobs.dispatch(time.monotonic())

    def worker_load_failed(self, worker: Worker, error: ServeError) -> None:
        """See ``WorkerOwner``."""
        log.error("%s cannot load its service: %s", worker.name, error.message)  # it has printed the traceback
        error.fault = "load"
        self._load_failed(error)
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
        if not isinstance(worker.sentence, LoadError):  # else all of it has been told
            log.error("%s Its last lines:\n%s", autopsy.reason, "\n".join(autopsy.log) or "(none)")
        tail = autopsy.log[-1] if autopsy.log else ""
        error = worker.sentence or WorkerDied(
            autopsy.reason + (f" Its last line: {tail}" if tail else ""),
            "GET /models/{model} on the management port shows the worker's last lines.",
        )
        if worker.sentence is None and autopsy.exit == KILLED:
            error.fault = "killed"
        for job in suspects:
            self.jobs.end(job, error)
        if worker.ready_at:  # the service does load: an earlier failure of another worker ends no tries for this one
            self.failure = None
        if self.target > len(self._serving()) + self._restarts.waiting_count and self.failure is None:
            why = self._restarts.worker_died(worker, autopsy.reason)
            if why is not None:
                self._fail(why)
            elif self.settings.restart.repeats_failed_loads and not (worker.ready_at or worker.was_blameless):
                self.setback = self.setback or LoadError(autopsy.reason, None, "\n".join(autopsy.log))

    def _fail(self, error: ServeError) -> None:
        """End the tries: who waits for workers is told why."""
        self.failure = error
        self._restarts.call_off()
        self._starter.release()  # what is kept may be what is wrong
        if not self.ready_count and not self.starting_count:  # else the last of those ends what waits
            self.jobs.end_waiting(
                NoWorker(f"{self.name} has no worker, because none could be started: {error.message}")
            )
        self._has_changed()
