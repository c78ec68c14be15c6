"""Envelopes: an orchestrator's wrapping around a body, taken off before a service runs and put on its answers.

An envelope opens a row into items; the items of all rows reach the service as one list, and its results go back
to the rows they came from, so that requests batched by the server do not mix.
Source: TorchServe ``ts/torch_handler/request_envelope``; KServe protocols V1 and V2.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import json
from typing import Any, Callable, Dict, List, NamedTuple

from marserve.errors import HandlerFault, InvalidData
from marserve.service.context import Context

Row = Dict[str, Any]
Handle = Callable[[List[Any], Context], Any]


class Envelope(NamedTuple):
    """How a body is unwrapped, and how a request's results become its answer.

    ``open`` gets a row and its position and returns the items; ``close`` gets the results of these items.
    """

    open: Callable[[Row, int, Context], List[Any]]
    close: Callable[[List[Any], int, Context], Any]


def wrapped(handle: Handle, name: str) -> Handle:
    """Return ``handle`` inside the envelope ``name``."""
    envelope = ENVELOPES[name]

    def opened(data: List[Row], context: Context) -> List[List[Any]]:
        return [envelope.open(row, index, context) for index, row in enumerate(data)]

    def run(data: List[Row], context: Context) -> Any:
        rows = opened(data, context)
        return _closed(name, rows, handle([item for each in rows for item in each], context), context)

    async def run_async(data: List[Row], context: Context) -> Any:
        rows = opened(data, context)
        return _closed(name, rows, await handle([item for each in rows for item in each], context), context)

    return run_async if inspect.iscoroutinefunction(handle) else run


def _closed(name: str, rows: List[List[Any]], results: Any, context: Context) -> Any:
    """Return one answer a request for what the service made of the items of ``rows``."""
    if not isinstance(results, list):
        return results  # the loop says what is wrong with it
    close = ENVELOPES[name].close
    if len(rows) == 1 and name != "body":
        return [close(results, 0, context)]  # the service may give more or fewer than it got
    count = sum(map(len, rows))
    if len(results) != count:
        raise HandlerFault(
            f"The service returned {len(results)} results for {count} items of {len(rows)} requests.",
            "Return a list with one element an item, in their order.",
        )
    left = iter(results)
    return [close([next(left) for _ in each], index, context) for index, each in enumerate(rows)]


def _body(row: Row) -> Any:
    """Return the value that a row carries under ``data`` or ``body``."""
    value = row.get("data")
    if value is None:
        value = row.get("body")
    return value


def _json_body(row: Row, member: str) -> Dict[str, Any]:
    """Return a row's JSON object, which must have ``member`` as a list."""
    value = _body(row)
    if value is None:
        value = row
    if isinstance(value, (bytes, bytearray)):
        try:
            value = json.loads(bytes(value))
        except ValueError as error:
            raise InvalidData(f"expected a JSON object with {member!r}, got no JSON: {error}.") from error
    if not isinstance(value, dict) or not isinstance(value.get(member), list):
        raise InvalidData(f"expected a JSON object with {member!r} as a list.")
    return value


def _instances(row: Row, index: int, context: Context) -> List[Any]:
    return [_from_base64(item) for item in _json_body(row, "instances")["instances"]]


def _from_base64(item: Any) -> Any:
    """Return an instance; ``{"b64": text}`` stands for bytes."""
    if not isinstance(item, dict) or list(item) != ["b64"]:
        return item
    try:
        return base64.b64decode(item["b64"], validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InvalidData(f"an instance's 'b64' is no base64: {error}.") from error


def _predictions(results: List[Any], index: int, context: Context) -> Any:
    is_explanation = context.get_request_header(index, "explain") == "True"
    return {"explanations" if is_explanation else "predictions": results}


def _open_v2(row: Row, index: int, context: Any) -> List[Any]:
    """Return the tensors of a KServe V2 request; their names and the request's id go onto the context."""
    body = _json_body(row, "inputs")
    if index == 0:
        context.input_names, context.input_request_id, context.v2_requests = [], body.get("id"), []
    names = [str(tensor.get("name")) for tensor in body["inputs"] if isinstance(tensor, dict)]
    context.input_names += names
    context.v2_requests.append((body.get("id"), names))
    return [_tensor_value(tensor) for tensor in body["inputs"]]


def _tensor_value(tensor: Any) -> Any:
    """Return numbers as an array of the tensor's shape, of BYTES the first element."""
    import numpy as np

    if not isinstance(tensor, dict) or "data" not in tensor:
        raise InvalidData("each of 'inputs' must be an object with name, shape, datatype and data.")
    if tensor.get("datatype") == "BYTES":
        data = tensor["data"]
        return data[0] if isinstance(data, list) and data else data
    data_type = _V2_TYPES.get(str(tensor.get("datatype")))
    if data_type is None:
        raise InvalidData(
            f"input {tensor.get('name')!r} has the datatype {tensor.get('datatype')!r}; "
            f"expected one of {', '.join(_V2_TYPES)}, BYTES."
        )
    try:
        return np.asarray(tensor["data"], dtype=data_type).reshape(tensor.get("shape", -1))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidData(f"input {tensor.get('name')!r} does not fit its datatype and shape: {error}.") from error


#: KServe's names of data types, and numpy's.
_V2_TYPES = {
    "BOOL": "bool",
    **{f"{kind}{bits}": f"{kind.lower()}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)},
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_V2_NAMES = {bool: "BOOL", int: "INT64", float: "FP64"}


def _close_v2(results: List[Any], index: int, context: Any) -> Any:
    asked_id, names = context.v2_requests[index]
    model = (context.manifest or {}).get("model", {})
    outputs = [
        _output(names[at] if len(names) == len(results) else f"output-{at}", result)
        for at, result in enumerate(results)
    ]
    return {
        "id": asked_id or context.get_request_id(index),
        "model_name": context.model_name,
        "model_version": model.get("modelVersion", "1.0"),
        "outputs": outputs,
    }


def _output(name: str, result: Any) -> Dict[str, Any]:
    plain = result.tolist() if hasattr(result, "tolist") else result
    flat, shape = [plain], []
    while flat and all(isinstance(item, list) for item in flat) and len({len(item) for item in flat}) == 1:
        shape.append(len(flat[0]))
        flat = [item for each in flat for item in each]
    kind = _V2_NAMES.get(type(flat[0]), "BYTES") if flat else "FP64"
    return {"name": name, "shape": shape or [1], "datatype": kind, "data": flat}


ENVELOPES: Dict[str, Envelope] = {
    "body": Envelope(lambda row, index, context: [_body(row)], lambda results, index, context: results[0]),
    "json": Envelope(_instances, _predictions),
    "kserve": Envelope(_instances, _predictions),
    "kservev2": Envelope(_open_v2, _close_v2),
}
