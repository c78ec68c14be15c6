"""What ``pt2`` of ``model-config.yaml`` asks for, ``torch.compile``; and Intel's optimiser, where that is on."""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any, Dict, Mapping, Optional

import torch

from ..utils.util import check_valid_pt2_backend

logger = logging.getLogger(__name__)


def compile_options(config: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """Return the arguments for ``torch.compile``, None to leave the model as it is.

    ``pt2`` is a backend's name, ``{compile: {enable: true, …}}``, ``{export: …}`` (compiled already), or the
    arguments themselves. A backend that is not known is told in the log, and the model stays as it is.

    Raises:
        ValueError: it is something else.
    """
    if "pt2" not in config:
        return None
    setting = config["pt2"]
    if isinstance(setting, str):
        options: Dict[str, Any] = {"backend": setting}
    elif not isinstance(setting, dict):
        raise ValueError("pt2 should be str or dict")
    elif "compile" in setting:
        options = dict(setting["compile"])
        if options.pop("enable", None) is not True:
            return None
    elif "export" in setting:
        return None
    else:
        options = dict(setting)
    if "backend" in options and not check_valid_pt2_backend(options["backend"]):
        return None
    return options


def optimised(model: Any, device: Any, config: Mapping[str, Any]) -> Any:
    """Return the model compiled as ``config`` asks; one that cannot be compiled is served as it is."""
    options = compile_options(config)
    if options is not None:
        said = ", ".join(f"{name} {value}" for name, value in options.items())
        try:
            compiled = torch.compile(model, **options)
        except Exception as error:  # each backend raises its own
            logger.warning("The model is served as it is: compiling it with %s failed: %s", said, error)
            return model
        logger.info("Compiled model with %s", said)
        return compiled
    if os.environ.get("TS_IPEX_ENABLE") == "true":
        return _by_intel(model, device)
    return model


def _by_intel(model: Any, device: Any) -> Any:
    try:
        ipex = importlib.import_module("intel_extension_for_pytorch")
    except ImportError:
        logger.warning("TS_IPEX_ENABLE is true, but intel-extension-for-pytorch is not installed; going on without.")
        return model
    return ipex.optimize(model.to(memory_format=torch.channels_last).to(device))
