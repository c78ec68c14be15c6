"""DeepSpeed: the inference engine around a model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..libraries import library


def create_checkpoints_json(model_path: str, checkpoints_json: str) -> None:
    """Write the list of the weight files (``.bin``, ``.pt`` and their kin) below ``model_path`` for DeepSpeed."""
    files = sorted(str(entry) for entry in Path(model_path).rglob("*.[bp][it][n]") if entry.is_file())
    Path(checkpoints_json).write_text(json.dumps({"type": "ds_model", "checkpoints": files, "version": 1.0}))


def get_ds_engine(model: Any, ctx: Any) -> Any:
    """Return the engine that ``deepspeed`` of the model's configuration asks for.

    Its keys are ``config``, a JSON file of the archive with DeepSpeed's own settings, and ``checkpoint``, the name of
    the list of weights that is written beside it. ``handler: {model_path}`` is where the weights lie.

    Raises:
        ValueError: there is no ``deepspeed`` in the configuration, or no file of that name.
        ModuleNotFoundError: DeepSpeed is not there.
    """
    model_dir = ctx.system_properties.get("model_dir")
    model_path = ctx.model_yaml_config["handler"]["model_path"]
    if "deepspeed" not in ctx.model_yaml_config:
        raise ValueError(f"{ctx.model_name} has no deepspeed config in model config yaml file")
    asked = ctx.model_yaml_config["deepspeed"]
    config = os.path.join(model_dir, asked["config"]) if "config" in asked else None
    if config is not None and not os.path.exists(config):
        raise ValueError(f"{ctx.model_name} has no deepspeed config file {config}")
    checkpoint = os.path.join(model_dir, asked["checkpoint"]) if "checkpoint" in asked else None
    if checkpoint is not None:
        create_checkpoints_json(model_path, checkpoint)
    return library("deepspeed", "deepspeed").init_inference(
        model, config=config, base_dir=model_path, checkpoint=checkpoint
    )
