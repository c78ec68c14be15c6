"""The bounded queue of a model version; what waits, in which order, and what is no longer wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from marserve.batching.batcher import BatchPolicy, leaves_now
from marserve.batching.job import Job, JobState
from marserve.errors import QueueFull


class JobQueue:
    """Jobs of one version that no worker has yet, oldest first.

    Cancelled and expired jobs stay in the deque until they come up, but do not count: their state says that
    they are over. Sequences, priorities, deadlines and fair share change ``take`` alone.
    """

    __slots__ = ("_jobs", "_over", "bound", "policy")

    def __init__(self, bound: int, policy: BatchPolicy) -> None:
        self.bound = bound
        self.policy = policy
        self._jobs: deque[Job] = deque()
        #: jobs in the deque that are over already
        self._over = 0

    def __len__(self) -> int:
        return len(self._jobs) - self._over

    def __repr__(self) -> str:
        return (
            f"<JobQueue {len(self)}/{self.bound} batch={self.policy.batch_size} delay={self.policy.max_batch_delay}>"
        )

    @property
    def has_jobs(self) -> bool:
        """Whether ``take`` may find something; cheaper than the length."""
        return bool(self._jobs)

    def put(self, job: Job) -> None:
        """Append a job.

        Raises:
            QueueFull: ``bound`` jobs wait already.
        """
        if len(self._jobs) - self._over >= self.bound:
            raise QueueFull(f"The queue holds its most, {self.bound} jobs.")
        self._jobs.append(job)

    def take(self, is_idle: bool, now: float) -> list[Job] | float | None:
        """Return a batch that leaves now; else the moment when one will be overdue; else None.

        Args:
            is_idle: whether the worker that asks has nothing in its hands; False asks for work ahead.
            now: moment on the monotonic clock.
        """
        if self._over:
            self._drop_over()
        jobs = self._jobs
        if not jobs:
            return None
        policy = self.policy
        size = policy.batch_size
        if size == 1:
            return [jobs.popleft()]
        waiting = len(jobs)
        if not leaves_now(policy, waiting, jobs[0].arrived, is_idle, now):
            return jobs[0].arrived + policy.max_batch_delay
        if waiting <= size:
            batch = list(jobs)
            jobs.clear()
            return batch
        popleft = jobs.popleft
        return [popleft() for _ in range(size)]

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Put jobs that no worker has finished to the head, in their order; the bound does not count here."""
        back = [job for job in jobs if job.state is not JobState.ANSWERED]
        for job in back:
            job.state = JobState.QUEUED
        self._jobs.extendleft(reversed(back))

    def cancel(self, job: Job) -> None:
        """Note that a job which waits here has been ended by somebody else."""
        self._over += 1

    def is_late(self, now: float) -> bool:
        """Whether the deadline of the oldest job has passed, which is the first to pass."""
        return bool(self._jobs) and self._jobs[0].deadline <= now

    def expire(self, now: float) -> list[Job]:
        """Remove and return the jobs whose deadline has passed."""
        late = [job for job in self._jobs if job.deadline <= now and job.state is not JobState.ANSWERED]
        if late:
            gone = set(map(id, late))
            self._jobs = deque(job for job in self._jobs if id(job) not in gone)
            _leave(late)
        return late

    def take_all(self) -> list[Job]:
        """Remove and return every job: the version ends."""
        jobs = [job for job in self._jobs if job.state is not JobState.ANSWERED]
        self._jobs.clear()
        self._over = 0
        _leave(jobs)
        return jobs

    def peek(self, count: int) -> list[Job]:
        """Return the first jobs without removing them, for tests and the operator's view."""
        return list(islice(self._jobs, count))

    def _drop_over(self) -> None:
        """Forget the jobs that are over: all of them, so that the batch which is taken next holds none."""
        self._jobs = deque(job for job in self._jobs if job.state is not JobState.ANSWERED)
        self._over = 0


def _leave(jobs: list[Job]) -> None:
    """Mark jobs as queued no more: ending one can make its client give up another, which must not count here."""
    for job in jobs:
        job.state = JobState.SENT
