"""ONNX's operators in MXNet's words: one rule an operator, each from a node to the symbol's node that stands for it.

Source: the ONNX operators of opset 7 and newer, as they are when a model answers, and the operators of MXNet 1.9.1.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence, Tuple

from marserve.archive.onnx_graph import Step

#: Draws a node; raises ArchiveError where MXNet has no counterpart.
Rule = Callable[[Step], int]

#: Least and largest float32, for a bound that is not there.
_LARGEST = 3.4028234663852886e38
#: From here on an axis of softmax stands for itself; before, for all dimensions from there on.
_OPSET_OF_ONE_AXIS = 13


def _plain(operator: str, **settings: object) -> Rule:
    """Return the rule for an operator of one input that differs in nothing but its name."""
    return lambda step: step.emit(operator, [step.input()], **settings)


def _same(step: Step) -> int:
    return step.input()


# --- layers --------------------------------------------------------------------------------------------


def _gemm(step: Step) -> int:
    if step.attribute("transA", 0):
        raise step.refusal("transA is not 0")
    stored, alpha = step.constant(1), step.attribute("alpha", 1.0)
    weight = stored if step.attribute("transB", 0) else stored.T
    weight = weight if alpha == 1 else weight * alpha
    wired = [step.input(), step.parameter(1, weight)]
    if step.has(2):
        bias, beta = step.constant(2), step.attribute("beta", 1.0)
        if bias.size not in (1, len(weight)) or bias.shape[-1:] not in ((), (bias.size,)):
            raise step.refusal("its third input is no row")
        row = bias if bias.shape == (len(weight),) else bias.reshape(-1).repeat(len(weight) // bias.size)
        wired.append(step.parameter(2, row if beta == 1 else row * beta))
    return _dense(step, wired, len(weight))


def _matmul(step: Step) -> int:
    weight = step.known(1)
    if weight is not None and weight.ndim == 2:
        return _dense(step, [step.input(), step.parameter(1, weight.T)], weight.shape[1])
    left, right = step.shape(0), step.shape(1)
    if left is None or right is None or len(left) != len(right) or len(left) < 2:
        raise step.refusal("its inputs have not the same number of dimensions, from two on")
    return step.emit("_linalg_gemm2", [step.input(0), step.input(1)])


def _dense(step: Step, wired: Sequence[int], units: int) -> int:
    return step.emit("FullyConnected", wired, num_hidden=units, no_bias=len(wired) == 2, flatten=False)


def _convolution(step: Step) -> int:
    weight = step.constant(1)
    kernel = weight.shape[2:]
    data, pad = _padded(step, len(kernel))
    wired = [data, step.parameter(1)] + ([step.parameter(2)] if step.has(2) else [])
    return step.emit(
        "Convolution",
        wired,
        kernel=kernel,
        stride=tuple(step.attribute("strides", [1] * len(kernel))),
        dilate=tuple(step.attribute("dilations", [1] * len(kernel))),
        pad=pad,
        num_filter=len(weight),
        num_group=step.attribute("group", 1),
        no_bias=len(wired) == 2,
    )


def _batch_normalization(step: Step) -> int:
    if step.attribute("training_mode", 0) or not step.attribute("spatial", 1):
        raise step.refusal("it was exported while it was trained, or is not by channel")
    learned = [step.parameter(1), step.parameter(2)]
    # As states: a checkpoint that has them among the arguments is loaded as if they were zeros.
    statistics = [step.parameter(index, is_state=True) for index in (3, 4)]
    return step.emit(
        "BatchNorm",
        [step.input(), *learned, *statistics],
        eps=step.attribute("epsilon", 1e-5),
        fix_gamma=False,
        use_global_stats=True,
        axis=1,
    )


def _pooling(kind: str) -> Rule:
    def rule(step: Step) -> int:
        kernel = tuple(step.attribute("kernel_shape"))
        stride = tuple(step.attribute("strides", [1] * len(kernel)))
        counts_padding = kind == "max" or bool(step.attribute("count_include_pad", 0))
        data, pad = _padded(step, len(kernel), -_LARGEST if kind == "max" else 0.0, counts_padding)
        if any(size != 1 for size in step.attribute("dilations", [])):
            raise step.refusal("it has dilations")
        rounds_up = bool(step.attribute("ceil_mode", 0))
        if rounds_up and (kind != "max" or any(pad) or any(far > size for far, size in zip(stride, kernel))):
            raise step.refusal("ceil_mode with padding, gaps or averages is another thing there")
        return step.emit(
            "Pooling",
            [data],
            kernel=kernel,
            stride=stride,
            pad=pad,
            pool_type=kind,
            pooling_convention="full" if rounds_up else "valid",
            count_include_pad=counts_padding,
        )

    return rule


def _global_pooling(kind: str) -> Rule:
    def rule(step: Step) -> int:
        kernel = (1,) * (len(step.shape() or (0, 0, 0, 0)) - 2)
        return step.emit("Pooling", [step.input()], kernel=kernel, pool_type=kind, global_pool=True)

    return rule


def _padded(
    step: Step, dimensions: int, value: float = 0.0, counts_padding: bool = True
) -> Tuple[int, Tuple[int, ...]]:
    """Return the data and its padding, the same before as behind; where it is not, the data is padded beforehand."""
    kind = step.attribute("auto_pad", "NOTSET")
    if kind not in ("NOTSET", "VALID"):
        raise step.refusal(f"auto_pad is {kind}")
    pads = step.attribute("pads", []) if kind == "NOTSET" else []
    before, behind = tuple(pads[:dimensions]), tuple(pads[dimensions:])
    if before == behind:
        return step.input(), before or (0,) * dimensions
    if not counts_padding:
        raise step.refusal("padding that differs at the two ends and does not count is not there")
    widths = [width for pair in ((0, 0), (0, 0), *zip(before, behind)) for width in pair]
    return _widened(step, widths, value, "_padded"), (0,) * dimensions


def _widened(step: Step, widths: List[int], value: float, suffix: str) -> int:
    """Pad by ``widths``, before and behind each dimension."""
    if len(widths) not in (8, 10) or any(widths[:4]) or min(widths) < 0:
        raise step.refusal("only pictures and volumes can be padded, at their edges")
    return step.emit(
        "Pad", [step.input()], suffix, mode="constant", pad_width=tuple(widths), constant_value=float(value)
    )


def _pad(step: Step) -> int:
    kind = step.attribute("mode", "constant")
    pads = step.numbers("pads", 1) or []
    if kind != "constant" or step.has(3):
        raise step.refusal(f"the mode {kind}, or axes, are not there")
    value = float(step.constant(2).reshape(-1)[0]) if step.has(2) else step.attribute("value", 0.0)
    half = len(pads) // 2
    return _widened(step, [width for pair in zip(pads[:half], pads[half:]) for width in pair], value, "")


# --- arithmetic ----------------------------------------------------------------------------------------

#: By operator: for two arrays, for an array with a number behind, and with a number before it.
_ARITHMETIC = {
    "Add": ("broadcast_add", "_plus_scalar", "_plus_scalar"),
    "Sub": ("broadcast_sub", "_minus_scalar", "_rminus_scalar"),
    "Mul": ("broadcast_mul", "_mul_scalar", "_mul_scalar"),
    "Div": ("broadcast_div", "_div_scalar", "_rdiv_scalar"),
    "Pow": ("broadcast_power", "_power_scalar", "_rpower_scalar"),
}


def _arithmetic(step: Step) -> int:
    arrays, behind, before = _ARITHMETIC[step.operator]
    for index, operator in ((1, behind), (0, before)):
        number = step.known(index)
        if number is not None and number.size == 1 and number.ndim <= 1:
            scalar = float(number.reshape(-1)[0])
            return step.emit(operator, [step.input(1 - index)], scalar=scalar)
    return step.emit(arrays, [step.input(0), step.input(1)])


def _clip(step: Step) -> int:
    bounds = []
    for index, name, default in ((1, "min", -_LARGEST), (2, "max", _LARGEST)):
        told = step.constant(index).reshape(-1)[0] if step.has(index) else step.attribute(name, default)
        bounds.append(float(told))
    return step.emit("clip", [step.input()], a_min=bounds[0], a_max=bounds[1])


def _softmax(operator: str) -> Rule:
    def rule(step: Step) -> int:
        is_one_axis = step.opset >= _OPSET_OF_ONE_AXIS
        axis, shape = step.attribute("axis", -1 if is_one_axis else 1), step.shape()
        if not is_one_axis and (shape is None or axis not in (-1, len(shape) - 1)):
            raise step.refusal(f"its axis {axis} is not known to be the last, and stands for all from there on")
        return step.emit(operator, [step.input()], axis=axis)

    return rule


def _hard_sigmoid(step: Step, suffix: str = "", alpha: float = 0.2) -> int:
    settings = {"alpha": step.attribute("alpha", alpha), "beta": step.attribute("beta", 0.5)}
    return step.emit("hard_sigmoid", [step.input()], suffix, **settings)


def _hard_swish(step: Step) -> int:
    return step.emit("broadcast_mul", [step.input(), _hard_sigmoid(step, "_gate", 1 / 6)])


def _leaky(kind: str, default: float) -> Rule:
    return lambda step: step.emit("LeakyReLU", [step.input()], act_type=kind, slope=step.attribute("alpha", default))


def _mean(step: Step) -> int:
    axes = step.numbers("axes", 1)
    if not axes and step.attribute("noop_with_empty_axes", 0):
        return step.input()
    settings: Dict[str, object] = {"axis": tuple(axes)} if axes else {}
    return step.emit("mean", [step.input()], keepdims=bool(step.attribute("keepdims", 1)), **settings)


# --- shapes --------------------------------------------------------------------------------------------


def _flatten(step: Step) -> int:
    if step.attribute("axis", 1) != 1:
        raise step.refusal("its axis is not 1")
    return step.emit("Flatten", [step.input()])


def _reshape(step: Step) -> int:
    told = step.known(1)
    if told is None:
        return step.emit("Reshape", [step.input()], shape=_shape_that_comes_out(step))
    shape = tuple(int(size) for size in told)
    if not shape or (0 in shape and step.attribute("allowzero", 0)):
        raise step.refusal(f"the shape {shape} is none of MXNet's")
    return step.emit("Reshape", [step.input()], shape=shape)  # 0 and -1 mean the same in both


def _shape_that_comes_out(step: Step) -> Tuple[int, ...]:
    """Return the shape of an output whose shape is computed, as far as that is known without the computation."""
    before = step.shape() or ()
    sizes = []
    for place, size in enumerate(step.output_shape() or ()):
        is_kept = isinstance(size, str) and size != "" and before[place : place + 1] == (size,)
        sizes.append(size if isinstance(size, int) else 0 if is_kept else -1)
    if not sizes or sizes.count(-1) > 1:
        raise step.refusal("its shape is computed, and more than one size of it is not known beforehand")
    return tuple(sizes)


def _transpose(step: Step) -> int:
    order = step.attribute("perm")
    return step.emit("transpose", [step.input()], **({"axes": tuple(order)} if order else {}))


def _squeeze(step: Step) -> int:
    axes = step.numbers("axes", 1)
    return step.emit("squeeze", [step.input()], **({"axis": tuple(axes)} if axes else {}))


def _unsqueeze(step: Step) -> int:
    axes, shape = step.numbers("axes", 1) or [], step.output_shape()
    if len(axes) > 1 and min(axes) < 0:
        if shape is None:
            raise step.refusal("its axes are counted from the end of a shape that is not known")
        axes = [axis % len(shape) for axis in axes]
    found = step.input()
    for number, axis in enumerate(sorted(axes), 1):
        found = step.emit("expand_dims", [found], "" if number == len(axes) else f"_{number}", axis=axis)
    return found


def _concatenation(step: Step) -> int:
    inputs = [step.input(index) for index in range(step.count())]
    return step.emit("Concat", inputs, num_args=len(inputs), dim=step.attribute("axis", 1))


def _dropout(step: Step) -> int:
    trains: Any = step.constant(2) if step.has(2) else False
    if bool(trains):
        raise step.refusal("it was exported while it was trained")
    return step.input()


RULES: Dict[str, Rule] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _convolution,
    "BatchNormalization": _batch_normalization,
    "MaxPool": _pooling("max"),
    "AveragePool": _pooling("avg"),
    "GlobalMaxPool": _global_pooling("max"),
    "GlobalAveragePool": _global_pooling("avg"),
    "Pad": _pad,
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    "Relu": _plain("Activation", act_type="relu"),
    "Sigmoid": _plain("Activation", act_type="sigmoid"),
    "Tanh": _plain("Activation", act_type="tanh"),
    "Softplus": _plain("Activation", act_type="softrelu"),
    "LeakyRelu": _leaky("leaky", 0.01),
    "Elu": _leaky("elu", 1.0),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Clip": _clip,
    "Abs": _plain("abs"),
    "Erf": _plain("erf"),
    "Exp": _plain("exp"),
    "Log": _plain("log"),
    "Neg": _plain("negative"),
    "Sqrt": _plain("sqrt"),
    "Softmax": _softmax("softmax"),
    "LogSoftmax": _softmax("log_softmax"),
    "ReduceMean": _mean,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concatenation,
    "Dropout": _dropout,
    "Identity": _same,
}
