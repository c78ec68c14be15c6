"""Rows H: what a handler may be, what it is told, and what it may use; and row E26, the head of its answer."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from PIL import Image

from pairs import until
from rows import House, Product, Running

#: Tells everything that its context has and does.
TOLD = """
import json
import os

KEYS = ("X-Some", "explain", "url_path", "body", "nosuch")


def name(value):
    return type(value).__module__ + "." + type(value).__name__


def handle(data, context):
    if data is None:
        context.calls = ["None"]
        return None
    context.calls.append(len(data))
    first = context.request_processor[0]
    first.add_response_property("X-First", "1")
    context.set_response_header(0, "X-Second", "2")
    context.set_response_content_type(0, "application/x-told")
    context.set_response_status(299, "Quite Well", 0)
    properties = dict(context.system_properties)
    properties["model_dir"] = os.path.realpath(properties["model_dir"]) == os.path.realpath(os.getcwd())
    told = {
        "class": name(context),
        "calls": context.calls,
        "model_name": context.model_name,
        "manifest": context.manifest,
        "system_properties": properties,
        "request_ids": context.request_ids,
        "processors": [name(each) for each in context.request_processor],
        "metrics": [context.metrics.model_name, context.metrics.request_ids],
        "model_yaml_config": context.model_yaml_config,
        "stopping_criteria": context.stopping_criteria,
        "has_cl_socket": hasattr(context, "cl_socket"),
        "header_keys": [
            context.header_key_sequence_id,
            context.header_key_sequence_start,
            context.header_key_sequence_end,
        ],
        "get_sequence_id": context.get_sequence_id(0),
        "get_request_id": [context.get_request_id(), context.get_request_id(0), context.get_request_id(1)],
        "get_request_header": {key: context.get_request_header(0, key) for key in KEYS},
        "get_all_request_header": context.get_all_request_header(0),
        "get_response_content_type": context.get_response_content_type(0),
        "get_response_status": context.get_response_status(0),
        "get_response_headers": context.get_response_headers(0),
        "processor": [
            first.get_request_property("X-Some"),
            first.get_request_properties() == context.get_all_request_header(0),
            first.get_response_status_code(),
            first.get_response_status_phrase(),
            first.get_response_headers(),
            first.get_response_header("X-First"),
            first.get_response_header("x-first"),
        ],
    }
    context.set_all_response_status(298, "All Well")
    told["set_all_response_status"] = context.get_response_status(0)
    first.report_status(297)
    told["report_status"] = context.get_response_status(0)
    return [json.dumps(told)]
"""
#: A function that is named, a sibling module and a file of the archive.
NAMED = """
import os
import subprocess
import sys

import beside

CALLS = []


def handle(data, context):
    raise RuntimeError("the other one is meant")


def serve(data, context):
    CALLS.append(data)
    if data is None:
        return None
    with open("words.txt") as file:
        words = file.read()
    here = os.path.realpath(os.path.dirname(os.path.abspath(__file__)))
    is_here = [here == os.path.realpath(os.getcwd()), here in [os.path.realpath(each) for each in sys.path]]
    child = subprocess.check_output([sys.executable, "-c", "import beside; print(beside.WORD)"], cwd="/", text=True)
    found = {"words": words, "beside": beside.WORD, "first": CALLS[0], "is_here": is_here, "child": child}
    return [found] * len(data)
"""
#: One class of its own beside one that is imported.
SINGLE = """
from collections import OrderedDict


class Single:
    def initialize(self, context):
        self.began = context.model_name

    def handle(self, data, context):
        return [f"{self.began}: {row['body'].decode()}" for row in data]
"""
#: As archives of Multi Model Server were written.
OLD = """
class Old:
    def __init__(self):
        self.context = None

    def initialize(self, context):
        self.context = context

    def handle(self, data, context):
        kind = context.request_processor[0].get_request_property("Content-Type")
        context.request_processor[0].report_status(201, "Quite Old")
        context.request_processor[0].add_response_property("X-Old", "yes")
        return [{"kind": kind, "properties": len(context.request_processor[0].get_request_properties()) > 0}]


_service = Old()


def handle(data, context):
    if not _service.context:
        _service.initialize(context)
    if data is None:
        return None
    return _service.handle(data, context)
