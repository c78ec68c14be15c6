"""The ``signature.json`` of an exported model, made of its example and of what the model answered."""

from __future__ import annotations

import math
from typing import Any

import torch

from marserve.archive.signature import WHOLE_BODY, validate
from marserve.errors import ModelError
from marserve.exporting.answers import Answer, data_type
from marserve.exporting.example import Example

#: Most numbers of an example that is worth reading; larger ones are left out.
MOST_SHOWN = 1000
#: Digits that are shown of a number: those of a float32.
_DIGITS = 7


def signature_of(description: str, example: Example, answer: Answer, others: list[Answer]) -> dict[str, Any]:
    """Return the signature of what is served when the exported file is packed with a service of the library.

    Args:
        description: what the model is, for people.
        answer: to the example.
        others: answers to inputs of other sizes; an axis whose size differs there is free.

    Raises:
        ModelError: an output does not begin with the batch, so that no request could be given its part.
        SignatureError: a name or data type that a signature cannot have.
    """
    batch = len(example.tensors[0])
    inputs = [
        _entry(name, tensor, [0 if axis in free else size for axis, size in enumerate(tensor.shape)])
        for name, tensor, free in zip(example.names, example.tensors, example.free, strict=True)
    ]
    for name, tensor in answer.items():
        if tensor.shape[:1] != (batch,) or (example.has_free_batch and _is_fixed(name, answer, others)):
            raise ModelError(
                f"The output {name!r} has shape {tuple(tensor.shape)} and does not begin with the batch of {batch}.",
                "Each request is given its part of an output: let forward return (batch, …).",
            )
    outputs = [_entry(name, tensor, _shape(name, answer, others)) for name, tensor in answer.items()]
    if len(outputs) == 1:  # a service sends the only output as it is, without a name
        outputs[0].update(name=WHOLE_BODY, description=f"The model's output {next(iter(answer))!r}.")
    signature = {"description": description, "inputs": inputs, "outputs": outputs}
    validate(signature)
    return signature


def _is_fixed(name: str, answer: Answer, others: list[Answer]) -> bool:
    """Whether the first axis of an output has the same size for every batch, which by chance is the example's."""
    return bool(others) and all(other[name].shape[:1] == answer[name].shape[:1] for other in others)


def _shape(name: str, answer: Answer, others: list[Answer]) -> list[int]:
    """Return the shape of an output, 0 for an axis that is of another size, or not there, in another answer."""
    shape = list(answer[name].shape)
    for other in others:
        sizes = list(other[name].shape)
        shape = [size if sizes[axis : axis + 1] == [size] else 0 for axis, size in enumerate(shape)]
    return shape


def _entry(name: str, tensor: torch.Tensor, shape: list[int]) -> dict[str, Any]:
    """Return an entry; of the batch, which comes first in ``tensor`` and ``shape``, it tells the first value."""
    entry: dict[str, Any] = {"name": name, "shape": shape[1:], "data_type": data_type(tensor)}
    if tensor[0].numel() <= MOST_SHOWN:
        value = _shown(tensor[0].tolist())
        if value is not None:
            entry["example"] = value
    return entry


def _shown(value: Any) -> Any:
    """Return nested lists with short numbers; None when one of them is not finite, which JSON cannot say."""
    if isinstance(value, list):
        items = [_shown(item) for item in value]
        return None if None in items else items
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value
