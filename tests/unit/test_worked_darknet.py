"""The reader of Darknet's files: what it reads it reads right, and what it does not know it names."""

import importlib.util
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "archives" / "shapes_detector"
#: Numbers of the published yolov3-tiny.weights.
PUBLISHED = 8_858_734


@pytest.fixture(scope="module")
def reader():
    spec = importlib.util.spec_from_file_location("darknet_network", FOLDER / "network.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["darknet_network"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["darknet_network"]


@pytest.fixture
def read(reader, tmp_path):
    """Return what makes a network of the text of a cfg."""

    def make(text):
        (tmp_path / "tried.cfg").write_text(text)
        return reader.DarknetNetwork(tmp_path / "tried.cfg").eval()

    return make


def convolutional(filters, size=3, activation="leaky", stride=1):
    """A layer as the published file has it; those before a head have no batch norm."""
    norm = "batch_normalize=1\n" if activation == "leaky" else ""
    return (
        f"[convolutional]\n{norm}filters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation={activation}\n\n"
    )


def maxpool(stride):
    return f"[maxpool]\nsize=2\nstride={stride}\n\n"


def yolo(mask):
    """A head; blanks stand where the published file has them, which is nearly everywhere."""
    anchors = "10,14,  23,27,  37,58,  81,82,  135,169,  344,319"
    training = "jitter=.3\nignore_thresh = .7\ntruth_thresh = 1\nrandom=1\n"
    return f"[yolo]\nmask = {mask}\nanchors = {anchors}\nclasses=80\nnum=6\n{training}\n"


def tiny():
    """The layers of the published yolov3-tiny.cfg: 80 classes, 416 points a side, and its keys for training."""
    net = "[net]\n# Testing\nbatch=1\nsubdivisions=1\nwidth=416\nheight=416\nchannels=3\nmomentum=0.9\ndecay=0.0005\n"
    net += "angle=0\nsaturation = 1.5\nexposure = 1.5\nhue=.1\n\nlearning_rate=0.001\nburn_in=1000\n"
    net += "max_batches = 500200\npolicy=steps\nsteps=400000,450000\nscales=.1,.1\n\n"
    trunk = "".join(convolutional(filters) + maxpool(2) for filters in (16, 32, 64, 128, 256))
    trunk += convolutional(512) + maxpool(1) + convolutional(1024) + "###########\n" + convolutional(256, 1)
    coarse = convolutional(512) + convolutional(255, 1, "linear") + yolo("3,4,5")
    join = "[route]\nlayers = -4\n\n" + convolutional(128, 1) + "[upsample]\nstride=2\n\n[route]\nlayers = -1, 8\n\n"
    return net + trunk + coarse + join + convolutional(256) + convolutional(255, 1, "linear") + yolo("0,1,2")


def test_the_published_layout_is_read(read, tmp_path):
    network = read(tiny())
    weights = tmp_path / "tiny.weights"
    numbers = np.random.default_rng(0).random(PUBLISHED, dtype=np.float32) / 50
    weights.write_bytes(struct.pack("<3iq", 0, 2, 0, 32_013_312) + numbers.tobytes())
    network.load_weights(weights)
    assert network.seen == 32_013_312
    assert network.size == (416, 416)
    assert [head.anchors for head in network.heads] == [
        ((81, 82), (135, 169), (344, 319)),
        ((10, 14), (23, 27), (37, 58)),
    ]
    with torch.inference_mode():
        coarse, fine = network(torch.rand(1, 3, 416, 416))
    assert (coarse.shape, fine.shape) == ((1, 3, 13, 13, 85), (1, 3, 26, 26, 85))
    assert coarse.isfinite().all()
    assert fine.isfinite().all()
    network.save_weights(tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == weights.read_bytes()


def test_our_own_network_and_its_weights_go_round(reader, tmp_path):
    torch.manual_seed(0)
    network, again = (reader.DarknetNetwork(FOLDER / "shapes.cfg") for _ in range(2))
    pictures = torch.rand(4, 3, 128, 128)
    network(pictures)  # in training mode, so that the running means are not the first ones
    network.eval()
    network.seen = 123
    network.save_weights(tmp_path / "shapes.weights")
    again.eval().load_weights(tmp_path / "shapes.weights")
    assert again.seen == 123
    with torch.inference_mode():
        outputs = list(zip(network(pictures), again(pictures), strict=True))
    assert [one.shape for one, _ in outputs] == [(4, 3, 4, 4, 9), (4, 3, 8, 8, 9)]
    assert all(torch.equal(one, other) for one, other in outputs)
    assert [path.name for path in tmp_path.iterdir()] == ["shapes.weights"]


NET = "[net]\nwidth=6\nheight=5\nchannels=2\n"
TWO = NET + convolutional(3, 1) + convolutional(1, 1, "linear")
#: Numbers of ``TWO``: 3 biases, scales, means, variances and 3 x 2 weights, then 1 bias and 1 x 3 weights.
TWO_COUNT = 3 * 4 + 6 + 1 + 3


@pytest.mark.parametrize(("version", "header"), [((0, 1, 0), "<3ii"), ((0, 2, 5), "<3iq"), ((1, 0, 0), "<3iq")])
def test_weights_are_in_darknets_order_behind_a_header_of_each_age(read, tmp_path, version, header):
    network = read(TWO)
    numbers = np.arange(TWO_COUNT, dtype="<f4")
    (tmp_path / "two.weights").write_bytes(struct.pack(header, *version, 7) + numbers.tobytes())
    network.load_weights(tmp_path / "two.weights")
    first, second = network.layers
    assert network.seen == 7
    assert first[1].bias.tolist() == [0, 1, 2]
    assert first[1].weight.tolist() == [3, 4, 5]
    assert first[1].running_mean.tolist() == [6, 7, 8]
    assert first[1].running_var.tolist() == [9, 10, 11]
    assert first[0].weight.flatten().tolist() == [12, 13, 14, 15, 16, 17]
    assert second[0].bias.tolist() == [18]
    assert second[0].weight.flatten().tolist() == [19, 20, 21]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (4 * (TWO_COUNT - 1), f"expected {TWO_COUNT} numbers after the header, got {TWO_COUNT - 1}."),
        (4 * (TWO_COUNT + 1), f"expected {TWO_COUNT} numbers after the header, got {TWO_COUNT + 1}."),
        (4 * TWO_COUNT - 2, f"expected {TWO_COUNT} numbers after the header, got {TWO_COUNT - 0.5}."),
        (-10, "is no Darknet weights file: it ends after 10 bytes."),
    ],
)
def test_weights_of_another_count_are_refused(read, tmp_path, size, said):
    network = read(TWO)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    content = struct.pack("<3iq", 0, 2, 0, 0) + bytes(max(size, 0))
    (tmp_path / "bad.weights").write_bytes(content if size > 0 else content[:size])
    with pytest.raises(ValueError, match=r"bad\.weights") as refused:
        network.load_weights(tmp_path / "bad.weights")
    assert said in str(refused.value)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_convolution_is_normalised_and_leaks(read):
    network = read("[net]\nwidth=1\nheight=1\nchannels=1\n" + convolutional(2, 1))
    convolution, norm = network.layers[0][:2]
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([3.0, -3.0]).view_as(convolution.weight))
        norm.running_mean.fill_(1)
        norm.running_var.fill_(4)
        norm.weight.fill_(10)
        norm.bias.fill_(0.5)
    output = network.layers[0](torch.full((1, 1, 1, 1), 2.0)).flatten().tolist()
    # (3 * 2 - 1) / 2 * 10 + 0.5, and a tenth of (-3 * 2 - 1) / 2 * 10 + 0.5
    assert output == pytest.approx([25.5, -3.45], rel=1e-4)


