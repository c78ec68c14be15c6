"""Which pages of other origins may call the server from a browser: the headers that say so."""

from __future__ import annotations

from starlette.requests import Request

from marserve.doors.http.exchange import render_headers


def cors_pairs(origin: str, methods: str, headers: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of every answer, as names and values; [] when no origin is allowed.

    Args:
        origin: the one whose pages may call, ``*`` for all, "" for none.
        methods, headers: what such pages may use, with commas between.
    """
    if not origin:
        return []
    pairs = [(b"access-control-allow-origin", origin.encode("latin-1"))]
    if methods:
        pairs.append((b"access-control-allow-methods", methods.encode("latin-1")))
    if headers:
        pairs.append((b"access-control-allow-headers", headers.encode("latin-1")))
    return pairs


def cors_headers(origin: str, methods: str, headers: str) -> bytes:
    """Return the same as header lines, for the fast lane; see ``cors_pairs``.

    Raises:
        ValueError: a value holds a line end.
    """
    return render_headers(cors_pairs(origin, methods, headers))


def is_preflight(request: Request) -> bool:
    """Return whether a browser asks, before the request proper, whether it may send it."""
    asks = "origin" in request.headers and "access-control-request-method" in request.headers
    return request.method == "OPTIONS" and asks