"""
NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3, bias=False)

    def forward(self, x):
        return self.layer(x)
"""
#: What the laboratory below experiments with, in a file of its own: a module has one class.
PLAIN = """
import torch
from ts.torch_handler.base_handler import BaseHandler


class Numbers(BaseHandler):
    def preprocess(self, data):
        return super().preprocess([row["data"] if isinstance(row, dict) else row for row in data])

    def inference(self, data, *args, **kwargs):
        if hasattr(self.model, "run"):
            return torch.as_tensor(self.model.run(None, {"x": data.numpy()})[0])
        return super().inference(data, *args, **kwargs)

    def get_insights(self, tensor_data, raw_data, target=0):
        weights = self.model.layer.weight[int(target)]
        return (tensor_data * weights).tolist()
"""
#: Runs what a request asks for in a worker that has torch: to start one for each would take minutes.
LAB = """
import json
import os

from plain import Numbers
from ts.handler_utils.micro_batching import MicroBatching
from ts.utils.util import load_label_mapping, map_class_to_label


class Lab(Numbers):
    def handle(self, data, context):
        asked = data[0]["body"]
        return [getattr(self, asked.pop("do"))(context, **asked)]

    def made(self, context, model=None, config=None):
        handler = Numbers()
        told = (context.manifest, context.model_yaml_config)
        context.manifest = {"model": {"modelName": "lab", **model}} if model else told[0]
        context.model_yaml_config = config or {}
        try:
            handler.initialize(context)
        finally:
            context.manifest, context.model_yaml_config = told
        handler.context = context
        return handler

    def weights(self, context, model, rows):
        try:
            handler = self.made(context, model)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        return handler.handle(rows, context)

    def pt2(self, context, config, rows=None):
        handler = self.made(context, config={"pt2": config})
        return [type(handler.model).__name__, handler.handle(rows, context) if rows else None]

    def labels(self, context, mapping):
        with open("labels.json", "w") as file:
            json.dump(mapping, file)
        return map_class_to_label([[0.25, 0.75]], load_label_mapping("labels.json"), [[0, 1]])

    def explained(self, context, rows):
        return self.explain_handle(self.preprocess(rows), rows)

    def micro(self, context, rows, size, parallelism):
        own = self.made(context)
        batching = MicroBatching(own, size)
        batching.parallelism = parallelism
        answer = [own.handle(rows, context), batching(rows, context)]
        batching.shutdown()
        return answer

    def profiled(self, context, rows):
        os.environ["ENABLE_TORCH_PROFILER"] = "1"
        try:
            own = self.made(context)
            own.profiler_args = {}
            answer = own.handle(rows, context)
        finally:
            del os.environ["ENABLE_TORCH_PROFILER"]
        found = os.listdir(os.path.join("/tmp/pytorch_profiler", context.manifest["model"]["modelName"]))
        return [answer, [name.endswith(".pt.trace.json") for name in found]]

    def timed(self, context, rows):
        own = self.made(context)
        own.context = context
        own.context.model_yaml_config["handler"] = {"profile": True}
        seen = []
        add_time = context.metrics.add_time
        context.metrics.add_time = lambda name, *rest, **more: seen.append(name)
        try:
            own.handle(rows, context)
        finally:
            context.metrics.add_time = add_time
        return seen

    def built_in(self, context, module, name, weights, body, labels=None):
        import base64
        import importlib

        if labels:
            with open("index_to_name.json", "w") as file:
                json.dump(labels, file)
        own = getattr(importlib.import_module("ts.torch_handler." + module), name)()
        told = context.manifest
        context.manifest = {"model": {"modelName": "lab", "serializedFile": weights}}
        try:
            own.initialize(context)
        finally:
            context.manifest = told
        own.context = context
        return own.handle([{"body": base64.b64decode(body)}], context)
"""
BROKEN = "import nosuchmodule\n\n\ndef handle(data, context):\n    return data\n"
TWO = "class One:\n    pass\n\n\nclass Two:\n    pass\n"
WEIGHTS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
ROWS = [[1.0, 1.0], [2.0, 0.0]]
ANSWERS = [[3.0, 7.0, 11.0], [2.0, 6.0, 10.0]]


def saved(model: torch.nn.Module) -> bytes:
    """Return a model as TorchScript."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(model), buffer)
    return buffer.getvalue()


def linear() -> torch.nn.Linear:
    """Return the model whose answers to ``ROWS`` are ``ANSWERS``."""
    layer = torch.nn.Linear(2, 3, bias=False)
    layer.weight.data = torch.tensor(WEIGHTS)
    return layer


def graph() -> bytes:
    """Return the same as ONNX."""
    weight = onnx.numpy_helper.from_array(torch.tensor(WEIGHTS).T.contiguous().numpy(), "w")
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size])
        for name, size in (("x", 2), ("y", 3))
    )
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    made = onnx.helper.make_graph([node], "linear", [x], [y], [weight])
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


class Segments(torch.nn.Module):
    """Every pixel is of class 1."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return scores (1, 2, height, width)."""
        first = x[:, :1]
        return {"out": torch.cat([first * 0.0, first * 0.0 + 1.0], 1)}


