"""What is counted about the jobs of one model version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from marserve.batching.job import Job
from marserve.metrics.catalog import JOBS, SECONDS, STEPS
from marserve.metrics.histogram import Histogram

#: Label of a request whose client had gone before there was an answer: its job has no status.
NO_ANSWER = 499

_status = attrgetter("status")


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
        self.codes.update(map(_status, jobs))
        if 0 in self.codes:
            self.codes[NO_ANSWER] += self.codes.pop(0)
        self.bytes += sum([job.size for job in jobs])
        self.request.add([job.done - job.arrived for job in jobs])
        self.queue.add([job.sent - job.arrived for job in jobs if job.sent])
        self.batch_wait.add([job.filled - job.arrived for job in jobs if job.sent])
        self._add_batches(jobs)
        for job in jobs:
            if job.error is not None:
                self.kinds[job.error.kind] += 1

    def _add_batches(self, jobs: Sequence[Job]) -> None:
        """Count each batch once: its jobs end one after the other and share the very same spans."""
        spans: list[tuple[float, ...]] = []
        sizes: list[float] = []
        wires: list[float] = []
        last = self._last_spans
        for job in jobs:
            if job.spans is not last and job.spans:
                last = job.spans
                spans.append(last)
                sizes.append(job.batch_size)
                wires.append(job.done - job.sent - sum(last))
        self._last_spans = last
        if spans:
            self.batch_size.add(sizes)
            for step, values in zip(self.steps, (wires, *zip(*spans, strict=True)), strict=True):
                step.add(values)
