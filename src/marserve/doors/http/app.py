"""The application of a listener: the routes of the doors that share its address, and what all answers carry."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Collection, Iterable
from time import monotonic

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import compile_path

import marserve
from marserve.doors.http.cors import is_preflight
from marserve.doors.http.dialects import Dialect
from marserve.doors.http.health import HealthDoor
from marserve.doors.http.lane import ASGIApp, Message, Receive, Send
from marserve.doors.http.management import ManagementDoor
from marserve.doors.http.metrics import MetricsDoor
from marserve.doors.http.openapi import document, for_model, model_paths, prediction_paths
from marserve.doors.http.replies import Replies
from marserve.doors.http.routes import ANY_METHOD, Endpoint
from marserve.errors import MethodNotAllowed, RouteNotFound, ServeError
from marserve.metrics.collector import Collector
from marserve.models.registry import Registry
from marserve.observer import Observer
from marserve.planes.inference import InferencePlane
from marserve.planes.management import ManagementPlane

log = logging.getLogger("marserve.http")

#: What the fast lane answers: here for the descriptions alone.
LANES = (
    Endpoint("POST", "/predictions/{model}", None, "Asks a model's default version."),
    Endpoint("POST", "/predictions/{model}/{version}", None, "Asks one version of a model."),
    Endpoint("POST", "/explanations/{model}", None, "Asks a model to explain its answer."),
    Endpoint("POST", "/explanations/{model}/{version}", None, "Asks one version to explain its answer."),
    Endpoint(
        "POST",
        "/invocations",
        None,
        "Asks the model that the query or a form field model_name names, or the only one.",
    ),
)

#: Paths that describe one model when they are asked for with OPTIONS.
OF_MODELS = ("/predictions/{model}", "/predictions/{model}/{version}", "/models/{model}")


class Front:
    """Routes a request to its door, and adds what every answer carries; an ASGI application.

    Args:
        endpoints: the routes; those without an ``answer`` are left to the fast lane.
        cors: headers of every answer, see ``cors.cors_pairs``.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        replies: Replies,
        observer: Observer,
        cors: Collection[tuple[bytes, bytes]] = (),
    ) -> None:
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
            host = request.client.host if request.client is not None else ""
            seconds = monotonic() - began
            self._observer.request_answered(host, request.method, _target(scope), response.status_code, seconds)

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
        for pattern, methods in self._paths:
            found = pattern.match(path)
            if found is not None:
                request.scope["path_params"] = found.groupdict()
                return await self._call(request, path, methods)
        raise RouteNotFound(f"There is no {path} at this address.", "OPTIONS / describes what there is.")

    async def _call(self, request: Request, path: str, methods: dict[str, Endpoint]) -> Response:
        method = "GET" if request.method == "HEAD" and "HEAD" not in methods else request.method
        endpoint = methods.get(method) or methods.get(ANY_METHOD)
        if endpoint is not None and endpoint.answer is not None:
            return await endpoint.answer(request)
        allowed = ", ".join(sorted(methods))
        response = self._replies.error(MethodNotAllowed(f"{path} does not take {request.method}, but {allowed}."))
        if self._replies.is_native:
            response.raw_headers.append((b"allow", allowed.encode()))
        return response


class Descriptions:
    """The routes that tell about the others: the index, and the OpenAPI description."""

    def __init__(self, described: Iterable[Endpoint], registry: Registry, replies: Replies) -> None:
        self._described = tuple(described)
        self._registry = registry
        self._replies = replies
        self._has_predictions = LANES[0] in self._described

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the routes."""
        summary = "Describes this address, as OpenAPI."
        any_or_get = "GET" if self._replies.is_native else ANY_METHOD
        index = (Endpoint("GET", "/", self.index, "Lists the routes."),) if self._replies.is_native else ()
        here = {endpoint.path for endpoint in self._described}
        return (
            *index,
            Endpoint("OPTIONS", "/", self.whole, summary),
            Endpoint(any_or_get, "/api-description", self.whole, summary),
            *(
                Endpoint("OPTIONS", path, self.one, "Describes one model, as OpenAPI.")
                for path in OF_MODELS
                if path in here
            ),
        )

    async def index(self, request: Request) -> Response:
        """Answer with the routes of this address."""
        routes = [
            {"method": endpoint.method, "path": endpoint.path, "summary": endpoint.summary}
            for endpoint in (*self.endpoints(), *self._described)
        ]
        return self._replies.json({"name": "marserve", "version": marserve.__version__, "routes": routes})

    async def whole(self, request: Request) -> Response:
        """Answer with the description of this address."""
        versions = prediction_paths(self._registry) if self._has_predictions else []
        return self._replies.json(document(self._replies.dialect, (*self.endpoints(), *self._described), versions))

    async def one(self, request: Request) -> Response:
        """Answer with the description of one model: its predictions, or its management, as the path says."""
        name = request.path_params["model"]
        if request.scope["path"].startswith("/models/"):
            self._registry.model(name)
            return self._replies.json(document(self._replies.dialect, for_model(self._described, name), ()))
        self._registry.find(name, request.path_params.get("version"))
        return self._replies.json(document(self._replies.dialect, (), model_paths(self._registry, name)))


def build_app(
    doors: Collection[str],
    *,
    inference: InferencePlane,
    management: ManagementPlane,
    collector: Collector,
    observer: Observer,
    dialect: Dialect,
    cors: Collection[tuple[bytes, bytes]] = (),
) -> ASGIApp:
    """Return the application of a listener: all its routes but those of the fast lane.

    Args:
        doors: which of ``inference``, ``management`` and ``metrics`` share its address.
        collector: what the metrics door tells; often the observer too.
        cors: see ``cors.cors_pairs``.
    """
    replies, registry = Replies(dialect), management.registry
    endpoints: list[Endpoint] = []
    if "inference" in doors:
        endpoints += (*HealthDoor(inference, registry, replies).endpoints(), *LANES)
    if "management" in doors:
        endpoints += ManagementDoor(management, replies).endpoints()
    if "metrics" in doors:
        endpoints += MetricsDoor(collector, registry).endpoints()
    endpoints += Descriptions(endpoints, registry, replies).endpoints()
    return Front(endpoints, replies, observer, cors)


def _pairs(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Return rendered header lines as names and values."""
    found = re.findall(rb"([^:\r\n]+): ([^\r\n]*)\r\n", lines)
    return [(name, value) for name, value in found]


def _target(scope: Message) -> str:
    query = scope["query_string"]
    path = scope.get("raw_path") or scope["path"].encode()
    return str((path + b"?" + query if query else path).decode("latin-1"))
