"""``GluonVisionService``: classes of a picture, by a Gluon network."""

from __future__ import annotations

from typing import Any

from ..utils.mxnet import image, ndarray
from .mxnet_model_service import GluonImperativeBaseService

#: Mean and deviation of the pictures that the networks of Gluon's zoo were trained on.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class GluonVisionService(GluonImperativeBaseService):
    """Takes a picture for each input, (batch, channel, height, width), and answers the five likeliest labels."""

    def _preprocess(self, data: Any) -> Any:
        import mxnet

        found = []
        for told, picture in zip(self.signature["inputs"], data):
            height, width = told["data_shape"][2:]
            pixels = image.resize(image.read(picture), width, height).astype("float32") / 255
            normal = image.color_normalize(pixels, mxnet.nd.array(_MEAN), mxnet.nd.array(_DEVIATION))
            found.append(image.transform_shape(normal))
        return found

    def _inference(self, data: Any) -> Any:
        super()._inference(data)
        return self.net(data[0]).softmax()

    def _postprocess(self, data: Any) -> Any:
        if not hasattr(self, "labels"):
            raise AssertionError(
                "Can't find labels attribute. Put synset.txt into the archive, or set labels in __init__."
            )
        return [ndarray.top_probability(output.expand_dims(axis=0), self.labels, top=5) for output in data]
