"""``MXNetVisionService``: the likeliest classes of pictures."""

from __future__ import annotations

from typing import Any, Dict, List

from mms.utils.mxnet import image, ndarray
from mxnet_model_service import MXNetModelService

from marserve.errors import InvalidData


class MXNetVisionService(MXNetModelService):
    """Takes a picture for each input, (batch, channel, height, width); labels are in ``synset.txt``."""

    def preprocess(self, batch: List[Dict[str, Any]]) -> Any:
        """Return the pictures in the size of the signature.

        Raises:
            InvalidData: a picture is missing, or is none.
        """
        import mxnet

        found = []
        for told in self.signature["inputs"]:
            height, width = told["data_shape"][2:]
            pictures = [self._picture(self.input_of(row, told["data_name"]), width, height) for row in batch]
            found.append(mxnet.nd.concat(*pictures, dim=0))
        return found

    def _picture(self, file: Any, width: int, height: int) -> Any:
        if not file:
            raise InvalidData("Empty image input")
        try:
            pixels = image.read(file)
        except Exception as error:
            raise InvalidData("Corrupted image input") from error
        return image.transform_shape(image.resize(pixels, width, height)).astype("float32")

    def postprocess(self, inference_output: Any) -> List[Any]:
        """Return the five likeliest classes of each picture."""
        if self.labels is None:
            raise AssertionError("Can't find labels attribute. Put synset.txt into the archive.")
        output = inference_output[0]
        return [ndarray.top_probability(output[index : index + 1], self.labels) for index in range(output.shape[0])]


_service = MXNetVisionService()


def handle(data: Any, context: Any) -> Any:
    """Load the model in the first call, which has no data; answer a batch in all others."""
    if not _service.initialized:
        _service.initialize(context)
    return None if data is None else _service.handle(data, context)
