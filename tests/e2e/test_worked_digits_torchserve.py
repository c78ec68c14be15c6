"""``digits_torchserve``: the digits network behind TorchServe's own handler, natively and for TorchServe's users."""

from __future__ import annotations

import io
import json
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

import marserve
from live import LiveServer, serving
from pictures import bomb, eight_at_once, encoded, register_for_eight
from rows import House, Product, Running

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: Pictures that the training never saw, and their digits.
PICTURES, DIGITS = load_digits().images[4::45], load_digits().target[4::45]
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def drawn(picture: np.ndarray, side: int = 200, kind: str = "PNG", is_dark: bool = True) -> bytes:
    """A picture of the data as a square image with paper around the digit."""
    wide = side * 2 // 3
    ink = Image.fromarray((picture * 255 / 16).astype(np.uint8)).resize((wide, wide), Image.Resampling.BICUBIC)
    paper = Image.new("L", (side, side))
    paper.paste(ink, (side // 8, side // 6))
    return encoded(Image.fromarray(255 - np.asarray(paper)) if is_dark else paper, kind)


@pytest.fixture(scope="module")
def archive(worked: Callable[[str], Path]) -> Path:
    return worked("digits_torchserve")


@pytest.fixture(scope="module")
def network(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The network with its weights, made of the archive's files without marserve."""
    folder = tmp_path_factory.mktemp("files")
    with zipfile.ZipFile(archive) as held:
        held.extractall(folder)
    names = ("network", "digits_classifier")
    hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(folder))
    from digits_classifier import DigitsClassifier

    made = DigitsClassifier().eval()
    made.load_state_dict(torch.load(folder / "digits_torchserve.pt", weights_only=True))
    yield made
    sys.path.remove(str(folder))
    for name in names:
        del sys.modules[name]
    sys.modules.update(hidden)


def prepared(image: bytes) -> torch.Tensor:
    """A square image as the handler prepares it: ``(1, 3, 224, 224)``."""
    small = Image.open(io.BytesIO(image)).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(small.crop((16, 16, 240, 240)), dtype=np.float32)) / 255
    return ((pixels - MEAN) / DEVIATION).permute(2, 0, 1)[None]


def expected(network: Any, image: bytes) -> dict[str, float]:
    """The five most likely labels, by the network alone."""
    with torch.inference_mode():
        values, numbers = network(prepared(image))[0].softmax(0).topk(5)
    return {LABELS[number]: value for number, value in zip(numbers.tolist(), values.tolist(), strict=True)}


def test_the_archive_has_no_handler_and_the_weights_of_digits(archive: Path) -> None:
    with zipfile.ZipFile(archive) as held:
        model = json.loads(held.read("MAR-INF/MANIFEST.json"))["model"]
        weights = torch.load(io.BytesIO(held.read("digits_torchserve.pt")), weights_only=True)
        code = {name for name in held.namelist() if name.endswith(".py")}
    assert model["handler"] == "image_classifier"
    assert code == {"network.py", "digits_classifier.py"}
    original = load_file(archive.parents[1] / "work" / "weights" / "digits.safetensors")
    assert weights.keys() == original.keys()
    assert all(torch.equal(weights[name], value) for name, value in original.items())


@pytest.mark.parametrize(("side", "kind", "is_dark"), [(60, "PNG", True), (250, "JPEG", False), (1000, "JPEG", True)])
def test_digits_of_every_size_are_read(archive: Path, side: int, kind: str, is_dark: bool) -> None:
    images = [drawn(picture, side, kind, is_dark) for picture in PICTURES]
    with marserve.load(archive, batch_size=8) as loaded:
        answers = loaded.predict_batch(images, content_type=f"image/{kind.lower()}")
    read = [LABELS.index(next(iter(answer))) for answer in answers]
    assert np.mean(read == DIGITS) > 0.95


def test_the_network_sees_the_digit_as_the_data_shows_it(network: Any) -> None:
    with torch.inference_mode():
        found = network.digits(torch.cat([prepared(drawn(picture, 400)) for picture in PICTURES]))[:, 0].numpy()
    assert found.max((1, 2)) == pytest.approx(1)
    # The digit is set in the middle, which may move it by a part of a point.
    likeness = [
        max(np.corrcoef(np.roll(picture, shift, axis=1).ravel(), seen.ravel())[0, 1] for shift in (-1, 0, 1))
        for picture, seen in zip(PICTURES, found, strict=True)
    ]
    assert np.mean(likeness) > 0.9


def test_a_blank_image_costs_its_batch_nothing(network: Any) -> None:
    blank, image = torch.ones(1, 3, 224, 224), prepared(drawn(PICTURES[0]))
    with torch.inference_mode():
        assert network.digits(blank).max() < 1e-4
        both = network(torch.cat([blank, image]))
        assert torch.isfinite(both).all()
        assert torch.allclose(both[1:], network(image), atol=1e-4)


def test_the_network_can_be_scripted(network: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
        scripted = torch.jit.script(network)
    images = torch.cat([prepared(drawn(picture)) for picture in PICTURES[:3]])
    with torch.inference_mode():
        assert torch.allclose(scripted(images), network(images), atol=1e-4)


@pytest.fixture(scope="module")
def server(archive: Path) -> Iterator[LiveServer]:
    """The archive twice: ``digits_torchserve`` answers at once, ``eight`` waits for eight requests."""
    with serving(archive.parent, f"digits_torchserve={archive.name}") as running:
        register_for_eight(running, archive.name, "eight")
        yield running


@pytest.fixture(scope="module")
def torchserve(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The archive served by ``torchserve --start``."""
    house = House(Product(), tmp_path_factory.mktemp("house"))
    (house.store / archive.name).write_bytes(archive.read_bytes())
    running = house.start(archive.name)
    running.wait_for_workers("digits_torchserve", 1)
    yield running
    house.close()


def test_alone_and_in_batches_of_eight_an_image_gets_the_networks_answer(server: LiveServer, network: Any) -> None:
    images = [drawn(picture) for picture in PICTURES[:8]]
    answers = [server.predict("digits_torchserve", content=image) for image in images]
    answers += eight_at_once(server, "eight", [{"content": image} for image in images])
    for image, answer in zip(images * 2, answers, strict=True):
        assert answer.status_code == 200, answer.text
        assert answer.json() == pytest.approx(expected(network, image), abs=1e-4)
        assert next(iter(answer.json())) == next(iter(expected(network, image)))


def test_what_is_no_image_is_refused_alone(server: LiveServer, network: Any) -> None:
    good = drawn(PICTURES[0])
    bad = {
        good[:300]: "got a damaged one of 300 bytes",
        bomb(): "exceeds limit",
        b"no image": "got 8 bytes that are none",
        b"": "expected an image",
    }
    answers = eight_at_once(server, "eight", [{"content": image} for image in (*bad, *[good] * 4)])
    for answer, reason in zip(answers, bad.values(), strict=False):
        assert (answer.status_code, answer.json()["type"]) == (400, "InvalidData")
        assert "expected an image" in answer.json()["message"]
        assert reason in answer.json()["message"]
    for answer in answers[4:]:
        assert answer.json() == pytest.approx(expected(network, good), abs=1e-4)


def test_text_that_is_no_utf_8_is_refused(server: LiveServer) -> None:
    answer = server.predict("digits_torchserve", content=b"\xff", headers={"content-type": "text/plain"})
    assert (answer.status_code, "byte 0 is no UTF-8" in answer.text) == (400, True)


def test_torchserves_users_are_answered_the_same(torchserve: Running, network: Any) -> None:
    image = drawn(PICTURES[1])
    answer = torchserve.ask("/predictions/digits_torchserve", image)
    assert answer.status == 200, torchserve.log
    assert answer.json() == pytest.approx(expected(network, image), abs=1e-4)
    assert answer.text.startswith('{\n  "'), "the dialect keeps the old server's bytes"
    assert torchserve.ask("/predictions/digits_torchserve", b"no image").status == 400


@pytest.mark.parametrize("dialect", ["native", "torchserve"])
def test_an_explanation_shows_what_speaks_for_the_digit(dialect: str, network: Any, request: Any) -> None:
    image, digit = drawn(PICTURES[0]), int(DIGITS[0])
    form = b'--b\r\ncontent-disposition: form-data; name="target"\r\n\r\n%d\r\n--b\r\n' % digit
    form += (
        b'content-disposition: form-data; name="data"\r\ncontent-type: image/png\r\n\r\n' + image + b"\r\n--b--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    if dialect == "native":
        server = request.getfixturevalue("server")
        told = server.client.post(f"{server.inference}/explanations/digits_torchserve", content=form, headers=headers)
    else:
        told = request.getfixturevalue("torchserve").ask("/explanations/digits_torchserve", form, headers=headers)
    spoken = np.array(told.json())
    assert spoken.shape == (3, 224, 224)
    # All of it together is what the digit has over a blank image, as far as fifteen points tell.
    with torch.inference_mode():
        lead = (network(prepared(image)) - network(torch.zeros(1, 3, 224, 224)))[0, digit].item()
    assert spoken.sum() == pytest.approx(lead, rel=0.2)
