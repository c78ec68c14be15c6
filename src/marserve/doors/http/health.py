"""``/ping``: whether the server can answer, in the words of the dialect."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from marserve.doors.http.replies import Replies
from marserve.doors.http.routes import ANY_METHOD, Endpoint
from marserve.models.registry import Registry
from marserve.planes.inference import Health, InferencePlane


class HealthDoor:
    """Answers ``/ping``."""

    def __init__(self, plane: InferencePlane, registry: Registry, replies: Replies) -> None:
        self._plane = plane
        self._registry = registry
        self._replies = replies

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the routes; the old servers take any method, and any path that begins so."""
        summary = "Tells whether the server can answer, and what is degraded."
        if self._replies.is_native:
            return (Endpoint("GET", "/ping", self.ping, summary),)
        paths = ("/ping", "/ping/{rest:path}")
        return tuple(Endpoint(ANY_METHOD, path, self.ping, summary) for path in paths)

    async def ping(self, request: Request) -> Response:
        """Answer how healthy the server is."""
        health = self._plane.health()
        ping = self._replies.dialect.ping[self._state(health)]
        told: dict[str, object] = {"status": ping.text}
        # Without a key the reasons, which name models and their faults, stay here: a probe needs the status alone.
        if self._replies.is_native and health.reasons and request.state.is_trusted:
            told["reasons"] = health.reasons
        return self._replies.json(told, ping.status)

    def _state(self, health: Health) -> str:
        """Return the state as the dialect sees it: a row of its ``ping``."""
        if self._plane.startup is not None:
            return "starting"
        if self._replies.dialect.name == "torchserve":
            return "unhealthy" if self._has_given_up() else "healthy"
        if self._replies.dialect.name == "mms":
            if health.ready_count >= health.wanted_count:
                return "healthy"
            return "partial" if health.ready_count else "unhealthy"
        if not health.is_ready:
            return "unhealthy"
        return "partial" if health.reasons else "healthy"

    def _has_given_up(self) -> bool:
        """Return whether some default version lacks workers that are not on their way either.

        TorchServe calls a worker healthy that loads, or waits for its restart.
        """
        pools = [model.default.pool for model in self._registry.models.values()]
        return any(pool.ready_count + pool.starting_count < pool.target for pool in pools)
