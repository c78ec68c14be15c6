"""The example input of an export: read from JSON or drawn, and the inputs like it that both models are asked."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from marserve.archive.tensors import DATA_TYPES
from marserve.errors import ConfigError

#: Inputs of the example's shape that are drawn to compare the answers: a branch that depends on the data goes the
#: other way in about half of them.
DRAWN = 8
#: Sizes of the batches that are asked beside the example's.
BATCHES = (1, 3)
#: So much larger are the other free axes then.
LONGER = 3

Tensors = tuple[torch.Tensor, ...]


class Example(NamedTuple):
    """One value for each input of a model, in the order of its ``forward``.

    Attributes:
        names: of the inputs.
        tensors: each of shape ``(batch, …)``, the batch of all the same.
        free: for each input, the axes that may have another size; 0 is the batch.
    """

    names: tuple[str, ...]
    tensors: Tensors
    free: tuple[frozenset[int], ...]

    @property
    def has_free_batch(self) -> bool:
        """Whether the batch may have another size."""
        return any(0 in axes for axes in self.free)

    def like(self, source: torch.Generator, batch: int = 0, longer: int = 0) -> Tensors:
        """Draw inputs like the example's: as large, as far from zero, whole numbers from the same span.

        Args:
            batch: size of the batch; 0 is the example's.
            longer: by how much the other free axes grow.
        """
        return tuple(
            _drawn(tensor, _shape(tensor, free, batch, longer), source)
            for tensor, free in zip(self.tensors, self.free, strict=True)
        )

    def for_tracing(self) -> Tensors:
        """Return the example's inputs, twice where the batch is 1 and free: exporters take a size of 1 for fixed."""
        if not self.has_free_batch or len(self.tensors[0]) > 1:
            return self.tensors
        return tuple(torch.cat([tensor, tensor]) for tensor in self.tensors)

    def to_compare(self) -> Iterator[tuple[str, Tensors]]:
        """Yield what both models are asked, each with words for it; the same in every run."""
        source = torch.Generator().manual_seed(0)
        yield "the example", self.tensors
        for number in range(1, DRAWN + 1):
            yield f"drawn input {number}", self.like(source)
        if self.has_free_batch:
            for batch in BATCHES:
                yield f"a batch of {batch}", self.like(source, batch)
        if any(axes - {0} for axes in self.free):
            yield f"free axes longer by {LONGER}", self.like(source, longer=LONGER)


def _shape(tensor: torch.Tensor, free: frozenset[int], batch: int, longer: int) -> list[int]:
    shape = list(tensor.shape)
    for axis in free:
        shape[axis] = shape[axis] + longer if axis else batch or shape[axis]
    return shape


def _drawn(tensor: torch.Tensor, shape: list[int], source: torch.Generator) -> torch.Tensor:
    """Return a tensor of a shape, with values that a model which takes ``tensor`` can be expected to take."""
    if tensor.is_floating_point():
        finite = tensor.double().abs().nan_to_num(0, 0, 0)
        return (torch.randn(shape, generator=source) * max(1.0, finite.max().item())).to(tensor.dtype)
    if tensor.dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=source).bool()
    # An index beyond the example's could be beyond the model's table.
    low, high = int(tensor.long().min()), int(tensor.long().max())
    return torch.randint(low, high + 1, shape, generator=source).to(tensor.dtype)


# --- reading --------------------------------------------------------------------------------------------


def read_example(module: Any, given: str, shapes: Sequence[str], data_types: str, free: Sequence[str]) -> Example:
    """Return the example that the options describe; the batch is free until ``with_fixed_batch``.

    Args:
        module: names the inputs that have no name, by the parameters of its ``forward``.
        given: JSON, or ``@file`` with JSON: an object of inputs, or the value of the only one; "" for none.
        shapes: ``[name=]1,3,8``, one an input, for an example that is drawn; counts without ``given``.
        data_types: ``float32`` or the like, for all inputs, or one each with commas; "" follows the values.
        free: ``name:axis`` of the axes beside the batch that may have another size.

    Raises:
        ConfigError: says which option cannot be meant so.
    """
    named = _from_json(given, data_types) if given else _from_shapes(shapes, data_types)
    parameters = _parameters(module)
    names = tuple(name or _name(parameters, at) for at, (name, _) in enumerate(named))
    _check_names(names, parameters)
    tensors = tuple(tensor for _, tensor in named)
    _check_batches(names, tensors)
    return Example(names, tensors, _free_axes(names, tensors, free))


def with_fixed_batch(example: Example) -> Example:
    """Return an example whose batch has always the same size."""
    return example._replace(free=tuple(axes - {0} for axes in example.free))


