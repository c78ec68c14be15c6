"""A bare ASGI function on uvicorn, the service in its process: the floor that counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from bench.peers.service import IS_JSON, handle_from_environment

handle = handle_from_environment()

Message = Mapping[str, Any]
_TYPE = (b"content-type", b"application/json" if IS_JSON else b"application/octet-stream")


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    message = await receive()
    pieces = [message["body"]]
    while message.get("more_body"):
        message = await receive()
        pieces.append(message["body"])
    body = b"".join(pieces)
    (answer,) = handle([orjson.loads(body) if IS_JSON else body])
    content = answer if isinstance(answer, bytes) else orjson.dumps(answer)
    headers = [_TYPE, (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
