"""Gives the jobs of one model version to its workers: who gets what, and what is taken back or given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from marserve.batching.job import Job, JobState
from marserve.batching.queue import JobQueue
from marserve.errors import JobTimeout, QueueFull, ServeError
from marserve.supervisor.concurrency import give_up_unwanted
from marserve.supervisor.link import DEEPEST, MOST_BATCHES, Link
from marserve.wire import page

#: A batch that runs longer than this, and than ten times its estimate, gives up what waits behind it.
SLOW_FLOOR = 0.005
SLOW_FACTOR = 10.0
#: Of all that wait, the workers of a quick service have at most one in so many in their hands: the more go there and
#: back together, the less each costs, while most can still go to whoever is free first.
HELD = 3
#: How often the pages are looked at while batches wait behind running ones, seconds.
LOOK_AHEAD = 0.005
#: How often deadlines and timeouts are looked at otherwise, seconds.
LOOK = 0.1
#: Requests in a row that must have come alone before answers are awaited in place, and how many of those follow.
ALONE, AWAITED = 16, 240
#: Slowest service whose answer is awaited, and how long it is, seconds: nobody else is served meanwhile.
QUICK, AWAIT = 0.0002, 0.0003


class Staff(Protocol):
    """Whose workers the links are: the pool."""

    def refuse_if_hopeless(self) -> None:
        """Raise when there is no worker and none is coming."""

    def look_at_workers(self, now: float) -> None:
        """End workers that are silent for too long."""

    def most_in_flight(self) -> int:
        """Return how many batches the busiest worker has in its hands; those that are being stopped count."""

    def has_starting(self) -> bool:
        """Return whether a worker starts, loads, or waits for its restart."""

    def why_none(self) -> str:
        """Return why no worker is there, "" when there is no more to say than that."""


class Dispatcher:
    """The queue of a version, the links that have room for its jobs, and the rule between them.

    Args:
        works_ahead: whether a worker is given batches behind the one that it runs. Who waits there is not looked at
            when its deadline comes.
    """

    def __init__(
        self,
        name: str,
        queue: JobQueue,
        jobs_ended: Callable[[Sequence[Job]], None],
        staff: Staff,
        works_ahead: bool = True,
    ) -> None:
        # Lifetime of the version
        self.name = name
        self.queue = queue
        self.jobs_ended = jobs_ended
        self._staff = staff
        self._works_ahead = works_ahead
        self._loop = asyncio.get_running_loop()
        # Who can be given work
        self.links: list[Link] = []
        #: requests in a row that found no other in flight
        self._alone = 0
        # Timers
        self._has_tick = False
        self._wake: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._looks_ahead = False

    # Jobs

    def submit(self, job: Job) -> None:
        """Accept a job; from here on it ends with exactly one answer.

        Raises:
            QueueFull: the queue is at its bound.
            NoWorker: no worker is there and none is coming.
        """
        if not self.links:
            self._staff.refuse_if_hopeless()
            self.keep_looking()
        self.queue.put(job)
        if self._has_tick:
            return
        for link in self.links:
            if not link.in_flight:
                self.dispatch(time.monotonic())
                self._alone += 1
                if self._alone > ALONE:
                    self._await(link)
                return
        self._alone = 0
        self._has_tick = True
        self._loop.call_soon(self._tick)

    def submit_with_ticket(self, job: Job) -> None:
        """Accept a job if a worker waits for it; see ``submit``.

        Raises:
            QueueFull: every worker has a batch, or one that only waits for its delay and is full.
        """
        waiting = sum(not link.in_flight for link in self.links)
        if len(self.queue) >= waiting * self.queue.policy.batch_size:
            self._staff.refuse_if_hopeless()
            raise QueueFull(
                f"No worker of {self.name} waits for a request.", "Try again later, or take useJobTicket away."
            )
        self.submit(job)

    def _await(self, link: Link) -> None:
        """Await the answer of a quick service in place: requests come one at a time.

        Whoever waits here keeps others waiting and does not see them. So after a number of such answers some
        requests go the usual way again, and if any of them meets another, nobody waits until that has passed.
        """
        if link.slowest <= QUICK and link.words[page.POLL_MICROSECONDS]:
            link.await_answer(AWAIT)
        if self._alone >= ALONE + AWAITED:
            self._alone = 0

    def cancel(self, job: Job, error: ServeError) -> None:
        """End a job for which nobody waits any more.

        A batch that runs already is interrupted only where it does not run alone in its worker.
        """
        if job.state is JobState.ANSWERED:
            return
        was_queued = job.state is JobState.QUEUED
        if was_queued:
            self.queue.cancel(job)
        self.end(job, error, tell=False)
        if not was_queued:
            give_up_unwanted(self.links, job)

    def end(self, job: Job, error: ServeError, tell: bool = True) -> None:
        """End a job with an error, unless it has ended already."""
        if job.state is JobState.ANSWERED:
            return
        job.state = JobState.ANSWERED
        job.parts = ()
        job.error = error
        job.done = time.monotonic()
        if tell:
            job.fail(error)
        self.jobs_ended((job,))

    def end_waiting(self, error: ServeError) -> None:
        """End every job that no worker has."""
        for job in self.queue.take_all():
            self.end(job, error)

    def put_back(self, jobs: list[Job]) -> None:
        """Let others have jobs that a worker has not started, in the order of their arrival."""
        if jobs:
            self.queue.put_back(sorted(jobs, key=_by_arrival))
            self.dispatch(time.monotonic())

    # Links

    def add(self, link: Link) -> None:
        """A worker can be given work."""
        self.links.append(link)
        self._note_alone()
        self.put_back([job for one in self.links if one.depth <= 2 for job in one.take_back()])
        self.dispatch(time.monotonic())

    def remove(self, link: Link | None) -> None:
        """A worker must not be given more."""
        if link in self.links:
            self.links.remove(link)
            self._note_alone()

    def _note_alone(self) -> None:
        """Tell each link whether there are others: what waits behind a slow batch could go to them."""
        for link in self.links:
            link.is_alone = len(self.links) == 1
            if not link.is_alone and link.depth == 2:
                link.depth = 1  # until its next answer says more

    @property
    def is_busy(self) -> bool:
        """Whether jobs wait, or are in the hands of workers that go on."""
        return bool(self.queue) or any(link.in_flight for link in self.links)

    # Dispatch

    def _tick(self) -> None:
        self._has_tick = False
        self.dispatch(time.monotonic())

    def dispatch(self, now: float) -> None:
        """Give workers what leaves now: the one rule of who gets what, called whenever something has changed."""
        queue = self.queue
        links = self.links
        touched: list[Link] = []
        if queue.is_late(now):
            self._end_late(now)
        share = self._share()
        while queue.has_jobs:
            link = _freest(links, share)
            if link is None:
                break
            is_free = not link.in_flight or link.is_concurrent
            if not (is_free or self._works_ahead):
                break
            batch = queue.take(is_free, now)
            if not isinstance(batch, list):
                if batch is not None and is_free:
                    self._wake_at(batch)
                break
            link.stage(batch, now)
            touched.append(link)
        for link in touched:
            link.flush()
        if touched and not self._looks_ahead:
            self.keep_looking()

    def _share(self) -> int:
        """Return how many batches each worker of a quick service may have now, beyond what hides the wire."""
        waiting = len(self.queue)
        if waiting <= MOST_BATCHES:
            return 0
        waiting += sum([len(link.in_flight) for link in self.links]) * self.queue.policy.batch_size
        return min(DEEPEST, waiting // (HELD * self.queue.policy.batch_size * (len(self.links) or 1)))

    def _wake_at(self, moment: float) -> None:
        if self._wake is None:
            self._wake = self._loop.call_later(max(0.0, moment - time.monotonic()), self._woken)

    def _woken(self) -> None:
        self._wake = None
        self.dispatch(time.monotonic())

    # Looking at pages, deadlines and timeouts

    def keep_looking(self) -> None:
        """Keep one timer while there is anything to look at; a version at rest costs nothing."""
        most = self._staff.most_in_flight()
        if self._look is not None:
            if most <= 1 or self._looks_ahead:
                return
            self._look.cancel()
            self._look = None
        self._looks_ahead = most > 1
        if self._looks_ahead:
            self._look = self._loop.call_later(LOOK_AHEAD, self._looked)
        elif most or self.queue or self._staff.has_starting():
            self._look = self._loop.call_later(LOOK, self._looked)

    def _looked(self) -> None:
        self._look = None
        self._looks_ahead = False
        now = time.monotonic()
        self._take_back_behind_slow()
        self._staff.look_at_workers(now)
        self._end_late(now)
        self.keep_looking()

    def _end_late(self, now: float) -> None:
        for job in self.queue.expire(now):
            self.end(job, self._late(job, now))

    def _late(self, job: Job, now: float) -> JobTimeout:
        why = "no worker was free" if self.links else f"no worker is ready{self._staff.why_none()}"
        return JobTimeout(
            f"The request waited {now - job.arrived:.1f} s in the queue of {self.name}: {why} before its deadline.",
            "Add workers, or raise job_timeout or clientTimeoutInMills.",
        )

    def _take_back_behind_slow(self) -> None:
        now_ns = time.monotonic_ns()
        back: list[Job] = []
        for link in self.links:
            if len(link.in_flight) > 1:
                running = link.running_for(now_ns)
                if running > SLOW_FLOOR and running > SLOW_FACTOR * link.slowest:
                    back += link.take_back()
                    link.depth = 1
        self.put_back(back)

    def close(self) -> None:
        """Let the timers go."""
        for timer in (self._wake, self._look):
            if timer is not None:
                timer.cancel()


def _freest(links: list[Link], share: int) -> Link | None:
    """Return the link with the least in its hands that has room; a quick one has room for its share."""
    best = None
    least = 1 << 30
    for link in links:
        size = len(link.in_flight)
        depth = link.depth
        if size < least and (size < depth or (size < share and depth == MOST_BATCHES)):
            best, least = link, size
    return best


def _by_arrival(job: Job) -> float:
    return job.arrived
