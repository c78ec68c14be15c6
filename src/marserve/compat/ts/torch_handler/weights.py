"""Weights of every form as something to call: TorchScript, programs of torch.export, AOTInductor, ONNX."""

from __future__ import annotations

import os
import warnings
from typing import Any, Mapping

import torch


def load_torchscript(path: str, device: Any) -> Any:
    """Return a TorchScript module."""
    with warnings.catch_warnings():
        # torch has deprecated TorchScript; archives that hold it are served all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]


def load_exported(path: str, device: Any, is_compiled: bool) -> Any:
    """Return the program of a ``.pt2`` file: one of ``torch.export``, or a compiled package of AOTInductor."""
    if is_compiled:
        return torch._inductor.aoti_load_package(path)
    return torch.export.load(path).module().to(device)


def load_shared_library(path: str, map_location: str) -> Any:
    """Return the model that AOTInductor has compiled into a shared library.

    Raises:
        RuntimeError: this torch reads packages alone.
    """
    load = getattr(torch._export, "aot_load", None)
    if load is None:
        raise RuntimeError(
            f"torch {torch.__version__} does not load {os.path.basename(path)}: pack the model again as .pt2, "
            "by torch._inductor.aoti_compile_and_package."
        )
    return load(path, map_location)


def setup_ort_session(model_pt_path: str, map_location: str) -> Any:
    """Return an onnxruntime session for an ONNX file, with as many threads as the worker may use."""
    import onnxruntime

    wanted = ["CPUExecutionProvider"]
    if map_location == "cuda":
        wanted.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return onnxruntime.InferenceSession(model_pt_path, sess_options=options, providers=wanted)


def is_session(model: Any) -> bool:
    """Return whether a model is an onnxruntime session."""
    return type(model).__module__.startswith("onnxruntime")


def run_session(session: Any, data: Any) -> Any:
    """Return a session's outputs as tensors, a single one as it is; ``data`` is a tensor, or a tuple of them."""
    tensors = data if isinstance(data, (tuple, list)) else (data,)
    names = [each.name for each in session.get_inputs()]
    outputs = session.run(None, {name: tensor.cpu().numpy() for name, tensor in zip(names, tensors)})
    found = [torch.as_tensor(output) for output in outputs]
    return found[0] if len(found) == 1 else found


def is_aot_compiled(config: Mapping[str, Any]) -> bool:
    """Return whether ``model-config.yaml`` says ``pt2: export: aot_compile: true``."""
    setting = config.get("pt2")
    export = setting.get("export") if isinstance(setting, dict) else None
    return isinstance(export, dict) and export.get("aot_compile") is True
