"""``OnnxService``: an ONNX file, run by onnxruntime."""

from __future__ import annotations

import logging
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from marserve.errors import LoadError
from marserve.service.arrays import ArrayService, weights_file
from marserve.service.context import Context
from marserve.service.inputs import Inputs

_log = logging.getLogger(__name__)

#: onnxruntime's names of element types, without the enclosing ``tensor()``.
_DATA_TYPES = {"float": "float32", "double": "float64"}


class ModelInput(NamedTuple):
    """An input as the ONNX file itself describes it."""

    name: str
    shape: Tuple[int, ...]
    data_type: str
    content_type: Optional[str] = None
    minimum: Optional[float] = None
    maximum: Optional[float] = None


class OnnxService(ArrayService):
    """Serves the archive's ``.onnx`` file. Without a signature.json the file's own inputs are the signature.

    Attributes:
        session: the onnxruntime session.
        input_names: the model's inputs, in the order of the arrays that ``run`` gets.
        model_output_names: the model's outputs.
        device: where the model runs: ``cpu`` or ``cuda:0`` and so on.
    """

    def load(self, context: Context) -> None:
        """Open the session with the context's threads, on its GPU if onnxruntime can use one.

        A session that others will have by being forked gets no threads: they would not be there, and it would be
        slower without a word.

        Raises:
            LoadError: onnxruntime is not installed, or it refuses the file.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise LoadError(
                f"The archive holds an ONNX model, but onnxruntime cannot be imported: {error}.",
                "Install it in the worker's environment: pip install 'marserve[onnx]'.",
            ) from error
        self.device, providers = _providers(context, onnxruntime.get_available_providers())
        self.session = _session(context, 1 if context.will_fork else context.thread_count, providers)
        model_inputs = self.session.get_inputs()
        self.model_output_names = [each.name for each in self.session.get_outputs()]
        self.takes_one = any(list(each.shape[:1]) == [1] for each in model_inputs)
        if self.inputs is None:
            self.inputs = Inputs([_described(each) for each in model_inputs], is_batch_first=True)
        # The signature's order is the arrays'; where its names are not the model's, the model's order is.
        self.input_names = [each.name for each in self.inputs.all]
        own_names = [each.name for each in model_inputs]
        if set(self.input_names) != set(own_names):
            self.input_names = own_names

    def after_fork(self, context: Context) -> None:
        """Open the session again where it may have several threads; with one, all workers share its weights."""
        if context.thread_count != 1:
            self.session = None  # its memory goes before the other's comes
            self.session = _session(context, context.thread_count, ["CPUExecutionProvider"])

    def run(self, arrays: Sequence[Any]) -> Any:
        """Return the model's output, a dict by name when it has several."""
        outputs = self.session.run(self.model_output_names, dict(zip(self.input_names, arrays)))
        return outputs[0] if len(outputs) == 1 else dict(zip(self.model_output_names, outputs))


def _session(context: Context, threads: int, providers: List[Any]) -> Any:
    import onnxruntime

    path = weights_file(context, (".onnx",))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime has a class of its own for each cause
        raise LoadError(f"onnxruntime cannot load {path}: {error}") from error


def _described(model_input: Any) -> ModelInput:
    element = model_input.type[len("tensor(") : -1]
    shape = tuple(size if isinstance(size, int) else 0 for size in model_input.shape)
    return ModelInput(model_input.name, shape, _DATA_TYPES.get(element, element))


def _providers(context: Context, available: List[str]) -> Tuple[str, List[Any]]:
    """Return the device and the providers for it; a GPU that onnxruntime cannot use is told about, not fatal."""
    gpu = context.system_properties["gpu_id"]
    if gpu is None:
        return "cpu", ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in available:
        _log.warning(
            "Model %s is given GPU %s, but this onnxruntime has no CUDA provider; it runs on the CPU. "
            "Install onnxruntime-gpu to use the GPU.",
            context.model_name,
            gpu,
        )
        return "cpu", ["CPUExecutionProvider"]
    return f"cuda:{gpu}", [("CUDAExecutionProvider", {"device_id": gpu}), "CPUExecutionProvider"]
