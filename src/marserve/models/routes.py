"""Routes that an archive names for its model: ``routes: ["POST /v1/multimodal/"]`` in its ``model-config.yaml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from marserve.errors import BadRequest

#: The key of a model-config.
KEY = "routes"
#: OPTIONS describes what is served, and HEAD has no answer of its own.
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: Paths of the server's own, with all below them: whoever shares an address with a route keeps them.
OWN_PATHS = (
    "/api-description",
    "/execution-parameters",
    "/explanations",
    "/invocations",
    "/metrics",
    "/models",
    "/ping",
    "/predictions",
    "/token",
    "/v1/models",
    "/v2",
)

# What a client may escape in a path is left out: each route has one spelling.
_FORM = re.compile(rf"({'|'.join(METHODS)}) (/|(?:/[A-Za-z0-9._~-]+)+/?)")
_HINT = (
    f'Write a list such as ["POST /v1/multimodal/"]: {", ".join(METHODS)}, a blank, '
    "and a path of letters, digits and ._~-."
)


class Route(NamedTuple):
    """A method and a path, as the archive has written it; slashes at its end do not count."""

    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def segments(self) -> tuple[str, ...]:
        """What stands between the slashes of the path."""
        return segments_of(self.path)


def segments_of(path: str) -> tuple[str, ...]:
    """Return what stands between the slashes of a path; those at its ends do not count."""
    return tuple(path.strip("/").split("/"))


def routes_of(config: Mapping[str, object]) -> tuple[Route, ...]:
    """Return the routes that a model-config names, each once.

    Raises:
        BadRequest: one is none, or would take a path of the server's own.
    """
    asked = config.get(KEY)
    if asked is None:
        return ()
    if not isinstance(asked, list):
        raise BadRequest(f"model-config.yaml: {KEY} is {asked!r}, which is no list.", _HINT)
    return tuple({(route.method, route.segments): route for route in map(_route, asked)}.values())


def _route(text: object) -> Route:
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise BadRequest(f"model-config.yaml: {KEY} has {text!r}, which is no route.", _HINT)
    route = Route(found[1], found[2])
    if {".", ".."} & set(route.segments):
        raise BadRequest(f"model-config.yaml: {KEY} has {text!r}, with dots that clients resolve.", _HINT)
    path = "/" + "/".join(route.segments)
    if path == "/" or any(path == own or path.startswith(f"{own}/") for own in OWN_PATHS):
        raise BadRequest(
            f"model-config.yaml: {KEY} has {route}, which is a path of the server's own.", "Name another path."
        )
    return route
