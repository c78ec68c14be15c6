"""Counts what the observer hears, and writes the access lines: gathered in the path, joined up shortly after it.

``job_ended`` is the ``append`` of a list and nothing else. A timer empties the list in slices that keep the loop
for less than a millisecond.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
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

#: Seconds between two looks at what has gathered: while requests come, so seldom that many share a look, whose code
#: has left the cache meanwhile (at 2 ms a request costs a microsecond more); and while none do.
BUSY, IDLE = 0.02, 0.1
#: Jobs that are counted in one go: half a millisecond for a connection that waits behind it.
SLICE = 256
#: Most bytes of a target in an access line.
LONGEST_TARGET = 1024


@dataclass(frozen=True, slots=True)
class _Answered:
    """A request that became no job, with its answer."""

    client: object
    method: str
    target: str
    status: int
    seconds: float
    error: ServeError | None


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
        self._line_makers = (_job_lines, _line) if tally is None else (_old_job_lines, _old_line)
        # What has gathered
        self._jobs: list[Job] = []
        self._answered: list[_Answered] = []
        self._reports: list[tuple[str, str, bytes]] = []
        self._workers: list[tuple[_Worker, str]] = []
        self._lines: list[str] = []
        #: See ``Observer``. It is handed on once, when a pool is made: the list must stay the same one.
        self.job_ended: Callable[[object], None] = cast("Callable[[object], None]", self._jobs.append)
        # What has been counted
        self.series: dict[tuple[str, str], VersionSeries] = defaultdict(VersionSeries)
        self.http_codes: Counter[int] = Counter()
        self._service = ServiceMetrics()
        # The timer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None

    # Observer

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
        self._answered.append(_Answered(client, method, target, status, seconds, error))

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
        has_heard = bool(self._jobs or self._answered or self._reports or self._workers)
        has_more = self._flush_surely()
        self._write_lines()  # a slice's at a time: all together would drive what the path needs out of the cache
        if has_more:
            self._timer = loop.call_soon(self._tick)
        else:
            self._timer = loop.call_later(BUSY if has_heard else IDLE, self._tick)

    def _write_lines(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            if access_log.isEnabledFor(logging.INFO):
                # Made here, without the search for the caller: each call of the log finds its code cold.
                text = "\n".join(lines)
                access_log.handle(logging.LogRecord(logs.ACCESS, logging.INFO, __file__, 0, text, None, None))

    def _flush_surely(self) -> bool:
        try:
            return self.flush()
        except Exception:  # without a next look, what gathers would fill the memory
            log.exception("Some requests could not be counted.")
            return True

    def flush(self) -> bool:
        """Count one slice of what has gathered, and keep its access lines; return whether there is more."""
        jobs = self._jobs[:SLICE]
        del self._jobs[:SLICE]
        answered = self._answered[:SLICE]
        del self._answered[:SLICE]
        reports = self._reports[:SLICE]
        del self._reports[:SLICE]
        if self._counts_ours:
            self._count(jobs, answered, reports)
        if self.tally is not None:
            self._tell_workers(self.tally)
            if jobs or answered or reports:
                self.tally.take(jobs, answered, reports)
        if self.has_access_log and (jobs or answered):
            job_lines, line = self._line_makers
            self._lines += job_lines(jobs)
            self._lines += map(line, answered)
        return bool(self._jobs or self._answered or self._reports)

    def _count(self, jobs: list[Job], answered: list[_Answered], reports: Iterable[tuple[str, str, bytes]]) -> None:
        if jobs:
            self._count_jobs(jobs)
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


def _job_lines(jobs: Sequence[Job]) -> list[str]:
    """Return the lines of jobs as one text: many in a row ask for the same, and are formatted in half of the time."""
    lines: list[str] = []
    last: tuple[object, ...] = ()
    line = ""
    for job in jobs:
        client = job.client
        host = client[0] if type(client) is tuple and client else client or "-"
        asked = (job.target, job.method, job.status, host)
        if asked != last:
            last = asked
            line = f'{host} "{_asked(job.method, job.target)}" {job.status or NO_ANSWER} '.replace("%", "%%") + "%.1f"
        lines.append(line)
    return ["\n".join(lines) % tuple([(job.done - job.arrived) * 1000.0 for job in jobs])] if jobs else []


def _line(one: _Answered) -> str:
    target = one.target[:LONGEST_TARGET]
    return f'{_host(one.client)} "{one.method} {target}" {one.status} {one.seconds * 1000.0:.1f}'


def _old_job_lines(jobs: Iterable[Job]) -> list[str]:
    return [_old_job_line(job) for job in jobs]


def _old_job_line(job: Job) -> str:
    milliseconds = int((job.done - job.arrived) * 1000.0)
    asked = _asked(job.method, job.target)
    return f'{_place(job.client)} "{asked} HTTP/1.1" {job.status or NO_ANSWER} {milliseconds}'


def _old_line(one: _Answered) -> str:
    target = one.target[:LONGEST_TARGET]
    milliseconds = int(one.seconds * 1000.0)
    return f'{_place(one.client)} "{one.method} {target} HTTP/1.1" {one.status} {milliseconds}'


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
