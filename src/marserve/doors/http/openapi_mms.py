"""The OpenAPI descriptions that Multi Model Server gives of its addresses and of one model, made from tables.

Source: what release 1.1.11 answers to ``OPTIONS``, byte for byte. Where it says what is not so, as that registering
waits for no worker, it still says it: clients were generated from these texts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from marserve.archive.signature import Signature
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
    Answers,
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

_NAME = "Model Server"
#: Version of the description, whatever the server's is.
_VERSION = "1.0.0"

_HEALTH = content(record({"status": told("string", "Overall status of the Model Server.")}))
#: Body, and by mistake answer, of what asks any model.
_FORM: Json = {
    "required": ["data"],
    "properties": {
        "model_name": told("string", "Name of model"),
        "data": {"type": "string", "format": "binary", "description": "Inference input data"},
    },
}
_MODEL_MISSING: Answers = {404: ("Model not found", ERROR)}

_OPTIONS = Operation("/", "options", "apiDescription", "", (), DESCRIBED)
_API_DESCRIPTION = Operation("/api-description", "get", "apiDescription", "", (), DESCRIBED, is_deprecated=True)


def _invocation(path: str) -> Operation:
    return Operation(
        path,
        "post",
        "invocations",
        "A generic invocation entry point for all models.",
        (in_query("model_name", "Name of model"),),
        {
            200: ("Model specific output data format", content(_FORM, "*/*")),
            400: ("Missing model_name parameter", ERROR),
            **_MODEL_MISSING,
            **NO_WORKER,
        },
        {"content": content(_FORM, "multipart/form-data"), "required": True},
    )


_INFERENCE = (
    _OPTIONS,
    Operation(
        "/{model_name}/predict",
        "post",
        "predict",
        "A legacy predict entry point for each model.",
        (in_path("model_name", "Name of model to unregister."),),
        {200: ("Model specific output data format", ANYTHING), **_MODEL_MISSING, **NO_WORKER},
        {"description": "Input data format is defined by each model.", "content": ANYTHING, "required": True},
        is_deprecated=True,
    ),
    Operation("/ping", "get", "ping", "", (), {200: ("Model server status", _HEALTH)}),
    Operation(
        "/predictions/{model_name}",
        "post",
        "predictions",
        "Predictions entry point for each model. Use OPTIONS method to get detailed model API input and output "
        "description.",
        (in_path("model_name", "Name of model."),),
        {
            200: (
                "Output data format is defined by each model. Use OPTIONS method to get details for model output and "
                "output format.",
                ANYTHING,
            ),
            **_MODEL_MISSING,
            **NO_WORKER,
        },
        {
            "description": "Input data format is defined by each model. Use OPTIONS method to get details for model "
            "input format.",
            "content": ANYTHING,
            "required": True,
        },
    ),
    Operation(
        "/predictions/{model_name}",
        "options",
        "predictionsApi",
        "Display details of per model input and output.",
        (in_path("model_name", "Name of model."),),
        {200: ("OK", content({"type": "object"}))},
        may_fail=False,
    ),
    _API_DESCRIPTION,
    _invocation("/invocations"),
    _invocation("/models/{model_name}/invoke"),
)

_MANAGEMENT = (
    Operation(
        "/models",
        "get",
        "listModels",
        f"List registered models in {_NAME}.",
        (*paging(_NAME), in_query("model_name_pattern", "A model name filter to list only matching models.")),
        {200: ("OK", MODEL_LIST)},
    ),
    Operation(
        "/models",
        "post",
        "registerModel",
        f"Register a new model in {_NAME}.",
        (
            *registration(_NAME, "model_url", ("PYTHON", "PYTHON2", "PYTHON3")),
            in_query("preload_model", "Decides if model should be preloaded, default: false.", "boolean", "false"),
        ),
        {
            200: ("Model registered", STATUS),
            **ACCEPTED,
            **PARTIAL,
            **REFUSED,
            **_MODEL_MISSING,
            409: ("Model already registered", ERROR),
        },
    ),
    Operation(
        "/models/{model_name}",
        "get",
        "describeModel",
        "Provides detailed information about the specified model.",
        (in_path("model_name", "Name of model to describe."),),
        {200: ("OK", model_schema())},
    ),
    Operation(
        "/models/{model_name}",
        "put",
        "setAutoScale",
        "Configure number of workers for a model, This is a asynchronous call by default. Caller need to call "
        "describeModel check if the model workers has been changed.",
        (in_path("model_name", "Name of model to describe."), *SCALE),
        {200: ("Model workers updated", STATUS), **ACCEPTED, **PARTIAL, **REFUSED, **_MODEL_MISSING},
    ),
    Operation(
        "/models/{model_name}",
        "delete",
        "unregisterModel",
        f"Unregister a model from {_NAME}. This is an asynchronous call by default. Caller can call listModels to "
        "confirm if all the works has be terminated.",
        (in_path("model_name", "Name of model to unregister."), SYNCHRONOUS, TIMEOUT),
        {
            200: ("Model unregistered", STATUS),
            **ACCEPTED,
            **_MODEL_MISSING,
            408: ("Request Timeout Error", ERROR),
        },
    ),
)


_OF_DOORS: dict[str, tuple[Operation, ...]] = {
    "inference": _INFERENCE,
    "management": (_OPTIONS, *_MANAGEMENT),
    "metrics": (_OPTIONS, _API_DESCRIPTION),
}


def of_address(doors: Collection[str]) -> Json:
    """Return the description of an address that some of ``inference``, ``management`` and ``metrics`` share."""
    about = "Model Server is a flexible and easy to use tool for serving deep learning models"
    operations = [operation for door, rows in _OF_DOORS.items() if door in doors for operation in rows]
    return document({"title": "Model Server APIs", "description": about}, _VERSION, operations)


def of_predictions(model: str, signature: Signature | None = None) -> Json:
    """Return the description of one model's predictions; the path lacks its "s" there.

    Args:
        signature: what the model takes and gives, which the original left out even where an archive says it.
    """
    text = f"A predict entry point for model: {model}."
    takes = _bodies(signature.request_content()) if signature is not None else {}
    gives = _bodies(signature.answer_content()) if signature is not None else {}
    body = {"content": takes, "required": True} if takes else None
    operation = Operation(f"/prediction/{model}", "post", model, text, (), {200: ("OK", gives)}, body)
    return document({"title": f"RESTful API for: {model}"}, _VERSION, (operation,))


def _bodies(schemas: Mapping[str, object]) -> Json:
    return {content_type: {"schema": schema} for content_type, schema in schemas.items()}
