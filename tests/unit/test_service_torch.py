"""PyTorch weights are served in each of their forms, and what is wrong with them is said plainly."""

import sys
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from marserve.archive.tensors import TensorSpec
from marserve.errors import InvalidData, LoadError
from marserve.service.context import Context
from marserve.service.inputs import Inputs
from marserve.service.torch import TorchService

MODEL = """
import torch
from torch import nn
from torch.nn import Linear

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = Linear(2, 2, bias=False)
        self.dropout = nn.Dropout(0.9)
    def forward(self, x):
        return self.dropout(self.linear(x))
"""


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2, bias=False)
        self.linear.weight.data = torch.tensor([[2.0, 0.0], [0.0, 3.0]])

    def forward(self, x):
        return self.linear(x)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """Put back paths, modules and threads that loading a model changes."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    threads = torch.get_num_threads()
    yield
    sys.modules.pop("net", None)
    torch.set_num_threads(threads)


def loaded(
    folder, weights, model_file="", specs=(("x", (2,), "float32"),), output_names=(), threads=1, cls=TorchService
):
    service = cls()
    service.inputs = Inputs([TensorSpec(*spec) for spec in specs]) if specs else None
    service.output_names = list(output_names)
    model = {"serializedFile": weights} if weights else {}
    if model_file:
        model["modelFile"] = model_file
    service.initialize(Context("m", str(folder), {"model": model}, thread_count=threads))
    return service


def rows(*values):
    return [{"body": value} for value in values]


def scripted(folder, module, name="m.pt"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(folder / name))
    return name


def exported(folder, module, example, **dynamic):
    torch.export.save(torch.export.export(module.eval(), example, **dynamic), folder / "m.pt2")
    return "m.pt2"


def state_dict(folder):
    torch.save(Net().state_dict(), folder / "m.pt")
    return "m.pt"


def safe_tensors(folder):
    save_file(Net().state_dict(), folder / "m.safetensors")
    return "m.safetensors"


@pytest.mark.parametrize("save", [state_dict, safe_tensors])
def test_weights_with_a_model_file(tmp_path, save):
    (tmp_path / "net.py").write_text(MODEL)
    service = loaded(tmp_path, save(tmp_path), "net.py")
    assert service.handle(rows({"x": [1, 1]}, {"x": [2, 0]}), None) == [[2.0, 3.0], [4.0, 0.0]]


def test_torchscript(tmp_path):
    service = loaded(tmp_path, scripted(tmp_path, Net()))
    assert service.handle(rows([1, 1]), None) == [[2.0, 3.0]]


def test_an_exported_program_with_a_free_batch(tmp_path):
    name = exported(tmp_path, Net(), (torch.zeros(2, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    service = loaded(tmp_path, name)
    assert service.takes_one is False
    assert service.handle(rows([1, 1], [2, 2], [3, 3]), None) == [[2, 3], [4, 6], [6, 9]]


def test_an_exported_program_for_one_runs_item_by_item(tmp_path):
    service = loaded(tmp_path, exported(tmp_path, Net(), (torch.zeros(1, 2),)))
    assert service.takes_one is True
    assert service.handle(rows([1, 1], [2, 2]), None) == [[2, 3], [4, 6]]


def test_an_exported_program_for_a_fixed_batch_is_refused(tmp_path):
    name = exported(tmp_path, Net(), (torch.zeros(4, 2),))
    with pytest.raises(LoadError, match="batch of exactly 4") as caught:
        loaded(tmp_path, name)
    assert "dynamic_shapes" in caught.value.hint


class Two(torch.nn.Module):
    def forward(self, a, b):
        return a + b, a - b


class Named(torch.nn.Module):
    def forward(self, a):
        return {"sum": a.sum(1), "first": a[:, 0]}


def test_several_inputs_and_outputs(tmp_path):
    specs = (("a", (), "float32"), ("b", (), "float32"))
    name = scripted(tmp_path, Two())
    two = rows({"a": 5, "b": 2}, {"b": 1, "a": 1})
    assert loaded(tmp_path, name, specs=specs).handle(two, None) == [[7.0, 3.0], [2.0, 0.0]]
    named = loaded(tmp_path, name, specs=specs, output_names=["plus", "minus"])
    assert named.handle(two, None) == [{"plus": 7.0, "minus": 3.0}, {"plus": 2.0, "minus": 0.0}]
    service = loaded(tmp_path, scripted(tmp_path, Named(), "n.pt"))
    assert service.handle(rows([1, 2], [3, 4]), None) == [{"sum": 3.0, "first": 1.0}, {"sum": 7.0, "first": 3.0}]


def test_items_of_different_shapes_run_one_by_one(tmp_path):
    service = loaded(tmp_path, scripted(tmp_path, Named()), specs=(("a", (0,), "float32"),))
    assert service.handle(rows([1], [2, 3]), None) == [{"sum": 1.0, "first": 1.0}, {"sum": 5.0, "first": 2.0}]


def test_without_a_signature_the_body_is_the_input(tmp_path):
    service = loaded(tmp_path, scripted(tmp_path, Net()), specs=None)
    assert service.handle(rows([1.0, 1.5]), None) == [[2.0, 4.5]]
    for body in ("text", {"x": [1]}, [[1.0], [1.0, 2.0]]):
        with pytest.raises(InvalidData, match="expected numbers"):
            service.handle(rows(body), None)


def test_an_author_may_give_arrays_or_tensors(tmp_path):
    service = loaded(tmp_path, scripted(tmp_path, Net()))
    for batch in (np.ones((2, 2), np.float32), torch.ones(2, 2)):
        output = service.inference(batch)
        assert output.tolist() == [[2.0, 3.0]] * 2
        assert output.requires_grad is False


def test_threads_are_set_from_the_context_and_zero_leaves_them(tmp_path):
    name = scripted(tmp_path, Net())
    loaded(tmp_path, name, threads=2)
    assert torch.get_num_threads() == 2
    loaded(tmp_path, name, threads=0)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Net: ...", "it defines: none"),
        (MODEL + "class Other(nn.Module): ...", "it defines: Net, Other"),
        (MODEL.replace("(self):\n        super", "(self, size):\n        super"), "Net of net.py cannot be made"),
        (MODEL.replace("Linear(2, 2", "Linear(2, 3"), "size mismatch"),
    ],
)
def test_a_model_file_that_does_not_fit_is_refused(tmp_path, text, said):
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(LoadError, match=said):
        loaded(tmp_path, state_dict(tmp_path), "net.py")


def test_weights_that_are_something_else_are_refused_with_what_to_do(tmp_path):
    (tmp_path / "net.py").write_text(MODEL)
    torch.save(Net(), tmp_path / "whole.pt")
    for weights, model_file, hint in [
        ("whole.pt", "net.py", "state_dict()"),
        (state_dict(tmp_path), "", "--model-file"),
        (safe_tensors(tmp_path), "", "--model-file"),
    ]:
        with pytest.raises(LoadError) as caught:
            loaded(tmp_path, weights, model_file)
        assert hint in caught.value.hint
    (tmp_path / "bad.pt2").write_bytes(b"")
    with pytest.raises(LoadError, match=r"bad\.pt2 cannot be loaded"):
        loaded(tmp_path, "bad.pt2")


def test_a_missing_torch_is_told_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(LoadError) as caught:
        loaded(tmp_path, "m.pt")
    assert "marserve[torch]" in caught.value.hint
