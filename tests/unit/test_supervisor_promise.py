"""The promise: each accepted job ends exactly once, and none is left at the end, whatever happens in whatever order.

A state machine lets clients come and go, workers answer, hang, lie and die, operators scale, and time pass.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pool_bench import TIMED, PoolBench

from marserve.batching.job import JobState
from marserve.errors import BusyError, Cancelled
from marserve.supervisor.process import Exit
from marserve.testing import GOOD, HELD, FakeClock, FakeLoop, Script, settle
from marserve.wire.arena import ARENA_THRESHOLD

SCRIPTS = {
    "held": HELD,
    "good": GOOD,
    "stubborn": Script(outcome={"ok": True}, obeys=False),
    "slow": Script(),
    "broken": Script(outcome={"ok": False, "message": "No module named x"}),
    "dying": Script(dies=3),
    "mute": Script(connects=False),
}
EXITS = st.sampled_from([Exit(None, 9), Exit(None, 11), Exit(0, None), Exit(1, None)])
#: Small ones, one that goes through the arena, and one for which a full arena has no room.
BODIES = [b"small", b"A" * ARENA_THRESHOLD, b"B" * (ARENA_THRESHOLD * 2)]


class Promise(RuleBasedStateMachine):
    """All that can happen to a pool."""

    @initialize(size=st.integers(1, 3), delay=st.sampled_from([0.0, 0.05]), worker_count=st.integers(0, 3))
    def build(self, size, delay, worker_count):
        logging.getLogger("marserve").setLevel(logging.CRITICAL + 1)
        self.clock = FakeClock()
        self.real = [(module, module.time) for module in TIMED]
        for module in TIMED:
            module.time = self.clock
        self.folder = tempfile.TemporaryDirectory()
        self.loop = FakeLoop(self.clock)
        self.given_up = set()

        async def build():
            self.bench = PoolBench(
                self.clock,
                Path(self.folder.name),
                script=HELD,
                bound=8,
                size=size,
                delay=delay,
                deadline=30.0,
                waits=(0.0, 1.0),
                response_timeout=20.0,
                startup_timeout=15.0,
            )
            await self.bench.scaled(worker_count)

        self.loop.run_until_complete(build())

    def teardown(self):
        if not hasattr(self, "bench"):
            return
        try:
            self.loop.run_until_complete(self.end())
        finally:
            self.loop.close()
            self.folder.cleanup()
            for module, real in self.real:
                module.time = real
            logging.getLogger("marserve").setLevel(logging.NOTSET)

    async def end(self):
        bench = self.bench
        await bench.pool.drain(100.0)
        bench.gate.close()
        await settle()
        assert not bench.pool.workers
        assert not bench.starter.living
        assert [job.reply.ending_count for job in bench.jobs] == [job not in self.given_up for job in bench.jobs]
        assert sorted(job.id for job in bench.observer.jobs) == [job.id for job in bench.jobs]
        for process in bench.starter.processes:
            if process.worker is not None:
                process.worker.close()

    def settled(self):
        self.loop.run_until_complete(settle())

    @property
    def workers(self):
        """Those that can still say something and have been greeted."""
        found = [process.worker for process in self.bench.starter.living if process.worker is not None]
        return [worker for worker in found if worker.is_open and worker.told]

    def draw_worker(self, data):
        return data.draw(st.sampled_from(self.workers))

    # Clients

    @rule(count=st.integers(1, 5), kind=st.sampled_from([0, 0, 0, 1, 2]))
    def submit(self, count, kind):
        async def submit():
            try:
                self.bench.submit(*[BODIES[kind]] * count)
            except BusyError:
                return

        self.loop.run_until_complete(submit())
        self.settled()

    @rule(data=st.data())
    def give_up(self, data):
        waiting = [job for job in self.bench.jobs if job.state is not JobState.ANSWERED]
        if waiting:
            job = data.draw(st.sampled_from(waiting))
            self.given_up.add(job)
            self.bench.pool.cancel(job, Cancelled("The client went away."))
            self.settled()

    @rule(data=st.data())
    def share_a_fate(self, data):
        """Two requests of one connection: the end of one makes the client give up the other."""
        waiting = [job for job in self.bench.jobs if job.state is not JobState.ANSWERED and not job.reply.on_end]
        if len(waiting) > 1:
            first, second = data.draw(st.permutations(waiting))[:2]

            def gone():
                if second.state is not JobState.ANSWERED:
                    self.given_up.add(second)
                    self.bench.pool.cancel(second, Cancelled("Its connection was closed."))

            first.reply.on_end = gone

    # Workers

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), steps=st.sampled_from(["begin", "begin finish", "begin finish answer"]))
    def work(self, data, steps):
        worker = self.draw_worker(data)
        if not worker.batches:
            return
        batch = worker.batches[0]
        if not worker.begin(batch):
            worker.batches.popleft()  # taken back
            return
        if "finish" in steps:
            worker.finish(batch)
        if "answer" in steps:
            worker.batches.popleft()
            worker.answer(batch, backwards=data.draw(st.booleans()))
        self.settled()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def work_all(self, data):
        worker = self.draw_worker(data)
        while worker.batches:
            worker.serve(worker.batches.popleft())
        self.settled()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def run_what_was_taken_back(self, data):
        """A worker that looked at the page just before: it answers what others have by now."""
        worker = self.draw_worker(data)
        if worker.batches:
            batch = worker.batches.popleft()
            worker.finish(batch)
            worker.answer(batch)
            self.settled()

    @precondition(lambda self: self.bench.starter.living)
    @rule(data=st.data(), how=EXITS, hangs_up_first=st.booleans())
    def die(self, data, how, hangs_up_first):
        process = data.draw(st.sampled_from(self.bench.starter.living))
        if hangs_up_first and process.worker is not None:
            process.worker.close()
            self.settled()
        process.end(how)
        self.settled()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), is_quiet=st.booleans())
    def lie(self, data, is_quiet):
        worker = self.draw_worker(data)
        if is_quiet:
            worker.close()
        else:
            worker.send_raw(b"\xff" * 64)
        self.settled()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), is_good=st.booleans())
    def load(self, data, is_good):
        slow = [worker for worker in self.workers if not worker.batches]
        if slow:
            # One that has loaded already says so twice, which is a lie.
            data.draw(st.sampled_from(slow)).loaded(None if is_good else {"ok": False, "message": "no"})
            self.settled()

    @rule(name=st.sampled_from(sorted(SCRIPTS)))
    def next_workers_are(self, name):
        self.bench.starter.script = SCRIPTS[name]

    @rule(fails=st.booleans())
    def processes_run_out(self, fails):
        self.bench.starter.error = OSError("no more processes") if fails else None

    # The operator, and time

    @rule(worker_count=st.integers(0, 3))
    def scale(self, worker_count):
        async def scale():
            await self.bench.scaled(worker_count)

        self.loop.run_until_complete(scale())

    @rule(seconds=st.sampled_from([0.006, 0.11, 1.1, 6.0, 21.0]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)
        self.settled()

    # What must hold in between

    @invariant()
    def each_open_job_is_in_one_place(self):
        if not hasattr(self, "bench"):
            return
        queued = [job for job in self.bench.queue.peek(1000) if job.state is not JobState.ANSWERED]
        held = [
            job
            for worker in self.bench.pool.workers
            if worker.link is not None
            for batch in worker.link.in_flight.values()
            for job in batch.jobs
            if job.state is not JobState.ANSWERED
        ]
        waiting = [job for job in self.bench.jobs if job.state is not JobState.ANSWERED]
        assert sorted(job.id for job in queued + held) == [job.id for job in waiting]
        assert len(self.bench.queue) == len(queued)

    @invariant()
    def nothing_is_answered_twice(self):
        if not hasattr(self, "bench"):
            return
        for job in self.bench.jobs:
            is_over = job.state is JobState.ANSWERED
            assert job.reply.ending_count == (is_over and job not in self.given_up)
            if job.reply.error is None and job.reply.ending_count:
                assert job.reply.body == self.bench.bodies[job.id]


TestPromise = Promise.TestCase
TestPromise.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
