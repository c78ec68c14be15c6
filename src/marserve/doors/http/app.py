"""The application of a listener: the routes of the doors that share its address, and what all answers carry."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from time import monotonic

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import compile_path

from marserve.doors.auth import API, INFERENCE, MANAGEMENT, Keys
from marserve.doors.http.cors import is_preflight
from marserve.doors.http.descriptions import LANES, Descriptions, OldDescriptions
from marserve.doors.http.dialects import Dialect
from marserve.doors.http.health import HealthDoor
from marserve.doors.http.lane import ASGIApp, Message, Receive, Send
from marserve.doors.http.management import ManagementDoor
from marserve.doors.http.metrics import MetricsDoor
from marserve.doors.http.open_inference import OpenInferenceDoor
from marserve.doors.http.replies import Replies
from marserve.doors.http.routes import ANY_METHOD, Endpoint, no_route
from marserve.doors.http.sagemaker import SageMaker, SageMakerDoor
from marserve.doors.http.tokens import TokenDoor
from marserve.errors import MethodNotAllowed, ServeError
from marserve.metrics.collector import Collector
from marserve.models.routes import segments_of
from marserve.observer import Observer
from marserve.planes.inference import InferencePlane
from marserve.planes.management import ManagementPlane

log = logging.getLogger("marserve.http")


class Front:
    """Routes a request to its door, and adds what every answer carries; an ASGI application.

    Args:
        endpoints: the routes; those without an ``answer`` are left to the fast lane.
        cors: headers of every answer, see ``cors.cors_pairs``.
        keys: what the endpoints that ask for a key compare with.
        methods_at: the methods that archives have named for a path, which the fast lane answers.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        replies: Replies,
        observer: Observer,
        cors: Collection[tuple[bytes, bytes]] = (),
        keys: Keys | None = None,
        methods_at: Callable[[tuple[str, ...]], Collection[str]] | None = None,
    ) -> None:
        endpoints = tuple(endpoints)
        self._keys = keys
        self._methods_at = methods_at or (lambda segments: ())
        # A key for the API alone opens nothing but the renewal.
        self._kinds = {endpoint.key for endpoint in endpoints} - {"", API}
        self._replies = replies
        self._observer = observer
        self._standing = [*_pairs(replies.dialect.standing_headers), *cors]
        self._has_cors = bool(cors)
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            if endpoint.answer is not None:
                by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        self._paths = [(compile_path(path)[0], methods) for path, methods in by_path.items()]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; see the ASGI specification."""
        request = Request(scope, receive)
        request_id = str(uuid.uuid4())
        began = monotonic()
        try:
            response = await self._answer(request, request_id)
        except ClientDisconnect:
            return
        response.raw_headers += [*self._standing, (b"x-request-id", request_id.encode())]
        if response.status_code >= 400 and self._replies.dialect.closes_on_error:
            response.raw_headers.append((b"connection", b"close"))
        try:
            await response(scope, receive, send)
        finally:
            client = tuple(request.client or ())
            seconds = monotonic() - began
            self._observer.request_answered(client, request.method, _target(scope), response.status_code, seconds)

    async def _answer(self, request: Request, request_id: str) -> Response:
        try:
            if self._has_cors and is_preflight(request):
                return Response(status_code=204)
            return await self._route(request)
        except ServeError as error:
            return self._replies.error(error)
        except ClientDisconnect:
            raise
        except Exception:
            log.exception("Request %s, %s %s, failed.", request_id, request.method, request.url.path)
            fault = ServeError("The server failed on this request.", "Its log says why, under the x-request-id.")
            return self._replies.error(fault)

    async def _route(self, request: Request) -> Response:
        path = request.scope["path"].rstrip("/") or "/"
        fitting: list[dict[str, Endpoint]] = []
        for pattern, methods in self._paths:
            found = pattern.match(path)
            if found is not None:
                if self._takes(request, methods):
                    request.scope["path_params"] = found.groupdict()
                    return await self._call(request, methods)
                fitting.append(methods)
        if fitting:
            self._check(request, self._kinds)
            return self._not_allowed(request, path, fitting[0])
        self._check(request, self._kinds)
        named = self._methods_at(segments_of(path))
        if named:
            return self._not_allowed(request, path, named)
        raise no_route(path)

    def _method(self, request: Request) -> str:
        is_head = request.method == "HEAD" and self._replies.is_native  # the old servers take it for no GET
        return "GET" if is_head else request.method

    def _takes(self, request: Request, methods: Collection[str]) -> bool:
        return self._method(request) in methods or ANY_METHOD in methods

    async def _call(self, request: Request, methods: dict[str, Endpoint]) -> Response:
        endpoint = methods.get(self._method(request)) or methods[ANY_METHOD]
        assert endpoint.answer is not None
        if endpoint.key:
            self._check(request, {endpoint.key})
        request.state.is_trusted = bool(endpoint.key) or self._is_admitted(request, self._kinds)
        return await endpoint.answer(request)

    def _not_allowed(self, request: Request, path: str, methods: Collection[str]) -> Response:
        allowed = ", ".join(sorted(methods))
        response = self._replies.error(MethodNotAllowed(f"{path} does not take {request.method}, but {allowed}."))
        if self._replies.is_native:
            response.raw_headers.append((b"allow", allowed.encode()))
        return response

    def _is_admitted(self, request: Request, kinds: Collection[str]) -> bool:
        """Tell whether a request carries a key of one of the kinds; none of them is what everybody carries."""
        if self._keys is None or not kinds:
            return True
        authorization = _authorization(request)
        return any(self._keys.fits(kind, authorization) for kind in kinds)

    def _check(self, request: Request, kinds: Collection[str]) -> None:
        if self._keys is not None and not self._is_admitted(request, kinds):
            raise self._keys.refusal(kinds, _authorization(request))


def build_app(
    doors: Collection[str],
    *,
    inference: InferencePlane,
    management: ManagementPlane,
    collector: Collector,
    observer: Observer,
    dialect: Dialect,
    cors: Collection[tuple[bytes, bytes]] = (),
    keys: Keys | None = None,
    is_locked: bool = False,
    has_open_inference: bool = False,
    sagemaker: SageMaker | None = None,
) -> ASGIApp:
    """Return the application of a listener: all its routes but those of the fast lane.

    Args:
        doors: which of ``inference``, ``management`` and ``metrics`` share its address.
        collector: what the metrics door tells; often the observer too.
        cors: see ``cors.cors_pairs``.
        keys: the server's; None when no address asks for one.
        is_locked: whether this one does.
        has_open_inference: see ``open_inference``.
        sagemaker: what SageMaker is told; None where nobody asks in its way.
    """
    replies, registry = Replies(dialect), management.registry
    endpoints: list[Endpoint] = []
    if "inference" in doors:
        ping = HealthDoor(inference, registry, replies).endpoints()
        if sagemaker is not None:
            ping = SageMakerDoor(inference, sagemaker, replies).endpoints()
        endpoints += _keyed("" if dialect.has_open_ping else INFERENCE, ping, is_locked)
        endpoints += _keyed(INFERENCE, LANES, is_locked)
        if has_open_inference:
            endpoints += _keyed(INFERENCE, OpenInferenceDoor(replies).endpoints(), is_locked)
    if "management" in doors:
        endpoints += _keyed(MANAGEMENT, ManagementDoor(management, inference, replies).endpoints(), is_locked)
        if keys is not None:
            endpoints += _keyed(API, TokenDoor(keys, replies).endpoints(), True)
    if "metrics" in doors:
        endpoints += MetricsDoor(collector, registry, replies).endpoints()
    if dialect.name == "native":
        endpoints += Descriptions(endpoints, registry, replies).endpoints()
    else:
        # Before the others: to the management door, /models/M/invoke is a version's path.
        endpoints = [*OldDescriptions(doors, registry, inference, replies).endpoints(is_locked=is_locked), *endpoints]
    methods_at = inference.methods_at if "inference" in doors else None
    return Front(endpoints, replies, observer, cors, keys, methods_at)


def _keyed(kind: str, endpoints: Iterable[Endpoint], is_locked: bool) -> list[Endpoint]:
    """Return endpoints that ask for a key, where the address asks for keys at all."""
    return [replace(endpoint, key=kind if is_locked else "") for endpoint in endpoints]


def _authorization(request: Request) -> bytes:
    return request.headers.get("authorization", "").encode("latin-1")


def _pairs(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Return rendered header lines as names and values."""
    found = re.findall(rb"([^:\r\n]+): ([^\r\n]*)\r\n", lines)
    return [(name, value) for name, value in found]


def _target(scope: Message) -> str:
    query = scope["query_string"]
    path = scope.get("raw_path") or scope["path"].encode()
    return str((path + b"?" + query if query else path).decode("latin-1"))
