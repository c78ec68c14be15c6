"""``BaseHandler``: weights of every form, the three steps, timers, profiles, compilation, small parts of a batch."""

import sys
import threading
from textwrap import dedent
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from ts_modules import asked, context_of, module, reported

from marserve.service.context import RequestInfo
from marserve.worker.batch import run_batch

base_handler = module("torch_handler.base_handler")
BaseHandler = base_handler.BaseHandler

MODEL = """
    import torch

    class Helper:
        pass

    class Doubled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return x * self.factor
"""


class Doubled(nn.Module):
    def forward(self, x):
        return x * 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("model", None)


def write_state(folder, text=MODEL):
    (folder / "model.py").write_text(dedent(text))
    torch.save({"factor": torch.tensor(2.0)}, folder / "model.pt")


def write_script(folder, name="model.pt"):
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.trace(Doubled(), torch.ones(1, 2)), folder / name)


def write_exported(folder, name="model.pt2"):
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Doubled(), (torch.ones(2, 2),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / name)


def write_onnx(folder, name="model.onnx"):
    from onnx import TensorProto, helper, save

    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [given], [answer])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / name)


def loaded(folder, serialized="model.pt", cls=BaseHandler, config=None, **model):
    context = context_of(folder, config=config, serializedFile=serialized, **model)
    handler = cls()
    handler.initialize(context)
    return handler, context


@pytest.mark.parametrize(
    ("write", "name", "model"),
    [
        (write_state, "model.pt", {"modelFile": "model.py"}),
        (write_script, "model.pt", {}),
        (write_exported, "model.pt2", {}),
        (write_onnx, "model.onnx", {}),
    ],
)
def test_every_form_of_weights_answers(folder, write, name, model):
    write(folder)

    handler, context = loaded(folder, name, **model)

    assert handler.handle([[1.0, 2.0], [3.0, 4.0]], context) == [[2.0, 4.0], [6.0, 8.0]]
    assert handler.initialized is True
    assert str(handler.get_device()) == "cpu"


def test_a_model_file_without_weights_is_a_model_too(folder):
    (folder / "model.py").write_text(dedent(MODEL))
    context = context_of(folder, modelFile="model.py")
    handler = BaseHandler()
    handler.initialize(context)

    assert handler.handle([[3.0]], context) == [[3.0]]


def test_a_model_whose_train_returns_nothing_is_served(folder):
    write_state(folder, MODEL + "\n        def train(self, mode=True):\n            super().train(mode)\n")

    handler, context = loaded(folder, modelFile="model.py")

    assert handler.handle([[3.0]], context) == [[6.0]]
    assert not handler.model.training


def test_weights_of_no_known_form_are_refused(folder):
    with pytest.raises(RuntimeError, match="No model weights could be loaded"):
        loaded(folder, "model.bin")
    with pytest.raises(RuntimeError, match=r"Missing the model\.py file"):
        loaded(folder, modelFile="model.py")


def test_a_shared_library_needs_to_be_asked_for(folder, monkeypatch):
    with pytest.raises(RuntimeError, match="No model weights"):
        loaded(folder, "model.so")
    monkeypatch.setattr(torch._export, "aot_load", lambda path, kind: (path, kind), raising=False)

    handler, _ = loaded(folder, "model.so", config={"pt2": {"export": {"aot_compile": True}}})

    assert handler.model == (str(folder / "model.so"), "cpu")


def test_two_models_in_one_file_are_refused(folder):
    write_state(folder, MODEL + "\n    class Other(Doubled):\n        pass\n")

    with pytest.raises(ValueError, match="Expected only one class as model definition"):
        loaded(folder, modelFile="model.py")


def test_a_batch_reports_its_times(folder):
    write_script(folder)
    handler, context = loaded(folder)

    handler.handle([[1.0]], context)

    assert set(reported(context)) == {"HandlerTime"}


def test_steps_are_timed_when_the_archive_asks_for_it(folder):
    write_script(folder)
    handler, context = loaded(folder, config={"handler": {"profile": True}})

    handler.handle([[1.0]], context)

    steps = {f"ts_handler_{name}" for name in ("preprocess", "inference", "postprocess")}
    assert set(reported(context)) == steps | {"HandlerTime"}


