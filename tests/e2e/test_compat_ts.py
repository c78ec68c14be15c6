"""Archives written for TorchServe, packed by its archiver's command and served as they are."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import marserve
from live import LiveServer, serving

#: Scores an image by the means of its channels: what is mostly green is a dog.
NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 1, bias=False)

    def forward(self, x):
        return self.conv(x).mean(dim=(2, 3))
"""
SUBCLASS = """
import torch
from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException


class Sums(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        self.rows = context.metrics.add_metric_to_cache("RowsSeen", "count", ["Kind"], MetricTypes.COUNTER)

    def preprocess(self, data):
        numbers = [row["body"]["numbers"] for row in data]
        if any(len(each) > 3 for each in numbers):
            raise PredictionException("three numbers at most", 413)
        self.rows.add_or_update(len(data), ["plain"])
        self.context.metrics.add_size("Largest", 2, unit="kB", dimensions=[Dimension("Kind", "plain")])
        return super().preprocess(numbers)

    def postprocess(self, data):
        return [{"sum": value} for value in data.sum(dim=1).tolist()]
"""
FUNCTION = """
from ts.torch_handler.base_handler import BaseHandler


class Service(BaseHandler):
    def preprocess(self, data):
        return super().preprocess([row["body"] for row in data])


_service = Service()


def handle(data, context):
    if not _service.initialized:
        _service.initialize(context)
    if data is None:
        return None
    return _service.handle(data, context)
"""
STREAM = """
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.torch_handler.base_handler import BaseHandler


class Words(BaseHandler):
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        for word in ("one", "two"):
            pieces = [word] * len(data)
            send_intermediate_predict_response(pieces, context.request_ids, "Intermediate", 200, context)
        return ["three"] * len(data)
"""


def pack(work: Path, name: str, handler: str, *more: str) -> None:
    """Pack an archive into ``work/store`` as the users of TorchServe do."""
    command = [str(Path(sys.executable).with_name("torch-model-archiver")), "--model-name", name, "--version", "1.0"]
    command += ["--handler", handler, "--export-path", str(work / "store"), *more]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with four archives."""
    work = tmp_path_factory.mktemp("ts")
    (work / "store").mkdir()
    for name, text in (("net", NET), ("sums", SUBCLASS), ("function", FUNCTION), ("words", STREAM)):
        (work / f"{name}.py").write_text(text)
    (work / "index_to_name.json").write_text(json.dumps({"0": ["n0", "cat"], "1": ["n1", "dog"], "2": ["n2", "cow"]}))
    torch.save({"conv.weight": torch.eye(3).view(3, 3, 1, 1)}, work / "net.pt")
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(1, 2)), work / "same.pt")
    files = ("--model-file", "net.py", "--serialized-file", "net.pt", "--extra-files", "index_to_name.json")
    pack(work, "animals", "image_classifier", *files)
    pack(work, "sums", "sums.py", "--serialized-file", "same.pt")
    pack(work, "function", "function.py", "--serialized-file", "same.pt")
    pack(work, "words", "words.py")
    return work / "store"


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[LiveServer]:
    """All four, served."""
    with serving(store, "all") as running:
        yield running


def green() -> bytes:
    """A green picture, as PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (300, 260), (0, 255, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def scores() -> list[float]:
    """What the network makes of it, by class."""
    normalised = [
        (value - mean) / deviation
        for value, mean, deviation in zip((0.0, 1.0, 0.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    ]
    found: list[float] = torch.tensor(normalised).softmax(0).tolist()
    return found


def test_a_built_in_handler_classifies_an_image(server: LiveServer) -> None:
    answer = server.predict("animals", content=green())

    assert answer.status_code == 200, answer.text
    expected = dict(zip(("cat", "dog", "cow"), scores(), strict=True))
    assert list(answer.json()) == ["dog", "cow", "cat"]
    assert answer.json() == pytest.approx(expected, rel=1e-4)


def test_a_form_with_a_file_is_an_image_too(server: LiveServer) -> None:
    answer = server.predict("animals", files={"data": ("green.png", green(), "image/png")})

    assert next(iter(answer.json())) == "dog"


def test_an_explanation_has_the_shape_of_the_input(server: LiveServer) -> None:
    answer = server.client.post(f"{server.inference}/explanations/animals", content=green())

    assert answer.status_code == 200, answer.text
    assert torch.tensor(answer.json()).shape == (3, 224, 224)


def test_a_subclass_answers_and_its_errors_are_its_own(server: LiveServer) -> None:
    assert server.predict("sums", {"numbers": [1.0, 2.0]}).json() == {"sum": 3.0}

    refused = server.predict("sums", {"numbers": [1, 2, 3, 4]})
    assert refused.status_code == 413
    assert "three numbers at most" in refused.text


def test_a_function_around_a_subclass_answers(server: LiveServer) -> None:
    assert server.predict("function", [1.0, 2.5]).json() == [1.0, 2.5]


def test_an_answer_in_pieces_is_one_chunk_a_piece(server: LiveServer) -> None:
    with server.client.stream("POST", f"{server.inference}/predictions/words", content=b"x") as answer:
        assert list(answer.iter_raw()) == [b"one", b"two", b"three"]


def test_what_handlers_report_is_among_the_metrics(server: LiveServer) -> None:
    for _ in range(2):
        assert server.predict("sums", {"numbers": [1.0]}).status_code == 200

    text = server.client.get(server.metrics + "/metrics").text

    for wanted in ("HandlerTime{", "Largest{", "RowsSeen_total{"):
        (line,) = [line for line in text.splitlines() if line.startswith(wanted) and 'model="sums"' in line]
        assert float(line.rpartition(" ")[2]) > 0
        assert ('Kind="plain"' in line) == (wanted in ("Largest{", "RowsSeen_total{"))


def test_an_archive_is_loaded_without_a_server_too(store: Path) -> None:
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "ts"}

    with marserve.load(store / "sums.mar") as model:
        assert model.predict({"numbers": [1.0, 4.0]}) == {"sum": 5.0}

    assert {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "ts"} == before
