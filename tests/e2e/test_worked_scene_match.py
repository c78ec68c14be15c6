"""The worked archive ``scene_match`` through the real server: alone, in batches, each way in, what it refuses."""

from __future__ import annotations

import base64
import importlib
import io
import struct
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import marserve
from live import ROOT, LiveServer, serving
from marserve import InvalidData

TEXTS = (
    "a red circle",
    "two stars and a blue square",
    "a green triangle left of a yellow star",
    "there is no purple shape",
    "There are three shapes.",
    "a shape is to the right of a circle",
    "a star above a square",
    "no star and a yellow circle",
)
ROUTE = "/v1/multimodal/"


def encoded(image: Image.Image, image_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, image_format)
    return file.getvalue()


def data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def bomb() -> bytes:
    """A PNG of a few bytes that says it has a hundred million points."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def archive(worked: Callable[[str], Path]) -> Path:
    return worked("scene_match")


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Scenes that no training has seen, in several sizes."""
    sys.path.insert(0, str(ROOT / "archives"))
    try:
        from shapes_scenes import UNSEEN, draw_scene
    finally:
        sys.path.pop(0)
    sizes = ((128, 128), (64, 64), (200, 150), (90, 160))
    return [encoded(draw_scene(UNSEEN + place, sizes[place % 4]).image) for place in range(len(TEXTS))]


@pytest.fixture(scope="module")
def requests(pictures: list[bytes]) -> list[dict[str, str]]:
    return [{"text": text, "img_uri": data_uri(picture)} for text, picture in zip(TEXTS, pictures, strict=True)]


@pytest.fixture(scope="module")
def expected(
    archive: Path, pictures: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, float]]:
    """The answers of the network itself, made of the archive's files."""
    import torch
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    names = ("network", "scene_match_words")
    hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(folder))
    try:
        network_module, words = (importlib.import_module(name) for name in names)
        network = network_module.SceneMatchNetwork()
        network.load_state_dict(load_file(folder / "scene_match.safetensors"))
        points = [torch.from_numpy(words.points_of(Image.open(io.BytesIO(each)))) for each in pictures]
        numbers = [torch.from_numpy(words.numbers_of(words.words_in(text))) for text in TEXTS]
        with torch.inference_mode():
            scores = network.eval()(torch.stack(points), torch.stack(numbers)).softmax(1).tolist()
    finally:
        sys.path.remove(str(folder))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)
    return [{"no_match": no_match, "match": match} for no_match, match in scores]


class Origin(BaseHTTPRequestHandler):
    """Serves the pictures by number."""

    pictures: list[bytes] = []

    def do_GET(self) -> None:
        content = self.pictures[int(self.path.rpartition("/")[2])]
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def origin(pictures: list[bytes]) -> Iterator[str]:
    """The address of a server that has the pictures."""
    Origin.pictures = pictures
    with ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(archive: Path, origin: str) -> Iterator[LiveServer]:
    settings = {"allowed_input_urls": f"{origin}/pictures/.*"}
    with serving(archive.parent, "scene_match.mar", settings=settings) as running:
        yield running


def is_same(answer: dict[str, float], wanted: dict[str, float]) -> bool:
    # Sums of a batch of another size differ in their last bits.
    shares = list(answer.values())
    return answer == pytest.approx(wanted, abs=1e-4) and shares == sorted(shares, reverse=True)


def test_alone_and_eight_at_once_are_answered_as_by_the_network_itself(
    server: LiveServer, requests: list[dict[str, str]], expected: list[dict[str, float]]
) -> None:
    for path in (ROUTE, "/predictions/scene_match"):
        for request, wanted in zip(requests[:2], expected[:2], strict=True):
            answer = server.client.post(server.inference + path, json=request)
            assert answer.status_code == 200, answer.text
            assert is_same(answer.json(), wanted)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda request: server.predict("scene_match", request).json(), requests))
    assert all(map(is_same, answers, expected)), (answers, expected)


def test_a_picture_comes_as_a_file_of_a_form_or_by_an_address_that_is_allowed(
    server: LiveServer, origin: str, pictures: list[bytes], expected: list[dict[str, float]]
) -> None:
    by_file = server.predict(
        "scene_match", data={"text": TEXTS[2]}, files={"image": ("scene.png", pictures[2], "image/png")}
    )
    by_field = server.predict("scene_match", data={"text": TEXTS[2], "img_uri": data_uri(pictures[2])})
    by_address = server.predict("scene_match", {"text": TEXTS[2], "img_uri": f"{origin}/pictures/2"})

    for answer in (by_file, by_field, by_address):
        assert answer.status_code == 200, answer.text
        assert is_same(answer.json(), expected[2])


