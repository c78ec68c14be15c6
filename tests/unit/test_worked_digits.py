"""The digits handler without its network: what becomes of images of every kind."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marserve import InvalidData
from marserve.archive.signature import Signature
from marserve.service.inputs import Inputs

ROOT = Path(__file__).parents[2]
SIGNATURE = json.loads((ROOT / "signature" / "digits.json").read_text())
#: A three of the data: ink 0..16, 8 rows high.
THREE = np.array(SIGNATURE["inputs"][0]["example"], dtype=np.float32)


@pytest.fixture(scope="module")
def service():
    sys.path.insert(0, str(ROOT / "handlers"))
    try:
        from digits_service import DigitsService
    finally:
        sys.path.remove(str(ROOT / "handlers"))
    made = DigitsService()
    made.inputs = Inputs(Signature.parse(SIGNATURE).inputs)
    yield made
    sys.modules.pop("digits_service", None)


def drawn(side, margin=0, image_format="PNG", mode="L", light_ink=False):
    """The three as an image file of this size, on paper of this margin."""
    ink = (THREE * 255 / 16).astype(np.uint8)
    image = Image.fromarray(ink).resize((side, side), Image.Resampling.BICUBIC)
    paper = Image.new("L", (side + 2 * margin, side + 2 * margin))
    paper.paste(image, (margin, margin))
    if mode == "RGBA":
        black = Image.new("L", paper.size)
        paper = Image.merge("RGBA", (black, black, black, paper))
    elif not light_ink:
        paper = Image.fromarray(255 - np.asarray(paper))
    if mode == "I;16":
        paper = Image.fromarray(np.asarray(paper).astype(np.uint16) << 8)
    elif paper.mode != mode:
        paper = paper.convert(mode)
    file = io.BytesIO()
    paper.save(file, image_format)
    return bytearray(file.getvalue())


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(drawn(64), id="dark ink"),
        pytest.param(drawn(64, light_ink=True), id="light ink"),
        pytest.param(drawn(64, margin=40), id="small on its paper"),
        pytest.param(drawn(900, margin=200), id="large"),
        pytest.param(drawn(200, image_format="JPEG"), id="JPEG"),
        pytest.param(drawn(64, mode="RGB"), id="colour"),
        pytest.param(drawn(64, mode="RGBA"), id="transparent paper"),
        pytest.param(drawn(64, mode="P"), id="palette"),
        pytest.param(drawn(64, mode="I;16"), id="16 bits"),
        pytest.param(drawn(64, mode="1"), id="black and white"),
    ],
)
def test_an_image_of_any_kind_becomes_the_picture_of_the_data(service, image):
    (picture,) = service.read({"body": image})
    assert picture.shape == (8, 8)
    assert picture.dtype == np.float32
    assert picture.min() >= 0
    assert picture.max() == 16
    # The digit is set in the middle, which may move it by a part of a point.
    likeness = [np.corrcoef(np.roll(THREE, shift, axis=1).ravel(), picture.ravel())[0, 1] for shift in (0, -1)]
    assert max(likeness) > 0.85


def test_a_turned_photo_is_set_upright_by_its_own_note(service):
    upright = Image.open(io.BytesIO(drawn(64)))
    note = Image.Exif()
    note[0x0112] = 6  # to be shown turned to the right by a quarter
    lying, file = upright.transpose(Image.Transpose.ROTATE_90), io.BytesIO()
    lying.save(file, "PNG", exif=note)
    assert np.array_equal(service.read({"body": file.getvalue()})[0], service.read({"body": drawn(64)})[0])


def test_numbers_stay_as_they_are(service):
    assert np.array_equal(service.read({"body": THREE.tolist()})[0], THREE)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (bytearray(b""), "0 bytes that are no image"),
        (bytearray(b"no image"), "8 bytes that are no image"),
        (drawn(64)[:200], "a damaged image of 200 bytes (image file is truncated)"),
        ([[0] * 8] * 7, "shape (7, 8)"),
        ([[17] * 8] * 8, "17"),
        ([[-1] * 8] * 8, "-1"),
        ([["a"] * 8] * 8, "text"),
        ({}, "an object"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(service, value, reason):
    with pytest.raises(InvalidData, match="input 'body'") as refused:
        service.read({"body": value})
    assert reason in str(refused.value)


def test_a_blank_image_is_refused(service):
    file = io.BytesIO()
    Image.new("L", (30, 30), 250).save(file, "PNG")
    with pytest.raises(InvalidData, match="a blank image"):
        service.read({"body": file.getvalue()})


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_points_is_refused(service, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    with pytest.raises(InvalidData, match="64 x 64"):
        service.read({"body": drawn(64)})
