"""A pool with fake workers on a fake clock, for the tests of the pool and of all that can happen to it."""

from __future__ import annotations

import asyncio
from itertools import count

from marserve.batching.batcher import BatchPolicy
from marserve.batching.job import Job, JobKind
from marserve.batching.queue import JobQueue
from marserve.supervisor import dispatch, link, pool, restarts, worker
from marserve.supervisor.crowd import Crowd
from marserve.supervisor.gate import Gate
from marserve.supervisor.lifecycle import RestartPolicy
from marserve.supervisor.pool import Pool, PoolSettings
from marserve.testing import GOOD, FakeStarter, RecordingObserver, RecordingReply, settle

#: Modules whose clock a test replaces.
TIMED = (dispatch, link, pool, restarts, worker)


class PoolBench:
    """A pool and everything that it needs; ``jobs`` are those that it has accepted."""

    def __init__(
        self,
        clock,
        folder,
        *,
        script=GOOD,
        bound=100,
        size=1,
        delay=0.0,
        deadline=1e6,
        waits=(0.0,),
        restart=None,
        observer=None,
        **settings,
    ):
        self.clock = clock
        self.gate = Gate(folder / "gate.sock")
        self.gate.open()
        self.starter = FakeStarter(script)
        self.observer = RecordingObserver()
        self.queue = JobQueue(bound, BatchPolicy(size, delay))
        told = PoolSettings(arena_bytes=1 << 20, restart=restart or RestartPolicy(waits=waits), **settings)
        self.pool = Pool(
            "m:1.0",
            "the version",
            self.queue,
            lambda number: {"worker": number},
            told,
            self.starter,
            self.gate,
            observer(self.observer) if observer else self.observer,
            count(9000),
            Crowd(2, 0.0002),
        )
        self.deadline = deadline
        self.jobs = []
        #: what was sent, by id of the job
        self.bodies = {}

    async def scaled(self, target):
        """Scale, and let the workers do what their script says."""
        self.pool.scale(target)
        await settle()
        return self

    def job(self, body, reply=None):
        now = self.clock.monotonic()
        parts = [(b"body", b"", body)]
        self.bodies[len(self.jobs) + 1] = body
        return Job(
            len(self.jobs) + 1,
            JobKind.PREDICT,
            b"\n\n",
            parts,
            len(body),
            reply or RecordingReply(),
            self,
            now,
            now + self.deadline,
        )

    def submit(self, *bodies):
        """Submit jobs; returns them, or raises for the first that is not accepted."""
        made = []
        for body in bodies:
            job = self.job(body)
            self.pool.submit(job)
            made.append(job)
            self.jobs.append(job)
        return made

    def worker(self, index=-1):
        return self.starter.worker(index)

    def check_each_ended_once(self):
        """What is promised: every accepted job has had exactly one end, and the observer heard of each once."""
        assert [job.reply.ending_count for job in self.jobs] == [1] * len(self.jobs)
        assert sorted(job.id for job in self.observer.jobs) == [job.id for job in self.jobs]

    async def close(self):
        """End all, and check the promise."""
        await self.pool.close()
        self.gate.close()
        await settle()
        assert not self.starter.living
        self.check_each_ended_once()


async def answers(jobs):
    """Return the bodies of answers once all are there."""
    await asyncio.gather(*(job.reply.ended() for job in jobs))
    return [job.reply.body for job in jobs]


async def errors(jobs):
    """Return the errors that jobs ended with, once all have."""
    await asyncio.gather(*(job.reply.ended() for job in jobs))
    return [job.reply.error for job in jobs]
