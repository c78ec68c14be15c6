"""The messages between TorchServe's frontend and its workers, for tests that read or write them.

Big-endian int32 lengths before everything of free length; -1 ends a list. marserve's own workers speak another
protocol (``marserve.wire``).
"""

from __future__ import annotations

import os
import struct
import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple

from marserve.errors import HandlerFault
from marserve.service.codec import TORCHSERVE, decode, encode

bool_size = 1
int_size = 4
END_OF_LIST = -1
LOAD_MSG = b"L"
PREDICT_MSG = b"I"
RESPONSE = 3


def create_load_model_response(code: int, message: str) -> bytearray:
    """Return the answer to an order to load."""
    return bytearray(_int(code) + _text(message) + _int(END_OF_LIST))


def create_predict_response(
    ret: Any,
    req_id_map: Mapping[int, str],
    message: str,
    code: int,
    context: Any = None,
    ts_stream_next: bool = False,
) -> Optional[bytearray]:
    """Return the answer to a batch; None in a process that is not the first of its group.

    Args:
        ret: one answer a request, None for an error.
        req_id_map: the requests' ids by position.
        message, code: of the whole batch.
        context: gives each answer's content type, status and headers; without one these are empty.
        ts_stream_next: whether more of each answer follows.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return None
    found = _int(code) + _text(message)
    for index, request_id in req_id_map.items():
        try:
            body = b"error" if ret is None else encode(ret[index], TORCHSERVE)[0]
        except HandlerFault:
            return create_predict_response(None, req_id_map, "Unsupported model output data type.", 503)
        found += _text(request_id)
        found += (
            _int(0) + _int(code) + _int(0) + _int(0)
            if context is None
            else _head(context, index, ret, ts_stream_next)
        )
        found += _int(len(body)) + body
    return bytearray(found + _int(END_OF_LIST))


def _head(context: Any, index: int, ret: Any, is_streaming: bool) -> bytes:
    """Return content type, status, phrase and headers of one answer."""
    mark = "ts_stream_next"
    if is_streaming:
        context.set_response_header(index, mark, "true")
    elif context.stopping_criteria:
        is_last = context.stopping_criteria[index](ret[index])
        if is_last is not None:
            context.set_response_header(index, mark, "false" if is_last else "true")
    elif context.get_response_headers(index).get(mark) == "true":
        context.set_response_header(index, mark, "false")
    status, phrase = context.get_response_status(index)
    return (
        _text(context.get_response_content_type(index) or "")
        + _int(200 if status is None else status)
        + _text(phrase or "")
        + encode_response_headers(context.get_response_headers(index))
    )


def encode_response_headers(resp_hdr_map: Mapping[str, str]) -> bytes:
    """Return headers with their count before them."""
    return _int(len(resp_hdr_map)) + b"".join(_text(text) for pair in resp_hdr_map.items() for text in pair)


def send_intermediate_predict_response(
    ret: Any, req_id_map: Mapping[int, str], message: str, code: int, context: Any = None
) -> None:
    """Send pieces of their answers to the requests that ``req_id_map`` names; only the first process of a group does.

    Args:
        ret: the pieces, by the keys of ``req_id_map``.
        req_id_map: ids of requests of the batch, all or some.
        message: kept for its callers; nobody sees it.
        code: status of the answers; 200 for the one that is set on the context.

    Raises:
        ValueError: an id of no request of the batch.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    positions = {id: index for index, id in context.request_ids.items()}
    unknown = [id for id in req_id_map.values() if id not in positions]
    if unknown:
        raise ValueError(f"No request of the batch has the id {unknown[0]!r}.")
    context.send_intermediate({positions[id]: ret[index] for index, id in req_id_map.items()}, code)


def retrieve_msg(conn: Any) -> Tuple[bytes, Any]:
    """Read a message from a socket; return its kind and content. The end of the stream ends the process.

    Raises:
        ValueError: a message of no known kind.
    """
    kind = bytes(_read(conn, 1))
    if kind == LOAD_MSG:
        return kind, _read_load(conn)
    if kind == PREDICT_MSG:
        return kind, _read_list(conn, _read_request)
    raise ValueError(f"Invalid command: {kind!r}")


def _int(number: int) -> bytes:
    return struct.pack("!i", number)


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return _int(len(data)) + data


def _read(conn: Any, length: int) -> bytearray:
    found = bytearray()
    while len(found) < length:
        piece = conn.recv(length - len(found))
        if not piece:
            sys.exit(0)  # the frontend is gone, and with it whoever wanted an answer
        found += piece
    return found


def _read_int(conn: Any) -> int:
    return int(struct.unpack("!i", _read(conn, int_size))[0])


def _read_bytes(conn: Any) -> bytearray:
    return _read(conn, _read_int(conn))


def _read_load(conn: Any) -> Dict[str, Any]:
    found: Dict[str, Any] = {"modelName": _read_bytes(conn), "modelPath": _read_bytes(conn)}
    found["batchSize"] = _read_int(conn)
    found["handler"] = _read_bytes(conn)
    gpu = _read_int(conn)
    if gpu >= 0:
        found["gpu"] = gpu
    found["envelope"] = _read_bytes(conn)
    found["limitMaxImagePixels"] = bool(_read(conn, bool_size)[0])
    return found


def _read_list(conn: Any, read: Any) -> List[Dict[str, Any]]:
    """Return what ``read`` makes of a list's elements; it gets the bytes that each begins with."""
    found: List[Dict[str, Any]] = []
    while True:
        length = _read_int(conn)
        if length == END_OF_LIST:
            return found
        found.append(read(conn, _read(conn, length)))


def _read_request(conn: Any, request_id: bytearray) -> Dict[str, Any]:
    headers = _read_list(conn, lambda conn, name: {"name": name, "value": _read_bytes(conn)})
    return {"requestId": request_id, "headers": headers, "parameters": _read_list(conn, _read_parameter)}


def _read_parameter(conn: Any, name: bytearray) -> Dict[str, Any]:
    content_type, value = bytes(_read_bytes(conn)), _read_bytes(conn)
    is_decoded = os.environ.get("TS_DECODE_INPUT_REQUEST", "true") == "true"
    row = decode([(b"value", content_type, bytes(value))], is_decoded, TORCHSERVE)
    return {"name": name.decode("utf-8"), "contentType": content_type.decode("utf-8"), "value": row["value"]}
