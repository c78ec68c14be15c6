"""The OpenAPI description of an address: its routes, and each registered model with the schemas of its signature."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from marserve.archive.signature import Signature
from marserve.doors.http.dialects import Dialect
from marserve.doors.http.parameters import Parameter
from marserve.doors.http.routes import ANY_METHOD, Endpoint
from marserve.models.model import ModelVersion
from marserve.models.registry import Registry
from marserve.models.routes import Route

#: 3.1 is the first whose schemas are those of JSON Schema, as signatures have them.
OPENAPI_VERSION = "3.1.0"

_TITLES = {"native": "marserve APIs", "torchserve": "TorchServe APIs", "mms": "Model Server APIs"}

Json = dict[str, object]
#: A prediction that can be asked for, and the version that answers.
Asked = tuple[Route, ModelVersion]

#: What is known of a body when there is no signature.
_ANYTHING: dict[str, Json] = {"application/json": {}, "*/*": {"type": "string", "format": "binary"}}
_ERROR_REFERENCE: Json = {"$ref": "#/components/schemas/Error"}
_MEMBER_TYPES = {"code": "integer"}


def document(dialect: Dialect, endpoints: Iterable[Endpoint], versions: Iterable[Asked]) -> Json:
    """Return the description of an address.

    Args:
        endpoints: its routes.
        versions: each prediction, and the version that it asks.
    """
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        path = endpoint.path.replace(":path}", "}")
        method = "get" if endpoint.method == ANY_METHOD else endpoint.method.lower()
        paths.setdefault(path, {})[method] = _operation(endpoint, path)
    for (method, path), version in versions:
        paths.setdefault(path, {})[method.lower()] = _prediction(version)
    errors = {name: {"type": _MEMBER_TYPES.get(name, "string")} for name in dialect.error_members}
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": _TITLES[dialect.name], "version": dialect.version},
        "paths": paths,
        "components": {"schemas": {"Error": {"type": "object", "properties": errors}}},
    }


def prediction_paths(registry: Registry) -> list[Asked]:
    """Return method and path of every prediction that can be asked for, with its version, sorted by name."""
    found: list[Asked] = []
    for name in sorted(registry.models):
        found += model_paths(registry, name)
    return found


def model_paths(registry: Registry, name: str) -> list[Asked]:
    """Return the paths of one model's predictions: its default version's, one a version, and its archives' routes.

    Raises:
        ModelNotFound: there is none of that name.
    """
    model = registry.model(name)
    versions = sorted(model.versions.items())
    found = [(Route("POST", f"/predictions/{name}"), model.default)]
    found += [(Route("POST", f"/predictions/{name}/{version}"), one) for version, one in versions]
    return found + [(route, model.default) for _, one in versions for route in one.config.routes]


def for_model(endpoints: Iterable[Endpoint], name: str) -> list[Endpoint]:
    """Return the routes of one model, with its name in their paths."""
    return [
        replace(endpoint, path=endpoint.path.replace("{model}", name))
        for endpoint in endpoints
        if "{model}" in endpoint.path
    ]


def _operation(endpoint: Endpoint, path: str) -> Json:
    status, meaning = endpoint.outcome
    names = re.findall(r"{(\w+)}", path)
    operation: Json = {
        "summary": endpoint.summary,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names),
            *map(_parameter, endpoint.parameters),
        ],
        "responses": {str(status): {"description": meaning}, **_failure()},
    }
    if endpoint.takes_body:
        members = {row.name: {**row.kind.schema, "description": row.meaning} for row in endpoint.parameters}
        operation["requestBody"] = {
            "description": "The same parameters, instead of the query.",
            "content": {"application/json": {"schema": {"type": "object", "properties": members}}},
        }
    return operation


def _parameter(row: Parameter[object]) -> Json:
    meaning = f"{row.meaning} Default: {row.default}." if row.default else row.meaning
    # Required as a whole, but in the query only where no body holds it.
    return {"name": row.name, "in": "query", "description": meaning, "schema": dict(row.kind.schema)}


def _prediction(version: ModelVersion) -> Json:
    signature = version.archive.signature
    description = signature.description if signature is not None else ""
    return {
        "summary": description or f"Asks {version.name}, version {version.version}.",
        "requestBody": {"required": True, "content": _content(signature, is_request=True)},
        "responses": {
            "200": {"description": "The model's answer.", "content": _content(signature, is_request=False)},
            **_failure(),
        },
    }


def _content(signature: Signature | None, *, is_request: bool) -> Json:
    if signature is None:
        schemas = _ANYTHING
    else:
        schemas = (signature.request_content() if is_request else signature.answer_content()) or _ANYTHING
    content: Json = {content_type: {"schema": schema} for content_type, schema in schemas.items()}
    if signature is not None and is_request and signature.form == "house" and "application/json" in content:
        content["application/json"] = {
            "schema": schemas["application/json"],
            "example": signature.example_input(),
        }
    return content


def _failure() -> Json:
    return {
        "default": {
            "description": "What went wrong, and what to do next.",
            "content": {"application/json": {"schema": _ERROR_REFERENCE}},
        }
    }
