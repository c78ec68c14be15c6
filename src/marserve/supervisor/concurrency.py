"""What holds for a worker that runs its batches beside each other: one of them can be given up alone."""

from __future__ import annotations

from collections.abc import Callable

from marserve.batching.job import Job, JobState
from marserve.errors import ServeError
from marserve.supervisor.batch import Batch
from marserve.supervisor.link import Link


def give_up_unwanted(links: list[Link], job: Job) -> None:
    """Cancel the batch of a job that has ended before its answer came, if nobody waits for the batch's others."""
    for link in links:
        if link.is_concurrent:
            for batch in link.in_flight.values():
                if job in batch.jobs and _is_unwanted(batch):
                    link.give_up(batch)


def end_silent(link: Link, now: float, limit: float, error: Callable[[], ServeError]) -> None:
    """End the batches from which nothing was heard for ``limit`` seconds; those beside them go on."""
    for batch in list(link.in_flight.values()):
        if now - batch.heard > limit and not _is_unwanted(batch):
            for job in batch.jobs:
                if job.state is not JobState.ANSWERED:
                    link.end(job, error())
            link.give_up(batch)


def _is_unwanted(batch: Batch) -> bool:
    return all(job.state is JobState.ANSWERED for job in batch.jobs)
