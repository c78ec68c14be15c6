"""The shapes detector through the real server: the answers of its network, alone and in batches of eight."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

import marserve
from live import ROOT, LiveServer, serving
from marserve.errors import LoadError
from pictures import bomb, eight_at_once, encoded, register_for_eight

NAME, EIGHT = "shapes_detector", "shapes_detector_eight"
#: Low enough for a network that has learned for a few seconds to answer something.
THRESHOLD = 0.1
SIZES = ((128, 128), (320, 200), (90, 160), (64, 64), (400, 130), (128, 96), (200, 200), (60, 250))
MODULES = ("detection", "network", "shapes_scenes")

Box = dict[str, Any]


@pytest.fixture(scope="module")
def folder(worked: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive as a folder of a store, with another threshold in its model-config.yaml."""
    place = tmp_path_factory.mktemp("store") / NAME
    with zipfile.ZipFile(worked(NAME)) as packed:
        packed.extractall(place)
    config = place / "model-config.yaml"
    text = config.read_text()
    assert "  threshold: 0.5\n" in text
    config.write_text(text.replace("  threshold: 0.5\n", f"  threshold: {THRESHOLD}\n"))
    return place


@pytest.fixture(scope="module")
def modules(folder: Path) -> Iterator[dict[str, Any]]:
    """The archive's own modules, and the drawing of scenes; nothing of them is left afterwards."""
    path, before = list(sys.path), {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path[:0] = [str(folder), str(ROOT / "archives")]
    yield {name: __import__(name) for name in MODULES}
    sys.path[:] = path
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


@pytest.fixture(scope="module")
def images(modules: dict[str, Any]) -> list[Image.Image]:
    """Eight unseen scenes, each of another size."""
    scenes = modules["shapes_scenes"]
    return [scenes.draw_scene(scenes.UNSEEN + seed, size).image for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def direct(folder: Path, modules: dict[str, Any]) -> Callable[[Image.Image], list[Box]]:
    """Return what asks the network itself, by the files of the archive."""
    detection = modules["detection"]
    network = modules["network"].DarknetNetwork(folder / "shapes.cfg").eval()
    network.load_weights(folder / "shapes.weights")
    labels = (folder / "shapes.names").read_text().splitlines()

    def ask(image: Image.Image) -> list[Box]:
        with torch.inference_mode():
            outputs = network(torch.from_numpy(detection.letterbox(image, network.size))[None])
        (found,) = detection.candidates(outputs, network.heads, network.size)
        share = max(image.size) / 128
        answer = []
        for box, number, score in zip(*detection.chosen(found, THRESHOLD, 0.45), strict=True):
            left, top, right, bottom = (max(0.0, edge) for edge in (box * share).tolist())
            edges = [left, top, min(right, image.width), min(bottom, image.height)]
            if round(edges[0], 1) < round(edges[2], 1) and round(edges[1], 1) < round(edges[3], 1):
                answer.append({"label": labels[number], "score": score.item(), "box": edges})
        return answer

    return ask


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    """One model whose worker takes requests one by one, and one whose worker waits for eight."""
    with serving(folder.parent, folder.name) as running:
        register_for_eight(running, folder.name, EIGHT)
        yield running


def file_of(image: Image.Image, kind: str = "PNG", **headers: str) -> dict[str, Any]:
    """Return a request that sends an image as a file."""
    return {"content": encoded(image, kind), "headers": {"content-type": f"image/{kind.lower()}"} | headers}


def assert_same(answer: httpx.Response, expected: list[Box]) -> None:
    """Sums of another order differ in their last bits, and what is answered is rounded."""
    assert answer.status_code == 200, answer.text
    found = answer.json()["boxes"]
    assert [each["label"] for each in found] == [each["label"] for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)
        assert one["box"] == pytest.approx(other["box"], abs=0.2)


def test_one_by_one_the_answers_are_those_of_the_network(
    server: LiveServer, images: list[Image.Image], direct: Callable[[Image.Image], list[Box]]
) -> None:
    expected = [direct(image) for image in images]
    assert sum(map(len, expected)) >= 4
    for image, boxes in zip(images, expected, strict=True):
        answer = server.predict(NAME, **file_of(image))
        assert_same(answer, boxes)
        scores = [each["score"] for each in answer.json()["boxes"]]
        assert scores == sorted(scores, reverse=True)


def test_eight_pictures_of_eight_sizes_are_answered_as_one_batch(
    server: LiveServer, images: list[Image.Image], direct: Callable[[Image.Image], list[Box]]
) -> None:
    requests = [file_of(image, kind) for image, kind in zip(images, ("PNG", "JPEG") * 4, strict=True)]
    answers = eight_at_once(server, EIGHT, requests)
    for answer, request in zip(answers, requests, strict=True):
        assert_same(answer, direct(Image.open(io.BytesIO(request["content"])).convert("RGB")))


def test_points_as_numbers_are_a_picture_too(
    server: LiveServer, images: list[Image.Image], direct: Callable[[Image.Image], list[Box]]
) -> None:
    assert_same(server.predict(NAME, np.asarray(images[3]).tolist()), direct(images[3]))


def test_who_asks_for_a_picture_gets_the_upload_with_the_boxes_drawn(
    server: LiveServer, images: list[Image.Image], direct: Callable[[Image.Image], list[Box]]
) -> None:
    image = next(image for image in images if direct(image))
    requests = [file_of(image, accept="image/png"), file_of(image, accept="*/*")] * 4
    for picture, plain in zip(*[iter(eight_at_once(server, EIGHT, requests))] * 2, strict=True):
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
        drawn = Image.open(io.BytesIO(picture.content))
        assert (drawn.format, drawn.size) == ("PNG", image.size)
        assert drawn.tobytes() != image.tobytes()
        assert_same(plain, direct(image))


EXPECTED = "input 'body': expected uint8 of shape (any, any, 3), or image/*, got "
CUT = encoded(Image.effect_noise((64, 64), 99))[:-800]


@pytest.mark.parametrize(
    ("content_type", "content", "reason"),
    [
        pytest.param("image/png", CUT, EXPECTED + "a damaged image", id="cut PNG"),
        pytest.param("image/png", bomb(), "3600000000 pixels", id="bomb"),
        pytest.param("image/png", b"", EXPECTED + "0 bytes that are no image", id="empty body"),
        pytest.param("image/jpeg", b"no picture", EXPECTED + "10 bytes that are no image", id="no picture"),
        pytest.param("text/plain", b"\xff\xfe\xfd", "byte 0 is no UTF-8", id="text that is no UTF-8"),
        pytest.param("application/json", b"[[1, 2], [3, 4]]", EXPECTED + "shape (2, 2)", id="wrong shape"),
        pytest.param("application/json", b"[[[1, 2, 256]]]", EXPECTED + "256", id="no colour"),
        pytest.param("application/json", b"", "The body is not JSON", id="empty JSON"),
    ],
)
def test_what_is_no_picture_is_refused_alone(
    server: LiveServer,
    images: list[Image.Image],
    direct: Callable[[Image.Image], list[Box]],
    content_type: str,
    content: bytes,
    reason: str,
) -> None:
    requests = [file_of(image) for image in images]
    requests[3] = {"content": content, "headers": {"content-type": content_type}}
    answers = eight_at_once(server, EIGHT, requests)
    refused = answers.pop(3)
    assert (refused.status_code, refused.json()["code"]) == (400, 400), refused.text
    assert reason in refused.json()["message"]
    for answer, image in zip(answers, images[:3] + images[4:], strict=True):
        assert_same(answer, direct(image))


def test_the_description_names_both_forms_of_the_answer(server: LiveServer) -> None:
    document = server.client.options(f"{server.inference}/predictions/{NAME}").json()
    operation = document["paths"][f"/predictions/{NAME}"]["post"]
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "image/png"}
    assert "image/*" in operation["requestBody"]["content"]
    assert "EXIF" in json.dumps(operation["responses"]["200"])


def test_the_locust_file_drives_it(server: LiveServer) -> None:
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "locustfile.py"), "--headless", "--only-summary"]
    command += ["--users", "4", "--spawn-rate", "4", "--run-time", "3s", "--host", server.inference, "--model", NAME]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"/predictions/{NAME}" in ended.stdout + ended.stderr


def test_a_setting_that_nobody_knows_keeps_it_from_loading(folder: Path) -> None:
    with pytest.raises(LoadError, match="treshold"):
        marserve.load(folder, model_config={"handler": {"treshold": 0.3}})
