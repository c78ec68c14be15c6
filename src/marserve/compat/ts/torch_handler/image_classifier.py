"""``ImageClassifier``: the most probable classes of an image."""

from __future__ import annotations

from typing import Any, Dict, List

import torch

from ..handler_utils.timer import timed
from ..utils.util import map_class_to_label
from .images import ImageNetProcessing
from .vision_handler import VisionHandler


class ImageClassifier(VisionHandler):
    """Answers ``{label: probability}`` for the ``topk`` most probable classes, or for all where they are fewer."""

    topk = 5
    image_processing = ImageNetProcessing()

    def set_max_result_classes(self, topk: int) -> None:
        """Set how many classes an answer names."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """Return how many classes an answer names."""
        return self.topk

    @timed
    def postprocess(self, data: Any) -> List[Dict[str, float]]:
        """Return the most probable classes of each image.

        Args:
            data: scores ``(batch, classes)``.
        """
        probabilities = torch.softmax(data, dim=1)
        values, classes = torch.topk(probabilities, min(self.topk, probabilities.shape[1]), dim=1)
        return map_class_to_label(values.tolist(), self.mapping, classes.tolist())
