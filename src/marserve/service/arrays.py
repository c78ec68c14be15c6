"""Rows to arrays and outputs to answers: what services on numpy arrays share, whatever runs the model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple

from marserve.errors import HandlerFault, LoadError
from marserve.service import base
from marserve.service.context import Context
from marserve.service.inputs import Row

if TYPE_CHECKING:
    import numpy


class Separate(List[Any]):
    """Calls that cannot travel as one, because the shapes of their items differ; each is a batch of one."""

    def each(self, call: Callable[[Any], Any]) -> Separate:
        """Return the outputs of ``call`` for each."""
        return Separate(map(call, self))


class ArrayService(base.Service):
    """A service whose model takes arrays.

    ``preprocess`` gives one array ``(batch, …)``, a tuple of them when the model has several inputs, or
    ``Separate``; ``inference`` turns these into outputs; ``postprocess`` cuts the outputs into one list, or dict
    of lists, a request. A subclass implements ``load`` and ``run`` and overrides what it wants otherwise.

    Attributes:
        takes_one: whether the model's batch dimension is fixed at 1, so that items run one after the other.
    """

    takes_one = False

    def initialize(self, context: Context) -> None:
        """Load the weights file that the manifest names, or the only one that the archive holds."""
        super().initialize(context)
        self.load(context)

    def load(self, context: Context) -> None:
        """Load the model.

        Raises:
            LoadError: it cannot be loaded.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how its model is loaded.")

    def run(self, arrays: Tuple[Any, ...]) -> Any:
        """Run the model on one array an input; return an array, a tuple or a dict of arrays."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its model is run.")

    def check(self, item: base.Row) -> None:
        """Read the row's arrays, which also checks them, and keep them for ``preprocess``."""
        if self.inputs is None or not self.inputs.can_refuse:
            return
        arrays = self.read(item)
        if isinstance(item, Row):
            item.arrays = arrays

    def read(self, row: base.Row) -> Tuple[numpy.ndarray, ...]:
        """Return one array an input, without the batch dimension.

        Raises:
            InvalidData: the row does not fit the signature.
        """
        if self.inputs is not None:
            return self.inputs.arrays(row)
        import numpy as np

        try:
            array = np.asarray(self.value(row))
        except ValueError as error:
            raise base.InvalidData("expected numbers, got rows of different lengths.") from error
        if array.dtype.kind not in "fiub":
            raise base.InvalidData("expected numbers; an archive with a signature.json may name its inputs.")
        return (array.astype("float32") if array.dtype.kind == "f" else array,)

    def preprocess(self, data: Sequence[base.Row]) -> Any:
        """Return the batch's arrays, stacked where their shapes allow it."""
        items = [getattr(row, "arrays", None) or self.read(row) for row in data]
        if len(items) == 1:
            return _alone_or_tuple([array[None] for array in items[0]])
        columns = list(zip(*items))
        if any(array.shape != column[0].shape for column in columns for array in column):
            return Separate(_alone_or_tuple([array[None] for array in item]) for item in items)
        import numpy as np

        return _alone_or_tuple([np.array(column) for column in columns])

    def inference(self, data: Any) -> Any:
        """Run the model on what ``preprocess`` gave."""
        if isinstance(data, Separate):
            return data.each(self.inference)
        arrays = data if isinstance(data, tuple) else (data,)
        if self.takes_one and len(arrays[0]) > 1:
            return self.join([self.run(tuple([a[i : i + 1] for a in arrays])) for i in range(len(arrays[0]))])
        return self.run(arrays)

    def join(self, outputs: List[Any]) -> Any:
        """Return the outputs of single items as the output of one batch."""
        import numpy as np

        first = outputs[0]
        if isinstance(first, dict):
            return {name: self.join([output[name] for output in outputs]) for name in first}
        return np.concatenate(outputs)

    def postprocess(self, data: Any) -> Any:
        """Return one answer a request: a list of numbers, or a dict with one entry an output."""
        if isinstance(data, Separate):
            return [answer for output in data for answer in self.postprocess(output)]
        if isinstance(data, dict):
            columns = [_items(output) for output in data.values()]
            return [dict(zip(data, values)) for values in zip(*columns)]
        if isinstance(data, tuple):
            if len(data) == len(self.output_names):
                return self.postprocess(dict(zip(self.output_names, data)))
            return [list(values) for values in zip(*map(_items, data))]
        return _items(data)


def _alone_or_tuple(arrays: Sequence[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _items(output: Any) -> List[Any]:
    """Return an output as one plain value an item of the batch."""
    plain = output.tolist() if hasattr(output, "tolist") else output
    if not isinstance(plain, list):
        raise HandlerFault(
            f"The model's output has no batch dimension: {type(plain).__name__}.",
            "Override postprocess to return a list with one answer a request.",
        )
    return plain


def weights_file(context: Context, suffixes: Sequence[str]) -> str:
    """Return the path of the model's weights: ``serializedFile`` of the manifest, or the only fitting file.

    Raises:
        LoadError: there is none, or more than one to choose from.
    """
    folder = context.system_properties["model_dir"]
    named = model_section(context).get("serializedFile")
    if named:
        return str(os.path.join(folder, named))
    found = sorted(name for name in os.listdir(folder) if name.endswith(tuple(suffixes)))
    if len(found) == 1:
        return str(os.path.join(folder, found[0]))
    raise LoadError(
        f"The archive names no serialized file and holds {len(found)} files ending in {', '.join(suffixes)}"
        f"{': ' + ', '.join(found) if found else ''}.",
        "Name the weights when packing: --serialized-file.",
    )


def model_section(context: Context) -> Dict[str, Optional[str]]:
    """Return the part ``model`` of the manifest, empty without one."""
    section = (context.manifest or {}).get("model")
    return section if isinstance(section, dict) else {}
