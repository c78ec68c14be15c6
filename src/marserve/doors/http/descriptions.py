"""The routes that tell about the others: the index, and the OpenAPI descriptions in the dialect's form."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

import marserve
from marserve.doors.auth import INFERENCE, MANAGEMENT
from marserve.doors.http import openapi_mms, openapi_torchserve
from marserve.doors.http.openapi import document, for_model, model_paths, prediction_paths
from marserve.doors.http.replies import Replies
from marserve.doors.http.routes import ANY_METHOD, Endpoint
from marserve.errors import BadRequest
from marserve.models.registry import Registry
from marserve.planes.inference import InferencePlane

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
_OF_MODELS = ("/predictions/{model}", "/predictions/{model}/{version}", "/models/{model}")
#: The same in TorchServe, where whatever asks for a prediction does.
_OLD_PREDICTIONS = (
    "/predictions/{model}",
    "/predictions/{model}/{version}",
    "/predictions/{model}/{version}/{rest:path}",
    "/explanations/{model}",
    "/explanations/{model}/{version}",
    "/explanations/{model}/{version}/{rest:path}",
    "/v1/models/{model}:predict",
    "/v1/models/{model}:explain",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/explain",
    "/models/{model}/invoke",
    "/invocations",
    "/{model}/predict",
    "/{model}/{version}/predict",
)
#: In Multi Model Server, where what follows the name is not looked at.
_MMS_PREDICTIONS = (
    "/predictions/{model}",
    "/predictions/{model}/{rest:path}",
    "/models/{model}/invoke",
    "/invocations",
    "/{model}/predict",
)
_OLD_MANAGEMENT = ("/models/{model}", "/models/{model}/{version}", "/models/{model}/{version}/set-default")

_WHOLE = "Describes this address, as OpenAPI."
_ONE = "Describes one model, as OpenAPI."


class Descriptions:
    """Describes what is served here in our own form, with the schemas of the signatures."""

    def __init__(self, described: Iterable[Endpoint], registry: Registry, replies: Replies) -> None:
        self._described = tuple(described)
        self._registry = registry
        self._replies = replies
        self._has_predictions = LANES[0].path in {endpoint.path for endpoint in self._described}

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the routes."""
        any_or_get = "GET" if self._replies.is_native else ANY_METHOD
        index = (Endpoint("GET", "/", self.index, "Lists the routes."),) if self._replies.is_native else ()
        here = {endpoint.path: endpoint.key for endpoint in self._described}
        return (
            *index,
            Endpoint("OPTIONS", "/", self.whole, _WHOLE),
            Endpoint(any_or_get, "/api-description", self.whole, _WHOLE),
            *(Endpoint("OPTIONS", path, self.one, _ONE, key=here[path]) for path in _OF_MODELS if path in here),
        )

    async def index(self, request: Request) -> Response:
        """Answer with the routes of this address."""
        routes = [
            {"method": endpoint.method, "path": endpoint.path, "summary": endpoint.summary}
            for endpoint in (*self.endpoints(), *self._described)
        ]
        return self._replies.json({"name": "marserve", "version": marserve.__version__, "routes": routes})

    async def whole(self, request: Request) -> Response:
        """Answer with the description of this address; it names the models to those alone who may ask them."""
        is_told = self._has_predictions and request.state.is_trusted
        versions = prediction_paths(self._registry) if is_told else []
        return self._replies.json(document(self._replies.dialect, (*self.endpoints(), *self._described), versions))

    async def one(self, request: Request) -> Response:
        """Answer with the description of one model: its predictions, or its management, as the path says."""
        name = request.path_params["model"]
        if request.scope["path"].startswith("/models/"):
            self._registry.model(name)
            return self._replies.json(document(self._replies.dialect, for_model(self._described, name), ()))
        self._registry.find(name, request.path_params.get("version"))
        return self._replies.json(document(self._replies.dialect, (), model_paths(self._registry, name)))


class OldDescriptions:
    """Describes addresses and models as the old server of the dialect does, whatever is registered."""

    def __init__(
        self, doors: Collection[str], registry: Registry, inference: InferencePlane, replies: Replies
    ) -> None:
        self._doors = doors
        self._registry = registry
        self._inference = inference
        self._replies = replies
        self._is_mms = replies.dialect.name == "mms"

    def endpoints(self, *, is_locked: bool) -> tuple[Endpoint, ...]:
        """Return the routes; those of one model ask for its door's key where the address ``is_locked``."""
        rows = [
            Endpoint("OPTIONS", "/", self.whole, _WHOLE),
            Endpoint(ANY_METHOD, "/api-description", self.whole, _WHOLE),
        ]
        predictions, management = (_MMS_PREDICTIONS, ()) if self._is_mms else (_OLD_PREDICTIONS, _OLD_MANAGEMENT)
        of_management = [Endpoint("OPTIONS", path, self.management, _ONE, key=MANAGEMENT) for path in management]
        of_predictions = [Endpoint("OPTIONS", path, self.predictions, _ONE, key=INFERENCE) for path in predictions]
        rows += of_predictions if "inference" in self._doors else []
        # Behind those: to these, invoke is a version.
        rows += of_management if "management" in self._doors else []
        return tuple(row if is_locked else replace(row, key="") for row in rows)

    async def whole(self, request: Request) -> Response:
        """Answer with the description of this address."""
        documents = openapi_mms if self._is_mms else openapi_torchserve
        return self._replies.json(documents.of_address(self._doors))

    async def predictions(self, request: Request) -> Response:
        """Answer with the description of one model's predictions."""
        named = next(iter(request.query_params.getlist("model_name")), "")
        name = request.path_params.get("model") or named or self._inference.only_model()
        if not name:
            raise BadRequest("Parameter model_name is required.")
        version = self._registry.find(name, request.path_params.get("version"))
        if self._is_mms:
            return self._replies.json(openapi_mms.of_predictions(name, version.archive.signature))
        return self._replies.json(openapi_torchserve.of_predictions(name))

    async def management(self, request: Request) -> Response:
        """Answer with the description of one model's management, as TorchServe alone does."""
        name = request.path_params["model"]
        self._registry.find(name, request.path_params.get("version"))
        return self._replies.json(openapi_torchserve.of_management(name))