def test_padding_is_half_the_size_or_none(read):
    padded = read(NET + convolutional(1, 3, "linear", 2))
    assert padded.layers[0](torch.rand(1, 2, 5, 6)).shape == (1, 1, 3, 3)
    bare = read(NET + "[convolutional]\nfilters=1\nsize=3\nactivation=linear\n")
    assert bare.layers[0](torch.rand(1, 2, 5, 6)).shape == (1, 1, 3, 4)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_maxpool_looks_over_the_right_and_the_lower_border(read, stride):
    picture = -torch.rand(1, 2, 5, 6)  # below zero: a border of zeros would win
    rows, columns = range(0, 5, stride), range(0, 6, stride)
    expected = [[picture[..., y : y + 2, x : x + 2].amax((2, 3)) for x in columns] for y in rows]
    found = read(NET + maxpool(stride)).layers[0](picture)
    assert torch.equal(found, torch.stack([torch.stack(row, -1) for row in expected], -2))


def test_a_route_joins_layers_counted_from_both_ends(read):
    # Of a head's 6 numbers, layer 0 gives 2 (the picture made larger) and layer 1 gives 4.
    head = "[yolo]\nmask=0\nanchors=3,4\nclasses=1\nnum=1\n"
    text = NET + "[upsample]\nstride=2\n" + convolutional(4, 1, "linear") + "[route]\nlayers=0,-1\n" + head
    network, picture = read(text), torch.rand(1, 2, 5, 6)
    large = picture.repeat_interleave(2, 2).repeat_interleave(2, 3)
    (output,) = network(picture)
    assert output.shape == (1, 1, 10, 12, 6)
    assert torch.equal(output[0, 0].permute(2, 0, 1)[None], torch.cat([large, network.layers[1](large)], 1))


