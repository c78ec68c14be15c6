"""What a model answers as named tensors, and where and by how much two answers differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from marserve.errors import ConfigError, LoadError

#: Name of the output of a model that has one, and gives it no name.
ONLY_OUTPUT = "output"

Answer = dict[str, torch.Tensor]


def named(output: Any, names: Sequence[str] = ()) -> Answer:
    """Return what a model gave as tensors by name.

    A single tensor is ``output``; a dict and a named tuple have names of their own; those of a tuple or list are
    ``output_0`` and so on.

    Args:
        names: take the place of these names, one an output.

    Raises:
        LoadError: an output is no tensor.
        ConfigError: there are more or fewer outputs than names.
    """
    if isinstance(output, Mapping):
        found = {str(name): value for name, value in output.items()}
    elif isinstance(output, tuple | list):
        fields = getattr(output, "_fields", [f"{ONLY_OUTPUT}_{at}" for at in range(len(output))])
        found = dict(zip(fields, output, strict=True))
    else:
        found = {ONLY_OUTPUT: output}
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise LoadError(
                f"The model's output {name!r} is {type(value).__name__} and no tensor.",
                "Export a module whose forward gives a tensor, or a tuple or dict of tensors.",
            )
    if names and len(names) != len(found):
        raise ConfigError(
            f"--output-names has {len(names)} names, the model {len(found)} outputs: {', '.join(found)}.",
            "Name each of them, in their order.",
        )
    return dict(zip(names or found, found.values(), strict=True))


class Gap(NamedTuple):
    """The largest difference between two answers.

    Attributes:
        words: where it is, and what stands there.
        amount: how large it is; infinite where the answers cannot be compared at all.
        is_too_large: whether it is beyond the tolerance.
    """

    words: str
    amount: float
    is_too_large: bool

    @property
    def rank(self) -> tuple[bool, float]:
        """What the larger of two gaps is told by."""
        return self.is_too_large, self.amount


NO_GAP = Gap("nothing was compared", 0.0, False)


def gap_between(expected: Answer, got: Sequence[torch.Tensor], tolerance: float) -> Gap:
    """Return the largest difference between the original's answer and another, output by output.

    Args:
        tolerance: a number may be off by it, and by its share of the original's number. NaN is equal to NaN, an
            infinity to itself.
    """
    if len(got) != len(expected):
        return Gap(f"{len(got)} outputs instead of {len(expected)}", math.inf, True)
    pairs = zip(expected.items(), got, strict=True)
    gaps = (_gap(f"output {name!r}", wanted, found, tolerance) for (name, wanted), found in pairs)
    return max(gaps, key=lambda gap: gap.rank, default=NO_GAP)


def _gap(what: str, expected: torch.Tensor, got: torch.Tensor, tolerance: float) -> Gap:
    if got.shape != expected.shape:
        return Gap(f"{what} has shape {tuple(got.shape)} instead of {tuple(expected.shape)}", math.inf, True)
    if got.dtype != expected.dtype:
        return Gap(f"{what} is {data_type(got)} instead of {data_type(expected)}", math.inf, True)
    if not expected.numel():
        return Gap(f"{what} is empty", 0.0, False)
    left, right = expected.double().flatten(), got.double().flatten()
    apart = (right - left).abs().nan_to_num(math.inf, math.inf)
    apart[(left == right) | (left.isnan() & right.isnan())] = 0.0
    allowed = tolerance * (1 + left.abs().nan_to_num(0.0, 0.0))
    over = apart > allowed
    at = int((apart - allowed).argmax() if over.any() else apart.argmax())
    index = [int(each) for each in torch.unravel_index(torch.tensor(at), expected.shape)]
    amount = apart[at].item()
    words = f"{what} at {index} is {right[at].item():.7g} instead of {left[at].item():.7g}, off by {amount:.3g}"
    if over.any():
        words += f"; {int(over.sum())} of its {len(over)} numbers are off by more than the tolerance of {tolerance:g}"
    return Gap(words, amount, bool(over.any()))


def data_type(tensor: torch.Tensor) -> str:
    """Return the name of a tensor's data type as a signature has it."""
    return str(tensor.dtype).rpartition(".")[2]
