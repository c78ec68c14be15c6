"""The metrics address: what has been counted, and the state of what is served, as Prometheus reads it."""

from __future__ import annotations

import asyncio
from collections import Counter

from starlette.requests import Request
from starlette.responses import Response

from marserve.doors.http.parameters import TEXT, Parameter
from marserve.doors.http.replies import Replies
from marserve.doors.http.routes import ANY_METHOD, Endpoint
from marserve.metrics.collector import Collector
from marserve.metrics.exposition import CONTENT_TYPE, Reading, pieces
from marserve.models.model import ModelVersion
from marserve.models.registry import Registry

NAMES = Parameter("name[]", TEXT, "Name of a metric to give, instead of all; may be repeated.")


class MetricsDoor:
    """Answers ``/metrics``."""

    def __init__(self, collector: Collector, registry: Registry, replies: Replies) -> None:
        self._collector = collector
        self._registry = registry
        self._replies = replies

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the routes; TorchServe takes any method, and any path that begins so."""
        summary = "Gives all metrics in Prometheus' text form."
        if not self._replies.dialect.has_old_paths:
            return (Endpoint("GET", "/metrics", self.metrics, summary, (NAMES,)),)
        paths = ("/metrics", "/metrics/{rest:path}")
        return tuple(Endpoint(ANY_METHOD, path, self.metrics, summary, (NAMES,)) for path in paths)

    async def metrics(self, request: Request) -> Response:
        """Answer with the metrics; whoever else waits is served between two pieces of the work."""
        while self._collector.flush():
            await asyncio.sleep(0)
        readings = [reading(version) for version in self._registry]
        names = request.query_params.getlist(NAMES.name)
        text = []
        for piece in pieces(self._collector, readings, names):
            text.append(piece)
            await asyncio.sleep(0)
        if not names:
            # What is gone has been told once more; to keep it would be a leak where versions come and go.
            self._collector.forget({(version.name, version.version) for version in self._registry})
        return Response(b"".join(text), headers={"content-type": CONTENT_TYPE})


def reading(version: ModelVersion) -> Reading:
    """Return what there is to read of a version now."""
    pool = version.pool
    return Reading(
        model=version.name,
        version=version.version,
        queue_jobs=len(version.queue),
        queue_limit=version.queue.bound,
        in_flight_batches=sum(worker.in_flight_count for worker in pool.workers),
        workers=Counter(str(worker.state) for worker in pool.workers),
        wanted_workers=pool.target,
        worker_restarts=pool.restart_count,
    )