class Objects(torch.nn.Module):
    """Sees two objects, one of them doubtful."""

    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """Return boxes, labels and scores of each image."""
        boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.4])}]


class Classes(torch.nn.Module):
    """Scores a picture by the means of its channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return scores (n, 3)."""
        return x.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def server(shared_house: House) -> Running:
    """All of them, served."""
    house = shared_house
    house.archive("told", TOLD, config="minWorkers: 1\nmaxWorkers: 1\nhandler:\n  colour: red\n")
    house.archive("named", NAMED, handler="service.py:serve", files={"beside.py": "WORD = 1\n", "words.txt": "two"})
    house.archive("single", SINGLE)
    house.archive("old", OLD)
    house.archive("broken", BROKEN, handler="service")
    house.archive("two", TWO)
    state = io.BytesIO()
    torch.save({"layer.weight": torch.tensor(WEIGHTS)}, state)
    files = {
        "plain.py": PLAIN,
        "net.py": NET,
        "net.pth": state.getvalue(),
        "script.pt": saved(linear()),
        "graph.onnx": graph(),
    }
    files |= {"classes.pt": saved(Classes()), "segments.pt": saved(Segments()), "objects.pt": saved(Objects())}
    house.archive("lab", LAB, files=files, model={"modelFile": "net.py", "serializedFile": "net.pth"})
    house.archive(
        "base",
        "",
        handler="base_handler",
        files={"script.pt": files["script.pt"]},
        model={"serializedFile": "script.pt"},
    )
    return house.start("told.mar", "named.mar", "single.mar", "old.mar", "lab.mar", "base.mar")


def lab(server: Running, **asked: Any) -> Any:
    """Return what the laboratory answers."""
    answer = server.ask("/predictions/lab", json.dumps(asked), headers={"Content-Type": "application/json"})
    assert answer.status == 200, server.log
    return answer.json()


@pytest.mark.row("H1")
def test_the_one_class_of_a_module_serves(server: Running) -> None:
    assert server.ask("/predictions/single", "x").text == "single: x"


def wait_until_said(server: Running, name: str, *phrases: str) -> None:
    """Register a model whose worker cannot load it, and wait until the log has all of the phrases."""
    begin = len(server.lines)
    assert server.manage("POST", f"/models?url={name}.mar&initial_workers=1&synchronous=true").status == 500
    for phrase in phrases:
        until(f"the log says {phrase}", lambda wanted=phrase: any(wanted in line for line in server.lines[begin:]))
    server.manage("DELETE", f"/models/{name}/1.0")


@pytest.mark.row("H1")
def test_two_classes_are_none(server: Running) -> None:
    wait_until_said(server, "two", "Expected only one class in custom service code or a function entry point")


@pytest.mark.row("H2", "H12")
def test_a_named_function_is_called_without_data_first(server: Running) -> None:
    answer = server.ask("/predictions/named", "x")

    assert answer.json() == {"words": "two", "beside": 1, "first": None, "is_here": [True, True], "child": "1\n"}


@pytest.mark.row("H3")
def test_a_built_in_name_is_found(server: Running) -> None:
    assert [worker["status"] for worker in server.wait_for_workers("base", 1)] == ["READY"]
    # Its rows are mappings, which it makes no tensor of: it serves inside of an envelope, or is inherited from.
    assert server.ask("/predictions/base", "x").status == 503


@pytest.mark.row("H3")
def test_an_import_that_fails_is_told_as_it_is(server: Running, product: Product) -> None:
    said = ["No module named 'nosuchmodule'"]
    if product.is_genuine:  # it looks for a built-in one of that name then, and ends with not having found it
        said.append("No module named 'ts.torch_handler.service'")
    wait_until_said(server, "broken", *said)

    assert product.is_genuine or "ts.torch_handler.service" not in server.log


