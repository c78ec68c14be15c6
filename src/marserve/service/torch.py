"""``TorchService``: PyTorch models, from a state dict, TorchScript, an exported program or safetensors."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any, Callable, Dict, List, Sequence, Tuple

from marserve.errors import LoadError
from marserve.service.arrays import ArrayService, Separate, model_section, weights_file
from marserve.service.context import Context

#: Of the files that hold weights.
SUFFIXES = (".pt", ".pth", ".pt2", ".safetensors", ".bin")


class TorchService(ArrayService):
    """Serves the archive's PyTorch weights; what they are follows from their suffix and the manifest.

    ===================  ======================  =========================================================
    weights              model file              loaded as
    ===================  ======================  =========================================================
    ``.pt .pth .bin``    named in the manifest   state dict, into the one ``nn.Module`` of the model file
    ``.safetensors``     named in the manifest   the same
    ``.pt .pth``         none                    TorchScript
    ``.pt2``             none                    a program of ``torch.export``
    ===================  ======================  =========================================================

    Attributes:
        model: the module, in evaluation mode, on ``device``.
        device: a ``torch.device``.
    """

    def load(self, context: Context) -> None:
        """Load the model on the context's device and set torch's threads.

        Raises:
            LoadError: torch is not installed, or the files are not what they should be.
        """
        try:
            import torch
        except ImportError as error:
            raise LoadError(
                f"The archive holds a PyTorch model, but torch cannot be imported: {error}.",
                "Install it in the worker's environment: pip install 'marserve[torch]'.",
            ) from error
        if context.thread_count and not context.will_fork:
            torch.set_num_threads(context.thread_count)
        self.device = torch.device(context.device)
        path = weights_file(context, SUFFIXES)
        model_file = model_section(context).get("modelFile")
        if model_file:
            self.model = self._load_eager(context, model_file, path)
        elif path.endswith(".pt2"):
            self.model = self._load_exported(path)
        elif path.endswith((".safetensors", ".bin")):
            raise LoadError(
                f"{os.path.basename(path)} holds weights without a model.",
                "Name the file with the nn.Module when packing: --model-file.",
            )
        else:
            self.model = _guarded(path, _SCRIPT_HINT, lambda: self._load_script(path))

    def after_fork(self, context: Context) -> None:
        """Set torch's threads: none may be there while others are to be forked from a process."""
        import torch

        if context.thread_count:
            torch.set_num_threads(context.thread_count)

    def _load_eager(self, context: Context, model_file: str, path: str) -> Any:
        module_class = model_class(context.system_properties["model_dir"], model_file)
        model = _guarded(path, "", module_class, f"{module_class.__name__} of {model_file} cannot be made")
        weights = _guarded(path, STATE_HINT, lambda: read_state(path, self.device))
        _guarded(path, STATE_HINT, lambda: model.load_state_dict(weights))
        return model.to(self.device).eval()

    def _load_exported(self, path: str) -> Any:
        import torch

        program = _guarded(path, "Save it with torch.export.save.", lambda: torch.export.load(path))
        sizes = _first_sizes(program)
        self.takes_one = 1 in sizes
        if any(size > 1 for size in sizes):
            raise LoadError(
                f"{os.path.basename(path)} is exported for a batch of exactly {max(sizes)}.",
                "Export it with a dynamic first dimension: dynamic_shapes=({0: torch.export.Dim('batch')},).",
            )
        return program.module().to(self.device)

    def _load_script(self, path: str) -> Any:
        import torch

        with warnings.catch_warnings():
            # torch has deprecated TorchScript; archives that hold it are served all the same.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(path, map_location=self.device).eval()  # type: ignore[no-untyped-call]

    def preprocess(self, data: Sequence[Dict[str, Any]]) -> Any:
        """Return the batch's tensors on the model's device."""
        arrays = super().preprocess(data)
        return arrays.each(self._tensors) if isinstance(arrays, Separate) else self._tensors(arrays)

    def _tensors(self, arrays: Any) -> Any:
        import torch

        if isinstance(arrays, tuple):
            return tuple([torch.as_tensor(array, device=self.device) for array in arrays])
        return torch.as_tensor(arrays, device=self.device)

    def run(self, arrays: Tuple[Any, ...]) -> Any:
        """Return the model's output for tensors or arrays, without gradients."""
        import torch

        with torch.inference_mode():
            output = self.model(*self._tensors(arrays))
        return tuple(output) if isinstance(output, list) else output

    def join(self, outputs: List[Any]) -> Any:
        """Return the outputs of single items as the output of one batch."""
        import torch

        first = outputs[0]
        if isinstance(first, tuple):
            return tuple(torch.cat(column) for column in zip(*outputs))
        return torch.cat(outputs) if isinstance(first, torch.Tensor) else super().join(outputs)


#: For who hands over a file that holds something else than a state dict.
STATE_HINT = (
    "Save the weights alone: torch.save(model.state_dict(), path). Whole pickled models are not loaded, "
    "because unpickling runs code."
)
_SCRIPT_HINT = (
    "A state dict needs the file with its nn.Module: pack it with --model-file; TorchScript is saved by "
    "torch.jit.save, an exported program (.pt2) by torch.export.save."
)


def _guarded(path: str, hint: str, load: Callable[[], Any], what: str = "") -> Any:
    """Return ``load()``; whatever it raises becomes a LoadError that names the file."""
    try:
        return load()
    except MemoryError:
        raise
    except Exception as error:  # torch, pickle, zipfile and the author's code each raise their own
        if "out of memory" in str(error):
            raise
        what = what or f"{os.path.basename(path)} cannot be loaded"
        raise LoadError(f"{what}: {type(error).__name__}: {error}", hint or None) from error


def read_state(path: str, device: Any) -> Any:
    """Return the state dict of a file, read without running what is in it."""
    import torch

    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path, device=str(device))
    return torch.load(path, map_location=device, weights_only=True)


def _first_sizes(program: Any) -> List[int]:
    """Return the fixed first sizes of an exported program's inputs; free ones are left out."""
    wanted = set(program.graph_signature.user_inputs)
    values = [node.meta.get("val") for node in program.graph.nodes if node.name in wanted]
    return [value.shape[0] for value in values if getattr(value, "shape", ()) and type(value.shape[0]) is int]


def model_class(folder: str, model_file: str) -> Any:
    """Return the one ``nn.Module`` class that a model file defines.

    Raises:
        LoadError: the file defines none or several, or cannot be imported.
    """
    from torch import nn

    name = os.path.splitext(os.path.basename(model_file))[0]
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = importlib.import_module(name)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = ", ".join(each.__name__ for each in found) or "none"
        raise LoadError(
            f"The model file {model_file} must define exactly one nn.Module class; it defines: {names}.",
            "Move the others to a file of their own and import them, or write the service's initialize yourself.",
        )
    return found[0]
