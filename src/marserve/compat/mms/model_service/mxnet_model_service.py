"""``MXNetBaseService`` and ``GluonImperativeBaseService``: an MXNet model that runs one request at a time."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, Optional

from .model_service import SingleNodeService


def check_input_shape(inputs: List[Any], signature: Dict[str, Any]) -> None:
    """Hold arrays against the inputs of a signature; the first dimension, and those that are 0 there, are free.

    Raises:
        AssertionError: they do not fit.
    """
    wanted = signature["inputs"]
    _assert(isinstance(inputs, list), "Input data must be a list.")
    _assert(
        len(inputs) == len(wanted),
        f"Input number mismatches with signature. {len(wanted)} expected but got {len(inputs)}.",
    )
    for array, told in zip(inputs, wanted):
        name, shape = told["data_name"], told["data_shape"]
        _assert(
            len(array.shape) == len(shape),
            f"Shape dimension of input {name} mismatches with signature. {len(shape)} expected but got "
            f"{len(array.shape)}.",
        )
        fits = all(size in (0, got) for size, got in zip(shape[1:], array.shape[1:]))
        _assert(fits, f"Input {name} has different shape with signature. {shape} expected but got {array.shape}.")


def _assert(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def read_signature(path: str) -> Dict[str, Any]:
    """Return a signature.

    Raises:
        RuntimeError: there is none, or it is no JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found: Dict[str, Any] = json.load(file)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"The signature {path} cannot be read: {error}.") from error
    return found


def labels_of(model_dir: str) -> Optional[List[str]]:
    """Return the lines of an archive's ``synset.txt``; None when it has none."""
    path = os.path.join(model_dir, "synset.txt")
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        return [line.strip() for line in file]


def bound_module(prefix: str, epoch: int, signature: Dict[str, Any], context: Any, batch_size: int = 1) -> Any:
    """Return a Module with its parameters, bound to the shapes of a signature.

    Args:
        prefix: path of the model's files without ``-symbol.json`` and ``-0000.params``.
        context: MXNet's device.
        batch_size: first dimension of every input; another one that is 0 counts as 1.
    """
    import mxnet

    symbol, arguments, states = mxnet.model.load_checkpoint(prefix, epoch)
    shapes = [
        (told["data_name"], (batch_size, *(size or 1 for size in told["data_shape"][1:])))
        for told in signature["inputs"]
    ]
    module = mxnet.mod.Module(
        symbol=symbol, context=context, data_names=[name for name, _ in shapes], label_names=None
    )
    module.bind(for_training=False, data_shapes=shapes)
    module.set_params(arguments, states, allow_missing=True, allow_extra=True)
    return module


def forward(module: Any, inputs: List[Any]) -> List[Any]:
    """Return the outputs of a Module, computed."""
    from mxnet.io import DataBatch

    module.forward(DataBatch(inputs))
    outputs: List[Any] = module.get_outputs()
    for output in outputs:
        output.wait_to_read()
    return outputs


class _MXNetService(SingleNodeService):  # type: ignore[misc,unused-ignore]
    """What both kinds have in common."""

    def __init__(self, model_name: str, model_dir: str, manifest: Any, gpu: Optional[int] = None) -> None:
        import mxnet

        super().__init__(model_name, model_dir, manifest, gpu)
        self.model_name = model_name
        self.ctx = mxnet.cpu() if gpu is None else mxnet.gpu(int(gpu))
        self._signature = read_signature(os.path.join(model_dir, manifest["Model"]["Signature"]))
        self.param_filename: Optional[str] = manifest["Model"].get("Parameters")
        labels = labels_of(model_dir)
        if labels is not None:
            self.labels = labels

    @property
    def signature(self) -> Dict[str, Any]:
        """The signature; of these classes it is no method."""
        return self._signature

    def ping(self) -> str:
        """Return the version of MXNet."""
        import mxnet

        return str(mxnet.__version__)


class MXNetBaseService(_MXNetService):
    """Loads symbol and parameters that the manifest names."""

    def __init__(self, model_name: str, model_dir: str, manifest: Any, gpu: Optional[int] = None) -> None:
        super().__init__(model_name, model_dir, manifest, gpu)
        epoch = re.search(r"-(\d+)\.params$", self.param_filename or "")
        prefix = os.path.join(model_dir, manifest["Model"]["Symbol"][: -len("-symbol.json")])
        self.mx_model = bound_module(prefix, int(epoch[1]) if epoch else 0, self._signature, self.ctx)

    def _preprocess(self, data: Any) -> Any:
        import mxnet

        return [mxnet.nd.array(value) for value in data]

    def _inference(self, data: Any) -> Any:
        check_input_shape(data, self.signature)
        return forward(self.mx_model, [array.as_in_context(self.ctx) for array in data])

    def _postprocess(self, data: Any) -> Any:
        return [str(output.asnumpy().tolist()) for output in data]


class GluonImperativeBaseService(_MXNetService):
    """Loads the parameters that the manifest names into a network that a subclass has made."""

    def __init__(
        self, model_name: str, model_dir: str, manifest: Any, net: Any = None, gpu: Optional[int] = None
    ) -> None:
        super().__init__(model_name, model_dir, manifest, gpu)
        self.net = net
        if net is not None and self.param_filename:
            load = getattr(net, "load_parameters", None) or net.load_params
            load(os.path.join(model_dir, self.param_filename), ctx=self.ctx)

    def _preprocess(self, data: Any) -> Any:
        return None

    def _inference(self, data: Any) -> Any:
        check_input_shape(data, self.signature)

    def _postprocess(self, data: Any) -> Any:
        return None
