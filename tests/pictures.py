"""What the tests of archives that take pictures share: files, good and bad, and eight requests that are one batch."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from PIL import Image

from live import LiveServer


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    """Return an image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def bomb() -> bytes:
    """Return a PNG file of some hundred bytes that says it has 60,000 x 60,000 points."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    good = encoded(Image.new("L", (64, 64), "white"))
    return good[:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:]


def register_for_eight(server: LiveServer, archive: str, model: str) -> None:
    """Register an archive with a worker that waits for eight requests."""
    options = {"url": archive, "model_name": model, "batch_size": 8, "max_batch_delay": 20_000}
    registered = server.manage("POST", "/models", params=options | {"initial_workers": 1, "synchronous": "true"})
    assert registered.status_code == 200, registered.text


def eight_at_once(server: LiveServer, model: str, requests: Sequence[dict[str, Any]]) -> list[httpx.Response]:
    """Send eight requests, and fail the test if they were not one batch."""
    count, total = _batches(server, model)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda more: server.predict(model, **more), requests))
    assert _batches(server, model) == (count + 1, total + 8)
    return answers


def _batches(server: LiveServer, model: str) -> tuple[float, float]:
    """Return how many batches a model has had, and how many requests were in them."""
    text = server.client.get(f"{server.metrics}/metrics").text
    found = dict(re.findall(rf'marserve_batch_size_(count|sum){{model="{model}",.*}} (\S+)', text))
    return float(found.get("count", 0)), float(found.get("sum", 0))
