"""As much of MXNet as the old services call, on numpy: for tests where it is not installed."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest


class Array:
    """An array of MXNet."""

    def __init__(self, values: Any, dtype: Any = None) -> None:
        self.values = np.asarray(values.values if isinstance(values, Array) else values, dtype or "float32")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def asnumpy(self) -> np.ndarray[Any, Any]:
        return self.values

    def reshape(self, shape: Any) -> Array:
        return Array(self.values.reshape(shape))

    def astype(self, dtype: Any) -> Array:
        return Array(self.values, dtype)

    def as_in_context(self, context: object) -> Array:
        return self

    def wait_to_read(self) -> None:
        pass

    def softmax(self) -> Array:
        raised = np.exp(self.values)
        return Array(raised / raised.sum(axis=-1, keepdims=True))

    def __getitem__(self, key: Any) -> Array:
        return Array(self.values[key])

    def __truediv__(self, other: float) -> Array:
        return Array(self.values / other)


class Module:
    """Answers the sum of every channel of its first input."""

    bound: list[Any]

    def __init__(self, symbol: Any, context: Any, data_names: Any, label_names: Any) -> None:
        self.loaded = symbol

    def bind(self, for_training: bool, data_shapes: Any) -> None:
        self.bound = data_shapes
        Module.bound = data_shapes

    def set_params(self, arguments: Any, states: Any, allow_missing: bool, allow_extra: bool) -> None:
        pass

    def forward(self, batch: Any) -> None:
        assert [tuple(array.shape) for array in batch.data] == [shape for _, shape in self.bound]
        values = batch.data[0].values
        self.outputs = [Array(values.reshape(*values.shape[:2], -1).sum(axis=2))]

    def get_outputs(self) -> list[Array]:
        return self.outputs


def _picture(file: bytes, flag: int = 1, to_rgb: bool = True, out: Any = None) -> Array:
    """Return a picture whose file is its three colours, one pixel large."""
    if len(file) != 3:
        raise ValueError("no picture")
    return Array(np.frombuffer(bytes(file), "uint8").reshape(1, 1, 3))


@pytest.fixture
def mxnet(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Put it in the place of MXNet."""
    made = ModuleType("mxnet")
    made.__dict__.update(
        __version__="stub",
        cpu=lambda: "cpu",
        gpu=lambda number: f"gpu {number}",
        nd=SimpleNamespace(
            array=Array,
            NDArray=Array,
            zeros=lambda shape: Array(np.zeros(shape)),
            concat=lambda *arrays, dim: Array(np.concatenate([each.values for each in arrays], dim)),
            transpose=lambda array, axes: Array(array.values.transpose(axes)),
            expand_dims=lambda array, axis: Array(np.expand_dims(array.values, axis)),
        ),
        model=SimpleNamespace(load_checkpoint=lambda prefix, epoch: ((prefix, epoch), {}, {})),
        mod=SimpleNamespace(Module=Module),
    )
    made.io = SimpleNamespace(  # type: ignore[attr-defined]
        DataBatch=lambda data, **more: SimpleNamespace(data=data, **more), DataDesc=SimpleNamespace
    )
    made.image = SimpleNamespace(  # type: ignore[attr-defined]
        imdecode=_picture,
        imresize=lambda array, width, height, interp: Array(np.broadcast_to(array.values, (height, width, 3))),
    )
    for name, module in (("mxnet", made), ("mxnet.io", made.io), ("mxnet.image", made.image)):
        monkeypatch.setitem(sys.modules, name, module)
    return made
