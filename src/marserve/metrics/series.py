"""What is counted about the jobs of one model version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from marserve.batching.job import Job
from marserve.metrics.catalog import JOBS, SECONDS, STEPS
from marserve.metrics.histogram import Histogram

#: Label of a request whose client had gone before there was an answer: its job has no status.
NO_ANSWER = 499


class VersionSeries:
    """Counts of one version, by name and version: a version that is registered again goes on counting."""

    __slots__ = (
        "_last_spans",
        "batch_size",
        "batch_wait",
        "bytes",
        "codes",
        "dropped_reports",
        "kinds",
        "queue",
        "request",
        "steps",
    )

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.kinds: Counter[str] = Counter()
        self.bytes = 0
        self.dropped_reports = 0
        self.request = Histogram(SECONDS)
        self.queue = Histogram(SECONDS)
        self.batch_wait = Histogram(SECONDS)
        self.steps = [Histogram(SECONDS) for _ in STEPS]
        self.batch_size = Histogram(JOBS)
        self._last_spans: object = None

    def add(self, jobs: Sequence[Job]) -> None:
        """Count jobs that have ended, in the order of their ends."""
        self._add_statuses([job.status for job in jobs])
        errors = [job.error.kind for job in jobs if job.error is not None]
        if errors:
            self.kinds.update(errors)
        self.bytes += sum([job.size for job in jobs])
        self.request.add([job.done - job.arrived for job in jobs])
        spans = [job.spans for job in jobs]
        if all(spans) and sum([job.batch_size for job in jobs]) == len(jobs):
            # Each was alone in its batch: nobody waited for others, and nobody shares spans.
            self.queue.add([job.sent - job.arrived for job in jobs])
            self.batch_wait.add_same(0.0, len(jobs))
            self.batch_size.add_same(1.0, len(jobs))
            self._add_steps(jobs, spans)
            return
        sent = [job for job in jobs if job.sent]
        self.queue.add([job.sent - job.arrived for job in sent])
        self.batch_wait.add([job.filled - job.arrived for job in sent])
        firsts = self._first_of_each([job for job in sent if job.spans])
        self.batch_size.add([job.batch_size for job in firsts])
        self._add_steps(firsts, [job.spans for job in firsts])

    def _add_statuses(self, statuses: list[int]) -> None:
        if statuses.count(200) == len(statuses):  # a fifth of the time that the look at each takes
            self.codes[200] += len(statuses)
            return
        self.codes.update(statuses)
        if 0 in self.codes:
            self.codes[NO_ANSWER] += self.codes.pop(0)

    def _first_of_each(self, jobs: Sequence[Job]) -> list[Job]:
        """Return one job of each batch: its jobs end one after the other and share the very same spans."""
        last = self._last_spans
        firsts: list[Job] = []
        for job in jobs:
            if job.spans is not last:
                last = job.spans
                firsts.append(job)
        self._last_spans = last
        return firsts

    def _add_steps(self, firsts: Sequence[Job], spans: Sequence[tuple[float, ...]]) -> None:
        """Count where the time of batches went, each by one of its jobs."""
        if not firsts:
            return
        waits, *_ = steps = tuple(zip(*spans, strict=True))
        # Its way there and back is what is left of the time until it was done.
        wires = [job.started - job.sent - wait for job, wait in zip(firsts, waits, strict=True)]
        for step, values in zip(self.steps, (wires, *steps), strict=True):
            step.add(values)
