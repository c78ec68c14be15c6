"""``shapes_segmenter``: the class of each point, in three forms, compared with the network called directly."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

import marserve
from live import ROOT, LiveServer, serving
from marserve import InvalidData
from marserve.service.codec import encode
from pictures import bomb, eight_at_once, encoded, register_for_eight

MODEL = "shapes_segmenter"
CLASSES = ["background", "circle", "square", "triangle", "star"]


def module(path: Path) -> Any:
    """A Python file as a module that nobody else gets."""
    name = f"segmenter_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made  # dataclasses look their module up there
    spec.loader.exec_module(made)
    return made


SCENES = module(ROOT / "archives" / "shapes_scenes.py")


def scene(number: int, size: tuple[int, int] = (128, 128)) -> Image.Image:
    """A picture that no training saw."""
    return SCENES.draw_scene(SCENES.UNSEEN + number, size).image


@pytest.fixture(scope="module")
def archive(worked: Callable[[str], Path]) -> Path:
    return worked(MODEL)


@pytest.fixture(scope="module")
def network(archive: Path) -> torch.nn.Module:
    """The network with the archive's weights, made without marserve."""
    made = module(ROOT / "archives" / MODEL / "network.py").ShapesSegmenter().eval()
    with zipfile.ZipFile(archive) as held:
        made.load_state_dict(load(held.read(f"{MODEL}.safetensors")))
    return made


@pytest.fixture(scope="module")
def loaded(archive: Path) -> Iterator[marserve.LoadedArchive]:
    with marserve.load(archive, batch_size=8) as held:
        yield held


@pytest.fixture(scope="module")
def server(archive: Path) -> Iterator[LiveServer]:
    """The archive twice: ``shapes_segmenter`` answers at once, ``eight`` waits for eight requests."""
    with serving(archive.parent, f"{MODEL}={archive.name}") as running:
        register_for_eight(running, archive.name, "eight")
        yield running


def expected(network: torch.nn.Module, picture: Image.Image) -> np.ndarray:
    """The classes of a picture of 128 x 128 points, by the network alone."""
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32) / 255).permute(2, 0, 1)
    with torch.inference_mode():
        return network(pixels[None])[0].argmax(0).numpy()


def is_close(found: Any, wanted: np.ndarray) -> bool:
    """Whether two maps are the same but for points whose scores differ in their last bits alone."""
    found = np.array(found)
    return found.shape == wanted.shape and bool((found == wanted).mean() > 0.999)


def test_the_handlers_classes_are_those_of_the_scenes(loaded: marserve.LoadedArchive) -> None:
    assert ["background", *SCENES.SHAPES] == CLASSES
    assert loaded.predict(encoded(scene(0)), content_type="image/png")["classes"] == CLASSES


def test_alone_and_in_batches_of_eight_a_picture_gets_the_networks_classes(
    server: LiveServer, network: torch.nn.Module
) -> None:
    pictures = [scene(number) for number in range(8)]
    files = [encoded(picture) for picture in pictures]
    answers = [server.predict(MODEL, content=file) for file in files]
    answers += eight_at_once(server, "eight", [{"content": file} for file in files])
    for picture, answer in zip(pictures * 2, answers, strict=True):
        assert answer.status_code == 200, answer.text
        assert answer.json()["classes"] == CLASSES
        assert is_close(answer.json()["map"], expected(network, picture))


