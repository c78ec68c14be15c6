"""What the OpenAPI descriptions of both old servers are made of: schemas, parameters, answers, operations.

Source: what TorchServe 0.12.0 and Multi Model Server 1.1.11 answer to ``OPTIONS``. Clients generate code from it, so
names, texts, the order of members and even the default of two seconds for ``response_timeout`` are theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

Json = dict[str, object]

_OPENAPI_VERSION = "3.0.1"
_JSON = "application/json"


def record(members: Mapping[str, Json], optional: Collection[str] = ()) -> Json:
    """Return the schema of an object; all its members are required but the ``optional`` ones."""
    required = [name for name in members if name not in optional]
    return {"type": "object", "required": required, "properties": dict(members)}


def told(kind: str, description: str, **more: object) -> Json:
    """Return the schema of a value, with what it means."""
    return {"type": kind, "description": description, **more}


def list_of(items: Json, description: str) -> Json:
    """Return the schema of a list."""
    return {"type": "array", "items": items, "description": description}


def content(schema: Json, content_type: str = _JSON) -> Json:
    """Return what a body holds."""
    return {content_type: {"schema": schema}}


ERROR = content(
    record(
        {
            "code": told("integer", "Error code."),
            "type": told("string", "Error type."),
            "message": told("string", "Error message."),
        }
    )
)
STATUS = content(record({"status": told("string", "Error type.")}))
ANYTHING = content({"type": "string", "format": "binary"}, "*/*")
DESCRIPTOR = content(record({"openapi": {"type": "string"}, "info": {"type": "object"}, "paths": {"type": "object"}}))
_LISTED = record({"modelName": told("string", "Name of the model."), "modelUrl": told("string", "URL of the model.")})
_NEXT_PAGE = (
    "Use this parameter in a subsequent request after you receive a response with truncated results. "
    "Set it to the value of NextMarker from the truncated response you just received."
)
MODEL_LIST = content(
    record(
        {
            "nextPageToken": told("string", _NEXT_PAGE),
            "models": list_of(_LISTED, "A list of registered models."),
        },
        optional=("nextPageToken",),
    )
)
_WORKER = record(
    {
        "id": told("string", "Worker id"),
        "startTime": told("string", "Worker start time"),
        "gpu": told("boolean", "If running on GPU"),
        "status": told("string", "Worker status", enum=["READY", "LOADING", "UNLOADING"]),
    },
    optional=("gpu",),
)


def model_schema(**more: Json) -> Json:
    """Return the description of a model; ``more`` are members behind those that both servers have."""
    return content(
        record(
            {
                "modelName": told("string", "Name of the model."),
                "modelVersion": told("string", "Version of the model."),
                "modelUrl": told("string", "URL of the model."),
                "minWorkers": told("integer", "Configured minimum number of worker."),
                "maxWorkers": told("integer", "Configured maximum number of worker."),
                "batchSize": told("integer", "Configured batch size."),
                "maxBatchDelay": told("integer", "Configured maximum batch delay in ms."),
                "status": told("string", "Overall health status of the model"),
                "workers": list_of(_WORKER, "A list of active backend workers."),
                "metrics": record(
                    {
                        "rejectedRequests": told("integer", "Number requests has been rejected in last 10 minutes."),
                        "waitingQueueSize": told("integer", "Number requests waiting in the queue."),
                        "requests": told("integer", "Number requests processed in last 10 minutes."),
                    }
                ),
                **more,
            },
            optional=("batchSize", "maxBatchDelay"),
        )
    )


# --- parameters ----------------------------------------------------------------------------------------


def in_path(name: str, description: str) -> Json:
    """Return a segment of the path."""
    return {"in": "path", "name": name, "description": description, "required": True, "schema": {"type": "string"}}


def in_query(
    name: str,
    description: str,
    kind: str = "string",
    default: str = "",
    *,
    choices: Collection[str] = (),
    is_required: bool = False,
) -> Json:
    """Return a parameter of the query."""
    schema: Json = {"type": kind}
    if choices:
        schema["enum"] = list(choices)
    if default:
        schema["default"] = default
    return {"in": "query", "name": name, "description": description, "required": is_required, "schema": schema}


TIMEOUT = in_query(
    "timeout",
    "Waiting up to the specified wait time if necessary for a worker to complete all pending requests. Use 0 to "
    "terminate backend worker process immediately. Use -1 for wait infinitely.",
    "integer",
    "-1",
)
SYNCHRONOUS = in_query(
    "synchronous", "Decides whether the call is synchronous or not, default: false.", "boolean", "false"
)
SCALE = (
    in_query("min_worker", "Minimum number of worker processes.", "integer", "1"),
    in_query("max_worker", "Maximum number of worker processes.", "integer", "1"),
    in_query("number_gpu", "Number of GPU worker processes to create.", "integer", "0"),
    SYNCHRONOUS,
    TIMEOUT,
)


def paging(server: str) -> tuple[Json, ...]:
    """Return the parameters of a list."""
    limit = (
        f"Use this parameter to specify the maximum number of items to return. When this value is present, {server} "
        "does not return more than the specified number of items, but it might return fewer. This value is optional. "
        "If you include a value, it must be between 1 and 1000, inclusive. If you do not include a value, it "
        "defaults to 100."
    )
    page = (
        f"The token to retrieve the next set of results. {server} provides the token when the response from a "
        "previous call has more results than the maximum page size."
    )
    return (in_query("limit", limit, "integer", "100"), in_query("next_page_token", page))


def registration(server: str, url: str, runtimes: Collection[str], startup: Iterable[Json] = ()) -> tuple[Json, ...]:
    """Return the parameters of a registration.

    Args:
        server: what it calls itself.
        url: name of the parameter that names the archive.
        startup: what stands between ``response_timeout`` and ``initial_workers``.
    """
    overrides = "This value will override {} in MANIFEST.json if present."
    return (
        in_query(
            url,
            "Model archive download url, support local file or HTTP(s) protocol. "
            "For S3, consider use pre-signed url.",
            is_required=True,
        ),
        in_query("model_name", f"Name of model. {overrides.format('modelName')}"),
        in_query("handler", f"Inference handler entry-point. {overrides.format('handler')}"),
        in_query(
            "runtime",
            f"Runtime for the model custom service code. {overrides.format('runtime')}",
            choices=runtimes,
        ),
        in_query("batch_size", "Inference batch size, default: 1.", "integer", "1"),
        in_query("max_batch_delay", "Maximum delay for batch aggregation, default: 100.", "integer", "100"),
        in_query(
            "response_timeout",
            f"Maximum time, in seconds, the {server} waits for a response from the model inference code, "
            "default: 120.",
            "integer",
            "2",
        ),
        *startup,
        in_query("initial_workers", "Number of initial workers, default: 0.", "integer", "0"),
        in_query(
            "synchronous",
            "Decides whether creation of worker synchronous or not, default: false.",
            "boolean",
            "false",
        ),
    )


# --- operations ----------------------------------------------------------------------------------------

#: Description and content of answers, by status.
Answers = Mapping[int, tuple[str, Json]]

DESCRIBED = {200: ("A openapi 3.0.1 descriptor", DESCRIPTOR)}
ACCEPTED = {202: ("Accepted", STATUS)}
PARTIAL = {210: ("Partial Success", STATUS)}
REFUSED = {400: ("Bad request", ERROR)}
NO_WORKER = {503: ("No worker is available to serve request", ERROR)}


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    Attributes:
        name: its ``operationId``.
        description: "" for none.
        answers: all but the 500.
        body: what is told of the request's body; None where there is none.
        may_fail: whether a 500 is told of.
    """

    path: str
    method: str
    name: str
    description: str
    parameters: tuple[Json, ...]
    answers: Answers
    body: Mapping[str, object] | None = None
    is_deprecated: bool = False
    may_fail: bool = True

    def to_json(self) -> Json:
        """Return its description."""
        found: Json = {"description": self.description} if self.description else {}
        found.update(operationId=self.name, parameters=list(self.parameters))
        if self.body is not None:
            found["requestBody"] = dict(self.body)
        answers = {**self.answers, **({500: ("Internal Server Error", ERROR)} if self.may_fail else {})}
        found["responses"] = {str(status): _answer(*answers[status]) for status in sorted(answers)}
        if self.is_deprecated:
            found["deprecated"] = True
        return found


def _answer(description: str, holds: Json) -> Json:
    return {"description": description, "content": holds} if holds else {"description": description}


def document(info: Json, version: str, operations: Iterable[Operation]) -> Json:
    """Return a whole description; ``version`` is the server's."""
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = operation.to_json()
    return {"openapi": _OPENAPI_VERSION, "info": {**info, "version": version}, "paths": paths}