def bad(pictures: list[bytes], origin: str) -> list[tuple[dict[str, Any], str]]:
    """Return what is to be sent, as options of ``predict``, and a part of the reason."""
    good = data_uri(pictures[0])

    def sent(text: object = TEXTS[0], img_uri: object = good) -> dict[str, Any]:
        return {"json": {"text": text, "img_uri": img_uri}}

    def form(text: bytes, image: bytes) -> dict[str, Any]:
        return {"files": {"text": (None, text), "image": ("a.png", image, "image/png")}}

    return [
        ({"content": b"", "headers": {"content-type": "application/json"}}, "it is empty"),
        ({"content": b""}, "input 'text' is missing"),
        ({"json": {"text": TEXTS[0]}}, "input 'img_uri' is missing"),
        ({"json": {"img_uri": good}}, "input 'text' is missing"),
        ({"json": [TEXTS[0], good]}, "input 'text' is missing"),
        (sent("a pink hexagon and a circle"), "words that are not known: pink, hexagon. Known are: a, above"),
        (sent("a circle " * 7), "14 words; 1 to 12 can be read"),
        (sent("…"), "0 words"),
        (sent(7), "expected a single string, got a value of type int"),
        (sent(img_uri=None), "has to be a text"),
        (sent(img_uri=data_uri(pictures[0][:500])), "expected a picture, such as PNG or JPEG, got a damaged image"),
        (sent(img_uri=data_uri(bomb())), "10000 x 10000 pixels"),
        (sent(img_uri="data:image/png;base64,AAEC"), "3 bytes that are no image"),
        (sent(img_uri="data:image/png;base64,A"), "is no base64"),
        (sent(img_uri="file:///etc/hostname"), "Allowed are data: URIs, and http(s) addresses that match"),
        (sent(img_uri=f"{origin}/secrets/0"), "is not allowed"),
        (sent(img_uri="http://127.0.0.1:1/pictures/0"), "is not allowed"),
        (form(b"a red circle\xff", pictures[0]), "bytes of which number 12 is no UTF-8"),
        (form(b"a red circle", b""), "input 'image': expected a picture, such as PNG or JPEG, got 0 bytes"),
    ]


def test_what_cannot_be_read_is_refused_with_the_reason_and_costs_nobody_else_anything(
    server: LiveServer,
    origin: str,
    pictures: list[bytes],
    requests: list[dict[str, str]],
    expected: list[dict[str, float]],
) -> None:
    cases = bad(pictures, origin)
    with ThreadPoolExecutor(8) as pool:
        refused = [pool.submit(server.predict, "scene_match", **options) for options, _ in cases]
        answered = [pool.submit(server.predict, "scene_match", request) for request in requests]
        for one, (_, reason) in zip(refused, cases, strict=True):
            assert one.result().status_code == 400, one.result().text
            assert reason in one.result().json()["message"]
        for other, wanted in zip(answered, expected, strict=True):
            assert is_same(other.result().json(), wanted)


def test_a_bad_item_of_a_batch_of_eight_fails_alone(
    archive: Path, requests: list[dict[str, str]], expected: list[dict[str, float]]
) -> None:
    spoiled = {
        1: {"text": "a pink hexagon", "img_uri": requests[1]["img_uri"]},
        4: {"text": TEXTS[4], "img_uri": "http://127.0.0.1:1/"},
        6: {"text": TEXTS[6], "img_uri": requests[6]["img_uri"][:900]},
    }
    with marserve.load(archive, batch_size=8) as loaded:
        answers = loaded.predict_batch([spoiled.get(place, request) for place, request in enumerate(requests)])
    for place, (answer, wanted) in enumerate(zip(answers, expected, strict=True)):
        if place in spoiled:
            assert isinstance(answer, InvalidData)
        else:
            assert is_same(answer, wanted)


def test_the_descriptions_name_the_route(server: LiveServer) -> None:
    assert server.describe("scene_match")["routes"] == [f"POST {ROUTE}"]
    asked = server.client.get(server.inference + "/api-description").json()["paths"][ROUTE]["post"]
    assert set(asked["requestBody"]["content"]["application/json"]["schema"]["properties"]) == {"text", "img_uri"}
