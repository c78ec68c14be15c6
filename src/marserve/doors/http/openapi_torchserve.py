"""The OpenAPI descriptions that TorchServe gives of its addresses and of one model, made from tables.

Source: what release 0.12.0 answers to ``OPTIONS``. Clients generate code from it, so names, texts, the order of
members and even the default of two seconds for ``response_timeout`` are its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import marserve

Json = dict[str, object]

_OPENAPI_VERSION = "3.0.1"
_JSON = "application/json"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


def _record(members: Mapping[str, Json], optional: Collection[str] = ()) -> Json:
    """Return the schema of an object; all its members are required but the ``optional`` ones."""
    required = [name for name in members if name not in optional]
    return {"type": "object", "required": required, "properties": dict(members)}


def _told(kind: str, description: str, **more: object) -> Json:
    return {"type": kind, "description": description, **more}


def _list(items: Json, description: str) -> Json:
    return {"type": "array", "items": items, "description": description}


def _content(schema: Json, content_type: str = _JSON) -> Json:
    return {content_type: {"schema": schema}}


_ERROR = _content(
    _record(
        {
            "code": _told("integer", "Error code."),
            "type": _told("string", "Error type."),
            "message": _told("string", "Error message."),
        }
    )
)
_STATUS = _content(_record({"status": _told("string", "Error type.")}))
_ANYTHING = _content({"type": "string", "format": "binary"}, "*/*")
_DESCRIPTOR = _content(
    _record({"openapi": {"type": "string"}, "info": {"type": "object"}, "paths": {"type": "object"}})
)
_HEALTH = _content(_record({"status": _told("string", "Overall status of the TorchServe.")}))
_EXPOSITION = _content(
    _record(
        {
            "# HELP": _told("string", "Help text for TorchServe metric."),
            "# TYPE": _told("string", "Type of TorchServe metric."),
            "metric": _told("string", "TorchServe application metric."),
        }
    ),
    _METRICS,
)
_LISTED = _record(
    {"modelName": _told("string", "Name of the model."), "modelUrl": _told("string", "URL of the model.")}
)
_NEXT_PAGE = (
    "Use this parameter in a subsequent request after you receive a response with truncated results. "
    "Set it to the value of NextMarker from the truncated response you just received."
)
_MODEL_LIST = _content(
    _record(
        {
            "nextPageToken": _told("string", _NEXT_PAGE),
            "models": _list(_LISTED, "A list of registered models."),
        },
        optional=("nextPageToken",),
    )
)
_WORKER = _record(
    {
        "id": _told("string", "Worker id"),
        "startTime": _told("string", "Worker start time"),
        "gpu": _told("boolean", "If running on GPU"),
        "status": _told("string", "Worker status", enum=["READY", "LOADING", "UNLOADING"]),
    },
    optional=("gpu",),
)
_MODEL = _content(
    _record(
        {
            "modelName": _told("string", "Name of the model."),
            "modelVersion": _told("string", "Version of the model."),
            "modelUrl": _told("string", "URL of the model."),
            "minWorkers": _told("integer", "Configured minimum number of worker."),
            "maxWorkers": _told("integer", "Configured maximum number of worker."),
            "batchSize": _told("integer", "Configured batch size."),
            "maxBatchDelay": _told("integer", "Configured maximum batch delay in ms."),
            "status": _told("string", "Overall health status of the model"),
            "workers": _list(_WORKER, "A list of active backend workers."),
            "metrics": _record(
                {
                    "rejectedRequests": _told("integer", "Number requests has been rejected in last 10 minutes."),
                    "waitingQueueSize": _told("integer", "Number requests waiting in the queue."),
                    "requests": _told("integer", "Number requests processed in last 10 minutes."),
                }
            ),
            "jobQueueStatus": _record(
                {
                    "remainingCapacity": _told("integer", "Number of new requests that can be queued."),
                    "pendingRequests": _told("integer", "Number of requests waiting in the queue."),
                }
            ),
        },
        optional=("batchSize", "maxBatchDelay"),
    )
)


def _responses(rows: Mapping[int, tuple[str, Json]]) -> Json:
    told = {**rows, 500: ("Internal Server Error", _ERROR)}
    return {str(status): _response(*told[status]) for status in sorted(told)}


def _response(description: str, content: Json) -> Json:
    return {"description": description, "content": content} if content else {"description": description}


def _in_path(name: str, description: str) -> Json:
    return {"in": "path", "name": name, "description": description, "required": True, "schema": {"type": "string"}}


def _in_query(
    name: str,
    description: str,
    kind: str = "string",
    default: str = "",
    *,
    choices: Collection[str] = (),
    is_required: bool = False,
) -> Json:
    schema: Json = {"type": kind}
    if choices:
        schema["enum"] = list(choices)
    if default:
        schema["default"] = default
    return {"in": "query", "name": name, "description": description, "required": is_required, "schema": schema}


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    Attributes:
        name: its ``operationId``.
        responses: description and content by status, but for the 500 that all have.
        body: what is told of the request's body; None where there is none.
    """

    path: str
    method: str
    name: str
    description: str
    parameters: tuple[Json, ...]
    responses: Mapping[int, tuple[str, Json]]
    body: Mapping[str, object] | None = None
    is_deprecated: bool = False

    def to_json(self) -> Json:
        """Return its description."""
        told: Json = {
            "description": self.description,
            "operationId": self.name,
            "parameters": list(self.parameters),
        }
        if self.body is not None:
            told["requestBody"] = dict(self.body)
        told["responses"] = _responses(self.responses)
        if self.is_deprecated:
            told["deprecated"] = True
        return told


