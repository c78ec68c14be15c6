"""How each form of an exported model is written, and loaded again to be asked."""

from __future__ import annotations

import copy
import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from marserve.errors import LoadError, ModelError
from marserve.exporting.example import Example
from marserve.exporting.source import guarded

#: A model that can be asked: tensors in, what the model gives out.
Model = Callable[..., Any]


class Job(NamedTuple):
    """What is to be written.

    Attributes:
        opset: of ONNX; 0 is the exporter's own.
    """

    module: Any
    example: Example
    output_names: tuple[str, ...]
    opset: int = 0


class Writer(NamedTuple):
    """One form.

    Attributes:
        write: writes the file, and returns what the user should know of it.
        load: returns the model in the file.
        hint: what may help when its answers are others.
    """

    write: Callable[[Job, Path], list[str]]
    load: Callable[[Job, Path], Model]
    hint: Callable[[Job], str]


@contextmanager
def told() -> Iterator[list[str]]:
    """Collect what the tracer warns of; all else that exporters warn of, mostly each other's age, is dropped."""
    found: list[str] = []
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield found
    finally:
        logging.disable(before)
    for warning in caught:
        if issubclass(warning.category, torch.jit.TracerWarning):  # type: ignore[attr-defined]
            place = f"{Path(warning.filename).name}, line {warning.lineno}"
            line = f"{place}: {str(warning.message).partition('. ')[0]}."
            found += [] if line in found else [line]


def _free_axes(job: Job, label: Callable[[str, int], Any]) -> tuple[dict[int, Any], ...]:
    """Return for each input its free axes, each with what ``label`` makes of the input's name and the axis."""
    pairs = zip(job.example.names, job.example.free, strict=True)
    return tuple({axis: label(name, axis) for axis in sorted(axes)} for name, axes in pairs)


def _axis_name(name: str, axis: int) -> str:
    return f"{name}_{axis}" if axis else "batch"


# --- ONNX -----------------------------------------------------------------------------------------------


def _write_onnx(job: Job, path: Path) -> list[str]:
    import onnx

    names: dict[str, Any] = {"input_names": list(job.example.names), "output_names": list(job.output_names)}
    names["opset_version"] = job.opset or None
    axes = _free_axes(job, _axis_name)
    inputs = job.example.for_tracing()
    if isinstance(
        job.module, torch.jit.ScriptModule
    ):  # torch.export takes none; the older exporter keeps its branches
        named = dict(zip(job.example.names, axes, strict=True))
        if job.example.has_free_batch:
            named.update({name: {0: "batch"} for name in job.output_names})
        torch.onnx.export(job.module, inputs, str(path), dynamo=False, dynamic_axes=named, **names)
    else:
        # In one file, since it is renamed: a second one with the weights would be looked for under its old name.
        names.update(dynamic_shapes=axes, external_data=False, verbose=False)
        torch.onnx.export(job.module, inputs, str(path), dynamo=True, **names)
    model = onnx.load(str(path))
    opset = next(each.version for each in model.opset_import if not each.domain)
    return [f"ONNX opset {opset}, IR version {model.ir_version}."]


def _load_onnx(job: Job, path: Path) -> Model:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = [each.name for each in session.get_inputs()]

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = {name: tensor.numpy() for name, tensor in zip(job.example.names, tensors, strict=True)}
        outputs = session.run(None, {name: values[name] for name in taken})
        return tuple(torch.as_tensor(output) for output in outputs)

    return run


def _onnx_hint(job: Job) -> str:
    return (
        "Its forward does something else while it is exported, or an operator is another in ONNX. --to torchscript "
        "or --to pt2 shows which."
    )


# --- TorchScript ----------------------------------------------------------------------------------------


