"""PiPPy: a model as a pipeline whose stages lie on several GPUs."""

from __future__ import annotations

import inspect
import logging
import os
from typing import Any, Dict

from ..libraries import library

_INSTALL = "torchpippy"
logger = logging.getLogger(__name__)


def initialize_rpc_workers(local_rank: int, world_size: int, ctx: Any) -> None:
    """Join the processes of a model by RPC, as ``pippy`` of its configuration says.

    Args:
        local_rank: number of this process.
        world_size: count of all of them.
        ctx: the context; its configuration has ``rpc_timeout`` (seconds) and ``num_worker_threads``.
    """
    import torch

    rpc = library("torch.distributed.rpc", "torch")
    asked = ctx.model_yaml_config["pippy"]
    options = rpc.TensorPipeRpcBackendOptions(
        num_worker_threads=asked["num_worker_threads"], rpc_timeout=asked["rpc_timeout"]
    )
    devices = torch.cuda.device_count()
    own = local_rank % devices
    for rank in range(world_size):
        options.set_device_map(f"worker{rank}", {own: rank % devices})
    logger.info("rank = %s pid/device = %s/%s", local_rank, os.getpid(), own)
    rpc.init_rpc(f"worker{local_rank}", rank=local_rank, world_size=world_size, rpc_backend_options=options)


def get_pipeline_driver(model: Any, world_size: int, ctx: Any) -> Any:
    """Return a model whose ``forward`` runs through a pipeline.

    Args:
        model: a ``torch.nn.Module``.
        world_size: stages of the pipeline.
        ctx: the context; its configuration has ``pippy`` with ``input_names``, ``model_type`` ("HF" for a model of
            transformers) and ``chunks`` (1), and ``handler`` with ``model_path`` and ``index_filename``.

    Raises:
        ValueError: the configuration lacks one of these, or there is no such index file.
        ModuleNotFoundError: PiPPy is not there.
    """
    asked = _section(ctx, "pippy", "input_names", "model_type")
    handler = _section(ctx, "handler", "model_path")
    index = handler.get("index_filename")
    if index is not None:
        index = os.path.join(handler["model_path"], index)
        if not os.path.exists(index):
            raise ValueError(f"Index file '{index}' not found")
    pippy = library("pippy", _INSTALL)
    hugging_face = library("pippy.hf", _INSTALL) if asked["model_type"] == "HF" else None
    model.eval()
    parameters = inspect.signature(model.forward).parameters.values()
    concrete = {each.name: each.default for each in parameters if each.name not in asked["input_names"]}
    if hugging_face is not None and "bloom" in str(model.__class__):
        concrete.setdefault("deprecated_arguments", {})
    driver, _stage_mode = pippy.all_compile(
        model,
        num_ranks=world_size,
        num_chunks=asked.get("chunks", 1),
        schedule="FillDrain",
        split_policy=pippy.split_into_equal_size(world_size),
        tracer=None if hugging_face is None else hugging_face.PiPPyHFTracer(),
        concrete_args=concrete,
        index_filename=index,
        checkpoint_prefix=None,
    )
    if hugging_face is None:
        return driver
    hugging_face.inject_pipeline_forward(model, driver)
    return model


def _section(ctx: Any, name: str, *keys: str) -> Dict[str, Any]:
    """Return a part of the model's configuration that has these keys."""
    section: Dict[str, Any] = ctx.model_yaml_config.get(name, {})
    missing = [f"{name}.{key}" for key in keys if key not in section]
    if missing:
        raise ValueError(f"{ctx.model_name} has no {', '.join(missing)} in model config yaml file")
    return section