@pytest.mark.parametrize(
    ("size", "answered"),
    [
        ((300, 200), (300, 200)),
        ((40, 90), (40, 90)),
        ((1, 1), (1, 1)),
        ((1000, 3), (768, 2)),
        ((1536, 1024), (768, 512)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_map_has_the_pictures_size_up_to_the_largest(
    loaded: marserve.LoadedArchive, size: tuple[int, int], answered: tuple[int, int], kind: str
) -> None:
    file = encoded(scene(1).resize(size), kind)
    answer = loaded.predict(file, content_type=f"image/{kind.lower()}")
    assert np.array(answer["map"]).shape == answered[::-1]


@pytest.mark.parametrize("style", ["native", "torchserve", "mms"])
def test_the_largest_map_is_no_longer_than_the_old_servers_let_pass(style: str) -> None:
    body, _ = encode({"classes": CLASSES, "map": [[4] * 768] * 768}, style)
    assert len(body) < 6_553_500


def test_pictures_of_several_sizes_are_one_batch(loaded: marserve.LoadedArchive) -> None:
    sizes = [(128, 128), (64, 200), (301, 77)]
    answers = loaded.predict_batch([encoded(scene(2).resize(size)) for size in sizes], content_type="image/png")
    assert [np.array(answer["map"]).shape[::-1] for answer in answers] == sizes


def test_a_larger_picture_of_the_same_has_the_same_classes(
    loaded: marserve.LoadedArchive, network: torch.nn.Module
) -> None:
    large = scene(3).resize((384, 384), Image.Resampling.NEAREST)
    found = np.array(loaded.predict(encoded(large), content_type="image/png")["map"])
    assert (found[1::3, 1::3] == expected(network, scene(3))).mean() > 0.99


def test_numbers_are_a_picture_too(loaded: marserve.LoadedArchive) -> None:
    by_file = loaded.predict(encoded(scene(4)), content_type="image/png")
    assert loaded.predict(np.asarray(scene(4)).tolist()) == by_file


def test_a_turned_photo_is_answered_as_it_is_looked_at(loaded: marserve.LoadedArchive) -> None:
    note = Image.Exif()
    note[0x0112] = 6  # to be shown turned to the right by a quarter
    upright = scene(5, (160, 96))
    lying = encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=note)
    assert loaded.predict(lying, content_type="image/png") == loaded.predict(
        encoded(upright), content_type="image/png"
    )


@pytest.mark.parametrize("accepted", ["image/png", "image/avif, image/*;q=0.8, application/json"])
def test_who_accepts_a_picture_gets_one_in_the_colours_of_the_classes(server: LiveServer, accepted: str) -> None:
    file = encoded(scene(6, (200, 140)))
    answer = server.predict(MODEL, content=file, headers={"accept": accepted})
    assert answer.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(answer.content))
    assert np.array_equal(np.asarray(picture), server.predict(MODEL, content=file).json()["map"])
    assert picture.getpalette()[:15] == [255, 255, 255, 0, 114, 178, 230, 159, 0, 0, 158, 115, 204, 121, 167]


def test_runs_are_the_map_in_fewer_numbers(server: LiveServer) -> None:
    file = encoded(scene(7, (170, 128)))
    answer = server.predict(MODEL, content=file, headers={"accept": "application/json; form=runs"}).json()
    rows = [np.repeat(row[::2], row[1::2]).tolist() for row in answer["runs"]]
    assert rows == server.predict(MODEL, content=file).json()["map"]
    assert all(left != right for row in answer["runs"] for left, right in zip(row[::2], row[2::2], strict=False))
    assert answer["classes"] == CLASSES


@pytest.mark.parametrize("accepted", ["*/*", "text/html", ""])
def test_who_accepts_anything_else_gets_the_map(server: LiveServer, accepted: str) -> None:
    answer = server.predict(MODEL, content=encoded(scene(0)), headers={"accept": accepted})
    assert (answer.headers["content-type"], list(answer.json())) == ("application/json", ["classes", "map"])


def test_bad_input_is_refused_alone_with_what_was_expected(server: LiveServer, network: torch.nn.Module) -> None:
    good = encoded(scene(0))
    bad: list[tuple[dict[str, Any], str]] = [
        ({"content": good[:500]}, "a damaged image of 500 bytes"),
        ({"content": bomb()}, "3600000000 pixels"),
        ({"content": b""}, "expected uint8 of shape (any, any, 3), or image/*"),
        ({"content": b"\xff\xfe", "headers": {"content-type": "text/plain"}}, "byte 0 is no UTF-8"),
        ({"json": [[1, 2, 3]]}, "got shape (1, 3)"),
        ({"json": [[[1, 2, 300]]]}, "got 300"),
    ]
    answers = eight_at_once(server, "eight", [*(more for more, _ in bad), {"content": good}, {"content": good}])
    for answer, (_, reason) in zip(answers, bad, strict=False):
        assert answer.status_code == 400, answer.text
        assert reason in answer.json()["message"]
    for answer in answers[6:]:
        assert is_close(answer.json()["map"], expected(network, scene(0)))


def test_the_signature_allows_what_is_answered(server: LiveServer) -> None:
    told = json.loads((ROOT / "signature" / f"{MODEL}.json").read_text())
    example = told["inputs"][0]["example"]
    answer = server.predict(MODEL, example).json()
    assert set(answer) == {each["name"] for each in told["outputs"]}
    assert np.array(answer["map"]).shape == np.array(example).shape[:2]


def test_a_single_wrong_value_is_refused_without_a_server_too(loaded: marserve.LoadedArchive) -> None:
    first, refused = loaded.predict_batch([np.asarray(scene(0)), np.zeros((2, 2))])
    assert len(first["map"]) == 128
    assert isinstance(refused, InvalidData)
