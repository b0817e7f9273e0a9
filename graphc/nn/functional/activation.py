"""Activation functions."""

from __future__ import annotations

import math
import warnings

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.functions import random
from graphc.frontend.nodes import cast, expand, normal_axis
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import Tensor, apply, inplace
from graphc.ir.node import Node
from graphc.ir.types import DType, bool_
from graphc.nn.arith import Num, select
from graphc.nn.functional.common import (
    as_floats,
    elementwise,
    log_softmax_node,
    need_float,
    need_numbers,
    need_tensors,
    softmax_node,
)

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


@repeatable
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(0, x); the gradient at 0 is 0."""
    need_tensors("relu", input)
    if input.dtype is bool_:
        raise fail(RuntimeError, "Boolean inputs not supported for relu")
    return _change("relu", "ReluBackward0", lambda n: select(Num(n) <= 0, 0, Num(n)).node, input, inplace)


def _change(name: str, label: str, build, input: Tensor, change: bool) -> Tensor:  # type: ignore[no-untyped-def]
    out = apply(label, build, input)
    return inplace(input, out, name) if change else out


def relu_(input: Tensor) -> Tensor:
    """In-place form of `relu`."""
    return relu(input, inplace=True)


@repeatable
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else `value`."""
    return elementwise(
        "threshold",
        "ThresholdBackward0",
        lambda x: select(x <= threshold, value, x),
        input,
        inplace,
        integers=True,
    )


_threshold = threshold


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """In-place form of `threshold`."""
    return _threshold(input, threshold, value, inplace=True)


@repeatable
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x clamped to [min_val, max_val]; no gradient at the ends. ValueError if they cross."""
    if min_val > max_val:
        raise fail(ValueError, "min_val cannot be greater than max_val")
    return elementwise(
        "hardtanh",
        "HardtanhBackward0",
        lambda x: select(x <= min_val, min_val, select(x >= max_val, max_val, x)),
        input,
        inplace,
        integers=True,
    )


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """In-place form of `hardtanh`."""
    return hardtanh(input, min_val, max_val, inplace=True)


@repeatable
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(0, x), 6)."""
    return hardtanh(input, 0.0, 6.0, inplace)


@repeatable
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x if x > 0, else negative_slope * x."""
    return elementwise(
        "leaky_relu",
        "LeakyReluBackward0",
        lambda x: select(x > 0, x, x * negative_slope),
        input,
        inplace,
    )


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """In-place form of `leaky_relu`."""
    return leaky_relu(input, negative_slope, inplace=True)


@repeatable
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x if x > 0, else weight * x; one weight, or one for each channel (dim 1)."""
    need_float("prelu", input, weight)
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.numel() not in (1, channels):
        raise fail(
            RuntimeError,
            "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
            f"{weight.numel()} "
            f"and channel size = {channels}.",
        )

    def build(x: Node, w: Node) -> Node:
        shape = (1,) * x.type.rank
        if weight.numel() > 1:
            shape = (1, channels, *[1] * (x.type.rank - 2))
        slope = expand(ops.reshape(w, shape), x.shape)
        return ops.select(ops.gt(x, ops.zeros(x.type)), x, ops.mul(slope, x))

    return apply("PreluKernelBackward0", build, input, weight)


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Leaky ReLU with a random slope from [lower, upper] in training, its mean otherwise."""
    if lower > upper:
        raise fail(
            RuntimeError, f"Lower bound should be less than or equal to the upper bound: {lower}, {upper}"
        )
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    need_float("rrelu", input)
    key, stream = random.next_key()

    def build(n: Node) -> Node:
        x = Num(n)
        slope = Num(ops.uniform(key, n.shape, stream, n.dtype)) * (upper - lower) + lower
        return select(x <= 0, x * slope, x).node

    return _change("rrelu", "RreluWithNoiseBackward0", build, input, inplace)


def _elu(x: Num, alpha: float, scale: float, input_scale: float) -> Num:
    negative = select(x > 0, 0, x)  # keeps expm1 from overflowing where it is not wanted
    return select(x > 0, x * scale, (negative * input_scale).map(ops.expm1) * (alpha * scale))


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """In-place form of `rrelu`."""
    return rrelu(input, lower, upper, training, inplace=True)


@repeatable
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x if x > 0, else alpha * (exp(x) - 1)."""
    return elementwise("elu", "EluBackward0", lambda x: _elu(x, alpha, 1.0, 1.0), input, inplace)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """In-place form of `elu`."""
    return elu(input, alpha, inplace=True)


