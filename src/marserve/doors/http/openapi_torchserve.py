"""The OpenAPI descriptions that TorchServe gives of its addresses and of one model, made from tables.

Source: what release 0.12.0 answers to ``OPTIONS``.
"""

from __future__ import annotations

from collections.abc import Collection

from marserve.doors.http.dialects import TORCHSERVE
from marserve.doors.http.openapi_old import (
    ACCEPTED,
    ANYTHING,
    DESCRIBED,
    ERROR,
    MODEL_LIST,
    NO_WORKER,
    PARTIAL,
    REFUSED,
    SCALE,
    STATUS,
    SYNCHRONOUS,
    TIMEOUT,
    Json,
    Operation,
    content,
    document,
    in_path,
    in_query,
    model_schema,
    paging,
    record,
    registration,
    told,
)

_NAME = "TorchServe"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


_HEALTH = content(record({"status": told("string", "Overall status of the TorchServe.")}))
_EXPOSITION = content(
    record(
        {
            "# HELP": told("string", "Help text for TorchServe metric."),
            "# TYPE": told("string", "Type of TorchServe metric."),
            "metric": told("string", "TorchServe application metric."),
        }
    ),
    _METRICS,
)
_MODEL = model_schema(
    jobQueueStatus=record(
        {
            "remainingCapacity": told("integer", "Number of new requests that can be queued."),
            "pendingRequests": told("integer", "Number of requests waiting in the queue."),
        }
    )
)

_MODEL_MISSING = {404: ("Model not found or Model version not found", ERROR)}
_OPTIONS = Operation("/", "options", "apiDescription", "Get openapi description.", (), DESCRIBED)
_API_DESCRIPTION = Operation(
    "/api-description", "get", "api-description", "Get openapi description.", (), DESCRIBED, is_deprecated=True
)
_METRICS_OPERATION = Operation(
    "/metrics",
    "get",
    "metrics",
    "Get TorchServe application metrics in prometheus format.",
    (in_query("name[]", "Names of metrics to filter"),),
    {200: ("TorchServe application metrics", _EXPOSITION)},
)


def _prediction(path: str, name: str, which: str, *parameters: Json) -> Operation:
    return Operation(
        path,
        "post",
        name,
        f"Predictions entry point to get inference using {which} model version.",
        (in_path("model_name", "Name of model."), *parameters),
        {
            200: ("Output data format is defined by each model.", ANYTHING),
            404: ("Model not found or Model Version not found", ERROR),
            **NO_WORKER,
        },
        {"description": "Input data format is defined by each model.", "content": ANYTHING, "required": True},
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
        in_path("model_version", "Name of model version."),
    ),
    _API_DESCRIPTION,
)

_REGISTER = (
    *registration(
        _NAME,
        "url",
        ("PYTHON", "PYTHON3", "LSP"),
        (
            in_query(
                "startup_timeout",
                f"Maximum time, in seconds, the {_NAME} waits for the model to startup/initialize, default: 120.",
                "integer",
                "120",
            ),
        ),
    ),
    in_query(
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
        paging(_NAME),
        {200: ("OK", MODEL_LIST)},
    ),
    Operation(
        "/models",
        "post",
        "registerModel",
        "Register a new model in TorchServe.",
        _REGISTER,
        {
            200: ("Model registered", STATUS),
            **ACCEPTED,
            **PARTIAL,
            **REFUSED,
            404: ("Model not found", ERROR),
            409: ("Model already registered", ERROR),
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
        model = in_path("model_name", f"Name of model to {purpose}.")
        return (model, in_path(version, f"Version of model to {purpose}.")) if version else (model,)

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
            (*named("scale workers"), *SCALE),
            {200: ("Model workers updated", STATUS), **ACCEPTED, **PARTIAL, **REFUSED, **_MODEL_MISSING},
        ),
        Operation(
            path,
            "delete",
            f"{prefix}unregisterModel",
            texts[2],
            (*named("unregister"), SYNCHRONOUS, TIMEOUT),
            {
                200: ("Model unregistered", STATUS),
                **ACCEPTED,
                **_MODEL_MISSING,
                408: ("Request Timeout Error", ERROR),
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
            in_path("model_name", "Name of model whose default version needs to be updated."),
            in_path("model_version", "Version of model to be set as default version for the model"),
        ),
        {200: ("Default version successfully updated for model", STATUS), **_MODEL_MISSING},
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
    return document({"title": "TorchServe APIs", "description": about}, TORCHSERVE.version, operations)


def of_predictions(model: str) -> Json:
    """Return the description of one model's predictions."""
    text = f"A predict entry point for model: {model}."
    # The first path lacks its "s" there, and the others keep their braces.
    paths = (f"/prediction/{model}", "/v1/models/{model_name}:predict", "/v2/models/{model_name}/infer")
    operations = [Operation(path, "post", model, text, (), {200: ("OK", {})}) for path in paths]
    # The version of this document there, whatever the server's is.
    return document({"title": f"RESTful API for: {model}"}, "1.0.0", operations)


def of_management(model: str) -> Json:
    """Return the description of one model's management."""
    return document({"title": f"RESTful Management API for: {model}"}, TORCHSERVE.version, _ONE_MODEL)
