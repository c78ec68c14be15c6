"""``DALIHandler``: images that NVIDIA DALI decodes and prepares on the GPU."""

from __future__ import annotations

import abc
from typing import Any, List

import torch

from ..handler_utils.preprocess.dali import get_dali_pipeline
from .vision_handler import VisionHandler


class DALIHandler(VisionHandler, abc.ABC):
    """A handler of images; ``dali`` of the model's configuration says how they are prepared."""

    def initialize(self, context: Any) -> None:
        """Load the model and the pipeline."""
        super().initialize(context)
        self.pipeline = get_dali_pipeline(context)

    def preprocess(self, data: List[Any]) -> torch.Tensor:
        """Return the images of a batch, encoded bytes or arrays, as one tensor."""
        import numpy as np

        images = [row.get("data") or row.get("body") for row in data]
        source = [
            np.frombuffer(image, dtype=np.uint8) if isinstance(image, (bytes, bytearray)) else image
            for image in images
        ]
        (prepared,) = self.pipeline.run(source=source)
        prepared = prepared.as_cpu() if hasattr(prepared, "as_cpu") else prepared
        return torch.stack([torch.as_tensor(prepared.at(index)) for index in range(len(source))]).to(self.device)
