"""``ObjectDetector``: the objects of an image and where they are."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from ..utils.util import map_class_to_label
from .images import to_tensor
from .vision_handler import VisionHandler


class ObjectDetector(VisionHandler):
    """Answers ``[{label: [x1, y1, x2, y2], "score": score}, …]`` for the objects from ``threshold`` on."""

    image_processing = staticmethod(to_tensor)
    threshold = 0.5

    def postprocess(self, data: Sequence[Dict[str, Any]]) -> List[List[Dict[str, Any]]]:
        """Return the objects of each image.

        Args:
            data: one dict an image: ``boxes`` (objects, 4), ``labels`` and ``scores`` (objects).
        """
        return [self._objects(found) for found in data]

    def _objects(self, found: Dict[str, Any]) -> List[Dict[str, Any]]:
        kept = found["scores"] >= self.threshold
        labels, boxes, scores = [found[key][kept].tolist() for key in ("labels", "boxes", "scores")]
        objects = []
        for number, box, score in zip(labels, boxes, scores):
            (named,) = map_class_to_label([[box]], self.mapping, [[number]])
            named["score"] = score
            objects.append(named)
        return objects
