"""The built-in handlers of images: what goes into the model, what comes out, and what speaks for it."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from ts_modules import asked, context_of, module

from marserve import InvalidData

images = module("torch_handler.images")
ImageClassifier = module("torch_handler.image_classifier").ImageClassifier
ImageSegmenter = module("torch_handler.image_segmenter").ImageSegmenter
ObjectDetector = module("torch_handler.object_detector").ObjectDetector


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def noise(width=300, height=280, mode="RGB"):
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 255, (height, width, 3), dtype=np.uint8)).convert(mode)


class Scores(nn.Module):
    """Scores that follow from the mean of each channel, so that they are known."""

    def __init__(self, classes=3):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return x.mean(dim=(2, 3))[:, : self.classes]


def handler_of(cls, model, folder, monkeypatch, labels=None):
    """Return a handler whose model is ``model``."""
    if labels is not None:
        (folder / "index_to_name.json").write_text(json.dumps(labels))
    monkeypatch.setattr(cls, "_load_weights", lambda self, path: model)
    handler = cls()
    context = context_of(folder, serializedFile="model.pt")
    handler.initialize(context)
    return handler, context


@pytest.mark.parametrize(
    ("size", "resized", "corner"), [((300, 600), (256, 512), (16, 144)), ((600, 300), (512, 256), (144, 16))]
)
def test_the_shorter_side_is_resized_and_the_middle_cut_out(size, resized, corner):
    image = noise(*size)
    small = images.resized(image, 256)
    square = images.center_cropped(small, 224)

    assert small.size == resized
    assert square.size == (224, 224)
    assert square.getpixel((0, 0)) == small.getpixel(corner)


def test_every_pixel_counts_when_an_image_gets_smaller():
    stripes = Image.fromarray(np.tile(np.array([[0], [255]], dtype=np.uint8), (256, 512)))

    small = np.asarray(images.resized(stripes, 256))

    assert np.abs(small[10:-10, 10:-10].astype(int) - 128).max() <= 1


def test_a_small_image_is_framed_in_black():
    square = images.center_cropped(Image.new("RGB", (2, 2), "white"), 4)

    assert square.getpixel((0, 0)) == (0, 0, 0)
    assert square.getpixel((1, 1)) == (255, 255, 255)


def test_values_are_normalised_by_channel():
    found = images.ImageNetProcessing()(Image.new("RGB", (256, 256), (255, 0, 128)))

    assert found.shape == (3, 224, 224)
    assert found[:, 0, 0].tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225], rel=1e-5
    )


def test_all_shades_of_16_bits_are_kept(tmp_path, monkeypatch):
    handler, _ = handler_of(ObjectDetector, Scores(), tmp_path, monkeypatch)
    image = Image.fromarray(np.array([[0, 51_400, 65_535]], np.uint16))

    (pixels,) = handler.preprocess([{"body": encoded(image)}])

    assert pixels[:, 0].tolist() == [pytest.approx([0, 200 / 255, 1])] * 3


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_images_of_every_mode_are_taken(mode):
    assert images.ImageNetProcessing()(noise(mode=mode)).shape == (3, 224, 224)


def test_the_forms_in_which_an_image_may_come(tmp_path, monkeypatch):
    handler, _ = handler_of(ImageClassifier, Scores(), tmp_path, monkeypatch)
    data = encoded(noise())
    pixels = torch.ones(3, 224, 224)

    found = handler.preprocess(
        [
            {"body": bytearray(data)},
            {"data": base64.b64encode(data).decode()},
            {"body": pixels.tolist()},
            data,
        ]
    )

    assert found.shape == (4, 3, 224, 224)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[3])
    assert torch.equal(found[2], pixels)


def test_the_most_probable_classes_by_label(tmp_path, monkeypatch):
    labels = {"0": ["n0", "cat"], "1": ["n1", "dog"], "2": ["n2", "cow"]}
    handler, context = handler_of(ImageClassifier, Scores(), tmp_path, monkeypatch, labels)
    handler.set_max_result_classes(2)

    (answer,) = handler.handle([{"body": encoded(Image.new("RGB", (256, 256), (0, 255, 0)))}], context)

    scores = torch.tensor([-0.485 / 0.229, (1 - 0.456) / 0.224, -0.406 / 0.225]).softmax(0).tolist()
    assert answer == {"dog": pytest.approx(scores[1], rel=1e-4), "cow": pytest.approx(scores[2], rel=1e-4)}
    assert list(answer) == ["dog", "cow"]
    assert handler.get_max_result_classes() == 2


def test_fewer_classes_than_are_asked_for_and_no_labels(tmp_path, monkeypatch):
    handler, context = handler_of(ImageClassifier, Scores(), tmp_path, monkeypatch)

    (answer,) = handler.handle([{"body": encoded(noise(), "JPEG")}], context)

    assert set(answer) == {"0", "1", "2"}
    assert sum(answer.values()) == pytest.approx(1)


@pytest.mark.parametrize("target", [1, "1", bytearray(b"1")], ids=["JSON", "text", "a form's field"])
def test_an_explanation_has_the_inputs_shape_and_sums_to_the_difference(target, tmp_path, monkeypatch):
    handler, context = handler_of(ImageClassifier, Scores(), tmp_path, monkeypatch)
    asked(context, b"explain", b"True")
    data = {"body": encoded(noise()), "target": target}

    found = torch.tensor(handler.handle([data], context))

    assert found.shape == (1, 3, 224, 224)
    assert found.sum().item() == pytest.approx(Scores()(handler.preprocess([data]))[0, 1].item(), rel=1e-3)
    assert not found[0, 0].any()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"no image", "8 bytes that are none"),
        (b"", "0 bytes that are none"),
        (encoded(noise())[:500], "a damaged one of 500 bytes"),
        ("abc", "an image or numbers"),
        ([[1, 2], [3]], "an image or numbers"),
        (None, "an image or numbers"),
    ],
)
def test_what_is_no_image_is_refused(value, reason, tmp_path, monkeypatch):
    handler, context = handler_of(ImageClassifier, Scores(), tmp_path, monkeypatch)

    with pytest.raises(InvalidData, match=reason):
        handler.handle([{"body": encoded(noise())}, {"body": value}], context)


def test_images_of_several_shapes_are_refused_together_so_that_each_is_asked_alone(tmp_path, monkeypatch):
    handler, context = handler_of(ImageClassifier, Scores(), tmp_path, monkeypatch)
    shapes = [torch.ones(3, 4, 4).tolist(), torch.ones(3, 5, 5).tolist()]

    with pytest.raises(InvalidData, match="one shape"):
        handler.handle([{"body": value} for value in shapes], context)

    assert [len(handler.handle([{"body": value}], context)) for value in shapes] == [1, 1]


def test_each_pixel_gets_its_class_and_probability(tmp_path, monkeypatch):
    class Segments(nn.Module):
        def forward(self, x):
            return {"out": torch.stack([torch.zeros(len(x), 224, 224), torch.ones(len(x), 224, 224)], dim=1)}

    handler, context = handler_of(ImageSegmenter, Segments(), tmp_path, monkeypatch)

    found = np.array(handler.handle([{"body": encoded(noise())}] * 2, context))

    assert found.shape == (2, 224, 224, 2)
    assert found[1, 5, 7].tolist() == pytest.approx([1, torch.tensor([0.0, 1.0]).softmax(0)[1].item()])


def test_objects_from_the_threshold_on(tmp_path, monkeypatch):
    shapes = []

    class Detects(nn.Module):
        def forward(self, x):
            shapes.append(x.shape)
            boxes = torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
            return [{"boxes": boxes, "labels": torch.tensor([1, 2, 1]), "scores": torch.tensor([0.75, 0.25, 0.5])}]

    handler, context = handler_of(ObjectDetector, Detects(), tmp_path, monkeypatch, {"1": "person"})

    answers = handler.handle([{"body": encoded(noise(40, 30, "L"))}], context)

    assert answers == [
        [{"person": [0.0, 1.0, 2.0, 3.0], "score": 0.75}, {"person": [8.0, 9.0, 10.0, 11.0], "score": 0.5}]
    ]
    assert shapes == [(1, 3, 30, 40)]


def test_huge_images_are_let_pass_where_the_limit_is_off(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr(ImageClassifier, "_load_weights", lambda self, path: Scores())
    context = context_of(tmp_path, serializedFile="model.pt")
    context.system_properties["limit_max_image_pixels"] = False

    ImageClassifier().initialize(context)

    assert Image.MAX_IMAGE_PIXELS is None


def test_the_integral_is_exact_for_what_is_not_linear():
    ig = module("torch_handler.attribution").IntegratedGradients(lambda x, power: x**power)
    given = torch.tensor([[1.0, 2.0]])

    found = ig.attribute(given, target=1, additional_forward_args=3, n_steps=15)

    assert found.tolist() == [[0.0, pytest.approx(8.0)]]