@pytest.mark.row("H4", "E26")
def test_everything_that_a_context_has_and_does(server: Running) -> None:
    headers = {"X-Some": "v", "Content-Type": "application/json", "ts_request_sequence_id": "s1"}
    answer = server.ask("/predictions/told/1.0/a/b?x=y", '{"a": 1}', headers=headers)

    assert (answer.status, answer.headers["X-First"], answer.headers["X-Second"]) == (297, "1", "2")
    assert answer.headers["content-type"] == "application/x-told"
    id = answer.headers["x-request-id"]
    told = answer.json()
    all_headers = told.pop("get_all_request_header")
    given = {**headers, "body": {"content-type": "application/json"}, "explain": "False", "url_path": "a/b"}
    assert given.items() <= all_headers.items()
    set_headers = {"X-First": "1", "X-Second": "2", "content-type": "application/x-told"}
    model = {"modelName": "told", "modelVersion": "1.0", "handler": "service.py", "configFile": "model-config.yaml"}
    assert told == {
        "class": told["class"],
        "calls": ["None", 1],
        "model_name": "told",
        "manifest": {
            "createdOn": "01/01/2026 00:00:00",
            "runtime": "python",
            "model": model,
            "archiverVersion": "0.12.0",
        },
        "system_properties": {
            "model_dir": True,
            "gpu_id": None,
            "batch_size": 1,
            "server_name": "MMS",
            "server_version": "0.12.0",
            "limit_max_image_pixels": True,
        },
        "request_ids": {"0": id},
        "processors": told["processors"],
        "metrics": ["told", {"0": id}],
        "model_yaml_config": {"minWorkers": 1, "maxWorkers": 1, "handler": {"colour": "red"}},
        "stopping_criteria": None,
        "has_cl_socket": True,
        "header_keys": ["ts_request_sequence_id", "ts_request_sequence_start", "ts_request_sequence_end"],
        "get_sequence_id": "s1",
        "get_request_id": [id, id, None],
        "get_request_header": {
            "X-Some": "v",
            "explain": "False",
            "url_path": "a/b",
            "body": {"content-type": "application/json"},
            "nosuch": None,
        },
        "get_response_content_type": "application/x-told",
        "get_response_status": [299, "Quite Well"],
        "get_response_headers": set_headers,
        "processor": ["v", True, 299, "Quite Well", set_headers, "1", None],
        "set_all_response_status": [298, "All Well"],
        "report_status": [297, None],
    }
    assert told["class"].endswith("context.Context")
    assert [name.rpartition(".")[2] for name in told["processors"]] == ["RequestProcessor"]


@pytest.mark.row("E26")
def test_an_answer_has_no_content_type_that_nobody_set(server: Running) -> None:
    assert "content-type" not in {name.lower() for name in server.ask("/predictions/single", "x").headers}


@pytest.mark.row("H5")
@pytest.mark.parametrize(
    "model",
    [
        {"modelFile": "net.py", "serializedFile": "net.pth"},
        {"serializedFile": "script.pt"},
        {"serializedFile": "graph.onnx"},
    ],
    ids=["state dict", "TorchScript", "ONNX"],
)
def test_every_form_of_weights_answers(server: Running, model: dict[str, str]) -> None:
    assert lab(server, do="weights", model=model, rows=ROWS) == ANSWERS


@pytest.mark.row("H5")
def test_weights_of_no_known_form_are_none(server: Running) -> None:
    said = lab(server, do="weights", model={"serializedFile": "words.txt"}, rows=ROWS)

    assert said == {"error": "RuntimeError: No model weights could be loaded"}


@pytest.mark.row("H6")
@pytest.mark.parametrize(
    ("config", "compiled"),
    [
        ("eager", True),
        ("nosuchbackend", False),
        ({"backend": "eager", "dynamic": False}, True),
        ({"compile": {"enable": True, "backend": "eager"}}, True),
        ({"compile": {"enable": False, "backend": "eager"}}, False),
        ({"export": {"aot_compile": False}}, False),
    ],
)
def test_what_pt2_asks_for(server: Running, config: object, compiled: bool) -> None:
    kind, _ = lab(server, do="pt2", config=config)

    assert kind == ("OptimizedModule" if compiled else "Net")


@pytest.mark.row("H6")
def test_a_compiled_model_answers_the_same(server: Running) -> None:
    config = {"compile": {"enable": True, "backend": "eager"}}

    assert lab(server, do="pt2", config=config, rows=ROWS) == ["OptimizedModule", ANSWERS]


@pytest.mark.row("H7")
@pytest.mark.parametrize(
    "mapping",
    [
        {"0": "cat", "1": "dog"},
        {"0": ["n0", "cat"], "1": ["n1", "dog"]},
        {"object_type_names": ["cat", "dog"]},
    ],
)
def test_the_three_forms_of_labels(server: Running, mapping: object) -> None:
    assert lab(server, do="labels", mapping=mapping) == [{"cat": 0.25, "dog": 0.75}]


