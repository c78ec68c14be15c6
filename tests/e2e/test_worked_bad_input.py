"""Bad input to FizBuz and digits: 400 with what was expected, for its own request alone."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from live import ROOT, LiveServer, serving

FIZBUZ = ("fizbuz_package", "fizbuz_torch", "fizbuz_script")
MODELS = (*FIZBUZ, "digits")
THREE = json.loads((ROOT / "signature" / "digits.json").read_text())["inputs"][0]["example"]
#: A good request of each model, and how its answer is known to be right.
GOOD: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    **dict.fromkeys(FIZBUZ, ({"input.1": 14}, lambda answer: answer == {"next_number": "FizBuz"})),
    "digits": (THREE, lambda answer: next(iter(answer)) == "3"),
}

JSON, TEXT, BYTES, FORM, PNG = (
    *("application/json", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"),
    "image/png",
)


def picture() -> bytes:
    """A good PNG file."""
    file = io.BytesIO()
    image = Image.new("L", (64, 64), "white")
    image.paste(0, (28, 8, 36, 56))
    image.save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG file of some hundred bytes that says it has 60,000 x 60,000 points."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    good = picture()
    return good[:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:]


@pytest.fixture(scope="module")
def server(worked: Callable[[str], Path]) -> Iterator[LiveServer]:
    """Every model with a worker that waits for eight requests."""
    archives = [worked(name) for name in MODELS]
    with serving(archives[0].parent) as running:
        for archive in archives:
            options = {"url": archive.name, "batch_size": 8, "max_batch_delay": 10_000}
            options |= {"initial_workers": 1, "synchronous": "true"}
            registered = running.manage("POST", "/models", params=options)
            assert registered.status_code == 200, registered.text
        yield running


def batches(server: LiveServer, model: str) -> list[float]:
    """Return how many batches a model has had, and how many requests were in them."""
    text = server.client.get(f"{server.metrics}/metrics").text
    found = dict(re.findall(rf'marserve_batch_size_(count|sum){{model="{model}",.*}} (\S+)', text))
    return [float(found.get("count", 0)), float(found.get("sum", 0))]


def assert_refused_alone(server: LiveServer, model: str, content_type: str, content: bytes, reason: str) -> None:
    """Send one bad request in a batch with seven good ones."""
    value, is_right = GOOD[model]
    requests: list[dict[str, Any]] = [{"json": value}] * 7
    requests.insert(3, {"content": content, "headers": {"content-type": content_type}})
    count, total = batches(server, model)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda more: server.predict(model, **more), requests))
    assert batches(server, model) == [count + 1, total + 8]
    refused = answers.pop(3)
    assert (refused.status_code, refused.json()["code"]) == (400, 400), refused.text
    assert reason in refused.json()["message"]
    assert [answer.status_code for answer in answers] == [200] * 7
    assert all(is_right(answer.json()) for answer in answers)


@pytest.mark.parametrize("model", FIZBUZ)
@pytest.mark.parametrize(
    ("content_type", "content", "reason"),
    [
        pytest.param(JSON, b"", "The body is not JSON: it is empty", id="empty JSON"),
        pytest.param(BYTES, b"", "input 'input.1' is missing", id="empty body"),
        pytest.param(FORM, b"", "input 'input.1' is missing", id="empty form"),
        pytest.param(FORM, b"input.1=", "expected a whole number", id="empty field"),
        pytest.param(JSON, b'{"input.1": [[14]]}', "expected a whole number, got a list", id="wrong shape"),
        pytest.param(JSON, b'{"input.1": 14', "The body is not JSON: line 1", id="cut JSON"),
        pytest.param(JSON, b'{"input.1": "\xff"}', "The body is not JSON", id="JSON that is no UTF-8"),
        pytest.param(TEXT, b"\xff14", "byte 0 is no UTF-8", id="text that is no UTF-8"),
        pytest.param(FORM, b"input.1=%FF", "expected a whole number, got text", id="field that is no UTF-8"),
        pytest.param(PNG, picture(), "expected a JSON object", id="a picture"),
    ],
)
def test_fizbuz_refuses_what_is_no_number(
    server: LiveServer, model: str, content_type: str, content: bytes, reason: str
) -> None:
    assert_refused_alone(server, model, content_type, content, reason)


EXPECTED = "input 'body': expected float32 of shape (8, 8) from 0 up to 16, or image/*, got "


@pytest.mark.parametrize(
    ("content_type", "content", "reason"),
    [
        pytest.param(JSON, b"", "The body is not JSON: it is empty", id="empty JSON"),
        pytest.param(PNG, b"", EXPECTED + "0 bytes that are no image", id="empty picture"),
        pytest.param(FORM, b"", "input 'body' is missing", id="empty form"),
        pytest.param(JSON, str([[0] * 8] * 7).encode(), EXPECTED + "shape (7, 8)", id="wrong shape"),
        pytest.param(JSON, b"[[1, 2], [3]]", EXPECTED + "rows of different lengths", id="uneven rows"),
        pytest.param(JSON, str([["a"] * 8] * 8).encode().replace(b"'", b'"'), EXPECTED + "text", id="no numbers"),
        pytest.param(JSON, str([[17] * 8] * 8).encode(), EXPECTED + "17", id="too much ink"),
        pytest.param(JSON, b'["\xff"]', "The body is not JSON", id="JSON that is no UTF-8"),
        pytest.param(TEXT, b"\xff", "byte 0 is no UTF-8", id="text that is no UTF-8"),
        pytest.param(PNG, picture()[:-40], EXPECTED + "a damaged image", id="cut picture"),
        pytest.param(PNG, bomb(), "3600000000 pixels", id="bomb"),
    ],
)
def test_digits_refuses_all_but_pictures(server: LiveServer, content_type: str, content: bytes, reason: str) -> None:
    assert_refused_alone(server, "digits", content_type, content, reason)
