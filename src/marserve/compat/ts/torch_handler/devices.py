"""The device that a handler's model runs on."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, Optional, Tuple

import torch


def choose_device(gpu_id: Optional[int]) -> Tuple[Optional[str], Any]:
    """Return the kind of device, None for an XLA device, and the device.

    In this order: CUDA, an Intel GPU (with ``TS_IPEX_GPU_ENABLE=true``) and Apple's GPU, each only for a worker that
    has a GPU; an XLA device where ``torch_xla`` is installed; the CPU.
    """
    if gpu_id is not None:
        if torch.cuda.is_available():
            return "cuda", torch.device(f"cuda:{gpu_id}")
        if os.environ.get("TS_IPEX_GPU_ENABLE") == "true" and torch.xpu.is_available():
            return "xpu", torch.device(f"xpu:{gpu_id}")
        if torch.backends.mps.is_available():
            return "mps", torch.device("mps")
    if importlib.util.find_spec("torch_xla") is not None:
        xla = importlib.import_module("torch_xla.core.xla_model")
        return None, xla.xla_device()
    return "cpu", torch.device("cpu")