@pytest.mark.row("H9")
@pytest.mark.parametrize(("target", "weights"), [(None, WEIGHTS[0]), (2, WEIGHTS[2])])
def test_an_explanation_is_of_the_target_and_has_the_inputs_shape(
    server: Running, target: int | None, weights: list[float]
) -> None:
    row = {"data": [1.0, 2.0], **({"target": target} if target else {})}

    assert lab(server, do="explained", rows=[row]) == [[weights[0], 2 * weights[1]]]


@pytest.mark.row("H10")
@pytest.mark.parametrize(
    ("envelope", "sent", "seen", "answered"),
    [
        ("body", {"a": 1}, [{"a": 1}], {"got": {"a": 1}}),
        (
            "json",
            {"instances": [{"b64": base64.b64encode(b"one").decode()}, {"n": 2}]},
            ["one", {"n": 2}],
            {"predictions": [{"got": "one"}, {"got": {"n": 2}}]},
        ),
        (
            "kserve",
            {"instances": [1, {"data": 2}]},
            [1, {"data": 2}],
            {"predictions": [{"got": 1}, {"got": {"data": 2}}]},
        ),
    ],
)
def test_envelopes_open_a_body_and_close_the_answer(
    house: House, envelope: str, sent: object, seen: list[object], answered: object
) -> None:
    house.archive(
        "open",
        "def handle(data, context):\n"
        "    if data is None:\n        return None\n"
        "    rows = [row.decode() if isinstance(row, (bytes, bytearray)) else row for row in data]\n"
        "    print('SEEN', rows, flush=True)\n"
        "    return [{'got': row} for row in rows]\n",
    )
    server = house.start("open.mar", settings={"service_envelope": envelope})

    answer = server.ask("/predictions/open", json.dumps(sent), headers={"Content-Type": "application/json"})

    assert answer.status == 200, server.log
    assert answer.json() == answered
    assert server.wait_for_line(r"SEEN (.*)$").group(1) == str(seen)


@pytest.mark.row("H13")
@pytest.mark.parametrize("parallelism", [{}, {"preprocess": 2, "inference": 2}])
def test_a_batch_in_small_parts_answers_as_a_whole_one(server: Running, parallelism: dict[str, int]) -> None:
    whole, parts = lab(server, do="micro", rows=[*ROWS, *ROWS, ROWS[0]], size=2, parallelism=parallelism)

    assert parts == whole == [*ANSWERS, *ANSWERS, ANSWERS[0]]


@pytest.mark.row("H13")
def test_steps_are_timed_where_the_archive_asks_for_it(server: Running) -> None:
    seen = lab(server, do="timed", rows=ROWS)

    assert seen == ["ts_handler_preprocess", "ts_handler_inference", "ts_handler_postprocess", "HandlerTime"]


@pytest.mark.row("H13")
def test_the_profiler_leaves_a_trace_of_each_batch(server: Running) -> None:
    try:
        assert lab(server, do="profiled", rows=ROWS) == [ANSWERS, [True]]
    finally:
        shutil.rmtree(Path("/tmp/pytorch_profiler/lab"), ignore_errors=True)


@pytest.mark.row("H15")
def test_an_archive_of_old_works(server: Running) -> None:
    answer = server.ask("/predictions/old", "x", headers={"Content-Type": "text/plain"})

    assert (answer.status, answer.headers["X-Old"]) == (201, "yes")
    assert answer.json() == {"kind": "text/plain", "properties": True}


def picture() -> str:
    """Return a green picture as PNG, in base64."""
    buffer = io.BytesIO()
    Image.new("RGB", (260, 260), (0, 255, 0)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.row("H8")
def test_the_shapes_of_what_built_in_handlers_of_pictures_answer(server: Running, product: Product) -> None:
    if product.is_genuine:
        return  # these need torchvision and captum, and its environment has neither
    labels = {"0": "red", "1": "green", "2": "blue"}
    asked = {"do": "built_in", "body": picture(), "labels": labels}

    (classes,) = lab(server, module="image_classifier", name="ImageClassifier", weights="classes.pt", **asked)
    (pixels,) = lab(server, module="image_segmenter", name="ImageSegmenter", weights="segments.pt", **asked)
    (objects,) = lab(server, module="object_detector", name="ObjectDetector", weights="objects.pt", **asked)

    assert list(classes) == ["green", "blue", "red"]
    assert math.isclose(sum(classes.values()), 1.0, rel_tol=1e-5)
    assert (len(pixels), len(pixels[0])) == (224, 224)
    assert pixels[0][0] == pytest.approx([1.0, math.e / (1 + math.e)])
    assert [set(each) for each in objects] == [{"green", "score"}]
    assert objects[0]["green"] == [1.0, 2.0, 3.0, 4.0]
