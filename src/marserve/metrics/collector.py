"""Counts what the observer hears, and writes the access lines: many at a time, after their answers.

Jobs are counted in lots, as soon as enough of them have their answers: so few at once, and so soon, that they are
still in the processor's cache. A timer counts what does not come to a lot, and writes the lines.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from time import monotonic
from typing import Protocol, cast

from prometheus_client.core import Metric

from marserve import logs
from marserve.batching.job import Job
from marserve.errors import BusyError, ServeError
from marserve.metrics.series import NO_ANSWER, VersionSeries
from marserve.metrics.service import ServiceMetrics
from marserve.metrics.tally import Tally

log = logging.getLogger("marserve.metrics")
#: Gets the access lines, many a call, with a line feed between; each is ``ip "METHOD target" status milliseconds``,
#: or as the old servers wrote it: ``/ip:port "METHOD target HTTP/1.1" status milliseconds``.
access_log = logging.getLogger(logs.ACCESS)

#: Jobs that are counted together. With half of them each costs more, as the code has left the cache in between; jobs
#: that are kept for longer leave it themselves, and drive out what the path needs.
LOT = 64
#: Seconds between two looks at what has gathered otherwise: while requests come, and while none do.
BUSY, IDLE = 0.02, 0.1
#: Most that is counted in one look: half a millisecond for a connection that waits behind it.
SLICE = 256
#: Most bytes of a target in an access line.
LONGEST_TARGET = 1024
#: Milliseconds as an access line shows them, in steps of a tenth: formatting them anew would take half of its time.
_TENTHS = [f"{tenths / 10:.1f}" for tenths in range(1000)]
#: What the old servers took a request for of which they could not read the first line.
_OLD_UNREADABLE = "GET /bad-request"
_UNCOUNTED = "Some requests could not be counted."


@dataclass(frozen=True, slots=True)
class _Answered:
    """A request that became no job, with its answer."""

    client: object
    method: str
    target: str
    status: int
    seconds: float
    error: ServeError | None
    done: float = 0.0


class Collector:
    """Counts jobs, other requests, and what services report; implements ``Observer``.

    Args:
        has_access_log: whether each request gets an access line.
        tally: counts in an old server's way too, whose form access lines have then.
    """

    def __init__(self, has_access_log: bool = False, tally: Tally | None = None) -> None:
        self.has_access_log = has_access_log
        self.tally = tally
        self._counts_ours = tally is None or not tally.replaces_ours
        self._lines = _our_runs if tally is None else _old_runs
        # An old server's metrics have lines of their own, which are dearer the fewer are written at once.
        self._lot = LOT if tally is None else 1 << 30
        # What has gathered
        self._jobs: list[Job] = []
        self._answered: list[_Answered] = []
        self._reports: list[tuple[str, str, bytes]] = []
        self._workers: list[tuple[_Worker, str]] = []
        self._runs: list[logs.Run] = []
        # What has been counted
        self.series: dict[tuple[str, str], VersionSeries] = defaultdict(VersionSeries)
        self.http_codes: Counter[int] = Counter()
        self._service = ServiceMetrics()
        # The timer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None

    # Observer

    def jobs_ended(self, jobs: Sequence[object]) -> None:
        """See ``Observer``."""
        gathered = self._jobs
        gathered += cast("Sequence[Job]", jobs)
        if len(gathered) >= self._lot:
            lot = gathered[:]
            gathered.clear()
            try:
                self._take(lot)
            except Exception:
                log.exception(_UNCOUNTED)

    def metrics_reported(self, version: object, metrics: bytes) -> None:
        """See ``Observer``."""
        self._reports.append((*_key(version), metrics))

    def worker_changed(self, worker: object) -> None:
        """See ``Observer``; how many workers there are is read when somebody asks."""
        if self.tally is not None:
            changed = cast(_Worker, worker)
            self._workers.append((changed, str(changed.state)))

    def worker_retried(self, worker: object, wait: float) -> None:
        """See ``Observer``; how often that was, is read when somebody asks."""

    def version_changed(self, version: object) -> None:
        """See ``Observer``; what a version's state is, is read when somebody asks."""

    def request_answered(
        self, client: object, method: str, target: str, status: int, seconds: float, error: ServeError | None = None
    ) -> None:
        """See ``Observer``. ``error`` is what the request was refused for, where it was."""
        self._answered.append(_Answered(client, method, target, status, seconds, error, monotonic()))

    # The timer

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at what gathers from now on."""
        self._loop = loop
        self._timer = loop.call_later(IDLE, self._tick)

    def stop(self) -> None:
        """Count and write what is left, and look no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop = None
        while self._flush_surely():
            pass
        self._write_lines()

    def _tick(self) -> None:
        loop = self._loop
        if loop is None:
            return
        has_heard = bool(self._jobs or self._runs or self._answered or self._reports or self._workers)
        has_more = self._flush_surely()
        self._write_lines()
        if has_more:
            self._timer = loop.call_soon(self._tick)
        else:
            self._timer = loop.call_later(BUSY if has_heard else IDLE, self._tick)

    def _write_lines(self) -> None:
        if self._runs:
            lines, self._runs = logs.Lines(self._runs), []
            if access_log.isEnabledFor(logging.INFO):
                # Made here, without the search for the caller: each call of the log finds its code cold.
                access_log.handle(logging.LogRecord(logs.ACCESS, logging.INFO, __file__, 0, lines, None, None))

    def _flush_surely(self) -> bool:
        try:
            return self.flush()
        except Exception:  # without a next look, what gathers would fill the memory
            log.exception(_UNCOUNTED)
            return True

    def flush(self) -> bool:
        """Count one slice of what has gathered, and keep its access lines; return whether there is more."""
        jobs = self._jobs[:SLICE]
        del self._jobs[:SLICE]
        answered = self._answered[:SLICE]
        del self._answered[:SLICE]
        reports = self._reports[:SLICE]
        del self._reports[:SLICE]
        if jobs or answered:
            self._take(jobs, answered)
        if self._counts_ours:
            self._count(answered, reports)
        if self.tally is not None:
            self._tell_workers(self.tally)
            if jobs or answered or reports:
                self.tally.take(jobs, answered, reports)
        return bool(self._jobs or self._answered or self._reports)

    def _take(self, jobs: list[Job], answered: Sequence[_Answered] = ()) -> None:
        """Count jobs, and keep their access lines and those of other requests."""
        if self._counts_ours and jobs:
            self._count_jobs(jobs)
        if self.has_access_log:
            self._runs += self._lines(jobs, answered)

    def _count(self, answered: Iterable[_Answered], reports: Iterable[tuple[str, str, bytes]]) -> None:
        for one in answered:
            self.http_codes[one.status] += 1
            self._count_refusal(one.error)
        for model, version, report in reports:
            dropped = self._service.take(model, version, report)
            self.series[model, version].dropped_reports += dropped

    def _tell_workers(self, tally: Tally) -> None:
        """Tell of the workers that have loaded, and of those that have ended."""
        workers = self._workers[:]
        self._workers.clear()
        for worker, state in workers:
            if state == "ready":
                name = logs.old_worker(worker.name, worker.number)
                model, _, _ = worker.name.rpartition(":")
                tally.worker_loaded(worker.number, model, name, worker.ready_at - worker.born)
            elif state in ("died", "gone"):
                tally.worker_gone(worker.number)

    def _count_jobs(self, jobs: list[Job]) -> None:
        if len({job.model_version for job in jobs}) == 1:
            self.series[_key(jobs[0].model_version)].add(jobs)
            return
        by_version: dict[object, list[Job]] = defaultdict(list)
        for job in jobs:
            by_version[job.model_version].append(job)
        for version, its_jobs in by_version.items():
            self.series[_key(version)].add(its_jobs)

    def _count_refusal(self, error: ServeError | None) -> None:
        """Count what a version refused at once; a name that is not served gets no counts, or they had no end."""
        if isinstance(error, BusyError) and error.model is not None and error.version is not None:
            self.series[error.model, error.version].kinds[error.kind] += 1

    # Reading

    def service_families(self) -> Iterator[Metric]:
        """Yield what services have reported, as it is exposed."""
        return self._service.families()

    def forget(self, keep: Collection[tuple[str, str]]) -> None:
        """Forget what was counted of versions other than these, given by name and version."""
        for key in [key for key in self.series if key not in keep]:
            del self.series[key]
        self._service.forget(keep)
        if self.tally is not None:
            self.tally.forget({model for model, _ in keep})


