"""``GluonBaseService``: a Gluon network that a subclass makes, with parameters from the archive."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from mms.model_service.mxnet_model_service import labels_of, read_signature
from mms.utils.mxnet import image, ndarray

from marserve.errors import InvalidData
from marserve.service.context import Context


class GluonBaseService:
    """A subclass sets ``net``, and ``param_filename`` where there is such, then calls ``initialize`` of this class.

    Attributes:
        net: the network.
        param_filename: its parameters; None for those that it has already.
        labels: lines of ``synset.txt``, None without one.
    """

    def __init__(self) -> None:
        self.param_filename: Optional[str] = None
        self.model_name: Optional[str] = None
        self.initialized = False
        self.ctx: Any = None
        self.net: Any = None
        self.signature: Dict[str, Any] = {}
        self.labels: Optional[List[str]] = None

    def initialize(self, params: Context) -> None:
        """Read signature and labels, and load the parameters; ``params`` is the context."""
        import mxnet

        folder, gpu = (params.system_properties[name] for name in ("model_dir", "gpu_id"))
        self.model_name = params.model_name
        self.ctx = mxnet.cpu() if gpu is None else mxnet.gpu(int(gpu))
        self.signature = read_signature(os.path.join(folder, "signature.json"))
        self.labels = labels_of(folder)
        if self.param_filename is not None and self.net is not None:
            self.net.load_parameters(os.path.join(folder, self.param_filename), ctx=self.ctx)
        self.initialized = True

    def preprocess(self, data: List[Dict[str, Any]]) -> Any:
        """Return the pictures of a batch in the size of the signature, (batch, channel, height, width), 0..1."""
        import mxnet

        told = self.signature["inputs"][0]
        height, width = told["data_shape"][2:]
        files = [row.get(told["data_name"], row.get("body")) for row in data]
        if not all(files):
            raise InvalidData(f"The request has no input {told['data_name']}.")
        try:
            pictures = [image.resize(image.read(file), width, height).astype("float32") / 255 for file in files]
        except Exception as error:
            raise InvalidData("Corrupted image input") from error
        return mxnet.nd.concat(*map(image.transform_shape, pictures), dim=0)

    def inference(self, data: Any) -> Any:
        """Return the likelihoods of a batch, (batch, class)."""
        return self.net(data.as_in_context(self.ctx)).softmax()

    def postprocess(self, data: Any) -> List[Any]:
        """Return the five likeliest classes of each picture."""
        if self.labels is None:
            raise AssertionError("Can't find labels attribute. Put synset.txt into the archive.")
        return [ndarray.top_probability(data[index : index + 1], self.labels) for index in range(data.shape[0])]

    def predict(self, data: List[Dict[str, Any]]) -> List[Any]:
        """Run the three steps."""
        return self.postprocess(self.inference(self.preprocess(data)))

    def handle(self, data: List[Dict[str, Any]], context: Context) -> List[Any]:
        """Answer a batch."""
        return self.predict(data)
