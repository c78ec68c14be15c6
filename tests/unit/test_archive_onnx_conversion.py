"""What becomes of ONNX files on the way to MXNet, and what is refused; the e2e tests run the results in MXNet."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from marserve.archive.onnx_conversion import convert, convert_contents
from marserve.archive.packing import Contents, collect_mms
from marserve.errors import ArchiveError

GEMM = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3] x) => (float[N,2] y) <float[2,3] w = {1,2,3,4,5,6}, float[2] b = {7,8}>
{ y = Gemm<transB=1>(x, w, b) }
"""


def onnx_file(folder: Path, text: str, name: str = "model.onnx") -> Path:
    path = folder / name
    onnx.save(parser.parse_model(text), str(path))
    return path


def graph(body: str, opset: int = 17, ends: str = "(float[N,3] x) => (float[N,3] y)", constants: str = "") -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]> net {ends} {constants} {{ {body} }}'


def parameters(content: bytes) -> dict[str, Any]:
    """Return the arrays of a ``.params`` file by their whole names."""
    _, _, count = struct.unpack_from("<QQQ", content)
    place, arrays = 24, []
    for _ in range(count):
        (rank,) = struct.unpack_from("<i", content, place + 8)
        shape = struct.unpack_from(f"<{rank}q", content, place + 12)
        place += 12 + 8 * rank + 12
        size = int(np.prod(shape))
        arrays.append(np.frombuffer(content, "<f4", size, place).reshape(shape))
        place += 4 * size
    place, names = place + 8, []
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", content, place)
        names.append(content[place + 8 : place + 8 + length].decode())
        place += 8 + length
    assert place == len(content)
    return dict(zip(names, arrays, strict=True))


def operators(symbol: bytes) -> list[str]:
    return [node["op"] for node in json.loads(symbol)["nodes"] if node["op"] != "null"]


def test_a_dense_layer(tmp_path: Path) -> None:
    found = convert(onnx_file(tmp_path, GEMM))

    nodes = json.loads(found.symbol)["nodes"]
    assert [node["name"] for node in nodes] == ["x", "w", "b", "y"]
    assert nodes[3]["attrs"] == {"num_hidden": "2", "no_bias": "False", "flatten": "False"}
    arrays = parameters(found.params)
    assert arrays["arg:w"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert arrays["arg:b"].tolist() == [7, 8]
    assert (found.inputs, found.outputs) == ([("x", [0, 3])], [("y", [0, 2])])


def test_statistics_are_states_and_what_is_learned_is_not(tmp_path: Path) -> None:
    """Exporters keep one copy of equal tensors: here a bias of zeros is the mean as well."""
    constants = "<float[3] s = {1,2,3}, float[3] zeros = {0,0,0}, float[3] v = {4,5,6}>"
    text = graph("y = BatchNormalization<epsilon=0.5>(x, s, zeros, zeros, v)", constants=constants)

    found = convert(onnx_file(tmp_path, text))

    arrays = parameters(found.params)
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "arg:s": [1, 2, 3],
        "arg:zeros": [0, 0, 0],
        "aux:zeros_2": [0, 0, 0],
        "aux:v": [4, 5, 6],
    }
    attributes = json.loads(found.symbol)["nodes"][-1]["attrs"]
    assert attributes == {"eps": "0.5", "fix_gamma": "False", "use_global_stats": "True", "axis": "1"}


def test_what_stands_on_constants_alone_is_computed(tmp_path: Path) -> None:
    body = "t = Transpose(w) k = Constant<value_float=2.0>() s = Mul(t, k) m = MatMul(x, s) y = Identity(m)"
    text = graph(body, ends="(float[N,3] x) => (float[N,1] y)", constants="<float[1,3] w = {1,2,3}>")

    found = convert(onnx_file(tmp_path, text))

    assert operators(found.symbol) == ["FullyConnected"]
    assert [array.tolist() for array in parameters(found.params).values()] == [[[2, 4, 6]]]


def test_a_shape_that_is_computed_by_the_batch(tmp_path: Path) -> None:
    """``x.view(x.size(0), -1)``, as exporters write it."""
    constants = "<int64[1] zero = {0}, int64[1] one = {1}, int64[1] rest = {-1}>"
    body = "s = Shape(x) n = Slice(s, zero, one) t = Concat<axis=0>(n, rest) r = Reshape(x, t) y = Relu(r)"
    text = graph(body, ends="(float[N,3,2,2] x) => (float[N,12] y)", constants=constants)

    found = convert(onnx_file(tmp_path, text))

    assert json.loads(found.symbol)["nodes"][1]["attrs"] == {"shape": "(0, -1)"}