def test_an_explanation_gets_the_target_of_the_first_request(folder):
    class Explaining(BaseHandler):
        def preprocess(self, data):
            return torch.ones(len(data), 1)

        def get_insights(self, tensor_data, raw_data, target=0):
            return [[raw_data, target]]

    write_script(folder)
    handler, context = loaded(folder, cls=Explaining)
    asked(context, b"explain", b"True")

    for target in (3, "cat", [1, 2], b"3"):  # what it means is the author's affair
        assert handler.handle([{"body": "text", "target": target}], context) == [["text", target]]
    assert handler.handle([{"data": "text"}], context) == [["text", 0]]
    assert handler.explain is True


def test_a_handler_that_explains_nothing_says_so(folder):
    write_script(folder)
    handler, context = loaded(folder)
    asked(context, b"explain", b"True")

    with pytest.raises(NotImplementedError, match="BaseHandler explains nothing"):
        handler.handle([[1.0]], context)


def test_a_description_takes_the_place_of_a_prediction(folder):
    class Described(BaseHandler):
        def describe_handle(self):
            return {"made": "by hand"}

    write_script(folder)
    handler, context = loaded(folder, cls=Described)
    asked(context, b"describe", b"True")

    assert handler.handle([{"body": b""}], context) == [{"made": "by hand"}]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_profile_is_taken_of_every_batch_when_the_environment_says_so(folder, monkeypatch):
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "1")
    monkeypatch.setattr(base_handler, "PROFILER_FOLDER", str(folder / "traces"))
    write_script(folder)
    handler, context = loaded(folder)

    assert handler.handle([[1.0]], context) == [[2.0]]
    assert len(list((folder / "traces" / "m").glob("*.json"))) == 1


def test_arguments_of_the_profiler_may_be_the_authors(folder, monkeypatch):
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "1")
    write_script(folder)
    handler, context = loaded(folder)
    seen = []
    handler.profiler_args = {"on_trace_ready": lambda found: seen.append(found.key_averages())}

    handler.handle([[1.0]], context)

    names = {event.key for event in seen[0]}
    assert {"preprocess", "inference", "postprocess"} <= names


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        ("eager", {"backend": "eager"}),
        ({"backend": "eager", "mode": "default"}, {"backend": "eager", "mode": "default"}),
        ({"compile": {"enable": True, "backend": "eager"}}, {"backend": "eager"}),
        ({"compile": {"enable": True}}, {}),
        ({"compile": {"enable": False, "backend": "eager"}}, None),
        ({"export": {"aot_compile": True}}, None),
        ("no_such_backend", None),
    ],
)
def test_what_pt2_asks_for(setting, options):
    config = {"pt2": setting}

    assert module("torch_handler.compiling").compile_options(config) == options
    assert config == {"pt2": setting}


def test_pt2_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="pt2 should be str or dict"):
        module("torch_handler.compiling").compile_options({"pt2": 3})


def test_a_compiled_model_answers_the_same(folder):
    write_state(folder)

    handler, context = loaded(
        folder, modelFile="model.py", config={"pt2": {"compile": {"enable": True, "backend": "eager"}}}
    )

    assert type(handler.model).__name__ == "OptimizedModule"
    assert handler.handle([[1.0]], context) == [[2.0]]


def test_a_model_that_cannot_be_compiled_is_served_as_it_is(folder, caplog):
    write_state(folder)

    handler, context = loaded(folder, modelFile="model.py", config={"pt2": {"no_such_argument": 1}})

    assert "compiling it with no_such_argument 1 failed" in caplog.text
    assert handler.handle([[1.0]], context) == [[2.0]]


class Micro(BaseHandler):
    size = 2

    def initialize(self, context):
        super().initialize(context)
        self.seen = []
        self.handle = module("handler_utils.micro_batching").MicroBatching(self, self.size, {"preprocess": 2})

    def preprocess(self, data):
        self.seen.append((self.handle.get_micro_batch_idx(), len(data), threading.current_thread()))
        return super().preprocess([row["body"] for row in data])


