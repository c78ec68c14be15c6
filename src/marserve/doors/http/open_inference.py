"""What TorchServe answers of the open inference protocol beside predictions: what it is, and that it is there.

Source: TorchServe 0.12 with ``ts_open_inference_protocol``; the misspelt member is theirs, and clients read it.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from marserve.doors.http.replies import Replies
from marserve.doors.http.routes import ANY_METHOD, Endpoint


class OpenInferenceDoor:
    """Answers ``/v2``, and what is under it that is no prediction."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the routes; the old server takes any method."""
        routes = (
            ("/v2", self.server, "Names the server, as the open inference protocol asks."),
            ("/v2/health/live", self.live, "Tells that the server runs."),
            ("/v2/health/ready", self.ready, "Tells that the server answers."),
            ("/v2/models/{model}/versions/{rest:path}", self.version, "Refuses to ask one version of a model."),
        )
        return tuple(Endpoint(ANY_METHOD, path, answer, summary) for path, answer, summary in routes)

    async def server(self, request: Request) -> Response:
        """Answer with name, version and what is understood."""
        told = {"name": "Torchserve", "version": self._replies.dialect.version, "extenstion": ["kserve", "kubeflow"]}
        return self._replies.json(told)

    async def live(self, request: Request) -> Response:
        """Answer that the server runs."""
        return self._replies.json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Answer that the server takes requests."""
        return self._replies.json({"ready": True})

    async def version(self, request: Request) -> Response:
        """Refuse: these paths know no versions."""
        return self._replies.json({"error": "Model versioning is not yet supported."}, 501)
