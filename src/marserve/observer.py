"""What can happen to a job, a worker and a model version, and who wants to know: one method each.

The path tells an observer and does nothing else: whatever counts, formats or writes does so later, in batches
(``metrics/collector.py``). A method is called in the server's loop and must return within microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from marserve.errors import ServeError


class Observer(Protocol):
    """Told of every transition. The arguments are the live objects: read, keep no longer than needed."""

    def jobs_ended(self, jobs: Sequence[object]) -> None:
        """Jobs have their one answer: ``job.status``, ``job.error``, stamps and spans of each are final.

        All that were answered together are told together; those that shared a batch follow each other.
        """

    def metrics_reported(self, version: object, metrics: bytes) -> None:
        """A service has added metrics of its own: JSON lines, as ``service/metrics.py`` drains them."""

    def worker_changed(self, worker: object) -> None:
        """A worker is in another state: ``worker.state``; when it is ``died``, ``worker.autopsy`` says why."""

    def worker_retried(self, worker: object, wait: float) -> None:
        """A worker has died, and another takes its number in ``wait`` seconds."""

    def version_changed(self, version: object) -> None:
        """A model version is in another state, or has another number of workers."""

    def request_answered(
        self, client: object, method: str, target: str, status: int, seconds: float, error: ServeError | None = None
    ) -> None:
        """A request that became no job has its answer; ``error`` is what it was refused for, where it was.

        ``client`` is its address and port, or a text; "" where there is none, as on a unix socket.
        """


class NullObserver:
    """Wants to know nothing."""

    def jobs_ended(self, jobs: Sequence[object]) -> None:
        """See ``Observer``."""

    def metrics_reported(self, version: object, metrics: bytes) -> None:
        """See ``Observer``."""

    def worker_changed(self, worker: object) -> None:
        """See ``Observer``."""

    def worker_retried(self, worker: object, wait: float) -> None:
        """See ``Observer``."""

    def version_changed(self, version: object) -> None:
        """See ``Observer``."""

    def request_answered(
        self, client: object, method: str, target: str, status: int, seconds: float, error: ServeError | None = None
    ) -> None:
        """See ``Observer``."""
