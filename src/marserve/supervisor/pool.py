"""The workers of one model version: scales them, feeds them from the queue, and replaces those that die."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from marserve.batching.job import Job, JobState
from marserve.batching.queue import JobQueue
from marserve.errors import JobTimeout, LoadError, NoWorker, ServeError, ShuttingDown, WorkerDied, WorkerSilent
from marserve.observer import Observer
from marserve.supervisor.gate import Gate
from marserve.supervisor.lifecycle import RestartPolicy, Row, VersionState, WorkerState, version_state
from marserve.supervisor.link import Link
from marserve.supervisor.process import Starter
from marserve.supervisor.worker import Worker
from marserve.wire import page

log = logging.getLogger("marserve.pool")

#: A batch that runs longer than this, and than ten times its estimate, gives up what waits behind it.
SLOW_FLOOR = 0.005
SLOW_FACTOR = 10.0
#: How often the pages are looked at while batches wait behind running ones, seconds.
LOOK_AHEAD = 0.005
#: How often deadlines and timeouts are looked at otherwise, seconds.
LOOK = 0.1
#: Requests in a row that must have come alone before the answer to the next is awaited in place.
ALONE = 16
#: Seconds that must lie between an awaited answer and the next request for that to have come alone.
APART = 0.00001
#: Slowest service whose answer is awaited, and how long it is, seconds.
QUICK, AWAIT = 0.0005, 0.0003
#: Tries of a worker that dies while it loads before the version counts as failed: a service that ends its own
#: process never gets as far as an error that could be told.
LOAD_TRIES = 3
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
        restart: when dead workers are replaced.
    """

    response_timeout: float = 120.0
    startup_timeout: float = 120.0
    arena_bytes: int = 64 << 20
    environment: dict[str, str] = field(default_factory=dict)
    python: str | None = None
    restart: RestartPolicy = RestartPolicy()


