"""``MXNetVisionService``: classes of a picture, by a symbol and its parameters."""

from __future__ import annotations

from typing import Any

from ..utils.mxnet import image, ndarray
from .mxnet_model_service import MXNetBaseService


class MXNetVisionService(MXNetBaseService):
    """Takes a picture for each input, (batch, channel, height, width), and answers the five likeliest labels."""

    def _preprocess(self, data: Any) -> Any:
        found = []
        for told, picture in zip(self.signature["inputs"], data):
            height, width = told["data_shape"][2:]
            found.append(image.transform_shape(image.resize(image.read(picture), width, height)))
        return found

    def _postprocess(self, data: Any) -> Any:
        if not hasattr(self, "labels"):
            raise AssertionError(
                "Can't find labels attribute. Put synset.txt into the archive, or set labels in __init__."
            )
        return [ndarray.top_probability(output, self.labels, top=5) for output in data]
