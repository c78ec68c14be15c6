"""The rule for who leaves when: a pure function of what waits, for whom, and the time that is handed in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How a version forms batches.

    Attributes:
        batch_size: most jobs in one batch.
        max_batch_delay: longest wait of a batch that is not full, seconds, counted from the arrival of its
            oldest job. 0: an idle worker takes what is there.
    """

    batch_size: int = 1
    max_batch_delay: float = 0.0


def leaves_now(policy: BatchPolicy, waiting: int, oldest: float, is_idle: bool, now: float) -> bool:
    """Whether a batch leaves for a worker now.

    A batch leaves when it is full or overdue. With no delay everything is overdue at once, which is right for a
    worker that idles; behind a running batch it would send crumbs ahead that could have grown meanwhile, so
    there only a full batch leaves, or one that has waited out a delay that somebody asked for.

    Args:
        waiting: jobs in the queue, at least 1.
        oldest: moment when the first of them arrived.
        is_idle: the worker has nothing in its hands.
        now: the same clock as ``oldest``.
    """
    if waiting >= policy.batch_size:
        return True
    delay = policy.max_batch_delay
    if delay <= 0.0:
        return is_idle
    return now >= oldest + delay