def _from_json(given: str, data_types: str) -> list[tuple[str, torch.Tensor]]:
    text, place = given, "--example"
    if given.startswith("@"):
        place = given[1:]
        try:
            text = Path(place).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{place} cannot be read: {error}.", "Name a file with JSON behind the @.") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} is no JSON: {error}.", _JSON_HINT) from error
    if not isinstance(value, dict | list) or not value:
        raise ConfigError(f"{place} is neither an object of inputs nor a list.", _JSON_HINT)
    values = value if isinstance(value, dict) else {"": value}
    kinds = _data_types(data_types, len(values))
    return [(name, _tensor(name, one, kind)) for (name, one), kind in zip(values.items(), kinds, strict=True)]


_JSON_HINT = """Give nested lists of numbers, the batch first: --example '{"x": [[1.0, 2.0]]}', or @FILE."""


def _tensor(name: str, value: object, kind: torch.dtype | None) -> torch.Tensor:
    try:
        return torch.tensor(value, dtype=kind)
    except (ValueError, TypeError, RuntimeError) as error:
        whose = f"The example of {name!r}" if name else "The example"
        raise ConfigError(f"{whose} is no array of numbers: {error}.", _JSON_HINT) from error


def _from_shapes(shapes: Sequence[str], data_types: str) -> list[tuple[str, torch.Tensor]]:
    """Draw an example: floats around zero with four digits behind the point, whole numbers 0 or 1."""
    source = torch.Generator().manual_seed(1)
    named = []
    for text, kind in zip(shapes, _data_types(data_types, len(shapes)), strict=True):
        name, _, sizes = text.rpartition("=")
        try:
            shape = [int(size) for size in sizes.split(",")]
        except ValueError:
            shape = []
        if not shape or min(shape) < 1:
            raise ConfigError(f"--example-shape {text} is no shape.", "Write sizes from 1 on: 1,3,224,224.")
        wanted = kind or torch.float32
        is_float = wanted.is_floating_point
        drawn = torch.randn(shape, generator=source) if is_float else torch.randint(0, 2, shape, generator=source)
        named.append((name, (drawn.round(decimals=4) if is_float else drawn).to(wanted)))
    return named


def _data_types(given: str, count: int) -> list[torch.dtype | None]:
    """Return one data type an input; None follows the values."""
    if not given:
        return [None] * count
    kinds = []
    for name in given.split(","):
        kind = getattr(torch, name, None) if name in DATA_TYPES else None
        if not isinstance(kind, torch.dtype):
            known = ", ".join(each for each in DATA_TYPES if isinstance(getattr(torch, each, None), torch.dtype))
            raise ConfigError(f"--dtype {name} is no data type of a tensor.", f"These are: {known}.")
        kinds.append(kind)
    if len(kinds) not in (1, count):
        raise ConfigError(f"--dtype names {len(kinds)} types for {count} inputs.", "Name one, or one an input.")
    return [*kinds] * (count if len(kinds) == 1 else 1)


def _parameters(module: Any) -> list[str]:
    """Return the names of what ``forward`` takes by position, as far as they can be told."""
    schema = getattr(module.forward, "schema", None)  # of TorchScript
    if schema is not None:
        return [argument.name for argument in schema.arguments if argument.name != "self"]
    found = inspect.signature(module.forward).parameters.values()
    return [each.name for each in found if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]


def _name(parameters: Sequence[str], at: int) -> str:
    return parameters[at] if at < len(parameters) else f"input_{at}"


def _check_names(names: Sequence[str], parameters: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ConfigError(f"Two inputs have the same name: {', '.join(names)}.", "Name each once.")
    in_order = [name for name in parameters if name in names]
    if set(names) <= set(parameters) and list(names) != in_order:
        raise ConfigError(
            f"The inputs come as {', '.join(names)}, but forward takes them as {', '.join(in_order)}.",
            "Give them in the order of forward: they are handed over by position.",
        )


def _check_batches(names: Sequence[str], tensors: Tensors) -> None:
    """Refuse what could not be one batch of requests."""
    for name, tensor in zip(names, tensors, strict=True):
        if not tensor.dim() or not tensor.numel():
            raise ConfigError(f"The example of {name!r} holds no batch of values.", _JSON_HINT)
    sizes = [len(tensor) for tensor in tensors]
    if len(set(sizes)) > 1:
        told = ", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
        raise ConfigError(
            f"The inputs differ in the size of their batch: {told}.", "The first axis of each input is the batch."
        )


def _free_axes(names: Sequence[str], tensors: Tensors, given: Sequence[str]) -> tuple[frozenset[int], ...]:
    axes = {name: {0} for name in names}
    dimensions = {name: tensor.dim() for name, tensor in zip(names, tensors, strict=True)}
    for text in given:
        name, _, number = text.rpartition(":")
        if name not in axes or not number.isdecimal() or not 0 < int(number) < dimensions[name]:
            told = ", ".join(f"{each}:1 to {each}:{count - 1}" for each, count in dimensions.items() if count > 1)
            raise ConfigError(f"--free {text} names no axis of an input.", f"There are: {told or 'none'}.")
        axes[name].add(int(number))
    return tuple(frozenset(axes[name]) for name in names)
