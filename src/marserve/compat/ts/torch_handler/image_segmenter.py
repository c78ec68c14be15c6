"""``ImageSegmenter``: the class of each pixel."""

from __future__ import annotations

from typing import Any, List

import torch

from .images import ImageNetProcessing
from .vision_handler import VisionHandler


class ImageSegmenter(VisionHandler):
    """Answers nested lists ``(height, width, 2)``: the most probable class of each pixel, and its probability."""

    image_processing = ImageNetProcessing()

    def postprocess(self, data: Any) -> List[Any]:
        """Return the classes of each image's pixels.

        Args:
            data: a dict whose ``out`` is scores ``(batch, classes, height, width)``.
        """
        values, classes = torch.softmax(data["out"], dim=1).max(dim=1)
        pixels: List[Any] = torch.stack([classes.to(values.dtype), values], dim=3).tolist()
        return pixels
