"""``MXNetService``: an MXNet symbol and its parameters, bound to the shapes of each batch."""

from __future__ import annotations

import logging
import os
import re
from functools import lru_cache
from typing import Any, Dict, List, Sequence, Tuple

from marserve.errors import LoadError
from marserve.service.arrays import ArrayService, model_section, weights_file
from marserve.service.context import Context

_log = logging.getLogger(__name__)

#: Sizes of batches, and shapes besides, for which the symbol stays bound.
BOUND_SHAPES = 64
#: Inputs that a symbol has for training alone; they get zeros.
_LABEL = "_label"

Shapes = Tuple[Tuple[int, ...], ...]


class MXNetService(ArrayService):
    """Serves the archive's ``NAME-symbol.json`` and ``NAME-0000.params``, as ``save_checkpoint`` or ``export`` write.

    The signature's inputs are the symbol's where they have its names, in house form or in that of Multi Model Server;
    then the largest batch is bound at once. Otherwise a subclass makes the arrays, in the order of the symbol's.

    Attributes:
        symbol: the network.
        input_names: its inputs, in the order of the arrays that ``run`` gets.
        device: an MXNet context: ``cpu(0)``, ``gpu(0)`` and so on.
    """

    def load(self, context: Context) -> None:
        """Read symbol and parameters onto the context's device.

        Raises:
            LoadError: MXNet is not installed, the files are not what they should be, or the signature does not fit.
        """
        os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")  # else a line in the log for each size of a batch
        if context.thread_count:
            os.environ.setdefault("OMP_NUM_THREADS", str(context.thread_count))
        try:
            import mxnet
        except ImportError as error:
            raise LoadError(
                f"The archive holds an MXNet model, but mxnet cannot be imported: {error}.",
                "Give the archive an environment of its own: docs/archives.md, python and requirements.",
            ) from error
        self.device = _device(context, mxnet)
        params = _params_file(context)
        self.symbol = _guarded(_symbol_file(context, params), mxnet.symbol.load)
        self._arguments, self._states = _split(_guarded(params, mxnet.nd.load), self.device)
        self.input_names = self._inputs_of(os.path.basename(params))
        self._bound = lru_cache(BOUND_SHAPES)(self._bind)
        #: The executor whose memory all others use.
        self._first: Any = None
        shapes = self._signature_shapes(context)
        if shapes:
            _guarded("The model with the shapes of signature.json", lambda _: self._bound(shapes))

    def _inputs_of(self, params: str) -> List[str]:
        """Return the symbol's inputs: the signature's, where they have its names, and what has no parameters."""
        arguments = self.symbol.list_arguments()
        free = [name for name in arguments if name not in self._arguments and not name.endswith(_LABEL)]
        named = [] if self.inputs is None else [each.name for each in self.inputs.all]
        if not set(named) <= set(arguments):
            named = []
        missing = [name for name in free if named and name not in named]
        missing += [name for name in self.symbol.list_auxiliary_states() if name not in self._states]
        if missing:
            raise LoadError(
                f"{params} has no values for {', '.join(missing)}.",
                "Pack symbol and parameters of the same model, and name all of its inputs in signature.json.",
            )
        self._has_names = bool(named)
        return named or free

    def _signature_shapes(self, context: Context) -> Shapes:
        """Return the shapes of the largest batch, () where the signature does not say them."""
        if not self._has_names or self.inputs is None:
            return ()
        shapes = tuple(each.shape for each in self.inputs.all)
        if any(0 in shape for shape in shapes):
            return ()
        return tuple((context.system_properties["batch_size"] or 1, *shape) for shape in shapes)

    def _bind(self, shapes: Shapes) -> Any:
        """Return an executor for inputs of these shapes; all have the same parameters, and share their memory."""
        import mxnet

        wanted, _, _ = self.symbol.infer_shape(**dict(zip(self.input_names, shapes)))
        arguments = dict(self._arguments)
        for name, shape in zip(self.symbol.list_arguments(), wanted):
            if name not in arguments:
                arguments[name] = mxnet.nd.zeros(shape, self.device, dtype=self._type_of(name))
        bound = self.symbol.bind(
            self.device, arguments, grad_req="null", aux_states=self._states, shared_exec=self._first
        )
        self._first = self._first or bound
        return bound

    def _type_of(self, name: str) -> str:
        """Return the type of an input: the signature's, or float32, as nearly everything in MXNet."""
        if self._has_names and self.inputs is not None and name in self.input_names:
            return str(self.inputs.all[self.input_names.index(name)].array_type)
        return "float32"

    def run(self, arrays: Sequence[Any]) -> Any:
        """Return the model's output as a numpy array, a tuple when it has several."""
        import mxnet

        executor = self._bound(tuple(tuple(array.shape) for array in arrays))
        given = {
            name: mxnet.nd.array(array, self.device, dtype=self._type_of(name))
            for name, array in zip(self.input_names, arrays)
        }
        outputs = tuple(output.asnumpy() for output in executor.forward(is_train=False, **given))
        return outputs[0] if len(outputs) == 1 else outputs


def _params_file(context: Context) -> str:
    named = model_section(context).get("parametersFile")
    if named:
        return os.path.join(context.system_properties["model_dir"], named)
    return weights_file(context, (".params",))


def _symbol_file(context: Context, params: str) -> str:
    named = model_section(context).get("symbolFile")
    if named:
        return os.path.join(context.system_properties["model_dir"], named)
    return re.sub(r"(-\d+)?\.params$", "", params) + "-symbol.json"


def _guarded(what: str, load: Any) -> Any:
    """Return ``load(what)``; whatever it raises becomes a LoadError that names the file."""
    try:
        return load(what)
    except MemoryError:
        raise
    except Exception as error:  # MXNet's own class hides what happened in its text, C++ trace included
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Traceback")]
        raise LoadError(
            f"{os.path.basename(what)} cannot be loaded: {lines[-1].strip() if lines else type(error).__name__}",
            "Pack NAME-symbol.json and NAME-0000.params as mxnet.model.save_checkpoint or export writes them.",
        ) from error


def _split(loaded: Any, device: Any) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return arguments and auxiliary states by name; files of Gluon do not say which are which."""
    parts: Dict[str, Dict[str, Any]] = {"arg": {}, "aux": {}}
    for key, value in loaded.items():
        kind, _, name = key.partition(":")
        for part in parts if kind not in parts else (kind,):
            parts[part][name if kind in parts else key] = value.as_in_context(device)
    return parts["arg"], parts["aux"]


def _device(context: Context, mxnet: Any) -> Any:
    """Return the device; a GPU that MXNet cannot use is told about, not fatal."""
    gpu = context.system_properties["gpu_id"]
    if gpu is None:
        return mxnet.cpu()
    if not mxnet.context.num_gpus():
        _log.warning(
            "Model %s is given GPU %s, but this MXNet cannot use one; it runs on the CPU.", context.model_name, gpu
        )
        return mxnet.cpu()
    return mxnet.gpu(gpu)
