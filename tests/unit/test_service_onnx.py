"""ONNX files are served: batches, several inputs and outputs, fixed shapes, and what is wrong with them."""

import logging
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from marserve.archive.tensors import TensorSpec
from marserve.errors import InvalidData, LoadError
from marserve.service.context import Context
from marserve.service.inputs import Inputs, Row
from marserve.service.onnx import OnnxService

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model(path, nodes, inputs, outputs):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    onnx.save(made, path)


def doubling(path, first="batch"):
    model(path, [helper.make_node("Add", ["x", "x"], ["y"])], [("x", FLOAT, [first, 2])], [("y", FLOAT, [first, 2])])


def loaded(folder, specs=None, gpu=None, manifest=None):
    service = OnnxService()
    if specs is not None:
        service.inputs = Inputs([TensorSpec(*spec) for spec in specs])
    service.initialize(Context("m", str(folder), manifest or {}, 8, gpu))
    return service


def rows(*values):
    return [{"body": value} for value in values]


@pytest.mark.parametrize("first", ["batch", 1])
def test_a_batch_gives_each_request_its_answer(tmp_path, first):
    doubling(tmp_path / "m.onnx", first)
    service = loaded(tmp_path, [("x", (2,), "float32")])
    assert service.handle(rows({"x": [1, 2]}), None) == [[2.0, 4.0]]
    assert service.handle(rows({"x": [1, 2]}, [[3, 4]], {"x": [5, 6]}), None) == [[2, 4], [6, 8], [10, 12]]


def test_without_a_signature_the_file_names_the_inputs(tmp_path):
    doubling(tmp_path / "m.onnx")
    service = loaded(tmp_path)
    assert service.inputs.can_refuse is False
    assert service.handle(rows({"x": [1, 2]}), None) == [[2.0, 4.0]]
    with pytest.raises(InvalidData, match=r"expected float32 of shape \(2,\), got shape \(3,\)"):
        service.handle(rows({"x": [1, 2, 3]}), None)


def test_the_check_leaves_its_arrays_for_the_batch(tmp_path):
    doubling(tmp_path / "m.onnx")
    service = loaded(tmp_path, [("x", (2,), "float32")])
    row = Row({"body": {"x": [1, 2]}})
    service.check(row)
    assert row.arrays[0].tolist() == [1.0, 2.0]
    row["body"] = None
    assert service.handle([row], None) == [[2.0, 4.0]]
    with pytest.raises(InvalidData, match="got text"):
        service.check(Row({"body": {"x": "a"}}))


def test_several_inputs_and_outputs_go_by_name(tmp_path):
    model(
        tmp_path / "m.onnx",
        [helper.make_node("Sub", ["a", "b"], ["minus"]), helper.make_node("Add", ["a", "b"], ["plus"])],
        [("a", INT64, ["n"]), ("b", INT64, ["n"])],
        [("minus", INT64, ["n"]), ("plus", INT64, ["n"])],
    )
    # The signature names them the other way round.
    service = loaded(tmp_path, [("b", (), "int64"), ("a", (), "int64")])
    answers = service.handle(rows({"a": 5, "b": 2}, {"a": 1, "b": 1}), None)
    assert answers == [{"minus": 3, "plus": 7}, {"minus": 0, "plus": 2}]


def test_several_outputs_of_a_file_for_one_item_at_a_time(tmp_path):
    model(
        tmp_path / "m.onnx",
        [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["b"])],
        [("x", FLOAT, [1, 1])],
        [("a", FLOAT, [1, 1]), ("b", FLOAT, [1, 1])],
    )
    service = loaded(tmp_path)
    assert service.takes_one is True
    assert service.handle(rows([1], [-2]), None) == [{"a": [-1.0], "b": [1.0]}, {"a": [2.0], "b": [2.0]}]


def test_items_of_different_shapes_run_one_by_one(tmp_path):
    model(
        tmp_path / "m.onnx",
        [helper.make_node("Neg", ["x"], ["y"])],
        [("x", FLOAT, ["n", "length"])],
        [("y", FLOAT, ["n", "length"])],
    )
    service = loaded(tmp_path, [("x", (0,), "float32")])
    assert service.handle(rows([1], [2, 3], [4]), None) == [[-1], [-2, -3], [-4]]


def test_an_author_may_make_the_arrays(tmp_path):
    doubling(tmp_path / "m.onnx")

    class Counting(OnnxService):
        def preprocess(self, data):
            return np.array([[row["body"], 0] for row in data], dtype=np.float32)

        def postprocess(self, data):
            return [{"twice": int(first)} for first, _ in data]

    service = Counting()
    service.initialize(Context("m", str(tmp_path), {}))
    assert service.handle(rows(1, 2), None) == [{"twice": 2}, {"twice": 4}]


def test_the_manifest_names_the_file_and_the_context_the_threads(tmp_path):
    doubling(tmp_path / "b.onnx")
    (tmp_path / "a.onnx").write_bytes(b"")
    service = OnnxService()
    context = Context("m", str(tmp_path), {"model": {"serializedFile": "b.onnx"}}, thread_count=3)
    service.initialize(context)
    assert service.session.get_session_options().intra_op_num_threads == 3


def test_files_that_cannot_be_chosen_or_read_are_refused(tmp_path):
    with pytest.raises(LoadError, match=r"holds 0 files ending in \.onnx"):
        loaded(tmp_path)
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(LoadError, match=r"onnxruntime cannot load .*a\.onnx"):
        loaded(tmp_path)
    (tmp_path / "b.onnx").write_bytes(b"")
    with pytest.raises(LoadError, match=r"2 files ending in \.onnx: a\.onnx, b\.onnx"):
        loaded(tmp_path)


def test_a_gpu_that_cannot_be_used_is_told_about(tmp_path, caplog, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    doubling(tmp_path / "m.onnx")
    with caplog.at_level(logging.WARNING):
        service = loaded(tmp_path, gpu=0)
    assert service.device == "cpu"
    assert "no CUDA provider" in caplog.text


def test_a_missing_onnxruntime_is_told_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LoadError) as caught:
        loaded(tmp_path)
    assert "marserve[onnx]" in caught.value.hint
