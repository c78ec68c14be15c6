"""What a door may ask about predictions: start a job, give it up, and how healthy what is served is."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from marserve.batching.job import Job, JobKind, Part, Reply
from marserve.errors import Cancelled, ServeError, ShuttingDown, about
from marserve.models.registry import Registry
from marserve.supervisor.lifecycle import VersionState


@dataclass(frozen=True, slots=True)
class Health:
    """How healthy the server is.

    Attributes:
        is_ready: start-up loading is done, something of it can be served, and each default version has a worker
            that can answer.
        reasons: what is missing, one sentence each; also what is only degraded.
        short: default versions with fewer workers than they should have.
        ready_count, wanted_count: workers of all versions.
    """

    is_ready: bool
    reasons: tuple[str, ...]
    short: int
    ready_count: int
    wanted_count: int


class InferencePlane:
    """Starts jobs on the versions that are registered."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        #: Draws the number of a request, for those too that are refused before they become a job.
        self.next_id = count(1).__next__
        # A request's id is this prefix and its number: shaped like a random UUID, unique, and free to make.
        self.id_prefix = str(uuid.uuid4())[:24]
        self.is_draining = False
        #: None once every model of the start-up has been loaded or has failed to.
        self.startup: str | None = "The models of the start-up are being loaded."
        #: Models of the start-up that could not be registered: name or location -> why.
        self.startup_failures: dict[str, str] = {}

    def job(
        self,
        name: str,
        version: str | None,
        kind: JobKind,
        meta: bytes,
        parts: Sequence[Part],
        size: int,
        reply: Reply,
        arrived: float,
    ) -> Job:
        """Return a job for a request, for ``start``.

        Raises:
            ModelNotFound, VersionNotFound: nobody could do it.
        """
        found = self._registry.find(name, version)
        job = Job(self.next_id(), kind, meta, parts, size, reply, found, arrived, arrived + found.job_deadline)
        job.asked_version = version or ""
        return job

    def start(self, job: Job) -> None:
        """Accept a job; its answer reaches its reply exactly once, maybe before this returns; unless this raises.

        Raises:
            QueueFull, NoWorker, ShuttingDown: it is not accepted.
        """
        if self.is_draining:
            raise ShuttingDown("The server is stopping.")
        version = job.model_version
        try:
            version.pool.submit(job)  # type: ignore[attr-defined]
        except ServeError as error:
            raise about(error, version.name, job.asked_version or None) from None  # type: ignore[attr-defined]

    @staticmethod
    def give_up(job: Job) -> None:
        """End a job whose client has gone away."""
        version = job.model_version
        version.pool.cancel(job, Cancelled("The client went away before its answer was there."))  # type: ignore[attr-defined]

    def methods_at(self, segments: tuple[str, ...]) -> Mapping[str, str]:
        """Return the methods that archives have named for a path, each with its model; routes come and go."""
        return self._registry.methods_at(segments)

    def only_model(self) -> str:
        """Return the name of the only model that was loaded at start-up, "" when there is none or several."""
        names = [model.name for model in self._registry.models.values() if model.default.loaded_at_startup]
        return names[0] if len(names) == 1 else ""

    def _still_failed(self) -> dict[str, str]:
        """Return the failures of the start-up, but for those that have been made good by registering again."""
        served = {*self._registry.models, *(version.archive.location for version in self._registry)}
        return {name: why for name, why in self.startup_failures.items() if name not in served}

    def health(self) -> Health:
        """Return how healthy the server is."""
        reasons = [self.startup] if self.startup else []
        failed = self._still_failed()
        reasons += [f"{name} could not be loaded: {why}" for name, why in failed.items()]
        # One bad archive among others takes no traffic from them; a server without any model cannot answer anything.
        is_ready = self.startup is None and not self.is_draining and not (failed and not self._registry.models)
        if self.is_draining:
            reasons.append("The server is stopping.")
        short = ready = wanted = 0
        for version in self._registry:
            pool = version.pool
            ready += pool.ready_count
            wanted += pool.target
            is_default = self._registry.models[version.name].default is version
            if pool.state in (VersionState.READY, VersionState.REGISTERED):
                continue
            why = pool.why_degraded()
            reasons.append(
                f"{pool.name} is {pool.state}: {pool.ready_count} of {pool.target} workers can answer."
                + (f" {why}" if why else "")
            )
            if is_default:
                short += 1
                is_ready = is_ready and pool.ready_count > 0
        return Health(is_ready, tuple(reasons), short, ready, wanted)