_MODEL_MISSING = {404: ("Model not found or Model version not found", _ERROR)}
_DESCRIBED = {200: ("A openapi 3.0.1 descriptor", _DESCRIPTOR)}
_ACCEPTED = {202: ("Accepted", _STATUS)}
_PARTIAL = {210: ("Partial Success", _STATUS)}
_REFUSED = {400: ("Bad request", _ERROR)}

_OPTIONS = Operation("/", "options", "apiDescription", "Get openapi description.", (), _DESCRIBED)
_API_DESCRIPTION = Operation(
    "/api-description", "get", "api-description", "Get openapi description.", (), _DESCRIBED, is_deprecated=True
)
_METRICS_OPERATION = Operation(
    "/metrics",
    "get",
    "metrics",
    "Get TorchServe application metrics in prometheus format.",
    (_in_query("name[]", "Names of metrics to filter"),),
    {200: ("TorchServe application metrics", _EXPOSITION)},
)


def _prediction(path: str, name: str, which: str, *parameters: Json) -> Operation:
    return Operation(
        path,
        "post",
        name,
        f"Predictions entry point to get inference using {which} model version.",
        (_in_path("model_name", "Name of model."), *parameters),
        {
            200: ("Output data format is defined by each model.", _ANYTHING),
            404: ("Model not found or Model Version not found", _ERROR),
            503: ("No worker is available to serve request", _ERROR),
        },
        {"description": "Input data format is defined by each model.", "content": _ANYTHING, "required": True},
    )


_INFERENCE = (
    _OPTIONS,
    Operation("/ping", "get", "ping", "Get TorchServe status.", (), {200: ("TorchServe status", _HEALTH)}),
    _prediction("/v1/models/{model_name}:predict", "predictions", "default"),
    _prediction("/v2/models/{model_name}/infer", "predictions", "default"),
    _prediction("/predictions/{model_name}", "predictions", "default"),
    _prediction(
        "/predictions/{model_name}/{model_version}",
        "version_predictions",
        "specific",
        _in_path("model_version", "Name of model version."),
    ),
    _API_DESCRIPTION,
)

