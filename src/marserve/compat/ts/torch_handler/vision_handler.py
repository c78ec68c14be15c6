"""``VisionHandler``: images as bytes, base64 text or nested lists of numbers."""

from __future__ import annotations

import abc
import base64
import io
from typing import Any, List

import torch

from ..handler_utils.timer import timed
from .attribution import IntegratedGradients
from .base_handler import BaseHandler


class VisionHandler(BaseHandler, abc.ABC):
    """A handler of images; a subclass has ``image_processing``, from an image of Pillow to a tensor."""

    image_processing: Any

    def initialize(self, context: Any) -> None:
        """Load the model; images of any size are let pass where the server's limit is off."""
        super().initialize(context)
        self.ig = IntegratedGradients(self.model)
        if not context.system_properties.get("limit_max_image_pixels"):
            from PIL import Image

            Image.MAX_IMAGE_PIXELS = None

    @timed
    def preprocess(self, data: List[Any]) -> torch.Tensor:
        """Return the images of a batch as one tensor; lists of numbers are taken for tensors as they are."""
        return torch.stack([self._image(row) for row in data]).to(self.device)

    def _image(self, row: Any) -> torch.Tensor:
        image = (row.get("data") or row.get("body")) if isinstance(row, dict) else row
        if isinstance(image, str):
            image = base64.b64decode(image)
        if not isinstance(image, (bytes, bytearray)):
            return torch.tensor(image, dtype=torch.float32)
        from PIL import Image

        with Image.open(io.BytesIO(image)) as opened:
            processed: torch.Tensor = self.image_processing(opened)
        return processed

    def get_insights(self, tensor_data: torch.Tensor, raw_data: Any, target: int = 0) -> Any:
        """Return how much each value of the preprocessed images speaks for the class ``target``, in their shape."""
        return self.ig.attribute(tensor_data, target=target, n_steps=15).tolist()
