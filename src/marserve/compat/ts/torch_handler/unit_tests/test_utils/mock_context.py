"""``MockContext``: a context for unit tests of handlers."""

from __future__ import annotations

import os
import uuid
from typing import Any, Dict, Optional

import torch

from ....metrics.metrics_store import MetricsStore
from ....utils.util import get_yaml_config


class MockContext:
    """Tells a handler of a model folder, and of no request.

    Args:
        model_pt_file, model_file: names in the manifest; empty for none.
        gpu_id: told where CUDA is available.
        model_yaml_config_file: a file of ``model_dir``.
    """

    def __init__(
        self,
        model_pt_file: Optional[str] = "model.pt",
        model_dir: str = "ts/torch_handler/unit_tests/models/tmp",
        model_file: Optional[str] = "model.py",
        gpu_id: Optional[str] = "0",
        model_name: str = "mnist",
        model_yaml_config_file: Optional[str] = None,
    ) -> None:
        named = {"serializedFile": model_pt_file, "modelFile": model_file}
        self.manifest: Dict[str, Any] = {"model": {key: name for key, name in named.items() if name}}
        self.system_properties: Dict[str, Any] = {"model_dir": model_dir}
        if gpu_id and torch.cuda.is_available():
            self.system_properties["gpu_id"] = gpu_id
        self.explain = False
        self.metrics = MetricsStore({0: str(uuid.uuid4())}, model_name)
        self.model_yaml_config: Dict[str, Any] = {}
        if model_yaml_config_file:
            self.model_yaml_config = get_yaml_config(os.path.join(model_dir, model_yaml_config_file))

    def get_request_header(self, idx: Any, exp: str) -> bool:
        """Return whether ``explain`` is set, for an ``idx`` and a name that are not empty."""
        return bool(idx and exp and self.explain)