@repeatable
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * elu(x, alpha), with the constants of self-normalising networks."""
    return elementwise(
        "selu", "EluBackward0", lambda x: _elu(x, _SELU_ALPHA, _SELU_SCALE, 1.0), input, inplace
    )


def selu_(input: Tensor) -> Tensor:
    """In-place form of `selu`."""
    return selu(input, inplace=True)


@repeatable
def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1)). RuntimeError for alpha = 0."""
    if alpha == 0:
        raise fail(RuntimeError, "ZeroDivisionError: alpha cannot be 0 for CELU")
    return elementwise("celu", "EluBackward0", lambda x: _elu(x, alpha, 1.0, 1.0 / alpha), input, inplace)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """In-place form of `celu`."""
    return celu(input, alpha, inplace=True)


@repeatable
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x): by erf ("none"), or by the "tanh" approximation."""
    if approximate == "none":
        return elementwise(
            "gelu",
            "GeluBackward0",
            lambda x: x * ((x * math.sqrt(0.5)).map(ops.erf) * 0.5 + 0.5),
            input,
        )
    if approximate != "tanh":
        raise fail(RuntimeError, f"approximate argument must be either none or tanh, got {approximate!r}")

    def formula(x: Num) -> Num:
        scale = math.sqrt(2 / math.pi)
        inner = x * (x * x * (0.044715 * scale) + scale)
        return x * (inner.map(ops.tanh) * 0.5 + 0.5)

    return elementwise("gelu", "GeluBackward0", formula, input)


@repeatable
def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return input.sigmoid()  # type: ignore[attr-defined]


@repeatable
def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return input.tanh()  # type: ignore[attr-defined]


def logsigmoid_formula(x: Num) -> Num:
    """log(sigmoid(x)) = min(x, 0) - log1p(exp(-|x|))."""
    lowest = select(x > 0, 0, x)
    return lowest - (-select(x > 0, x, -x)).map(ops.exp).map(ops.log1p)


@repeatable
def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow."""
    return elementwise("logsigmoid", "LogSigmoidBackward0", logsigmoid_formula, input)


@repeatable
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    return elementwise("silu", "SiluBackward0", lambda x: x * x.map(ops.sigmoid), input, inplace)


def _softplus(x: Num, beta: float, limit: float) -> Num:
    scaled = x * beta if beta != 1 else x
    small = select(scaled > limit, 0, scaled)  # keeps exp from overflowing where it is not wanted
    curve = small.map(ops.exp).map(ops.log1p)
    return select(scaled > limit, x, curve * (1 / beta) if beta != 1 else curve)


@repeatable
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""
    return elementwise("softplus", "SoftplusBackward0", lambda x: _softplus(x, beta, threshold), input)


@repeatable
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x))."""
    return elementwise(
        "mish", "MishBackward0", lambda x: x * _softplus(x, 1, 20).map(ops.tanh), input, inplace
    )


@repeatable
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return elementwise(
        "hardsigmoid",
        "HardsigmoidBackward0",
        lambda x: select(x <= -3, 0, select(x >= 3, 1, (x + 3) / 6)),
        input,
        inplace,
    )


@repeatable
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x)."""
    return elementwise(
        "hardswish",
        "HardswishBackward0",
        lambda x: select(x <= -3, 0, select(x >= 3, x, x * (x + 3) / 6)),
        input,
        inplace,
    )