POOL = "[maxpool]\nsize=2\nstride=2\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(NET + "[shortcut]\nfrom=-3\n", "line 5: unknown layer [shortcut]; the reader knows", id="layer"),
        pytest.param(NET + POOL + "padding=1\n", "line 8: [maxpool] has an unknown key 'padding'", id="key"),
        pytest.param(
            NET.replace("channels", "chanels"), "line 4: [net] has an unknown key 'chanels'", id="net's key"
        ),
        pytest.param(NET + POOL + "size=2\n", "line 8: [maxpool] has 'size' a second time", id="key twice"),
        pytest.param(NET + "[maxpool]\nsize=2\n", "line 5: [maxpool] does not say its 'stride'", id="no key"),
        pytest.param(NET + "[maxpool]\nsize=2\nstride=\n", "line 5: [maxpool] does not say its 'stride'", id="empty"),
        pytest.param("[net]\nwidth=6\n" + POOL, "line 1: [net] does not say its 'height'", id="net without height"),
        pytest.param(
            NET + "[maxpool]\nstride=2\nsize=two\n", "line 7: expected size to be whole numbers", id="a word"
        ),
        pytest.param(NET + "[maxpool]\nstride=2\nsize=3\n", "line 7: expected size to be one whole", id="size of 3"),
        pytest.param(NET + convolutional(0), "line 7: expected filters to be one whole number from 1", id="none"),
        pytest.param(NET + convolutional(1, 1, "mish"), "expected activation to be leaky or linear", id="activation"),
        pytest.param(NET + POOL + "[route]\nlayers=1\n", "line 9: expected layers to be layers before", id="ahead"),
        pytest.param(
            NET + POOL + "[route]\nlayers=-2\n", "line 9: expected layers to be layers before", id="too far"
        ),
        pytest.param(NET + yolo("0"), "line 5: [yolo] needs 85 filters before it, and gets 2", id="filters"),
        pytest.param(NET + yolo("6"), "line 6: expected mask to be numbers of anchors, 0 to 5", id="mask"),
        pytest.param(NET + yolo("0").replace("319", "319,1"), "line 7: expected anchors to be 6 pairs", id="anchors"),
        pytest.param(NET + NET, "line 5: got [net]; a file begins with [net]", id="net twice"),
        pytest.param(POOL, "line 1: got [maxpool]; a file begins with [net]", id="no net"),
        pytest.param("width=1\n", "line 1: expected a layer in brackets", id="no layer yet"),
        pytest.param(
            NET + "\n; size\nsize\n", "line 7: expected a layer in brackets or a line key=value", id="no value"
        ),
        pytest.param(NET, "holds no layers", id="net alone"),
        pytest.param("", "holds no layers", id="empty file"),
    ],
)
def test_what_the_reader_does_not_know_is_named_with_its_line(reader, read, text, said):
    with pytest.raises(reader.DarknetError, match=r"^tried\.cfg") as refused:
        read(text)
    assert said in str(refused.value)


def test_the_archives_labels_are_those_of_the_scenes():
    spec = importlib.util.spec_from_file_location("drawn_scenes", FOLDER.parent / "shapes_scenes.py")
    scenes = importlib.util.module_from_spec(spec)
    sys.modules["drawn_scenes"] = scenes
    try:
        spec.loader.exec_module(scenes)
    finally:
        del sys.modules["drawn_scenes"]
    assert tuple((FOLDER / "shapes.names").read_text().splitlines()) == scenes.SHAPES
