"""Integrated gradients: how much each input, or output of an inner layer, speaks for a class.

Source: Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks (2017). The integral is taken by Gauss and
Legendre's rule, as captum does by default, whose two classes these stand for.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator, Tuple

import torch


class IntegratedGradients:
    """Attributions to the input of a model.

    Args:
        forward_func: the model.
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        self.forward_func = forward_func

    def attribute(
        self,
        inputs: torch.Tensor,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
    ) -> torch.Tensor:
        """Return attributions of the inputs' shape.

        Args:
            inputs: ``(batch, …)``, floating point.
            baselines: the input that says nothing; zeros without one.
            target: class to explain, one for all or one a request.
            additional_forward_args: further arguments of the model, a tuple or a single one.
            n_steps: points of the integral; the model runs once for each.
        """
        start = torch.zeros_like(inputs) if baselines is None else baselines
        more = _arguments(additional_forward_args)
        return _integrated(inputs, start, lambda point: _chosen(self.forward_func(point, *more), target), n_steps)


class LayerIntegratedGradients:
    """Attributions to the output of a layer, for inputs that have no gradient, such as the numbers of words.

    Args:
        forward_func: the model.
        layer: one of its modules.
    """

    def __init__(self, forward_func: Callable[..., Any], layer: Any) -> None:
        self.forward_func = forward_func
        self.layer = layer

    def attribute(
        self,
        inputs: Any,
        baselines: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
    ) -> torch.Tensor:
        """Return attributions of the shape of the layer's output; the arguments are as above."""
        more = _arguments(additional_forward_args)

        def chosen(point: torch.Tensor) -> torch.Tensor:
            with _Hook(self.layer, point):
                return _chosen(self.forward_func(inputs, *more), target)

        ends = []
        for given in (inputs, baselines):
            with _Hook(self.layer) as hook, torch.no_grad():
                self.forward_func(given, *more)
            ends.append(hook.output)
        return _integrated(ends[0], ends[1], chosen, n_steps)


class _Hook:
    """Keeps a layer's output, and puts another in its place if there is one."""

    def __init__(self, layer: Any, replacement: Any = None) -> None:
        self.output: Any = None
        self._replacement = replacement
        self._handle = layer.register_forward_hook(self._call)

    def _call(self, layer: Any, inputs: Any, output: Any) -> Any:
        self.output = output
        return self._replacement

    def __enter__(self) -> _Hook:
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()


def _integrated(
    end: torch.Tensor, start: torch.Tensor, chosen: Callable[[torch.Tensor], torch.Tensor], n_steps: int
) -> torch.Tensor:
    """Return the integral of the gradients of ``chosen`` on the straight line from start to end, times its length."""
    total = torch.zeros_like(end)
    with torch.enable_grad():
        for place, weight in _points(n_steps):
            point = (start + place * (end - start)).detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(chosen(point).sum(), point)
            total += weight * gradient
    return (end - start) * total


def _points(count: int) -> Iterator[Tuple[float, float]]:
    """Yield places from 0 to 1 and their weights, which sum to 1."""
    import numpy as np

    places, weights = np.polynomial.legendre.leggauss(count)
    for place, weight in zip(places, weights):
        yield float(1 + place) / 2, float(weight) / 2


def _chosen(output: torch.Tensor, target: Any) -> torch.Tensor:
    """Return the values of the class to explain, one a request; a form's field gives its number as text."""
    if target is None or output.dim() < 2:
        return output
    if isinstance(target, (str, bytes, bytearray)):
        target = int(target)
    classes = torch.as_tensor(target, device=output.device).expand(len(output))
    return output.gather(1, classes[:, None])


def _arguments(given: Any) -> Tuple[Any, ...]:
    if given is None:
        return ()
    return given if isinstance(given, tuple) else (given,)
