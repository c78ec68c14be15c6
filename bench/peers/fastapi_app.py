"""A FastAPI application on uvicorn, the service in its process: what people build."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from bench.peers.service import PATH, handle_from_environment

handle = handle_from_environment()
app = FastAPI()


@app.post(PATH)
async def predict(item: dict[str, Any]) -> Response:
    (answer,) = handle([item])
    return Response(orjson.dumps(answer), media_type="application/json")


@app.post(f"{PATH}/bytes")
async def predict_bytes(request: Request) -> Response:
    (answer,) = handle([await request.body()])
    content = answer if isinstance(answer, bytes) else orjson.dumps(answer)
    return Response(content, media_type="application/octet-stream")