def test_weights_in_a_file_of_their_own_are_not_packed_either(tmp_path: Path) -> None:
    model = parser.parse_model(GEMM)
    for tensor in model.graph.initializer:  # the parser's values are not in the form that is put aside
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "service.py").touch()
    contents = collect_mms(tmp_path, "made", "service", "python")

    said = convert_contents(contents, tmp_path, "made")

    assert said == "model.onnx: 1 nodes converted, to made-symbol.json and made-0000.params"
    assert set(contents.entries) == {
        "service.py",
        "made-symbol.json",
        "made-0000.params",
        "signature.json",
        "MAR-INF/MANIFEST.json",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "service.py", "weights.bin"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (graph("y = Xyz(x)"), "operator Xyz of the node 'y' cannot be converted to MXNet: there is no rule"),
        (graph("h = Xyz(x) y = Relu(h)"), "operator Xyz of the node 'h'"),
        (
            graph("y, i = MaxPool<kernel_shape=[2]>(x) z = Relu(i)", ends="(float[N,3,4] x) => (float[N,3,3] z)"),
            "'i'",
        ),
        (graph('y = MaxPool<kernel_shape=[2],auto_pad="SAME_UPPER">(x)'), "auto_pad is SAME_UPPER"),
        (graph("y = MaxPool<kernel_shape=[2],dilations=[2]>(x)"), "it has dilations"),
        (graph("y = AveragePool<kernel_shape=[2],ceil_mode=1>(x)"), "ceil_mode"),
        (graph("y = AveragePool<kernel_shape=[2],pads=[0,1]>(x)"), "padding that differs"),
        (graph("y = MaxPool<kernel_shape=[2],pads=[0,1]>(x)"), "only pictures and volumes"),
        (graph("y = Gemm<transA=1>(x, x)"), "transA is not 0"),
        (graph("y = Gemm(x, x)"), "its input 2 is no constant"),
        (graph("y = MatMul(x, w)", constants="<float[3] w = {1,2,3}>"), "number of dimensions"),
        (graph("y = Flatten<axis=0>(x)"), "its axis is not 1"),
        (graph("y = Softmax<axis=0>(x)", opset=11), "its axis 0 is not known to be the last"),
        (graph("y = Reshape(x, s)", ends="(float[N,M,2] x, int64[2] s) => (float[K,L] y)"), "its shape is computed"),
        (graph("y = Relu(x)", opset=6), "for the opset 6; 7 and newer"),
        (
            graph("y = Dropout(x, r, t)", constants="<float r = {0.5}, bool t = {1}>"),
            "exported while it was trained",
        ),
        (
            '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> n (float[N] x) => (float[N] y) { y = own.Op(x) }',
            "own.Op",
        ),
    ],
)
def test_what_cannot_be_converted_is_named(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ArchiveError) as refused:
        convert(onnx_file(tmp_path, text))

    assert why in refused.value.message
    assert "onnxruntime serves it" in refused.value.hint


def test_what_nobody_needs_may_be_anything(tmp_path: Path) -> None:
    found = convert(onnx_file(tmp_path, graph("h = Xyz(x) y = Relu(x)")))

    assert operators(found.symbol) == ["Activation"]


@pytest.mark.parametrize("content", [b"weights", b""])
def test_what_is_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(ArchiveError, match=r"model\.onnx (cannot be read as an|is no) ONNX model"):
        convert(tmp_path / "model.onnx")


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)

    with pytest.raises(ArchiveError) as refused:
        convert(tmp_path / "model.onnx")

    assert "pip install marserve[onnx]" in refused.value.hint


@pytest.mark.parametrize(
    ("before", "after", "warns"),
    [
        (None, [{"data_name": "x", "data_shape": [0, 3]}], False),
        ([{"data_name": "old", "data_shape": [1]}], [{"data_name": "x", "data_shape": [0, 3]}], False),
        ([{}], [{"data_name": "x", "data_shape": [0, 3]}], False),
        ([{"name": "n", "shape": [3]}], [{"name": "n", "shape": [3]}], True),
        ("odd", "odd", True),
    ],
)
def test_the_signature_names_the_inputs(tmp_path: Path, before: object, after: object, warns: bool) -> None:
    onnx_file(tmp_path, GEMM)
    contents = Contents()
    if before is not None:
        (tmp_path / "signature.json").write_text(json.dumps({"inputs": before, "kept": 1}))
        contents.add("signature.json", tmp_path / "signature.json")

    convert_contents(contents, tmp_path, "made")

    source = contents.entries["signature.json"]
    told = json.loads(source if isinstance(source, bytes) else source.read_bytes())
    assert told["inputs"] == after
    assert told.get("kept", 1) == 1
    assert bool(contents.warnings) == warns


def test_a_signature_that_has_the_names_keeps_its_order(tmp_path: Path) -> None:
    onnx_file(tmp_path, graph("y = Add(a, b)", ends="(float[N,3] a, float[N,1] b) => (float[N,3] y)"))
    told = {"inputs": [{"data_name": "b", "data_shape": []}, {"data_name": "a", "data_shape": []}]}
    contents = Contents({"signature.json": json.dumps(told).encode()})

    convert_contents(contents, tmp_path, "made")

    source = contents.entries["signature.json"]
    assert isinstance(source, bytes)
    assert [(each["data_name"], each["data_shape"]) for each in json.loads(source)["inputs"]] == [
        ("b", [0, 1]),
        ("a", [0, 3]),
    ]


def test_other_files_of_the_folder(tmp_path: Path) -> None:
    assert convert_contents(Contents(), tmp_path, "made") == ""
    onnx_file(tmp_path, GEMM)
    (tmp_path / "made-symbol.json").write_text("old")
    contents = collect_mms(tmp_path, "made", "service", "python")
    convert_contents(contents, tmp_path, "made")
    assert contents.warnings == [f"made-symbol.json of {tmp_path} is left out: the converted one takes its place."]
    assert (tmp_path / "made-symbol.json").read_text() == "old"
    onnx_file(tmp_path, GEMM, "other.onnx")
    with pytest.raises(ArchiveError, match=r"more than one \.onnx file: model\.onnx, other\.onnx"):
        convert_contents(contents, tmp_path, "made")


def test_numbers_of_another_type_become_float32(tmp_path: Path) -> None:
    model = parser.parse_model(GEMM)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([1.5, 2.5]), "b"))
    onnx.save(model, str(tmp_path / "model.onnx"))

    assert parameters(convert(tmp_path / "model.onnx").params)["arg:b"].tolist() == [1.5, 2.5]
