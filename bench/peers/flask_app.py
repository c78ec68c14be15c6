"""A Flask application on gunicorn, the service in its process: what people have built for longest."""

from __future__ import annotations

import orjson
from flask import Flask, Response, request

from bench.peers.service import IS_JSON, PATH, handle_from_environment

handle = handle_from_environment()
app = Flask(__name__)


@app.post(PATH)
def predict() -> Response:
    (answer,) = handle([request.get_json() if IS_JSON else request.get_data()])
    content = answer if isinstance(answer, bytes) else orjson.dumps(answer)
    return Response(content, mimetype="application/json" if IS_JSON else "application/octet-stream")
