"""What SageMaker asks a container for: ``/ping`` in its own form, and ``/execution-parameters``.

Source: Multi Model Server's plugin for SageMaker.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from marserve.archive.manifest import split_handler
from marserve.doors.http.replies import Replies
from marserve.doors.http.routes import ANY_METHOD, Endpoint
from marserve.planes.inference import InferencePlane


@dataclass(frozen=True, slots=True)
class SageMaker:
    """What a server that runs in SageMaker tells of itself.

    Attributes:
        worker_count: of a model that is loaded at start.
        max_request_size: bytes.
        handler: the one that archives without one are served by.
        is_multi_model: whether models come and go, so that none needs to be there yet.
    """

    worker_count: int
    max_request_size: int
    handler: str
    is_multi_model: bool


class SageMakerDoor:
    """Answers ``/ping`` and ``/execution-parameters``."""

    def __init__(self, plane: InferencePlane, facts: SageMaker, replies: Replies) -> None:
        self._plane = plane
        self._facts = facts
        self._replies = replies

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the routes."""
        return (
            Endpoint(ANY_METHOD, "/ping", self.ping, "Tells whether the container can answer."),
            Endpoint("GET", "/execution-parameters", self.parameters, "Tells how a batch transform may ask."),
        )

    async def ping(self, request: Request) -> Response:
        """Answer 200 when some model can be asked; of many models, when their handler is there."""
        problem = self._without_handler() if self._facts.is_multi_model else self._without_model()
        return self._replies.json({"Status": problem or "Healthy"}, 503 if problem else 200)

    def _without_model(self) -> str:
        return "" if self._plane.startup is None and self._plane.health().ready_count else "Models are not loaded"

    def _without_handler(self) -> str:
        file = split_handler(self._facts.handler)[0]
        # A module is looked for by the workers alone: the server does not have their path.
        is_there = "/" not in file or os.path.exists(file)
        return "" if is_there else "Service file unavailable"

    async def parameters(self, request: Request) -> Response:
        """Answer how many requests at once, of what size, and how records are put into them."""
        facts = self._facts
        return self._replies.json(
            {
                "MaxConcurrentTransforms": facts.worker_count,
                "BatchStrategy": "MULTI_RECORD",
                "MaxPayloadInMB": facts.max_request_size // 2**20,
            }
        )