class Pool:
    """Workers and queue of one version; implements ``WorkerOwner``."""

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
        self.job_ended: Callable[[Job], None] = observer.job_ended
        self._numbers = numbers
        self._loop = asyncio.get_running_loop()
        # Workers
        self.target = 0
        self.workers: list[Worker] = []
        self._links: list[Link] = []
        self.failure: ServeError | None = None
        self.last_autopsy: str = ""
        self._row = Row(settings.restart)
        self._load_deaths = 0
        self._restarts: set[asyncio.TimerHandle] = set()
        self.is_draining = False
        self._changed: set[asyncio.Future[None]] = set()
        # Dispatch
        self._has_tick = False
        #: requests in a row that came alone, and when the answer to the last of them was awaited
        self._alone = 0
        self._awaited = 0.0
        self._wake: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self.restart_count = 0

    # State

    @property
    def ready_count(self) -> int:
        """Workers that can answer."""
        return len(self._links)

    @property
    def starting_count(self) -> int:
        """Workers that load, or wait for their restart."""
        return sum(worker.is_loading for worker in self.workers) + len(self._restarts)

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

    # Jobs

    def submit(self, job: Job) -> None:
        """Accept a job; from here on it ends with exactly one answer.

        Raises:
            QueueFull: the queue is at its bound.
            NoWorker: no worker is there and none is coming.
        """
        if not self._links:
            self._refuse_if_hopeless()
        self.queue.put(job)
        if self._has_tick:
            return
        for link in self._links:
            if not link.in_flight:
                self._dispatch(time.monotonic())
                if self._is_alone(job.arrived, link):
                    link.await_answer(AWAIT)
                    self._awaited = time.monotonic()
                return
        self._has_tick = True
        self._loop.call_soon(self._tick)

    def _is_alone(self, arrived: float, link: Link) -> bool:
        """Whether requests come one at a time to a service that answers at once.

        A request that arrives in the very moment in which the answer to another was awaited was there before:
        then clients do come together, and whoever waits here keeps the others waiting.
        """
        if arrived - self._awaited < APART or len(link.in_flight) != 1:
            self._alone = 0
            return False
        self._alone += 1
        if self._alone < ALONE or link.slowest > QUICK or not link.words[page.POLL_MICROSECONDS]:
            self._awaited = 0.0
            return False
        return True

    def _refuse_if_hopeless(self) -> None:
        if self.is_draining:
            raise ShuttingDown(f"{self.name} is being removed.")
        if self.target == 0:
            raise NoWorker(f"{self.name} has no worker.")
        if self.failure is not None and not self.starting_count:
            raise NoWorker(
                f"{self.name} has no worker, because none could be started: {self.failure.message}",
                "Mend the archive and register it again, or scale the model to try again.",
            )
        self._keep_looking()

    def cancel(self, job: Job, error: ServeError) -> None:
        """End a job for which nobody waits any more. A batch that runs already is not interrupted."""
        if job.state is JobState.ANSWERED:
            return
        if job.state is JobState.QUEUED:
            self.queue.cancel(job)
        self._end(job, error, tell=False)

    def _end(self, job: Job, error: ServeError, tell: bool = True) -> None:
        if job.state is JobState.ANSWERED:
            return
        job.state = JobState.ANSWERED
        job.error = error
        job.done = time.monotonic()
        if tell:
            job.fail(error)
        self.job_ended(job)

    # Dispatch

    def _tick(self) -> None:
        self._has_tick = False
        self._dispatch(time.monotonic())

    def _dispatch(self, now: float) -> None:
        """Give workers what leaves now: the one rule of who gets what, called whenever something has changed."""
        queue = self.queue
        links = self._links
        touched: list[Link] = []
        while queue._jobs:
            link = self._freest(links)
            if link is None:
                break
            batch = queue.take(not link.in_flight, now)
            if not isinstance(batch, list):
                if batch is not None and not link.in_flight:
                    self._wake_at(batch)
                break
            link.stage(batch, now)
            touched.append(link)
        for link in touched:
            link.flush()
        if touched and self._look is None:
            self._keep_looking()

    @staticmethod
    def _freest(links: list[Link]) -> Link | None:
        """Return the link with the least in its hands that has room."""
        best = None
        least = 1 << 30
        for link in links:
            size = len(link.in_flight)
            if size < least and size < link.depth:
                best, least = link, size
        return best

    def _wake_at(self, moment: float) -> None:
        if self._wake is None:
            self._wake = self._loop.call_later(max(0.0, moment - time.monotonic()), self._woken)

    def _woken(self) -> None:
        self._wake = None
        self._dispatch(time.monotonic())

    # Looking at pages, deadlines and timeouts

    def _keep_looking(self) -> None:
        """Keep one timer while there is anything to look at; a pool at rest costs nothing."""
        if self._look is not None:
            return
        # Of all workers, not only of those that get work: a stopping one may hang in its last batch.
        most = max((worker.in_flight_count for worker in self.workers), default=0)
        if most > 1:
            self._look = self._loop.call_later(LOOK_AHEAD, self._looked)
        elif most or self.queue or self.starting_count:
            self._look = self._loop.call_later(LOOK, self._looked)

    def _looked(self) -> None:
        self._look = None
        now = time.monotonic()
        self._take_back_behind_slow()
        self._end_silent(now)
        for job in self.queue.expire(now):
            self._end(job, self._late(job, now))
        self._keep_looking()

    def _late(self, job: Job, now: float) -> JobTimeout:
        waited = now - job.arrived
        why = "no worker was free" if self._links else "no worker is ready"
        if self.failure is not None:
            why += f" ({self.failure.message})"
        return JobTimeout(
            f"The request waited {waited:.1f} s in the queue of {self.name}: {why} before its deadline.",
            "Add workers, or raise job_deadline.",
        )

    def _take_back_behind_slow(self) -> None:
        now_ns = time.monotonic_ns()
        back: list[Job] = []
        for link in self._links:
            if len(link.in_flight) > 1:
                running = link.running_for(now_ns)
                if running > SLOW_FLOOR and running > SLOW_FACTOR * link.slowest:
                    back += link.take_back()
                    link.depth = 1
        if back:
            self.queue.put_back(sorted(back, key=_by_arrival))
            self._dispatch(time.monotonic())

    def _end_silent(self, now: float) -> None:
        now_ns = time.monotonic_ns()
        limit = self.settings.response_timeout
        for worker in self.workers:
            if worker.is_loading and now - worker.born > self.settings.startup_timeout:
                self._too_slow_to_load(worker)
            elif worker.link is not None and worker.link.silent_for(now_ns) > limit:
                step = worker.link.running_step
                worker.kill(
                    WorkerSilent(
                        f"{self.name} did not answer within the response timeout of {limit:g} s; it was in {step}.",
                        "Raise response_timeout if the model needs longer.",
                    )
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
            self._end_waiting(NoWorker(f"{self.name} was scaled to no worker."))
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
            self._fail(LoadError(f"No worker process for {self.name} could be started: {error}."))
            return
        self._observer.worker_changed(worker)
        self._keep_looking()

    def _stop_some(self, surplus: int) -> None:
        """Stop those first that are not ready yet, then those with the least in their hands."""
        order = sorted(self._serving(), key=lambda worker: (not worker.is_loading, worker.in_flight_count))
        back: list[Job] = []
        for worker in order[:surplus]:
            if worker.link in self._links:
                self._links.remove(worker.link)
            back += worker.stop()
            self._observer.worker_changed(worker)
        if back:
            self.queue.put_back(sorted(back, key=_by_arrival))
            self._dispatch(time.monotonic())

    async def drain(self, timeout: float) -> None:
        """Answer what was accepted, then stop every worker; what is left after ``timeout`` seconds is told so."""
        self.is_draining = True
        self._has_changed()
        try:
            async with asyncio.timeout(timeout):
                while self.queue or any(link.in_flight for link in self._links):
                    if not self._links and not self.starting_count:
                        break
                    await asyncio.sleep(0.005)
        except TimeoutError:
            log.warning("%s did not finish its work within %g s of draining.", self.name, timeout)
        self._end_waiting(ShuttingDown(f"{self.name} was stopped before the request's turn came."))
        await self.close()

    async def close(self) -> None:
        """Stop every worker, and wait until their processes are gone."""
        self.is_draining = True
        self.target = 0
        self._fill()
        self._stop_some(len(self._serving()))
        self._end_waiting(ShuttingDown(f"{self.name} was stopped before the request's turn came."))
        if self._wake is not None:
            self._wake.cancel()
        await self.wait_until(lambda: not self.workers)
        if self._look is not None:
            self._look.cancel()

    def kill_all(self, sentence: ServeError) -> None:
        """End every worker at once; the jobs that they run get ``sentence``."""
        self.is_draining = True
        self.target = 0
        self._fill()
        self._end_waiting(sentence)
        for worker in list(self.workers):
            worker.kill(sentence)

    def _end_waiting(self, error: ServeError) -> None:
        for job in self.queue.take_all():
            self._end(job, error)

    # WorkerOwner

    def worker_ready(self, worker: Worker) -> None:
        """See ``WorkerOwner``."""
        assert worker.link is not None
        self._links.append(worker.link)
        self._load_deaths = 0
        self._observer.worker_changed(worker)
        self._has_changed()
        self._dispatch(time.monotonic())

    def worker_answered(self, worker: Worker) -> None:
        """See ``WorkerOwner``."""
        if self.queue._jobs:
            self._dispatch(time.monotonic())

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
        if worker.link in self._links:
            self._links.remove(worker.link)
        self._observer.worker_changed(worker)
        if worker.state is WorkerState.DIED:
            self._bury(worker, suspects)
        self._put_back(worker, innocents)
        if not self._links and (self.failure is not None or not self.target) and not self.starting_count:
            self._end_waiting(NoWorker(f"{self.name} has no worker left: {self.failure or 'it was scaled to none'}"))
        self._has_changed()
        self._dispatch(time.monotonic())
        self._keep_looking()

    def _put_back(self, worker: Worker, innocents: list[Job]) -> None:
        """Let other workers run what a gone one had not; but not for ever, if workers die in a row."""
        again: list[Job] = []
        for job in sorted(innocents, key=_by_arrival):
            if job.attempts < MOST_ATTEMPTS:
                again.append(job)
            else:
                reason = worker.autopsy.reason if worker.autopsy else "its worker is gone."
                self._end(
                    job,
                    WorkerDied(f"{job.attempts} workers ended with the request in their hands; the last: {reason}"),
                )
        self.queue.put_back(again)

    def _bury(self, worker: Worker, suspects: list[Job]) -> None:
        """Tell about a death, answer the jobs that ran, and arrange for a new worker."""
        autopsy = worker.autopsy
        assert autopsy is not None
        self.last_autopsy = autopsy.reason
        log.error("%s Its last lines:\n%s", autopsy.reason, "\n".join(autopsy.log) or "(none)")
        tail = autopsy.log[-1] if autopsy.log else ""
        error = worker._sentence or WorkerDied(
            autopsy.reason + (f" Its last line: {tail}" if tail else ""),
            "GET /models/{model} on the management port shows the worker's last lines.",
        )
        for job in suspects:
            self._end(job, error)
        if worker.ready_at:  # the service does load: an earlier failure of another worker ends no tries for this one
            self.failure = None
        if self.target > len(self._serving()) + len(self._restarts) and self.failure is None:
            self._plan_restart(worker, autopsy.reason)

    def _plan_restart(self, worker: Worker, reason: str) -> None:
        now = time.monotonic()
        if not worker.ready_at:
            self._load_deaths += 1
            if self._load_deaths >= LOAD_TRIES:
                lines = "\n".join(worker.autopsy.log) if worker.autopsy else ""
                self._fail(LoadError(f"{reason} It was tried {LOAD_TRIES} times.", None, lines))
                return
        wait = self._row.next_wait(now, now - worker.ready_at if worker.ready_at else 0.0)
        if wait is None:
            self._fail(LoadError(f"{reason} Workers of {self.name} kept dying; there is no further try."))
            return
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
        if not self._links and not self.starting_count:  # else the last of those ends what waits
            self._end_waiting(NoWorker(f"{self.name} has no worker, because none could be started: {error.message}"))
        self._has_changed()


def _by_arrival(job: Job) -> float:
    return job.arrived


def set_polling(pools: list[Pool], cores: int, seconds: float) -> None:
    """Let workers poll before they block while there are cores enough for all of them."""
    links = [link for pool in pools for link in pool._links]
    micros = int(seconds * 1e6) if len(links) < cores else 0
    for link in links:
        link.words[page.POLL_MICROSECONDS] = micros