@repeatable
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambd, else 0."""
    return elementwise(
        "hardshrink",
        "HardshrinkBackward0",
        lambda x: select(x >= -lambd, select(x <= lambd, 0, x), x),
        input,
    )


@repeatable
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by lambd, and 0 where it would pass it. RuntimeError for lambd < 0."""
    if lambd < 0:
        raise fail(RuntimeError, f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return elementwise(
        "softshrink",
        "SoftshrinkBackward0",
        lambda x: select(x > lambd, x - lambd, select(x < -lambd, x + lambd, x * 0)),
        input,
    )


@repeatable
def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    (x,) = as_floats("tanhshrink", input)
    return elementwise("tanhshrink", "SubBackward0", lambda x: x - x.map(ops.tanh), x)


@repeatable
def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    (x,) = as_floats("softsign", input)
    return elementwise("softsign", "DivBackward0", lambda x: x / (x.map(ops.abs) + 1), x)


def _implicit_dim(name: str, ndim: int) -> int:
    dim = 0 if ndim in (0, 1, 3) else 1
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an "
        "argument.",
        stacklevel=5,
    )
    return dim


def _along(name: str, label: str, build, input: Tensor, dim: int | None, dtype: DType | None) -> Tensor:  # type: ignore[no-untyped-def]
    need_tensors(name, input)
    if dim is None:
        dim = _implicit_dim(name, input.ndim)
    if dtype is None:
        need_float(name, input)
    axis = normal_axis(dim, input.ndim)

    def whole(n: Node) -> Node:
        n = n if dtype is None else cast(n, dtype)
        if n.type.rank == 0:
            return ops.reshape(build(ops.reshape(n, (1,)), 0), ())
        return build(n, axis)

    return apply(label, whole, input)


@repeatable
def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, without overflow."""
    return _along("softmax", "SoftmaxBackward0", softmax_node, input, dim, dtype)


@repeatable
def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    """log(softmax(x)) along `dim`, without overflow."""
    return _along("log_softmax", "LogSoftmaxBackward0", log_softmax_node, input, dim, dtype)


@repeatable
def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    """softmax(-x) along `dim`."""
    need_numbers("softmin", input)
    negative = apply("NegBackward0", ops.neg, input)  # before the cast: unsigned numbers wrap round
    return _along("softmin", "SoftmaxBackward0", softmax_node, negative, dim, dtype)


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """A sample of the Gumbel-Softmax distribution; with `hard`, one-hot with the soft one's gradient."""
    need_float("gumbel_softmax", logits)
    axis = normal_axis(dim, logits.ndim)
    key, stream = random.next_key()

    def build(n: Node) -> Node:
        u = Num(ops.uniform(key, n.shape, stream, n.dtype))
        tiny = 1.2e-38 if n.dtype.itemsize == 4 else 2.3e-308
        noise = -(-(1 - u).maximum(tiny).map(ops.log)).maximum(tiny).map(ops.log)
        soft = softmax_node(((Num(n) + noise) / tau).node, axis)
        if not hard:
            return soft
        best = expand(_unsqueeze(ops.argmax(soft, axis), axis), n.shape)
        one_hot = cast(ops.eq(best, ops.iota(n.shape, axis, best.dtype)), n.dtype)
        return ops.with_gradient(one_hot, soft)

    return apply("GumbelSoftmaxBackward0", build, logits)


def _unsqueeze(n: Node, axis: int) -> Node:
    return ops.reshape(n, (*n.shape[:axis], 1, *n.shape[axis:]))


@repeatable
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a * sigmoid(b), a and b being the halves along `dim`. RuntimeError if it cannot be halved."""
    need_float("glu", input)
    if input.ndim == 0:
        raise fail(RuntimeError, "glu does not support scalars because halving size must be even")
    axis = normal_axis(dim, input.ndim)
    extent = input.shape[axis]
    if extent % 2:
        raise fail(RuntimeError, f"Halving dimension must be even, but dimension {axis} is size {extent}")

    def build(n: Node) -> Node:
        first = ops.slice_axis(n, axis, 0, extent // 2)
        second = ops.slice_axis(n, axis, extent // 2, extent)
        return ops.mul(first, ops.sigmoid(second))

    return apply("GluBackward0", build, input)
