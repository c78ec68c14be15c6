"""The management routes: register, scale, describe, list, set the default, unregister.

Source: TorchServe 0.12 and Multi Model Server 1.1 as their clients see them; the texts are in ``dialects.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from marserve.doors.http.customized import customized
from marserve.doors.http.describe import describe
from marserve.doors.http.parameters import (
    COUNT,
    FLAG,
    INTEGER,
    MILLISECONDS,
    PAGE,
    SECONDS,
    SIZE,
    TEXT,
    Given,
    Parameter,
    read_parameters,
)
from marserve.doors.http.replies import Replies
from marserve.doors.http.routes import Endpoint
from marserve.errors import BadRequest, ModelNotFound, VersionNotFound
from marserve.models.model import ModelVersion
from marserve.planes.inference import InferencePlane
from marserve.planes.management import ManagementPlane
from marserve.planes.resolving import Registration

log = logging.getLogger("marserve.management")

URL = Parameter("url", TEXT, "Archive: its name in the model store, or a URL.", is_required=True)
MODEL_NAME = Parameter("model_name", TEXT, "Name to serve it under.", "the manifest's")
HANDLER = Parameter("handler", TEXT, "Entry point, instead of the archive's.", "the manifest's")
RUNTIME = Parameter("runtime", TEXT, "Runtime that is shown for the model.", "the manifest's")
BATCH_SIZE = Parameter("batch_size", SIZE, "Most requests that travel together.", "model-config.yaml, batch_size")
MAX_BATCH_DELAY = Parameter(
    "max_batch_delay",
    MILLISECONDS,
    "Milliseconds that an incomplete batch waits after its oldest request.",
    "model-config.yaml, max_batch_delay",
)
INITIAL_WORKERS = Parameter(
    "initial_workers", COUNT, "Workers to start.", "model-config.yaml, default_workers_per_model"
)
RESPONSE_TIMEOUT = Parameter(
    "response_timeout",
    SECONDS,
    "Seconds that a worker may spend on a batch.",
    "model-config.yaml, default_response_timeout",
)
STARTUP_TIMEOUT = Parameter(
    "startup_timeout",
    SECONDS,
    "Seconds that a worker may take to load.",
    "model-config.yaml, default_startup_timeout",
)
PRELOAD_MODEL = Parameter(
    "preload_model", FLAG, "Whether to load once, and fork the workers from that.", "preload_model"
)
S3_SSE_KMS = Parameter(
    "s3_sse_kms",
    FLAG,
    "Whether to sign the download with the keys that the server's environment has for S3.",
    "false",
)
REGISTERS_SYNCHRONOUSLY = Parameter("synchronous", FLAG, "Whether to answer once the workers are ready.", "true")
MIN_WORKER = Parameter("min_worker", INTEGER, "Workers to have.", "1")
MAX_WORKER = Parameter("max_worker", INTEGER, "Most workers; may not be less.", "min_worker")
SYNCHRONOUS = Parameter("synchronous", FLAG, "Whether to answer once the workers are ready, or gone.", "false")
MODEL_VERSION = Parameter("model_version", TEXT, "Version, where the path names none.", "the default version")
CUSTOMIZED = Parameter("customized", FLAG, "Whether the service adds a description of its own.", "false")
LIMIT = Parameter("limit", PAGE, "Most models of one page.", "100")
NEXT_PAGE_TOKEN = Parameter("next_page_token", COUNT, "nextPageToken of the page before.", "0")

REGISTER: tuple[Parameter[object], ...] = (
    URL,
    MODEL_NAME,
    HANDLER,
    RUNTIME,
    BATCH_SIZE,
    MAX_BATCH_DELAY,
    INITIAL_WORKERS,
    RESPONSE_TIMEOUT,
    STARTUP_TIMEOUT,
    REGISTERS_SYNCHRONOUSLY,
)
SCALE: tuple[Parameter[object], ...] = (MIN_WORKER, MAX_WORKER, SYNCHRONOUS)
LIST: tuple[Parameter[object], ...] = (LIMIT, NEXT_PAGE_TOKEN)
DESCRIBE: tuple[Parameter[object], ...] = (CUSTOMIZED,)

#: In place of a version: all of them.
ALL_VERSIONS = "all"


class ManagementDoor:
    """Answers ``/models`` and what is under it."""

    def __init__(self, plane: ManagementPlane, inference: InferencePlane, replies: Replies) -> None:
        self._plane = plane
        self._inference = inference
        self._replies = replies
        self._dialect = replies.dialect
        is_mms = replies.dialect.name == "mms"
        self._register = (*REGISTER, PRELOAD_MODEL if is_mms else S3_SSE_KMS)
        self._scale = (*SCALE, MODEL_VERSION) if replies.dialect.has_versions else SCALE

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the routes."""
        one = "/models/{model}"
        scaled = (202, "The workers are being started or stopped.")
        scale, tell = "Sets the number of workers.", "Describes a model."
        asked = DESCRIBE if self._dialect.has_old_paths else ()
        version = "/models/{model}/{version}"
        found = (
            Endpoint("GET", "/models", self.list_models, "Lists the models, a page at a time.", LIST),
            Endpoint("POST", "/models", self.register, "Registers a model.", self._register, True),
            Endpoint("GET", one, self.describe, f"{tell[:-1]}: its default version.", asked),
            Endpoint("PUT", one, self.scale, scale, self._scale, outcome=scaled),
            Endpoint("DELETE", one, self.unregister, "Unregisters a model."),
        )
        if not self._dialect.has_versions:
            return found
        return (
            *found,
            Endpoint("GET", version, self.describe, f'{tell[:-1]}: one version, or "{ALL_VERSIONS}".', asked),
            Endpoint("PUT", version, self.scale, scale, self._scale, outcome=scaled),
            Endpoint("DELETE", version, self.unregister, "Unregisters a version."),
            Endpoint("PUT", f"{version}/set-default", self.set_default, "Makes a version the default one."),
            *self._old_endpoints(),
        )

    def _old_endpoints(self) -> tuple[Endpoint, ...]:
        if not self._dialect.has_old_paths:
            return ()
        # To GET, TorchServe does not look at what follows the version.
        followed = "/models/{model}/{version}/set-default"
        return (
            Endpoint("GET", followed, self.describe, "Describes one version."),
            Endpoint("GET", "/v1/models/{model}", self.is_ready, "Tells whether a model can answer, as KServe asks."),
        )

    async def _given(self, request: Request, known: Sequence[Parameter[object]], takes_body: bool = False) -> Given:
        is_lenient = not self._replies.is_native
        return await read_parameters(request, known, takes_body=takes_body, is_lenient=is_lenient)

    async def register(self, request: Request) -> Response:
        """Register a model, and start its workers."""
        self._plane.check_open()
        given = await self._given(request, self._register, takes_body=True)
        wait = given[REGISTERS_SYNCHRONOUSLY]
        if wait is None:
            wait = self._dialect.registers_synchronously
        version = await self._plane.register(self._registration(given), wait=wait)
        workers = version.config.min_workers
        if workers and not wait:
            return self._replies.status("scaling", 202)
        event = "registered" if workers else "registered_idle"
        return self._replies.status(event, model=version.name, version=version.version, workers=workers)

    def _registration(self, given: Given) -> Registration:
        location = given[URL]
        if location is None:
            raise BadRequest("Parameter url is required.", "Name an archive of the model store, or a URL.")
        if not location:
            raise ModelNotFound("empty url", "Name an archive of the model store, or a URL.")
        runtime, runtimes = given[RUNTIME], self._dialect.runtimes
        if runtime is not None and runtimes and runtime not in runtimes:
            raise BadRequest(f"Invalid RuntimeType value: {runtime}", f"It must be one of {', '.join(runtimes)}.")
        return Registration(
            location,
            model_name=given[MODEL_NAME] or None,
            handler=given[HANDLER] or None,
            runtime=runtime or None,
            batch_size=given[BATCH_SIZE],
            max_batch_delay=given[MAX_BATCH_DELAY],
            initial_workers=given[INITIAL_WORKERS],
            response_timeout=self._seconds(given),
            is_preloaded=given[PRELOAD_MODEL],
            is_signed=bool(given[S3_SSE_KMS]),
            startup_timeout=given[STARTUP_TIMEOUT],
        )

    def _seconds(self, given: Given) -> float | None:
        timeout = given[RESPONSE_TIMEOUT]
        if timeout and self._dialect.query_minutes and not given.is_of_body:
            log.info("response_timeout=%g of a query is in minutes: %g s.", timeout, timeout * 60)
            return timeout * 60
        return timeout

    async def scale(self, request: Request) -> Response:
        """Set the number of workers of a version."""
        given = await self._given(request, self._scale)
        name, version = request.path_params["model"], request.path_params.get("version") or given[MODEL_VERSION]
        least = given[MIN_WORKER]
        least = 1 if least is None else least
        most = given[MAX_WORKER]
        wait = bool(given[SYNCHRONOUS])
        await self._plane.scale(name, version, least, least if most is None else most, wait=wait)
        if not wait:
            return self._replies.status("scaling", 202)
        event = "version_scaled" if version else "scaled"
        return self._replies.status(event, model=name, version=version, workers=least)

    async def describe(self, request: Request) -> Response:
        """Describe the default version, one version, or all of them."""
        given = await self._given(request, DESCRIBE if self._dialect.has_old_paths else ())
        name, version = request.path_params["model"], request.path_params.get("version")
        versions = self._plane.describe(name, version)
        entries = await describe(versions, self._dialect)
        if given[CUSTOMIZED] and version != ALL_VERSIONS and isinstance(entries, list):
            said = await customized(self._inference, name, version)
            entries[0]["customizedMetadata"] = said.metadata
            return self._replies.json(entries, said.status, said.headers)
        return self._replies.json(entries)

    async def is_ready(self, request: Request) -> Response:
        """Tell whether a model's default version has a worker that can answer."""
        name = request.path_params["model"]
        return self._replies.json({"name": name, "ready": self._plane.registry.find(name, None).pool.ready_count > 0})

    async def list_models(self, request: Request) -> Response:
        """List the models by name, a page at a time."""
        given = await self._given(request, LIST)
        limit = given[LIMIT]
        page, following = self._plane.list_models(100 if limit is None else limit, given[NEXT_PAGE_TOKEN] or 0)
        if self._replies.is_native and following == len(self._plane.registry.models):
            following = None  # clients of the old servers expect a last, empty page; nobody else does
        return self._replies.json(
            {
                "nextPageToken": None if following is None else str(following),
                "models": [self._listed(version) for version in page],
            }
        )

    def _listed(self, version: ModelVersion) -> dict[str, object]:
        listed: dict[str, object] = {"modelName": version.name, "modelUrl": version.archive.location}
        if self._replies.is_native:
            listed.update(modelVersion=version.version, state=str(version.pool.state))
        return listed

    async def set_default(self, request: Request) -> Response:
        """Make a version the one that requests without a version get."""
        await self._given(request, ())
        name, version = request.path_params["model"], request.path_params["version"]
        try:
            await self._plane.set_default(name, version)
        except VersionNotFound as error:
            error.fault = "set_default"
            raise
        return self._replies.status("default_set", model=name, version=version)

    async def unregister(self, request: Request) -> Response:
        """Take a version out; the answer comes when its workers have ended."""
        await self._given(request, ())
        version = await self._plane.unregister(request.path_params["model"], request.path_params.get("version"))
        return self._replies.status("unregistered", model=version.name, version=version.version)
