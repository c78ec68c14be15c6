"""The detector without its training: pictures into the network, its numbers into boxes in the upload's points."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from marserve import InvalidData
from marserve.archive.signature import Signature
from marserve.service.context import Context, RequestInfo
from marserve.service.inputs import Inputs

ROOT = Path(__file__).parents[2]
SIGNATURE = Signature.parse(json.loads((ROOT / "signature" / "shapes_detector.json").read_text()))
NAMES = ("detection", "network", "precision", "shapes_detector_service", "shapes_scenes")

#: One cell, one anchor and two classes: whatever it sees, it finds the box that its biases say.
ONE_CELL = """[net]
width=64
height=64
channels=3
[convolutional]
filters=7
size=64
stride=64
activation=linear
[yolo]
mask=0
anchors=32,32
classes=2
num=1
"""
#: The middle half of the input, surely; and surely of the first class.
BIASES = (0, 0, 0, 0, 10, 10, -10)


@pytest.fixture(scope="module")
def modules():
    """The handler and what it imports; nothing of it is left afterwards."""
    folders = [str(ROOT / "archives" / "shapes_detector"), str(ROOT / "handlers")]
    path, before = list(sys.path), {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    sys.path[:0] = folders
    import detection
    import network
    import precision
    import shapes_detector_service

    yield SimpleNamespace(detection=detection, network=network, precision=precision, service=shapes_detector_service)
    sys.path[:] = path
    for name in NAMES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


@pytest.fixture
def made(modules, tmp_path):
    """Return what makes a service with the network of one cell."""

    def make(biases=BIASES, labels="circle\nsquare\n", **settings):
        (tmp_path / "one.cfg").write_text(ONE_CELL)
        (tmp_path / "one.names").write_text(labels)
        network = modules.network.DarknetNetwork(tmp_path / "one.cfg")
        with torch.no_grad():
            network.layers[0][0].weight.zero_()
            network.layers[0][0].bias.copy_(torch.tensor(biases))
        network.save_weights(tmp_path / "one.weights")
        service = modules.service.ShapesDetectorService()
        service.inputs = Inputs(SIGNATURE.inputs)
        service.initialize(Context("one", str(tmp_path), {}, model_yaml_config=settings, thread_count=0))
        return service

    return make


def encoded(image, kind="PNG", **more):
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def ask(service, *bodies, accept=b"*/*"):
    """Return the answers to bodies that travel together."""
    service.context.begin([RequestInfo(headers=(b"Accept", accept)) for _ in bodies])
    return service.handle([{"body": body} for body in bodies], service.context)


def blank(width, height, mode="RGB"):
    return Image.new(mode, (width, height))


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((64, 64), [16, 16, 48, 48]),
        ((640, 640), [160, 160, 480, 480]),
        ((16, 16), [4, 4, 12, 12]),
        ((640, 320), [160, 160, 480, 320]),
        ((320, 640), [160, 160, 320, 480]),
    ],
)
def test_boxes_are_in_points_of_the_upload_and_end_at_its_border(made, size, box):
    (answer,) = ask(made(), encoded(blank(*size)))
    assert answer == {"boxes": [{"label": "circle", "score": pytest.approx(1, abs=1e-3), "box": box}]}


def test_pictures_of_any_size_travel_together(made):
    sizes = [(64, 64), (100, 50), (3000, 10), (10, 3000), (1, 1), (7, 64)]
    answers = ask(made(), *(encoded(blank(*size)) for size in sizes))
    found = [[each["box"] for each in answer["boxes"]] for answer in answers]
    # In the pictures that are hardly high or wide the box lies in the grey beside them.
    assert found == [[[16, 16, 48, 48]], [[25, 25, 75, 50]], [], [], [[0.2, 0.2, 0.8, 0.8]], []]


def test_a_photo_that_lies_is_answered_upright(made):
    note = Image.Exif()
    note[0x0112] = 6  # to be shown turned to the right by a quarter
    photo = encoded(blank(640, 320), "JPEG", exif=note)
    (answer,) = ask(made(), photo)
    assert answer["boxes"][0]["box"] == [160, 160, 320, 480]
    (picture,) = ask(made(), photo, accept=b"image/png")
    assert Image.open(io.BytesIO(picture)).size == (320, 640)


def test_a_damaged_note_turns_nothing(made):
    (answer,) = ask(made(), encoded(blank(640, 320), "JPEG", exif=b"Exif\0\0no note at all"))
    assert answer["boxes"][0]["box"] == [160, 160, 480, 320]


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        pytest.param(Image.new("L", (9, 9), 200), (200, 200, 200), id="grey"),
        pytest.param(Image.new("RGBA", (9, 9), (255, 0, 0, 255)), (255, 0, 0), id="opaque"),
        pytest.param(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), (255, 255, 255), id="transparent"),
        pytest.param(Image.new("RGB", (9, 9), (0, 255, 0)).convert("P"), (0, 255, 0), id="palette"),
        pytest.param(Image.new("1", (9, 9), 1), (255, 255, 255), id="black and white"),
        pytest.param(Image.fromarray(np.full((9, 9), 51_400, np.uint16)), (200, 200, 200), id="16 bits"),
    ],
)
def test_pictures_of_every_mode_become_colours(made, image, colour):
    assert made().picture({"body": encoded(image)}).getpixel((4, 4)) == colour


def test_rows_of_points_are_a_picture_too(made):
    (answer,) = ask(made(), np.zeros((32, 64, 3), int).tolist())
    assert answer["boxes"][0]["box"] == [16, 16, 48, 32]


def test_the_threshold_and_the_overlap_are_settings(made):
    # Half a score: objectness and class are 0 each, so both of their shares are a half.
    uncertain = (0, 0, 0, 0, 0, 0, -10)
    assert ask(made(uncertain), encoded(blank(64, 64))) == [{"boxes": []}]
    (answer,) = ask(made(uncertain, handler={"threshold": 0.2}), encoded(blank(64, 64)))
    assert answer["boxes"][0]["score"] == 0.25
    assert made(handler={"most_overlap": 1}).settings == {"threshold": 0.5, "most_overlap": 1}
    assert made(handler=None).settings == {"threshold": 0.5, "most_overlap": 0.45}


@pytest.mark.parametrize(
    "handler", [{"treshold": 0.3}, {"threshold": 1.5}, {"threshold": "0.3"}, {"threshold": True}]
)
def test_a_setting_that_is_none_is_refused(made, handler):
    with pytest.raises(ValueError, match="expected threshold and most_overlap, from 0 to 1, got t"):
        made(handler=handler)


def test_labels_that_are_not_one_for_each_class_are_refused(made):
    with pytest.raises(ValueError, match=r"one\.names has 1 labels"):
        made(labels="circle\n")


@pytest.mark.parametrize(
    ("accept", "is_picture"),
    [
        ("", False),
        ("*/*", False),
        ("text/html", False),
        ("image/png", True),
        ("IMAGE/PNG; q=0.9", True),
        ("image/avif,image/webp,image/*,*/*;q=0.8", True),
        ("application/json, image/png", False),
        ("text/html, image/png, application/json", True),
    ],
)
def test_the_first_type_that_can_be_given_counts(modules, accept, is_picture):
    assert modules.service.wants_picture(accept) == is_picture


def test_the_picture_shows_the_boxes(made):
    service = made()
    white = Image.new("RGB", (128, 128), "white")
    (content,) = ask(service, encoded(white), accept=b"image/png")
    assert service.context.get_response_content_type(0) == "image/png"
    picture = Image.open(io.BytesIO(content))
    assert (picture.format, picture.size) == ("PNG", (128, 128))
    assert picture.getpixel((96, 90)) == (0, 0, 0)  # on the box's right edge
    assert picture.getpixel((64, 64)) == (255, 255, 255)


def test_a_large_picture_is_drawn_smaller_with_the_box_in_its_place(made):
    (content,) = ask(made(), encoded(Image.new("RGB", (2560, 2560), "white")), accept=b"image/png")
    picture = Image.open(io.BytesIO(content))
    assert picture.size == (1280, 1280)
    assert picture.getpixel((958, 900)) == (0, 0, 0)
    assert picture.getpixel((640, 640)) == (255, 255, 255)


def test_what_is_no_picture_is_refused(made):
    service = made()
    whole = encoded(Image.effect_noise((64, 64), 50))
    for body, said in ((b"", "0 bytes that are no image"), (whole[:500], "a damaged image"), ([[[1, 2]]], "shape")):
        with pytest.raises(InvalidData, match="input 'body': expected uint8 of shape") as refused:
            service.check({"body": body})
        assert said in str(refused.value)


def test_the_input_is_the_picture_in_the_upper_left_and_grey_beside_it(modules):
    picture = modules.detection.letterbox(Image.new("RGB", (200, 100), (255, 0, 51)), (128, 128))
    assert (picture.shape, picture.dtype) == ((3, 128, 128), np.float32)
    assert np.allclose(picture[:, :64].transpose(1, 2, 0), [1, 0, 0.2])
    assert np.allclose(picture[:, 64:], 128 / 255)


def test_candidates_are_cells_and_anchors_in_points_of_the_input(modules):
    heads = [modules.network.Head(((10, 20), (30, 40)), 1)]
    output = torch.zeros(1, 2, 2, 4, 6)
    output[0, 1, 1, 2] = torch.tensor([0, 0, np.log(2), 0, 3, -1])
    found = modules.detection.candidates([output], heads, (128, 128))
    assert found.shape == (1, 16, 5)
    # Cells are 32 wide and 64 high; the first one's middle is at 16, 32.
    assert found[0, 0].tolist() == pytest.approx([11, 22, 21, 42, 0.25])
    score = torch.tensor(3.0).sigmoid() * torch.tensor(-1.0).sigmoid()
    assert found[0, 8 + 4 + 2].tolist() == pytest.approx([80 - 30, 96 - 20, 80 + 30, 96 + 20, score.item()])


def test_of_boxes_that_overlap_the_likeliest_of_each_class_stays(modules):
    found = torch.tensor(
        [
            [0, 0, 10, 10, 0.6, 0.1],
            [1, 0, 11, 10, 0.9, 0.1],  # nearly the same place: the first one goes
            [0, 1, 10, 11, 0.1, 0.7],  # of the other class
            [6, 0, 16, 10, 0.8, 0.0],  # a third of the union: stays
            [50, 50, 60, 60, 0.2, 0.3],  # too unlikely
        ]
    )
    boxes, classes, scores = modules.detection.chosen(found, 0.5, 0.45)
    assert boxes.tolist() == [[1, 0, 11, 10], [6, 0, 16, 10], [0, 1, 10, 11]]
    assert classes.tolist() == [0, 0, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert len(modules.detection.chosen(found, 0.95, 0.45)[0]) == 0


def test_a_box_that_goes_takes_no_other_with_it(modules):
    row = [[0, 0, 10, 10, 0.9], [0, 3, 10, 13, 0.8], [0, 6, 10, 16, 0.7]]
    boxes, _, _ = modules.detection.chosen(torch.tensor(row), 0.1, 0.45)
    assert boxes[:, 1].tolist() == [0, 6]


def test_the_average_precision_is_the_area_below_the_curve(modules):
    area = modules.precision.average_precision
    assert area([], 3) == 0
    assert area([(0.9, True), (0.8, True)], 2) == 1
    assert area([(0.9, True), (0.8, True)], 4) == 0.5
    # Right, wrong, right of two things: precision 1 up to the half, two thirds up to the whole.
    assert area([(0.7, True), (0.9, True), (0.8, False)], 2) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_thing_is_found_once_and_by_half_of_the_union(modules):
    things = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 5.5, 30, 10], [20, 4, 30, 10]])
    judged = modules.precision.judge(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), things)
    assert [is_right for _, is_right in judged] == [True, False, False, True]
