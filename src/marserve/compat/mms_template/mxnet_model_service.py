"""``MXNetModelService``: an MXNet symbol with its parameters, bound to the shapes of ``signature.json``."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from mms.model_service.mxnet_model_service import (
    bound_module,
    check_input_shape,
    forward,
    labels_of,
    read_signature,
)
from model_handler import ModelHandler

from marserve.errors import InvalidData
from marserve.service.context import Context

__all__ = ["MXNetModelService", "check_input_shape"]


class MXNetModelService(ModelHandler):
    """Loads ``NAME-symbol.json`` and ``NAME-0000.params``, where NAME is the manifest's; takes whole batches.

    Attributes:
        labels: lines of ``synset.txt``, None without one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mxnet_ctx: Any = None
        self.mx_model: Any = None
        self.labels: Optional[List[str]] = None
        self.signature: Dict[str, Any] = {}
        self.epoch = 0

    def get_model_files_prefix(self, context: Context) -> str:
        """Return what the names of the model's files begin with."""
        manifest: Any = context.manifest
        return str(manifest["model"]["modelName"])

    def initialize(self, context: Context) -> None:
        """Load the model."""
        import mxnet

        super().initialize(context)
        folder, gpu = (context.system_properties[name] for name in ("model_dir", "gpu_id"))
        self.mxnet_ctx = mxnet.cpu() if gpu is None else mxnet.gpu(int(gpu))
        self.signature = read_signature(os.path.join(folder, "signature.json"))
        self.labels = labels_of(folder)
        prefix = os.path.join(folder, self.get_model_files_prefix(context))
        self.mx_model = bound_module(prefix, self.epoch, self.signature, self.mxnet_ctx, self._batch_size)

    def input_of(self, row: Dict[str, Any], name: str) -> Any:
        """Return a request's value for an input: under its name, the whole body, or ``data``.

        Raises:
            InvalidData: there is none.
        """
        body = row.get("body")
        if isinstance(body, dict) and name in body:
            return body[name]
        for key in (name, "body", "data"):
            if row.get(key) is not None:
                return row[key]
        raise InvalidData(f"The request has no input {name}.")

    def preprocess(self, batch: List[Dict[str, Any]]) -> Any:
        """Return an array an input, (batch, …), from numbers or their text."""
        import json

        import mxnet

        found = []
        for told in self.signature["inputs"]:
            values = [self.input_of(row, told["data_name"]) for row in batch]
            texts = (bytes, bytearray, str)
            try:
                rows = [json.loads(value) if isinstance(value, texts) else value for value in values]
                shape = (-1, *told["data_shape"][1:])
                found.append(mxnet.nd.array(rows).reshape(shape))
            except ValueError as error:
                raise InvalidData(f"The input {told['data_name']} is no array: {error}.") from error
        return found

    def inference(self, model_input: Any) -> Any:
        """Return the outputs, (batch, …); what a batch lacks is filled up with zeros, and taken away again."""
        import mxnet

        try:
            check_input_shape(model_input, self.signature)
        except AssertionError as error:
            raise InvalidData(str(error)) from error
        count = model_input[0].shape[0]
        missing = self._batch_size - count
        if missing:
            model_input = [
                mxnet.nd.concat(array, mxnet.nd.zeros((missing, *array.shape[1:])), dim=0) for array in model_input
            ]
        outputs = forward(self.mx_model, [array.as_in_context(self.mxnet_ctx) for array in model_input])
        return [output[:count] for output in outputs]

    def postprocess(self, inference_output: Any) -> List[Any]:
        """Return the first output of each request, as a text of numbers."""
        return [str(row) for row in inference_output[0].asnumpy().tolist()]
