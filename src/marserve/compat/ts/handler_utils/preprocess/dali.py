"""NVIDIA DALI: the pipeline that decodes and prepares images on the GPU."""

from __future__ import annotations

import os
from typing import Any

from ..libraries import library

_INSTALL = "nvidia-dali-cuda120"
_MEAN = [0.485 * 255, 0.456 * 255, 0.406 * 255]
_DEVIATION = [0.229 * 255, 0.224 * 255, 0.225 * 255]


def get_dali_pipeline(ctx: Any) -> Any:
    """Return the pipeline that ``dali`` of the model's configuration asks for.

    Its keys are ``batch_size``, ``num_threads``, ``device_id``, ``seed``, and ``pipeline_file``: a serialized
    pipeline of the archive. Without that one JPEG images become 256 pixels on their shorter side, their middle 224,
    with ImageNet's mean and deviation.

    Raises:
        ValueError: there is no ``dali`` in the configuration.
        RuntimeError: there is no such pipeline file.
    """
    if "dali" not in ctx.model_yaml_config:
        raise ValueError(f"{ctx.model_name} has no dali config in model config yaml file")
    config = ctx.model_yaml_config["dali"]
    sizes = {name: config[name] for name in ("batch_size", "num_threads", "device_id", "seed")}
    if "pipeline_file" not in config:
        return _imagenet_pipeline(sizes)
    file = os.path.join(ctx.system_properties.get("model_dir"), config["pipeline_file"])
    if not os.path.exists(file):
        raise RuntimeError(f"Missing dali pipeline file: {file}")
    pipeline = library("nvidia.dali.pipeline", _INSTALL).Pipeline
    return pipeline.deserialize(filename=file, prefetch_queue_depth=1, **sizes)


def _imagenet_pipeline(sizes: Any) -> Any:
    dali = library("nvidia.dali", _INSTALL)
    types = library("nvidia.dali.types", _INSTALL)
    functions = library("nvidia.dali.fn", _INSTALL)
    pipeline = dali.Pipeline(prefetch_queue_depth=1, **sizes)
    with pipeline:
        encoded = functions.external_source(dtype=types.UINT8, name="source")
        decoded = functions.decoders.image(encoded, device="mixed")
        resized = functions.resize(
            decoded,
            size=[256],
            subpixel_scale=False,
            interp_type=types.DALIInterpType.INTERP_LINEAR,
            antialias=True,
            mode="not_smaller",
        )
        cropped = functions.crop_mirror_normalize(
            resized, crop_pos_x=0.5, crop_pos_y=0.5, crop=(224, 224), mean=_MEAN, std=_DEVIATION
        )
        pipeline.set_outputs(cropped)
    return pipeline