_TIMEOUT = _in_query(
    "timeout",
    "Waiting up to the specified wait time if necessary for a worker to complete all pending requests. Use 0 to "
    "terminate backend worker process immediately. Use -1 for wait infinitely.",
    "integer",
    "-1",
)
_SYNCHRONOUS = _in_query(
    "synchronous", "Decides whether the call is synchronous or not, default: false.", "boolean", "false"
)
_SCALE = (
    _in_query("min_worker", "Minimum number of worker processes.", "integer", "1"),
    _in_query("max_worker", "Maximum number of worker processes.", "integer", "1"),
    _in_query("number_gpu", "Number of GPU worker processes to create.", "integer", "0"),
    _SYNCHRONOUS,
    _TIMEOUT,
)
_LIMIT = (
    "Use this parameter to specify the maximum number of items to return. When this value is present, TorchServe "
    "does not return more than the specified number of items, but it might return fewer. This value is optional. "
    "If you include a value, it must be between 1 and 1000, inclusive. If you do not include a value, it defaults "
    "to 100."
)
_PAGE = (
    "The token to retrieve the next set of results. TorchServe provides the token when the response from a previous "
    "call has more results than the maximum page size."
)
_OVERRIDES = "This value will override {} in MANIFEST.json if present."
_REGISTER = (
    _in_query(
        "url",
        "Model archive download url, support local file or HTTP(s) protocol. For S3, consider use pre-signed url.",
        is_required=True,
    ),
    _in_query("model_name", f"Name of model. {_OVERRIDES.format('modelName')}"),
    _in_query("handler", f"Inference handler entry-point. {_OVERRIDES.format('handler')}"),
    _in_query(
        "runtime",
        f"Runtime for the model custom service code. {_OVERRIDES.format('runtime')}",
        choices=("PYTHON", "PYTHON3", "LSP"),
    ),
    _in_query("batch_size", "Inference batch size, default: 1.", "integer", "1"),
    _in_query("max_batch_delay", "Maximum delay for batch aggregation, default: 100.", "integer", "100"),
    _in_query(
        "response_timeout",
        "Maximum time, in seconds, the TorchServe waits for a response from the model inference code, default: 120.",
        "integer",
        "2",
    ),
    _in_query(
        "startup_timeout",
        "Maximum time, in seconds, the TorchServe waits for the model to startup/initialize, default: 120.",
        "integer",
        "120",
    ),
    _in_query("initial_workers", "Number of initial workers, default: 0.", "integer", "0"),
    _in_query(
        "synchronous",
        "Decides whether creation of worker synchronous or not, default: false.",
        "boolean",
        "false",
    ),
    _in_query(
        "s3_sse_kms",
        "Model mar file is S3 SSE KMS(server side encryption) enabled or not, default: false.",
        "boolean",
        "false",
    ),
)
_MODELS = (
    Operation(
        "/models",
        "get",
        "listModels",
        "List registered models in TorchServe.",
        (_in_query("limit", _LIMIT, "integer", "100"), _in_query("next_page_token", _PAGE)),
        {200: ("OK", _MODEL_LIST)},
    ),
    Operation(
        "/models",
        "post",
        "registerModel",
        "Register a new model in TorchServe.",
        _REGISTER,
        {
            200: ("Model registered", _STATUS),
            **_ACCEPTED,
            **_PARTIAL,
            **_REFUSED,
            404: ("Model not found", _ERROR),
            409: ("Model already registered", _ERROR),
        },
    ),
)
_ASYNCHRONOUS = "This is an asynchronous call by default."
_SCALED = f"{_ASYNCHRONOUS} Caller need to call describeModel to check if the model workers has been changed."
_LISTS = f"{_ASYNCHRONOUS} Caller can call listModels to confirm model is unregistered"


