"""Symbols and parameters are bound and run, on as much of MXNet as that needs; the e2e tests have the real one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from marserve.archive.tensors import TensorSpec
from marserve.errors import InvalidData, LoadError
from marserve.service.context import Context
from marserve.service.inputs import Inputs
from marserve.service.mxnet import MXNetService

FILES = ("m-symbol.json", "m-0000.params")


class Array(np.ndarray[Any, Any]):
    def as_in_context(self, context: object) -> Array:
        return self

    def asnumpy(self) -> np.ndarray[Any, Any]:
        return np.asarray(self)


def array(values: Any, context: object = None, dtype: str = "float32") -> Array:
    return np.asarray(values, dtype).view(Array)


class Symbol:
    """``data * weight``, with a label that only training needs."""

    bound: list[dict[str, Any]]

    def __init__(self, names: tuple[str, ...] = ("data", "weight", "softmax_label")) -> None:
        self.names = names
        self.bound = []

    def list_arguments(self) -> list[str]:
        return list(self.names)

    def list_auxiliary_states(self) -> list[str]:
        return []

    def infer_shape(self, data: tuple[int, ...], **more: object) -> tuple[Any, ...]:
        if data[1:] not in ((2,), (3,)):
            raise RuntimeError(f"Traceback (most recent call last):\nMXNetError: data of {data} does not fit")
        return [data, (1,), (data[0],)], [], []

    def bind(self, device: str, arguments: dict[str, Any], **more: Any) -> SimpleNamespace:
        self.bound.append({"shape": arguments["data"].shape, "type": arguments["data"].dtype, **more})

        def forward(is_train: bool, data: Array) -> list[Array]:
            assert data.shape == arguments["data"].shape
            return [data * arguments["weight"]]

        return SimpleNamespace(forward=forward)


@pytest.fixture
def symbol(monkeypatch: pytest.MonkeyPatch) -> Symbol:
    """The symbol that every file holds."""
    made, module = Symbol(), ModuleType("mxnet")
    module.__dict__.update(
        cpu=lambda: "cpu",
        gpu=lambda number: f"gpu {number}",
        context=SimpleNamespace(num_gpus=lambda: 1),
        symbol=SimpleNamespace(load=lambda path: made if Path(path).is_file() else Path(path).read_text()),
        nd=SimpleNamespace(array=array, load=lambda path: {"arg:weight": array([2.0])}, zeros=zeros),
    )
    monkeypatch.setitem(sys.modules, "mxnet", module)
    for name in ("MXNET_SUBGRAPH_VERBOSE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "0")
    return made


def zeros(shape: tuple[int, ...], context: object, dtype: str) -> Array:
    return array(np.zeros(shape), context, dtype)


def loaded(
    folder: Path, specs: list[TensorSpec] | None = None, *, is_mms: bool = False, gpu: int | None = None
) -> MXNetService:
    for name in FILES:
        (folder / name).touch()
    service = MXNetService()
    if specs is not None:
        service.inputs = Inputs(specs, is_batch_first=is_mms)
    service.initialize(Context("m", str(folder), {}, 8, gpu))
    return service


def rows(*values: object) -> list[dict[str, object]]:
    return [{"body": {"data": value}} for value in values]


def test_the_largest_batch_is_bound_first_and_every_size_once(symbol: Symbol, tmp_path: Path) -> None:
    service = loaded(tmp_path, [TensorSpec("data", (2,))])
    assert [each["shape"] for each in symbol.bound] == [(8, 2)]
    for _ in range(2):
        assert service.handle(rows([1, 2]), None) == [[2.0, 4.0]]
        assert service.handle(rows([1, 2], [3, 4], [5, 6]), None) == [[2, 4], [6, 8], [10, 12]]
    assert [each["shape"] for each in symbol.bound] == [(8, 2), (1, 2), (3, 2)]
    assert symbol.bound[0]["shared_exec"] is None
    assert symbol.bound[1]["shared_exec"] is symbol.bound[2]["shared_exec"] is not None


def test_the_form_of_multi_model_server_begins_with_the_batch(symbol: Symbol, tmp_path: Path) -> None:
    service = loaded(tmp_path, [TensorSpec("data", (0, 2))], is_mms=True)
    assert [each["shape"] for each in symbol.bound] == [(8, 2)]
    with pytest.raises(InvalidData, match="float32 of shape"):
        service.handle(rows([1, 2, 3]), None)


def test_a_free_dimension_is_bound_when_it_is_known(symbol: Symbol, tmp_path: Path) -> None:
    service = loaded(tmp_path, [TensorSpec("data", (0,))])
    assert not symbol.bound
    assert service.handle(rows([1, 2], [1, 2, 3]), None) == [[2, 4], [2, 4, 6]]


def test_the_signature_says_the_type(symbol: Symbol, tmp_path: Path) -> None:
    loaded(tmp_path, [TensorSpec("data", (2,), "int32")])
    assert symbol.bound[0]["type"] == "int32"


def test_a_signature_of_other_names_leaves_the_arrays_to_the_service(symbol: Symbol, tmp_path: Path) -> None:
    service = loaded(tmp_path, [TensorSpec("number", (), "int64")])
    assert service.input_names == ["data"]
    assert service.run([np.array([[1, 2]])]).tolist() == [[2.0, 4.0]]
    assert symbol.bound[0]["type"] == "float32"


def test_without_a_signature_the_symbol_names_its_input(symbol: Symbol, tmp_path: Path) -> None:
    assert loaded(tmp_path).handle([{"body": [1, 2]}], None) == [[2.0, 4.0]]


def test_parameters_without_a_value_for_something_are_refused(symbol: Symbol, tmp_path: Path) -> None:
    symbol.names = ("data", "weight", "bias")
    with pytest.raises(LoadError, match=r"m-0000\.params has no values for bias"):
        loaded(tmp_path, [TensorSpec("data", (2,))])


def test_a_signature_that_does_not_fit_is_refused(symbol: Symbol, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"signature\.json cannot be loaded: MXNetError: data of \(8, 5\)"):
        loaded(tmp_path, [TensorSpec("data", (5,))])


def test_a_symbol_that_is_missing_is_named(symbol: Symbol, tmp_path: Path) -> None:
    (tmp_path / "other-0003.params").touch()
    with pytest.raises(LoadError, match=r"other-symbol\.json cannot be loaded"):
        MXNetService().initialize(Context("m", str(tmp_path), {}, 1, None))


def test_the_manifest_names_the_files(symbol: Symbol, tmp_path: Path) -> None:
    for name in ("a-0001.params", "b-0002.params", "s.json"):
        (tmp_path / name).touch()
    service = MXNetService()
    manifest = {"model": {"parametersFile": "b-0002.params", "symbolFile": "s.json"}}
    service.initialize(Context("m", str(tmp_path), manifest, 1, 0))
    assert service.device == "gpu 0"


def test_without_mxnet_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mxnet", None)
    with pytest.raises(LoadError, match="mxnet cannot be imported") as caught:
        loaded(tmp_path)
    assert "python and requirements" in str(caught.value.hint)
