"""``marserve export``: its flags, its refusals, and where it writes; torch is not needed to say so."""

import sys

import pytest

from marserve.cli.main import main
from marserve.errors import ConfigError
from marserve.exporting.chain import Order, export, place_of


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--to", "onnx"],
        ["--to", "keras", "--example", "[[1]]"],
        ["--to", "onnx", "--example", "[[1]]", "--example-shape", "1,2"],
        ["--to", "onnx", "--example", "[[1]]", "--tolerance", "-1"],
    ],
)
def test_misuse_is_exit_code_2(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["export", "net.py:Net", *flags])
    assert caught.value.code == 2
    assert "usage: marserve export" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "missing", "told"),
    [
        ("onnx", ["onnxscript"], "not installed: onnxscript."),
        ("onnx", ["onnx", "onnxruntime"], "not installed: onnx, onnxruntime."),
        ("safetensors", ["torch", "safetensors"], "not installed: torch, safetensors."),
    ],
)
def test_missing_libraries_are_named_with_their_extra(form, missing, told, monkeypatch, capsys):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["export", "net.py:Net", "--to", form, "--example", "[[1]]"]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert "pip install 'marserve[" in said


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (Order("net.py:Net", "pt2", script=True), "--script is without effect for pt2"),
        (Order("net.py:Net", "torchscript", opset=18), "--opset is without effect for torchscript"),
        (Order("/no/net.py:Net", "pt2"), "There is no /no/net.py"),
        (Order("/no/net.py", "pt2"), "/no/net.py names no class"),
        (Order("/no/net.mar", "pt2"), "There is no /no/net.mar"),
    ],
)
def test_what_cannot_be_meant_is_refused(order, reason):
    with pytest.raises(ConfigError) as caught:
        export(order, print)
    assert reason in str(caught.value)


def test_weights_for_what_has_its_own_are_refused(tmp_path):
    (tmp_path / "m.pt").touch()
    with pytest.raises(ConfigError, match="has its own weights"):
        export(Order(str(tmp_path / "m.pt"), "onnx", weights=tmp_path / "w.pt"), print)


def place(folder, form="onnx", source="net.py", **more):
    return place_of(Order(f"{folder / source}:Net", form, **more), folder / source)


def test_the_file_lies_beside_the_model_or_where_it_is_told_to(tmp_path):
    assert place(tmp_path) == tmp_path / "net.onnx"
    assert place(tmp_path, source="net.tar.gz") == tmp_path / "net.onnx"
    assert place(tmp_path, output=tmp_path / "served") == tmp_path / "served" / "net.onnx"
    assert place(tmp_path, output=tmp_path / "other.onnx") == tmp_path / "other.onnx"
    (tmp_path / "v1.5").mkdir()
    assert place(tmp_path, output=tmp_path / "v1.5") == tmp_path / "v1.5" / "net.onnx"
    with pytest.raises(ConfigError, match=r"does not end in \.onnx"):
        place(tmp_path, output=tmp_path / "other.pt")


def test_nothing_is_overwritten_unless_told_so_and_never_what_is_read(tmp_path):
    (tmp_path / "signature.json").touch()
    with pytest.raises(ConfigError, match=r"signature\.json exists already"):
        place(tmp_path)
    assert place(tmp_path, force=True) == tmp_path / "net.onnx"
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(ConfigError, match=r"net\.onnx and .*signature\.json exists already"):
        place(tmp_path, force=True)
    (tmp_path / "net.pt").touch()
    with pytest.raises(ConfigError, match="is what the model is read from"):
        place(tmp_path, "torchscript", weights=tmp_path / "net.pt", force=True)
    with pytest.raises(ConfigError, match="is what the model is read from"):
        place(tmp_path, "torchscript", source="net.pt", force=True)