def _of_model(path: str, prefix: str, texts: tuple[str, str, str], version: str = "") -> tuple[Operation, ...]:
    """Return what can be done to a model: describe, scale, unregister.

    Args:
        prefix: of the operations' names.
        texts: what each does.
        version: name of the version's parameter; "" where there is none.
    """

    def named(purpose: str) -> tuple[Json, ...]:
        model = _in_path("model_name", f"Name of model to {purpose}.")
        return (model, _in_path(version, f"Version of model to {purpose}.")) if version else (model,)

    return (
        Operation(
            path,
            "get",
            f"{prefix}describeModel",
            texts[0],
            named("describe"),
            {200: ("OK", _MODEL), **_MODEL_MISSING},
        ),
        Operation(
            path,
            "put",
            f"{prefix}setAutoScale",
            texts[1],
            (*named("scale workers"), *_SCALE),
            {200: ("Model workers updated", _STATUS), **_ACCEPTED, **_PARTIAL, **_REFUSED, **_MODEL_MISSING},
        ),
        Operation(
            path,
            "delete",
            f"{prefix}unregisterModel",
            texts[2],
            (*named("unregister"), _SYNCHRONOUS, _TIMEOUT),
            {
                200: ("Model unregistered", _STATUS),
                **_ACCEPTED,
                **_MODEL_MISSING,
                408: ("Request Timeout Error", _ERROR),
            },
        ),
    )


_ONE_MODEL = (
    *_of_model(
        "/models/{model_name}",
        "",
        (
            "Provides detailed information about the default version of a model.",
            f"Configure number of workers for a default version of a model. {_SCALED}",
            "Unregister the default version of a model from TorchServe if it is the only version available. "
            f"{_LISTS}.",
        ),
    ),
    *_of_model(
        "/models/{model_name}/{model_version}",
        "version_",
        (
            "Provides detailed information about the specified version of a model."
            'If "all" is specified as version, returns the details about all the versions of the model.',
            f"Configure number of workers for a specified version of a model. {_SCALED}",
            f"Unregister the specified version of a model from TorchServe. {_LISTS}",
        ),
        "model_version",
    ),
    Operation(
        "/models/{model_name}/{model_version}/set-default",
        "put",
        "setDefault",
        "Set default version of a model",
        (
            _in_path("model_name", "Name of model whose default version needs to be updated."),
            _in_path("model_version", "Version of model to be set as default version for the model"),
        ),
        {200: ("Default version successfully updated for model", _STATUS), **_MODEL_MISSING},
    ),
)

_OF_DOORS: dict[str, tuple[Operation, ...]] = {
    "inference": (*_INFERENCE, _METRICS_OPERATION),
    "management": (_OPTIONS, *_MODELS, *_ONE_MODEL, _API_DESCRIPTION, _METRICS_OPERATION),
    "metrics": (_METRICS_OPERATION,),
}


def of_address(doors: Collection[str]) -> Json:
    """Return the description of an address that some of ``inference``, ``management`` and ``metrics`` share."""
    operations = [operation for door, rows in _OF_DOORS.items() if door in doors for operation in rows]
    # The metrics come last, whichever doors are there.
    operations.sort(key=lambda operation: operation is _METRICS_OPERATION)
    about = "TorchServe is a flexible and easy to use tool for serving deep learning models"
    return _document({"title": "TorchServe APIs", "description": about}, operations)


def of_predictions(model: str) -> Json:
    """Return the description of one model's predictions."""
    text = f"A predict entry point for model: {model}."
    # The first path lacks its "s" there, and the others keep their braces.
    paths = (f"/prediction/{model}", "/v1/models/{model_name}:predict", "/v2/models/{model_name}/infer")
    operations = [Operation(path, "post", model, text, (), {200: ("OK", {})}) for path in paths]
    return _document({"title": f"RESTful API for: {model}"}, operations)


def of_management(model: str) -> Json:
    """Return the description of one model's management."""
    return _document({"title": f"RESTful Management API for: {model}"}, _ONE_MODEL)


def _document(info: Json, operations: Iterable[Operation]) -> Json:
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = operation.to_json()
    return {"openapi": _OPENAPI_VERSION, "info": {**info, "version": marserve.__version__}, "paths": paths}
