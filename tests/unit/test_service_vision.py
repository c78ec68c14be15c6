"""Images come as files, base64 text or numbers; a damaged one costs its own request alone."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from marserve.archive.tensors import TensorSpec
from marserve.errors import InvalidData, SignatureError
from marserve.service.arrays import ArrayService
from marserve.service.context import Context
from marserve.service.inputs import Inputs, Row
from marserve.service.vision import VisionService
from pictures import bomb


class Seen(VisionService, ArrayService):
    """A model that gives back what it is given."""

    def load(self, context):
        pass

    def run(self, arrays):
        return arrays[0]


def service(shape, minimum=None, maximum=None, limit=True, cls=Seen):
    made = cls()
    made.inputs = Inputs([TensorSpec("body", shape, "float32", "image/*", minimum, maximum)])
    made.initialize(Context("m", "/m", {}, limit_max_image_pixels=limit))
    return made


def encoded(pixels, kind="PNG", mode=None):
    out = io.BytesIO()
    image = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(out, kind)
    return bytearray(out.getvalue())


RED = np.full((5, 6, 3), [255, 0, 51])


def one(made, value):
    row = Row({"body": value})
    made.check(row)
    (answer,) = made.handle([row], None)
    return np.asarray(answer, dtype=np.float32)


def test_a_png_becomes_channels_first_from_zero_to_one():
    array = one(service((3, 5, 6)), encoded(RED))
    assert array.shape == (3, 5, 6)
    assert np.allclose(array[:, 0, 0], [1, 0, 0.2])


def test_channels_last_and_no_channels():
    assert np.allclose(one(service((5, 6, 3)), encoded(RED))[0, 0], [1, 0, 0.2])
    grey = one(service((5, 6)), encoded(np.full((5, 6), 51)))
    assert grey.shape == (5, 6)
    assert np.allclose(grey, 0.2)
    assert one(service((1, 5, 6)), encoded(RED)).shape == (1, 5, 6)


def test_all_shades_of_sixteen_bits_are_kept():
    out = io.BytesIO()
    Image.fromarray(np.array([[0, 51_400, 65_535]], np.uint16)).save(out, "PNG")
    grey = one(service((1, 1, 3)), bytearray(out.getvalue()))
    assert np.allclose(grey[0, 0], [0, 200 / 255, 1])
    colour = one(service((3, 1, 3)), bytearray(out.getvalue()))
    assert np.allclose(colour[:, 0, 1], 200 / 255)


def test_values_span_the_signatures_range():
    assert np.allclose(one(service((2, 2), 0, 16), encoded(np.full((2, 2), 255))), 16)
    assert np.allclose(one(service((2, 2), -1, 1), encoded(np.zeros((2, 2)))), -1)


def test_any_size_is_resized_and_free_sizes_are_kept():
    assert one(service((3, 2, 5)), encoded(RED)).shape == (3, 2, 5)
    assert one(service((3, 0, 0)), encoded(RED)).shape == (3, 5, 6)


def test_mean_and_deviation():
    class Normal(Seen):
        mean = (1.0, 0.0, 0.0)
        deviation = (1.0, 1.0, 0.1)

    for shape, pick in (((3, 5, 6), lambda a: a[:, 0, 0]), ((5, 6, 3), lambda a: a[0, 0])):
        assert np.allclose(pick(one(service(shape, cls=Normal), encoded(RED))), [0, 0, 2], atol=1e-6)


def test_jpeg_palette_base64_data_urls_and_numbers():
    made = service((3, 5, 6))
    data = encoded(RED)
    text = base64.b64encode(data).decode()
    expected = one(made, data)
    for value in (encoded(RED, mode="P"), text, f"data:image/png;base64,{text}", {"b64": text}):
        assert np.allclose(one(made, value), expected, atol=0.02)
    assert np.allclose(one(made, encoded(RED, "JPEG")), expected, atol=0.1)
    assert np.array_equal(one(made, expected.tolist()), expected)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (bytearray(b"no image"), "got 8 bytes that are no image."),
        (encoded(RED, "JPEG")[:-20], "got a damaged image of"),
        (bomb(), "got an image that is too large (Image size (3600000000 pixels) exceeds limit"),
        (bytearray(), "got 0 bytes that are no image."),
        ("%%%", "text that is no base64"),
        ([[1, 2]], "got shape (1, 2)"),
        ({"x": 1}, "got an object"),
    ],
)
def test_what_is_no_image_is_refused(value, said):
    with pytest.raises(InvalidData) as caught:
        one(service((3, 5, 6)), value)
    assert "input 'body': expected float32 of shape (3, 5, 6), or image/*" in caught.value.message
    assert said in caught.value.message
    assert " object at 0x" not in caught.value.message


def test_a_service_may_prepare_the_image_before_it_is_resized():
    class Left(Seen):
        def prepare_image(self, wanted, image):
            assert image.size == (6, 5)
            if image.mode != "RGB":
                wanted.refuse("an image without colour")
            return image.crop((0, 0, 3, 5))

    left_red = np.concatenate([RED[:, :3], np.zeros((5, 3, 3))], axis=1)
    made = service((3, 5, 6), cls=Left)
    assert np.array_equal(one(made, encoded(left_red)), one(service((3, 5, 6)), encoded(RED)))
    with pytest.raises(InvalidData, match=r"input 'body': .*got an image without colour\.$"):
        one(made, encoded(RED, mode="L"))


def test_an_error_of_the_services_own_step_is_not_blamed_on_the_image():
    class Wrong(Seen):
        def prepare_image(self, wanted, image):
            raise OSError("no such font")

    with pytest.raises(OSError, match="no such font"):
        one(service((3, 5, 6), cls=Wrong), encoded(RED))


def test_the_brightest_point_is_the_signatures_maximum_itself():
    assert one(service((2, 2), 0, 16), encoded(np.full((2, 2), 255))).max() == 16


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_images_are_refused_unless_the_limit_is_off(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 29)
    with pytest.raises(InvalidData, match="6 x 5 pixels; 29 pixels are the most"):
        one(service((3, 5, 6)), encoded(RED))
    assert one(service((3, 5, 6), limit=False), encoded(RED)).shape == (3, 5, 6)


def test_a_shape_that_is_no_images_is_refused_at_start():
    with pytest.raises(SignatureError, match=r"its shape in signature\.json is \(10,\)"):
        service((10,))


def test_a_batch_of_images_is_stacked():
    made = service((2, 2))
    rows = [Row({"body": encoded(np.full((3, 3), value))}) for value in (0, 255)]
    assert made.preprocess(rows).shape == (2, 2, 2)


def test_an_image_can_be_had_as_it_was_uploaded():
    made = service((0, 0, 3))
    (wanted,) = made.inputs.all
    image = made.open_image(wanted, encoded(RED, mode="P"))
    assert (image.mode, image.size) == ("P", (6, 5))
    assert made.open_image(wanted, base64.b64encode(encoded(RED)).decode()).size == (6, 5)
    assert np.array_equal(made.open_image(wanted, RED.tolist()), RED)
    for value, said in ((b"no image", "8 bytes that are no image"), ([[1, 2]], "shape (1, 2)"), (None, "null")):
        with pytest.raises(InvalidData) as caught:
            made.open_image(wanted, value)
        assert said in caught.value.message
