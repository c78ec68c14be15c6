"""``DALIImageClassifier``: the most probable classes of an image that NVIDIA DALI has prepared."""

from __future__ import annotations

from .dali_handler import DALIHandler
from .image_classifier import ImageClassifier


class DALIImageClassifier(DALIHandler, ImageClassifier):
    """Answers as ``ImageClassifier`` does."""