class _Version(Protocol):
    """What is read of a model version."""

    name: str
    version: str


class _Worker(Protocol):
    """What is read of a worker."""

    name: str
    number: int
    state: object
    born: float
    ready_at: float


def _key(version: object) -> tuple[str, str]:
    named = cast(_Version, version)
    return named.name, named.version


@lru_cache(4096)
def _asked(method: bytes, target: bytes) -> str:
    """Return what was asked for: decoding it anew would take a third of the time that a line takes."""
    return f"{method.decode()} {target[:LONGEST_TARGET].decode('latin-1')}"


def _job_runs(jobs: Sequence[Job]) -> list[logs.Run]:
    """Return the lines of jobs: mostly all ask for the same, and differ in what they took alone."""
    clients = [job.client for job in jobs]
    hosts: list[object] = [client[0] if type(client) is tuple and client else client or "-" for client in clients]
    try:
        took = [_TENTHS[int((job.done - job.arrived) * 10000.0 + 0.5)] for job in jobs]
    except IndexError:
        took = [f"{(job.done - job.arrived) * 1000.0:.1f}" for job in jobs]
    first, count = jobs[0], len(jobs)
    if (
        [job.target for job in jobs].count(first.target) == count
        and [job.status for job in jobs].count(first.status) == count
        and [job.method for job in jobs].count(first.method) == count
        and hosts.count(hosts[0]) == count
    ):
        return [(_stem(first, hosts[0]), took)]
    return [("", [_stem(job, host) + each for job, host, each in zip(jobs, hosts, took, strict=True)])]


