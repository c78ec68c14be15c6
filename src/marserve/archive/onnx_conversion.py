"""``model-archiver --convert``: an ONNX file as MXNet's symbol and parameters, with the statistics of its BatchNorms.

The package ``onnx`` reads the file; MXNet is not needed. Parameters become float32, whatever they were. Source:
model-archiver 1.0.3 for the names of the files, and for what becomes of ``signature.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from marserve.archive.mxnet_files import params_bytes
from marserve.archive.onnx_graph import INSTEAD, Drawing, Shape, Step
from marserve.archive.onnx_operators import RULES
from marserve.archive.packing import Contents
from marserve.archive.signature import SIGNATURE_NAME, is_house_form
from marserve.errors import ArchiveError

#: Release of ONNX's operators from which on they are what the rules take them for.
OLDEST_OPSET = 7
_STANDARD = ("", "ai.onnx")

Tensor = Tuple[str, List[int]]


class Converted(NamedTuple):
    """A converted model.

    Attributes:
        symbol, params: content of the two files.
        inputs, outputs: names and sizes, 0 for a size that is free.
        beside: files with weights of the ONNX file, which lie in its folder; not needed any more.
        node_count: nodes of the ONNX graph.
    """

    symbol: bytes
    params: bytes
    inputs: List[Tensor]
    outputs: List[Tensor]
    beside: List[str]
    node_count: int


def convert_contents(contents: Contents, folder: Path, model_name: str) -> str:
    """Put MXNet's two files in the place of the one ``.onnx`` file of a folder; the folder itself stays as it is.

    Returns:
        What was done, in a line; "" where there is no such file.

    Raises:
        ArchiveError: there are several, or the file cannot be converted.
    """
    found = sorted(path for path in folder.glob("*.onnx") if path.is_file())
    if not found:
        return ""
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ArchiveError(f"{folder} has more than one .onnx file: {names}.", "Leave one in it.")
    converted = convert(found[0])
    for name in (found[0].name, *converted.beside):
        contents.entries.pop(name, None)
    files = {f"{model_name}-symbol.json": converted.symbol, f"{model_name}-0000.params": converted.params}
    for name in files:
        if name in contents.entries:
            contents.warnings.append(f"{name} of {folder} is left out: the converted one takes its place.")
    contents.entries.update(files)
    signature = _signature(contents, converted)
    if signature is not None:
        contents.entries[SIGNATURE_NAME] = signature
    return f"{found[0].name}: {converted.node_count} nodes converted, to {' and '.join(files)}"


def convert(path: Path) -> Converted:
    """Convert an ONNX file.

    Raises:
        ArchiveError: the package ``onnx`` is not installed, the file is none, or a node of it has no counterpart.
    """
    try:
        import onnx
    except ImportError as error:
        raise ArchiveError(
            f"{path.name} cannot be converted: onnx cannot be imported ({error}).",
            f"Install it: pip install marserve[onnx]. Or: {INSTEAD}",
        ) from error
    model, beside = _read(path)
    graph = model.graph
    release = next((each.version for each in model.opset_import if each.domain in _STANDARD), 0)
    if release < OLDEST_OPSET:
        raise ArchiveError(
            f"{path.name} is written for the opset {release}; {OLDEST_OPSET} and newer can be converted.",
            f"Export it again, or bring it up to date with onnx.version_converter. Or: {INSTEAD}",
        )
    drawing = Drawing(path.name, release, _shapes(onnx.shape_inference.infer_shapes(model, data_prop=True).graph))
    drawing.constants.update((each.name, onnx.numpy_helper.to_array(each)) for each in graph.initializer)
    inputs = [each for each in graph.input if each.name not in drawing.constants]
    for each in inputs:
        drawing.draw(each.name, drawing.symbol.variable(each.name))
    for node in graph.node:
        _draw(node, drawing, model.opset_import)
    heads = [drawing.drawn(each.name) for each in graph.output]
    return Converted(
        symbol=drawing.symbol.to_json(heads),
        params=params_bytes(drawing.arguments, drawing.states),
        inputs=[_described(each) for each in inputs],
        outputs=[_described(each) for each in graph.output],
        beside=beside,
        node_count=len(graph.node),
    )


def _read(path: Path) -> Tuple[Any, List[str]]:
    """Return a model with all of its weights, and the names of the files that they lie in beside its own."""
    import onnx
    from onnx import external_data_helper, inliner

    try:
        model = onnx.load(str(path), load_external_data=False)
        beside = [
            entry.value
            for tensor in model.graph.initializer
            if tensor.data_location == onnx.TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        ]
        external_data_helper.load_external_data_for_model(model, str(path.parent))
        if model.functions:
            model = inliner.inline_local_functions(model)
    except Exception as error:  # onnx and protobuf have classes of their own for each cause
        raise ArchiveError(f"{path.name} cannot be read as an ONNX model: {error}.", "Export it again.") from error
    if not model.graph.output:
        raise ArchiveError(f"{path.name} is no ONNX model: it has no output.", "Export it again.")
    return model, sorted(set(beside))


def _draw(node: Any, drawing: Drawing, opsets: Sequence[Any]) -> None:
    """Draw a node, or compute it where it stands on constants alone; note why where neither can be done."""
    from onnx import helper

    values = _computed(node, drawing, opsets)
    if values is not None:
        drawing.constants.update(zip(node.output, values))
        return
    is_standard = node.domain in _STANDARD
    operator = node.op_type if is_standard else f"{node.domain}.{node.op_type}"
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    step = Step(operator, node.name, list(node.input), node.output[0], attributes, drawing)
    result: Union[int, ArchiveError]
    try:
        if operator not in RULES:
            raise step.refusal("there is no rule for it")
        result = RULES[operator](step)
    except ArchiveError as error:
        result = error
    drawing.draw(node.output[0], result)
    for more in node.output[1:]:
        drawing.draw(more, step.refusal(f"its output {more!r} is needed, and only the first one is made"))


def _computed(node: Any, drawing: Drawing, opsets: Sequence[Any]) -> Optional[List[Any]]:
    """Return the outputs of a node that stands on constants alone, else None."""
    from onnx import helper, reference

    names = [name for name in node.input if name]
    if not (all(name in drawing.constants for name in names) and (names or node.op_type == "Constant")):
        return None
    inputs, outputs = ([helper.make_empty_tensor_value_info(name) for name in each] for each in (names, node.output))
    alone = helper.make_model(helper.make_graph([node], "constant", inputs, outputs), opset_imports=opsets)
    given = {name: drawing.constants[name] for name in names}
    try:
        return list(reference.ReferenceEvaluator(alone).run(None, given))
    except Exception:  # of many classes; for what onnx itself cannot compute there may still be a rule
        return None


def _shapes(graph: Any) -> Dict[str, Shape]:
    """Return the shapes of tensors, as far as they are told."""
    told = [*graph.input, *graph.value_info, *graph.output]
    known = [(each.name, each.type.tensor_type.shape) for each in told if each.type.tensor_type.HasField("shape")]
    return {name: tuple(size.dim_value or size.dim_param for size in shape.dim) for name, shape in known}


def _described(told: Any) -> Tensor:
    """Return name and sizes of an input or output, 0 for a size that is free."""
    return told.name, [int(size.dim_value) for size in told.type.tensor_type.shape.dim]


def _signature(contents: Contents, converted: Converted) -> Optional[bytes]:
    """Return the signature with the names and sizes of the model's inputs; None where it stays as it is."""
    source = contents.entries.get(SIGNATURE_NAME)
    if source is None:
        told: Any = {
            "inputs": [{} for _ in converted.inputs],
            "input_type": "application/json",
            "outputs": [{"data_name": name, "data_shape": sizes} for name, sizes in converted.outputs],
            "output_type": "application/json",
        }
    else:
        try:
            told = json.loads((source.read_bytes() if isinstance(source, Path) else source).decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return None  # what is wrong with it is told where it is checked
    inputs = told.get("inputs") if isinstance(told, dict) else None
    if is_house_form(told) or not isinstance(inputs, list) or not all(isinstance(each, dict) for each in inputs):
        names = ", ".join(name for name, _ in converted.inputs)
        contents.warnings.append(f"{SIGNATURE_NAME} stays as it is. The model's inputs are: {names}.")
        return None
    _name_inputs(inputs, converted.inputs)
    return json.dumps(told, indent=2).encode()


def _name_inputs(told: List[Dict[str, Any]], inputs: Sequence[Tensor]) -> None:
    """Write names and sizes into a signature; one that has the names keeps its order, in which arrays are given."""
    sizes = dict(inputs)
    if not {str(each.get("data_name")) for each in told} <= sizes.keys():
        for each, (name, _) in zip(told, inputs):
            each["data_name"] = name
    for each in told:
        if each.get("data_name") in sizes:
            each["data_shape"] = sizes[each["data_name"]]
