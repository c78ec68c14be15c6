"""``marserve export`` in every form: what it writes is served, and what answers otherwise is not written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import marserve
from live import serving
from marserve.cli.main import main

NETWORKS = '''
import torch
from torch import nn


class Net(nn.Module):
    """Two layers; the second is held under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 4)
        self.again = self.second
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.again(self.dropout(torch.relu(self.first(x))))


class Pair(nn.Module):
    def forward(self, left, right):
        return {"sum": left + right, "larger": left > right}


class Branch(nn.Module):
    """Takes one of two ways, depending on its input."""

    def forward(self, x):
        if bool(x.sum() > 0):
            return x * 2
        return x - 1


class Exported(nn.Module):
    """Answers otherwise, in one number, while it is exported."""

    def forward(self, x):
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            return x + torch.tensor([0.0, 0.25, 0.0])
        return x


class Lengths(nn.Module):
    """Adds up a sequence of any length, word by word."""

    def forward(self, words):
        total = torch.zeros_like(words[:, 0])
        for at in range(words.shape[1]):
            total = total + words[:, at] * (at + 1)
        return total


class Random(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class OneByOne(nn.Module):
    def forward(self, x):
        return x.reshape(1, 3) * 2


class Half(nn.Module):
    """Does not take what is negative."""

    def forward(self, x):
        if not torch.compiler.is_exporting() and bool((x < 0).any()):
            raise ValueError("negative")
        return x.sqrt()


class InPlace(nn.Module):
    """Changes what it is given."""

    def forward(self, x):
        x += 1
        return x


class Needy(nn.Module):
    def __init__(self, size):
        super().__init__()


def net():
    return Net()


def nothing():
    return 3
'''


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what loading a model's file changes in this process."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in {"nets", "_nets", "network"} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """A Python file with networks, in a folder of its own."""
    (tmp_path / "src").mkdir()
    file = tmp_path / "src" / "nets.py"
    file.write_text(NETWORKS)
    return file


@pytest.fixture
def weights(nets: Path) -> Path:
    """Weights of ``Net`` that no seed gives."""
    sys.path.insert(0, str(nets.parent))
    from nets import Net

    torch.manual_seed(77)
    path = nets.with_name("weights.pt")
    torch.save(Net().state_dict(), path)
    return path


def export(model: object, form: str, *flags: object, to: Path | None = None) -> int:
    where = ["--output", str(to)] if to else []
    return main(["export", str(model), "--to", form, *where, *map(str, flags)])


EXAMPLE = ("--example", '{"x": [[0.5, -1.25, 3.0]]}')
X = torch.tensor([[0.5, -1.25, 3.0], [2.0, 1.0, -0.5]])


def answers(weights: Path) -> list[list[float]]:
    """What ``Net`` with these weights answers to ``X``, called directly."""
    from nets import Net

    model = Net().eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    with torch.no_grad():
        return model(X).tolist()


def loaded_script(path: Path) -> Any:
    """Load TorchScript, whose age torch warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(path)


FORMS = {"onnx": "nets.onnx", "torchscript": "nets.pt", "pt2": "nets.pt2", "safetensors": "nets.safetensors"}


def test_every_form_packs_with_its_signature_and_is_served(
    nets: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    (tmp_path / "touched").touch()
    readable = (tmp_path / "touched").stat().st_mode & 0o777
    for form, name in FORMS.items():
        folder = tmp_path / form
        assert export(f"{nets}:Net", form, *EXAMPLE, "--weights", weights, to=folder) == 0, capsys.readouterr().err
        assert sorted(path.name for path in folder.iterdir()) == sorted([name, "signature.json"])
        told = capsys.readouterr()
        assert told.out.splitlines()[:2] == [str(folder / name), str(folder / "signature.json")]
        assert "answers 11 inputs as the original does" in told.out
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {readable}
        assert ("opset" in told.err) == (form == "onnx")
        assert ("again.weight" in told.err) == (form == "safetensors")
        if form == "safetensors":  # weights alone need the file with the one module that they are of
            text = NETWORKS.partition("class Pair")[0]
            (folder / "network.py").write_text(text)
        handler = "onnx_service" if form == "onnx" else "torch_service"
        packed = ["archive", "create", str(folder), "--model-name", form, "--handler", handler]
        assert main([*packed, "--output", str(store)]) == 0
        capsys.readouterr()
    wanted = answers(weights)
    with serving(store, "all") as server:
        for form in FORMS:
            got = [server.predict(form, {"x": row}) for row in X.tolist()]
            assert [answer.status_code for answer in got] == [200, 200], got[0].text
            np.testing.assert_allclose([answer.json() for answer in got], wanted, rtol=1e-4, atol=1e-5)
            refused = server.predict(form, {"x": [1.0, 2.0]})
            assert (refused.status_code, refused.json()["type"]) == (400, "InvalidData")


def test_the_signature_says_what_goes_in_and_comes_out(nets: Path, weights: Path, tmp_path: Path) -> None:
    assert export(f"{nets}:Net", "torchscript", *EXAMPLE, "--weights", weights, to=tmp_path / "out") == 0
    signature = json.loads((tmp_path / "out" / "signature.json").read_text())
    (made,) = signature["outputs"]
    assert signature["inputs"] == [{"name": "x", "shape": [3], "data_type": "float32", "example": [0.5, -1.25, 3.0]}]
    assert (made["name"], made["shape"], made["data_type"]) == ("body", [4], "float32")
    np.testing.assert_allclose(made["example"], answers(weights)[0], rtol=1e-5)


@pytest.mark.parametrize("form", ["onnx", "torchscript", "pt2"])
def test_several_inputs_and_outputs_keep_names_types_and_order(
    nets: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    example = '{"left": [[1, 2], [3, 4]], "right": [[2, 2], [2, 2]]}'
    assert export(f"{nets}:Pair", form, "--example", example, to=tmp_path / form) == 0, capsys.readouterr().err
    signature = json.loads((tmp_path / form / "signature.json").read_text())
    assert [(each["name"], each["shape"], each["data_type"]) for each in signature["inputs"]] == [
        ("left", [2], "int64"),
        ("right", [2], "int64"),
    ]
    assert [(each["name"], each["example"]) for each in signature["outputs"]] == [
        ("sum", [3, 4]),
        ("larger", [False, False]),
    ]
    handler = "onnx_service" if form == "onnx" else "torch_service"
    packed = ["archive", "create", str(tmp_path / form), "--handler", handler, "--output", str(tmp_path / "store")]
    assert main(packed) == 0
    with marserve.load(tmp_path / "store" / f"{form}.mar", batch_size=8) as archive:
        got = archive.predict_batch([{"left": [at, 5], "right": [3, 4]} for at in range(8)])
    assert got == [{"sum": [at + 3, 9], "larger": [at > 3, True]} for at in range(8)]


def test_a_trace_that_left_a_branch_out_is_not_written(
    nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--example", "[[0.5, 1.0, 2.0]]")
    assert export(f"{nets}:Branch", "torchscript", *flags, to=tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "The tracer warns: nets.py, line" in told
    assert "Converting a tensor to a Python boolean" in told
    assert "The exported model answers" in told
    assert "of 11 inputs otherwise. Asked " in told
    assert "output 'output' at [0, " in told
    assert "off by " in told
    assert "--script keeps branches and loops" in told
    assert list((tmp_path / "out").iterdir()) == []

    assert export(f"{nets}:Branch", "torchscript", *flags, "--script", to=tmp_path / "out") == 0
    script = loaded_script(tmp_path / "out" / "nets.pt")
    assert script(torch.tensor([[1.0]])).item() == 2
    assert script(torch.tensor([[-1.0]])).item() == -2


def test_a_branch_cannot_be_had_in_an_exported_program_and_a_scripted_one_can_be_had_in_onnx(
    nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--example", "[[0.5, 1.0, 2.0]]")
    assert export(f"{nets}:Branch", "pt2", *flags, to=tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "ERROR - The model cannot be exported to pt2" in told
    assert "Branches that depend on the data need --script" in told
    assert export(f"{nets}:Branch", "onnx", *flags, "--script", to=tmp_path / "out") == 0, capsys.readouterr().err


@pytest.mark.parametrize("form", ["onnx", "torchscript", "pt2"])
def test_an_export_that_answers_otherwise_says_where_and_by_how_much(
    nets: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--example", "[[1.0, 1.0, 1.0]]", "--output-names", "scores")
    assert export(f"{nets}:Exported", form, *flags, to=tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "ERROR - The exported model answers 11 of 11 inputs otherwise." in told
    assert "output 'scores' at [" in told
    assert ", 1] is " in told
    assert "off by 0.25; " in told
    assert list((tmp_path / "out").iterdir()) == []
    assert export(f"{nets}:Exported", form, *flags, "--tolerance", "0.3", to=tmp_path / "out") == 0
    assert "the largest difference is 0.25 (output 'scores' at [" in capsys.readouterr().out


def test_a_loop_over_a_free_axis_is_found_out_when_traced_and_kept_when_scripted(
    nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--example-shape", "1,4", "--free", "words:1")
    assert export(f"{nets}:Lengths", "torchscript", *flags, to=tmp_path / "out") == 1
    assert "Asked free axes longer by 3: output 'output' at [0]" in capsys.readouterr().err
    assert export(f"{nets}:Lengths", "torchscript", *flags, "--script", to=tmp_path / "out") == 0
    signature = json.loads((tmp_path / "out" / "signature.json").read_text())
    assert signature["inputs"][0]["shape"] == [0]
    assert signature["outputs"][0]["shape"] == []


@pytest.mark.parametrize(
    ("model", "flags", "reason", "hint"),
    [
        ("Random", (), "answers the same input in two ways: output 'output' at", "a function of its inputs"),
        ("OneByOne", (), "The model itself fails on a batch of 3", "--fixed-batch"),
        ("Needy", (), "Needy of nets.py cannot be made: TypeError", "without arguments"),
        ("nothing", (), "nothing of nets.py gives int and no nn.Module", "without arguments"),
        ("Missing", (), "nets.py has no class Missing", "nn.Module"),
        ("Net", ("--dtype", "int64"), "The model itself fails on the example: RuntimeError", "--dtype float32"),
        ("Net", ("--weights", "/no/weights.pt"), "/no/weights.pt cannot be loaded into Net", "state_dict()"),
        ("Net", ("--output-names", "a,b"), "--output-names has 2 names, the model 1 outputs", "each of them"),
    ],
)
def test_what_cannot_be_exported_is_told_and_nothing_is_written(
    nets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: str,
    flags: tuple[str, ...],
    reason: str,
    hint: str,
) -> None:
    assert export(f"{nets}:{model}", "torchscript", "--example-shape", "1,3", *flags, to=tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert reason in told
    assert hint in told
    assert not list((tmp_path / "out").glob("*"))


def test_a_model_for_one_batch_alone_is_exported_when_that_is_asked_for(nets: Path, tmp_path: Path) -> None:
    flags = ("--example-shape", "1,3", "--fixed-batch")
    assert export(f"{nets}:OneByOne", "pt2", *flags, to=tmp_path / "out") == 0
    packed = ["archive", "create", str(tmp_path / "out"), "--handler", "torch_service", "--output", str(tmp_path)]
    assert main(packed) == 0
    with marserve.load(tmp_path / "out.mar", batch_size=2) as archive:
        assert archive.predict_batch([[1, 2, 3], [4, 5, 6]]) == [[2, 4, 6], [8, 10, 12]]


def test_inputs_that_the_model_itself_refuses_are_not_compared_and_told(
    nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--example", "[[4.0, 9.0]]", "--fixed-batch")
    assert export(f"{nets}:Half", "pt2", *flags, to=tmp_path / "out") == 0, capsys.readouterr().err
    told = capsys.readouterr()
    assert "drawn inputs are not compared. The model itself fails on drawn input" in told.err
    assert "ValueError (nets.py, line " in told.err
    assert ": negative" in told.err


@pytest.mark.parametrize("form", ["onnx", "torchscript", "pt2"])
def test_a_model_that_changes_its_input_is_asked_the_same_as_the_exported_one(
    nets: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--example", "[[1.0, 2.0]]")
    assert export(f"{nets}:InPlace", form, *flags, to=tmp_path / "out") == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "signature.json").read_text())["outputs"][0]["example"] == [2.0, 3.0]


def test_weights_are_kept_under_every_name(nets: Path, weights: Path, tmp_path: Path) -> None:
    assert export(f"{nets}:net", "safetensors", *EXAMPLE, "--weights", weights, to=tmp_path / "out") == 0
    kept = load_file(tmp_path / "out" / "nets.safetensors")
    state = torch.load(weights, weights_only=True)
    assert kept.keys() == state.keys()
    assert all(torch.equal(kept[name], value) for name, value in state.items())
    # And they are weights again.
    again = tmp_path / "out" / "nets.safetensors"
    assert export(f"{nets}:net", "torchscript", *EXAMPLE, "--weights", again, to=tmp_path / "script") == 0
    script = loaded_script(tmp_path / "script" / "nets.pt")
    np.testing.assert_allclose(script(X).detach().numpy(), answers(weights), rtol=1e-5)


def test_torchscript_can_be_exported_again_but_not_to_a_program(
    nets: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(f"{nets}:Net", "torchscript", *EXAMPLE, "--weights", weights, to=tmp_path / "a") == 0
    script = tmp_path / "a" / "nets.pt"
    assert export(script, "onnx", "--example", "[[0.5, 1.0, 2.0]]", to=tmp_path / "b") == 0, capsys.readouterr().err
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "b" / "nets.onnx"), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    np.testing.assert_allclose(answer, answers(weights), rtol=1e-4, atol=1e-5)
    assert export(script, "pt2", *EXAMPLE, to=tmp_path / "c") == 1
    assert "ScriptModule is not supported" in capsys.readouterr().err
    assert export(weights, "onnx", *EXAMPLE, to=tmp_path / "c") == 1
    assert f"FILE.py:CLASS --weights {weights}" in capsys.readouterr().err


def test_an_archive_of_another_library_is_refused(
    fizbuz_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = fizbuz_store / "fizbuz_package.mar"
    assert export(archive, "pt2", "--example-shape", "4,10", to=tmp_path / "out") == 1
    assert "0 files ending in .pt, .pth" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_archive_and_the_folder_that_it_is_packed_from_give_the_same(
    nets: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / "network.py").write_text(NETWORKS.partition("class Pair")[0])
    shutil.copy(weights, folder / "net.pt")
    assert main(["archive", "create", str(folder), "--handler", "torch_service", "--output", str(tmp_path)]) == 0
    for source in (folder, tmp_path / "packed.mar"):
        sys.modules.pop("network", None)
        out = tmp_path / f"from-{source.suffix.strip('.') or 'folder'}"
        assert export(source, "torchscript", *EXAMPLE, to=out) == 0, capsys.readouterr().err
        script = loaded_script(out / "packed.pt")
        np.testing.assert_allclose(script(X).detach().numpy(), answers(weights), rtol=1e-5)


def test_what_is_there_stays_as_it_is_unless_told_otherwise(
    nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "signature.json").write_text("mine")
    assert export(f"{nets}:Net", "torchscript", *EXAMPLE, to=out) == 1
    assert "signature.json exists already" in capsys.readouterr().err
    assert export(f"{nets}:Branch", "torchscript", "--example", "[[1.0]]", "--force", to=out) == 1
    assert [path.read_text() for path in out.iterdir()] == ["mine"]
    assert export(f"{nets}:Net", "torchscript", *EXAMPLE, "--force", to=out) == 0
    assert json.loads((out / "signature.json").read_text())["inputs"]


def test_the_command_tells_where_it_differs_and_ends_with_1(nets: Path) -> None:
    program = str(Path(sys.executable).with_name("marserve"))
    command = [program, "export", f"{nets}:Exported", "--to", "torchscript", "--example", "[[1.0, 1.0, 1.0]]"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "off by 0.25" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sorted(path.name for path in nets.parent.iterdir() if path.is_file()) == ["nets.py"]


def test_the_help_and_all_other_verbs_do_without_torch() -> None:
    code = (
        "import sys\nfrom marserve.cli.main import main\n"
        "try:\n    main(['export', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'onnx', 'marserve.exporting.chain')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--example-shape" in done.stdout