def _stem(job: Job, host: object) -> str:
    """Return the line of a job up to how long it took."""
    return f'{host} "{_asked(job.method, job.target)}" {job.status or NO_ANSWER} '


def _line(one: _Answered) -> str:
    """Return the line of a request that became no job; "-" stands for what could not be read of it."""
    asked = f"{one.method or '-'} {one.target[:LONGEST_TARGET] or '-'}"
    return f'{_host(one.client)} "{asked}" {one.status} {one.seconds * 1000.0:.1f}'


def _our_runs(jobs: Sequence[Job], answered: Sequence[_Answered]) -> list[logs.Run]:
    """Return the lines of jobs, and behind them those of other requests."""
    runs = _job_runs(jobs) if jobs else []
    return [*runs, ("", [_line(one) for one in answered])] if answered else runs


def _old_runs(jobs: Sequence[Job], answered: Sequence[_Answered]) -> list[logs.Run]:
    """Return the lines in the order of the answers.

    A job without a method is a part of another request, which has its own line.
    """
    ended = [(job.done, _old_job_line(job)) for job in jobs if job.method]
    if answered:
        ended += [(one.done, _old_line(one)) for one in answered]
        ended.sort(key=itemgetter(0))
    return [("", [line for _, line in ended])] if ended else []


def _old_job_line(job: Job) -> str:
    milliseconds = int((job.done - job.arrived) * 1000.0)
    asked = _asked(job.method, job.target)
    return f'{_place(job.client)} "{asked} HTTP/1.1" {job.status or NO_ANSWER} {milliseconds}'


def _old_line(one: _Answered) -> str:
    asked = f"{one.method} {one.target[:LONGEST_TARGET]}" if one.target else _OLD_UNREADABLE
    milliseconds = int(one.seconds * 1000.0)
    return f'{_place(one.client)} "{asked} HTTP/1.1" {one.status} {milliseconds}'


def _place(client: object) -> str:
    """Return the address and port of a client as the old servers name it; "-" where there is none."""
    if isinstance(client, tuple) and len(client) > 1:
        return f"/{client[0]}:{client[1]}"
    return f"/{client}" if client else "-"


def _host(client: object) -> str:
    """Return the address of a client as an access line names it; "-" where there is none, as on a unix socket."""
    if isinstance(client, tuple):
        return str(client[0]) if client else "-"
    return str(client or "-")
