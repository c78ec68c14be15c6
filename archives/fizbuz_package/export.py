"""Writes the trained FizBuz network as an ONNX file whose input is called ``input.1``."""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

#: Old enough for every onnxruntime that runs on a supported Python.
OPSET, IR_VERSION = 13, 7


def as_onnx(weights: dict[str, torch.Tensor]) -> onnx.ModelProto:
    """Return the network with these weights as an ONNX graph, ``(batch, 10)`` to ``(batch, 4)``, batch free.

    Built node by node: ``torch.onnx.export`` writes the paths of the source files into the model, and then the
    same weights would not give the same bytes in another folder.
    """
    nodes = [
        helper.make_node("Gemm", ["input.1", "hidden.weight", "hidden.bias"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "scores.weight", "scores.bias"], ["scores"], transB=1),
    ]
    bits = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["batch", 10])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 4])
    constants = [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in weights.items()]
    graph = helper.make_graph(nodes, "fizbuz", [bits], [scores], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="marserve")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="fizbuz.pt, as fizbuz_torch/train.py writes it")
    parser.add_argument("--output", type=Path, required=True, help="folder that gets fizbuz.onnx")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    model = as_onnx(torch.load(arguments.weights, weights_only=True))
    onnx.save(model, arguments.output / "fizbuz.onnx")


if __name__ == "__main__":
    main()