def test_a_batch_in_small_parts_answers_the_same(folder):
    write_script(folder)
    handler, context = loaded(folder, cls=Micro)
    rows = [{"body": [float(number)]} for number in range(5)]

    answers = handler.handle(rows, context)
    handler.handle.shutdown()

    assert answers == [[0.0], [2.0], [4.0], [6.0], [8.0]]
    assert sorted(part[:2] for part in handler.seen) == [(0, 2), (1, 2), (2, 1)]
    assert threading.current_thread() not in {part[2] for part in handler.seen}
    assert set(reported(context)) == {"HandlerTime"}


def test_a_batch_in_small_parts_of_a_handler_of_any_class(folder):
    steps = {"preprocess": list, "inference": list, "postprocess": lambda rows: [len(rows)] * len(rows)}
    asked_for = {"_is_describe": lambda: False, "_is_explain": lambda: False}
    context = context_of(folder)
    parts = module("handler_utils.micro_batching").MicroBatching(SimpleNamespace(**steps, **asked_for), 2)

    assert parts([1, 2, 3], context) == [2, 2, 1]

    parts.shutdown()


def test_what_a_part_raises_is_raised_to_the_caller(folder):
    write_script(folder)
    handler, context = loaded(folder, cls=Micro)

    with pytest.raises(KeyError, match="body"):
        handler.handle([{"body": [1.0]}, {}], context)

    assert handler.handle([{"body": [1.0]}], context) == [[2.0]]
    handler.handle.shutdown()


def test_the_threads_of_a_step_can_be_changed(folder):
    write_script(folder)
    handler, context = loaded(folder, cls=Micro)

    handler.handle.parallelism = {"inference": 3}

    assert handler.handle.parallelism == {"preprocess": 2, "inference": 3, "postprocess": 1}
    assert handler.handle([{"body": [1.0]}], context) == [[2.0]]
    with pytest.raises(ValueError, match="decode: 1 threads"):
        handler.handle.parallelism = {"decode": 1}
    handler.handle.shutdown()


def test_a_saved_tensor_is_answered_with_the_models_output(folder, tmp_path):
    write_script(folder)
    handler, context = loaded(folder, cls=module("torch_handler.densenet_handler").DenseNetHandler)
    torch.save(torch.tensor([1.0, 2.0]), tmp_path / "body")

    (answer,) = handler.handle([{"body": (tmp_path / "body").read_bytes()}], context)

    assert answer.tolist() == [[2.0, 4.0]]


def test_a_mock_context_serves_unit_tests_of_handlers(folder):
    write_state(folder)
    MockContext = module("torch_handler.unit_tests.test_utils.mock_context").MockContext
    (folder / "config.yaml").write_text("handler:\n  profile: true\n")
    context = MockContext(model_dir=str(folder), model_yaml_config_file="config.yaml")
    handler = BaseHandler()

    handler.initialize(context)

    assert handler.handle([[1.0], [2.0]], context) == [[2.0], [4.0]]
    assert "ts_handler_inference" in {record.name for record in context.metrics.store}


def test_a_built_in_name_and_a_subclass_are_found_in_an_archive(folder, monkeypatch):
    from marserve.archive.manifest import Manifest
    from marserve.worker.loader import load_entry, stand_in
    from marserve.worker.steps import NoSteps

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(folder)
    stand_in(folder)
    write_script(folder)
    (folder / "svc.py").write_text(
        dedent(
            """
            from ts.torch_handler.base_handler import BaseHandler
            from ts.torch_handler.image_classifier import ImageClassifier

            class Mine(BaseHandler):
                def preprocess(self, data):
                    return super().preprocess([row["body"] for row in data])
            """
        )
    )
    context = context_of(folder, serializedFile="model.pt")
    for handler, envelope in (("base_handler", "body"), ("svc.py", "")):
        entry = load_entry(folder, Manifest(), handler, context, NoSteps(), envelope)
        request = RequestInfo("id", (), (), [(b"body", b"application/json", b"[1, 2]")])
        (outcome,) = run_batch(entry, context, [request], "torchserve", NoSteps())
        assert outcome.error is None
        assert outcome.body.split() == b"[ 2, 4 ]".split()
    sys.modules.pop("svc")
