"""``/token``: replaces the inference or the management key; whoever asks needs the API key.

Source: TorchServe 0.12, token authorization. The new key is in the key file alone, never in an answer.
"""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from marserve.doors.auth import RENEWABLE, Keys
from marserve.doors.http.parameters import TEXT, Parameter
from marserve.doors.http.replies import Replies
from marserve.doors.http.routes import ANY_METHOD, Endpoint
from marserve.errors import BadRequest, NotAuthorized, ServeError

TYPE = Parameter("type", TEXT, f"Which key: {' or '.join(RENEWABLE)}.", is_required=True)


class TokenDoor:
    """Answers ``/token``, on the management address."""

    def __init__(self, keys: Keys, replies: Replies) -> None:
        self._keys = keys
        self._replies = replies

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the routes; the old server takes any method."""
        method = "POST" if self._replies.is_native else ANY_METHOD
        return (Endpoint(method, "/token", self.renew, "Replaces a key; needs the API key.", (TYPE,)),)

    async def renew(self, request: Request) -> Response:
        """Replace a key and the key file."""
        kind = next(iter(request.query_params.getlist(TYPE.name)), "")
        if kind not in RENEWABLE:
            raise self._no_such(kind)
        expires = datetime.fromtimestamp(self._keys.renew(kind), UTC)
        if self._replies.is_native:
            return self._replies.json({"status": f"The {kind} key was renewed.", "expires": expires.isoformat()})
        return Response(b"\n", media_type="application/json")

    def _no_such(self, kind: str) -> ServeError:
        if not self._replies.is_native:
            return NotAuthorized(f"No key is of type {kind!r}.", fault="renewal")
        told = f"Parameter type is {kind!r}." if kind else "Parameter type is required."
        return BadRequest(told, f"It must be {' or '.join(RENEWABLE)}.")
