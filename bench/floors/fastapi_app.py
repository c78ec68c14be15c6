"""The floor that people build: the service inside one's own FastAPI application."""

from typing import Any

import orjson
from fastapi import FastAPI, Response

from bench.floors.service import predict_from_environment

predict = predict_from_environment()
app = FastAPI()


@app.post("/predictions/{model_name}")
async def predictions(model_name: str, item: dict[str, Any]) -> Response:
    return Response(orjson.dumps(predict(item)), media_type="application/json")
