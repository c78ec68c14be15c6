"""An ONNX graph on its way to an MXNet symbol: what has become of each tensor, and one node as its rule sees it."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from marserve.archive.mxnet_files import Symbol, stored_shape
from marserve.errors import ArchiveError

#: Sizes of a tensor: a number, or the name of one that is free, "" where it has none.
Shape = Tuple[Union[int, str], ...]

#: What can be done instead of a conversion.
INSTEAD = "Leave -c/--convert out: the .onnx file is packed as it is, and onnxruntime serves it."


class Drawing:
    """The symbol that is drawn after an ONNX graph.

    Attributes:
        file: name of the ONNX file, for messages.
        opset: release of the standard operators that the file was written for.
        shapes: of tensors by name; what the file does not tell is missing.
        constants: numpy arrays by the name of their tensor: initializers, and what is made of constants alone.
        arguments, states: the symbol's parameters, and the statistics of its BatchNorms, by name of their variable.
    """

    def __init__(self, file: str, opset: int, shapes: Mapping[str, Shape]) -> None:
        self.file = file
        self.opset = opset
        self.shapes = shapes
        self.symbol = Symbol()
        self.constants: Dict[str, Any] = {}
        self.arguments: Dict[str, Any] = {}
        self.states: Dict[str, Any] = {}
        self._drawn: Dict[str, Union[int, ArchiveError]] = {}
        self._variables: Dict[Tuple[str, bool], int] = {}

    def draw(self, tensor: str, result: Union[int, ArchiveError]) -> None:
        """Note the symbol's node that a tensor has become, or why there is none."""
        self._drawn[tensor] = result

    def drawn(self, tensor: str) -> int:
        """Return the symbol's node that a tensor has become; a constant becomes an argument.

        Raises:
            ArchiveError: it could not be drawn. It is raised here, because nobody may need it.
        """
        if tensor in self.constants:
            return self.parameter(tensor, self.constants[tensor])
        result = self._drawn.get(tensor)
        if result is None:
            raise ArchiveError(f"{self.file}: nothing in the graph makes the tensor {tensor!r}.", INSTEAD)
        if isinstance(result, ArchiveError):
            raise result
        return result

    def parameter(self, tensor: str, array: Any, is_state: bool = False) -> int:
        """Return a variable with an array's values, named after the tensor that they come from.

        Exporters keep one copy of equal tensors. MXNet tells what is learned from statistics, so one that serves as
        both becomes two variables, as one does that two nodes take in different forms.
        """
        key = tensor, is_state
        is_untouched = array is self.constants.get(tensor)
        if is_untouched and key in self._variables:
            return self._variables[key]
        name = self.symbol.free_name(tensor)
        (self.states if is_state else self.arguments)[name] = array
        variable = self.symbol.variable(name, stored_shape(array))
        if is_untouched:
            self._variables[key] = variable
        return variable


class Step:
    """One ONNX node: its attributes and inputs, and where its counterparts in the symbol go."""

    def __init__(
        self,
        operator: str,
        name: str,
        inputs: Sequence[str],
        output: str,
        attributes: Mapping[str, Any],
        drawing: Drawing,
    ) -> None:
        self.operator = operator
        self.opset = drawing.opset
        self._name = name or output
        self._inputs = inputs
        self._output = output
        self._attributes = attributes
        self._drawing = drawing

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute; text as text."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, index: int) -> bool:
        """Return whether there is such an input: the last ones may be missing, and others empty."""
        return index < len(self._inputs) and bool(self._inputs[index])

    def count(self) -> int:
        """Return the number of inputs."""
        return len(self._inputs)

    def input(self, index: int = 0) -> int:
        """Return the symbol's node of an input.

        Raises:
            ArchiveError: there is none.
        """
        return self._drawing.drawn(self._inputs[index])

    def known(self, index: int) -> Optional[Any]:
        """Return the array of an input that is a constant, else None."""
        return self._drawing.constants.get(self._inputs[index]) if self.has(index) else None

    def constant(self, index: int) -> Any:
        """Return the array of an input.

        Raises:
            ArchiveError: it is no constant.
        """
        found = self.known(index)
        if found is None:
            raise self.refusal(f"its input {index + 1} is no constant")
        return found

    def parameter(self, index: int, array: Optional[Any] = None, is_state: bool = False) -> int:
        """Return a variable with an input's constant, or with ``array``, which was made of that."""
        values = self.constant(index) if array is None else array
        return self._drawing.parameter(self._inputs[index], values, is_state)

    def numbers(self, attribute: str, index: int) -> Optional[List[int]]:
        """Return whole numbers that older operators have as an attribute and newer ones as a constant input."""
        if self.has(index):
            return [int(number) for number in self.constant(index).reshape(-1)]
        return self.attribute(attribute)  # type: ignore[no-any-return]

    def shape(self, index: int = 0) -> Optional[Shape]:
        """Return the shape of an input; None where the file does not tell."""
        return self._drawing.shapes.get(self._inputs[index])

    def output_shape(self) -> Optional[Shape]:
        """Return the shape of the output; None where the file does not tell."""
        return self._drawing.shapes.get(self._output)

    def emit(self, operator: str, inputs: Sequence[int], suffix: str = "", /, **settings: object) -> int:
        """Add a node to the symbol; the last one of a step is named after its output, those before with a suffix."""
        name = self._drawing.symbol.free_name(self._output + suffix)
        return self._drawing.symbol.node(operator, name, inputs, settings)

    def refusal(self, why: str) -> ArchiveError:
        """Return the error that this node cannot be converted."""
        told = f"{self._drawing.file}: the operator {self.operator} of the node {self._name!r} cannot be converted"
        return ArchiveError(f"{told} to MXNet: {why}.", INSTEAD)
