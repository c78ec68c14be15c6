"""What a door says of each of its routes: the router, the index and the OpenAPI description come from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from marserve.doors.http.parameters import Parameter
from marserve.errors import RouteNotFound

Answerer = Callable[[Request], Awaitable[Response]]

#: In place of a method: every one.
ANY_METHOD = "*"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path.

    Attributes:
        path: with names of its variable segments in braces; ``{name:path}`` takes all that follows.
        answer: makes the answer; None where the fast lane does, and the row is for the descriptions alone.
        parameters: of the query, or of a JSON body where ``takes_body``.
        outcome: status and meaning of the answer when all goes well.
        key: kind of key that a request must carry, see ``doors/auth.py``; "" for none.
    """

    method: str
    path: str
    answer: Answerer | None
    summary: str
    parameters: tuple[Parameter[object], ...] = ()
    takes_body: bool = False
    outcome: tuple[int, str] = (200, "As asked.")
    key: str = ""


def no_route(path: str) -> RouteNotFound:
    """Return the error for a path that nobody answers."""
    return RouteNotFound(f"There is no {path} at this address.", "OPTIONS / describes what there is.")
