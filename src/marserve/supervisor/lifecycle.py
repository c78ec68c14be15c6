"""The life of a worker and of a model version, as tables: states, what may follow, and the waits between tries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from marserve.errors import LocalProtocolError


class WorkerState(StrEnum):
    """Where a worker is."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"
    GONE = "gone"
    DIED = "died"


class VersionState(StrEnum):
    """Where a model version is."""

    REGISTERED = "registered"
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    DRAINING = "draining"
    GONE = "gone"


#: What may follow what. A worker is *busy* when it is ready and its link has batches: derived, so not a state.
WORKER_MOVES: dict[WorkerState, frozenset[WorkerState]] = {
    WorkerState.STARTING: frozenset({WorkerState.LOADING, WorkerState.STOPPING, WorkerState.DIED}),
    WorkerState.LOADING: frozenset({WorkerState.READY, WorkerState.STOPPING, WorkerState.DIED}),
    WorkerState.READY: frozenset({WorkerState.STOPPING, WorkerState.DIED}),
    WorkerState.STOPPING: frozenset({WorkerState.GONE, WorkerState.DIED}),
    WorkerState.GONE: frozenset(),
    WorkerState.DIED: frozenset(),
}


def check_move(before: WorkerState, after: WorkerState) -> WorkerState:
    """Return ``after``.

    Raises:
        LocalProtocolError: a worker cannot go there from ``before``; a bug in the supervisor.
    """
    if after not in WORKER_MOVES[before]:
        raise LocalProtocolError(f"A worker cannot go from {before} to {after}.")
    return after


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a worker that died is replaced.

    Attributes:
        waits: seconds before the first, second, … try in a row; the last one repeats.
        window: seconds since the first failure of the row after which there is no further try.
        settle: seconds of service after which a worker's death begins a new row.
        repeats_failed_loads: whether a service that cannot load is tried again while the window lasts, unless memory
            ran out; else its error ends the tries at once, and so does the third end of its process.
    """

    waits: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0)
    window: float = 300.0
    settle: float = 10.0
    repeats_failed_loads: bool = False


_FIBONACCI = (1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)
#: By dialect. Source of the second: TorchServe 0.12, whose row ends with each load that succeeds.
RESTARTS: dict[str, RestartPolicy] = {
    "native": RestartPolicy(),
    "torchserve": RestartPolicy(waits=_FIBONACCI, settle=0.0, repeats_failed_loads=True),
    "mms": RestartPolicy(),
}


class Row:
    """Failures in a row of one worker, and what follows from them. Pure: the time is handed in."""

    __slots__ = ("_first", "_policy", "failures")

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._first = 0.0
        self.failures = 0

    def next_wait(self, now: float, served: float) -> float | None:
        """Count a death and return the seconds to wait before the next try; None: the tries are over.

        Args:
            now: moment of the death.
            served: seconds that the worker had been ready before; 0 when it never was.
        """
        policy = self._policy
        if (served and served >= policy.settle) or not self.failures:
            self.failures = 0
            self._first = now
        if now - self._first > policy.window:
            return None
        wait = policy.waits[min(self.failures, len(policy.waits) - 1)]
        self.failures += 1
        return wait


def version_state(target: int, ready: int, starting: int, has_failed: bool, is_draining: bool) -> VersionState:
    """Return the state of a model version, derived from its workers.

    Args:
        target: workers that there should be.
        ready: workers that can answer.
        starting: workers that start, load, or wait for their restart.
        has_failed: the tries to start a worker are over.
        is_draining: the version is being removed.
    """
    if is_draining:
        return VersionState.DRAINING
    if target == 0:
        return VersionState.REGISTERED
    if ready >= target:
        return VersionState.READY
    if ready:
        return VersionState.DEGRADED
    if has_failed and not starting:
        return VersionState.FAILED
    return VersionState.STARTING