def scripted(module: Any) -> Any:
    """Return a module as TorchScript with its branches and loops.

    Raises:
        LoadError: TorchScript cannot say it; the message shows the line.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return module
    hint = "Without --script the module is traced."
    return guarded("The module cannot be scripted", hint, lambda: torch.jit.script(module))


def _write_script(job: Job, path: Path) -> list[str]:
    module = job.module
    if not isinstance(module, torch.jit.ScriptModule):
        # Checking is our own affair, with more inputs than the tracer's check has.
        inputs = job.example.for_tracing()
        module = torch.jit.trace(module, inputs, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
    torch.jit.save(module, str(path))
    return []


def _load_script(job: Job, path: Path) -> Model:
    model: Model = torch.jit.load(str(path)).eval()  # type: ignore[no-untyped-call]
    return model


def _script_hint(job: Job) -> str:
    if isinstance(job.module, torch.jit.ScriptModule):
        return "Its forward asks whether it runs as TorchScript, or draws random numbers."
    try:
        with told():
            scripted(job.module)
    except LoadError as error:
        return (
            "Tracing keeps the one way through the module that the example takes, and --script cannot help: "
            f"{error.message}"
        )
    return "Tracing keeps the one way through the module that the example takes. --script keeps branches and loops."


# --- exported programs ----------------------------------------------------------------------------------


def _write_program(job: Job, path: Path) -> list[str]:
    batch = torch.export.Dim("batch")
    axes = _free_axes(job, lambda name, axis: torch.export.Dim.DYNAMIC if axis else batch)
    program = torch.export.export(job.module, job.example.for_tracing(), dynamic_shapes=axes)
    torch.export.save(program, str(path))
    return []


def _load_program(job: Job, path: Path) -> Model:
    model: Model = torch.export.load(str(path)).module()
    return model


def _program_hint(job: Job) -> str:
    return "Its forward does something else while it is exported: look for is_exporting, is_compiling and the like."


# --- weights alone --------------------------------------------------------------------------------------


def _write_weights(job: Job, path: Path) -> list[str]:
    from safetensors.torch import load_file, save_file

    state = job.module.state_dict()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise LoadError(
                f"The state dict holds {name!r}, which is {type(value).__name__} and no tensor.",
                "safetensors holds tensors alone; export to another form.",
            )
    # Copies, because the format holds no tensor twice, and whoever loads them asks for every name.
    save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, str(path))
    kept = load_file(str(path))
    wrong = [name for name, value in state.items() if name not in kept or not _same(value, kept[name])]
    if wrong:
        raise ModelError(f"The file does not hold what the module has: {', '.join(wrong)}.", "Export it again.")
    return [f"{' and '.join(names)} are one tensor; the file holds each." for names in _tied(state)]


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same bits; NaN is then the same as itself."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    first, second = (each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (one, other))
    return torch.equal(first, second)


def _tied(state: dict[str, torch.Tensor]) -> list[list[str]]:
    """Return the names that stand for one and the same tensor, group by group."""
    groups: dict[object, list[str]] = defaultdict(list)
    for name, tensor in state.items():
        if tensor.numel():
            groups[tensor.data_ptr(), tensor.shape, tensor.stride()].append(name)
    return [names for names in groups.values() if len(names) > 1]


def _load_weights(job: Job, path: Path) -> Model:
    """Return a copy of the module that has forgotten its weights and got those of the file."""
    from safetensors.torch import load_file

    module = copy.deepcopy(job.module)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.zero_()
    module.load_state_dict(load_file(str(path)))
    model: Model = module
    return model


def _weights_hint(job: Job) -> str:
    return "The module has numbers that are not in its state dict: make buffers of them with register_buffer."


#: By the names of ``needs.FORMS``.
WRITERS = {
    "onnx": Writer(_write_onnx, _load_onnx, _onnx_hint),
    "torchscript": Writer(_write_script, _load_script, _script_hint),
    "pt2": Writer(_write_program, _load_program, _program_hint),
    "safetensors": Writer(_write_weights, _load_weights, _weights_hint),
}
