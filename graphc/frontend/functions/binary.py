"""Functions of two numbers: angles, logarithms of sums, signs, scaling by powers of two."""

from __future__ import annotations

import math

from graphc import ops
from graphc.frontend.errors import describe, fail, title
from graphc.frontend.functions.checks import need_tensors
from graphc.frontend.functions.elementwise import Operand, binary, need, pow_, rsub
from graphc.frontend.functions.methods import method
from graphc.frontend.nodes import number
from graphc.frontend.promotion import get_default_dtype
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import float32, float64

method("rsub")(rsub)


@method("atan2", "arctan2", inplace=True)
def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle of the point (other, input)."""
    need_tensors("atan2", input, other)
    return binary("Atan2Backward0", ops.atan2, input, other, floating=True)


@method(inplace=True)
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(input**2 + other**2), also where the squares leave the range of the dtype; of an infinity and
    anything (a NaN too) it is infinite, as in C."""
    need_tensors("hypot", input, other)
    for tensor in (input, other):
        if not tensor.dtype.is_float:
            what = f"\"hypot_cpu\" not implemented for '{title(tensor.dtype)}'"
            raise fail(NotImplementedError, what)
    return binary("HypotBackward0", _hypot, input, other)


def _hypot(a: Node, b: Node) -> Node:
    """Of numbers whose squares are too large or too small, that of others, scaled by a power of two."""
    exponent = 70 if a.dtype is float32 else 520
    size = ops.maximum(ops.abs(a), ops.abs(b))
    large, small = (ops.like(a, 2.0**e) for e in (exponent, -exponent))
    is_large = ops.ge(size, ops.like(a, 2.0 ** (exponent - 10)))
    is_small = ops.le(size, ops.like(a, 2.0 ** (10 - exponent)))
    by = ops.select(is_large, small, ops.select(is_small, large, ops.ones(a.type)))
    back = ops.select(is_large, large, ops.select(is_small, small, ops.ones(a.type)))
    x, y = ops.mul(a, by), ops.mul(b, by)
    length = ops.mul(ops.sqrt(ops.add(ops.mul(x, x), ops.mul(y, y))), back)
    infinity = ops.like(a, math.inf)
    return ops.select(ops.isinf(a), infinity, ops.select(ops.isinf(b), infinity, length))


@method()
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2 ** input + 2 ** other), computed stably."""
    need_tensors("logaddexp2", input, other)

    def build(a: Node, b: Node) -> Node:
        scale = ops.like(a, math.log(2.0))
        return ops.div(_log_sum(ops.mul(a, scale), ops.mul(b, scale)), scale)

    return binary("Logaddexp2Backward0", build, input, other, floating=True)


def _log_sum(a: Node, b: Node) -> Node:
    """log(exp(a) + exp(b)), computed stably."""
    top = ops.stop_gradient(ops.maximum(a, b))
    top = ops.select(ops.isinf(top), ops.zeros(top.type), top)
    return ops.add(top, ops.log(ops.add(ops.exp(ops.sub(a, top)), ops.exp(ops.sub(b, top)))))


@method()
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(input) + exp(other)), computed stably."""
    need_tensors("logaddexp", input, other)
    return binary("LogaddexpBackward0", _log_sum, input, other, floating=True)


@method(inplace=True)
def xlogy(input: Operand, other: Operand) -> Tensor:
    """input * log(other), 0 where input is 0."""

    def build(a: Node, b: Node) -> Node:
        zero = ops.zeros(a.type)
        plain = ops.bit_or(ops.bit_and(ops.gt(b, zero), ops.isfinite(b)), ops.isnan(b))
        off = ops.bit_and(ops.eq(a, zero), ops.logical_not(plain))
        return ops.select(off, zero, ops.mul(a, ops.log(ops.select(off, ops.ones(b.type), b))))

    return binary("XlogyBackward0", build, need(input, "xlogy"), need(other, "xlogy"), floating=True)


def _negative(n: Node) -> Node:
    """Whether the sign bit is set: -0.0 counts."""
    zero = ops.zeros(n.type)
    if not n.dtype.is_float:
        return ops.lt(n, zero)
    return ops.lt(ops.select(ops.eq(n, zero), ops.div(ops.ones(n.type), n), n), zero)


@method(inplace=True)
def copysign(input: Tensor, other: Operand) -> Tensor:
    """The size of `input` with the sign of `other`."""
    need_tensors("copysign", input)

    def build(a: Node, b: Node) -> Node:
        size = ops.abs(a)
        return ops.select(_negative(b), ops.neg(size), size)

    return binary("CopysignBackward0", build, need(input, "copysign"), need(other, "copysign"), floating=True)


@method(inplace=True)
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 where `input` is negative, 1 where it is positive, `values` where it is zero."""
    need_tensors("heaviside", input, values)
    if input.dtype is not values.dtype:
        raise fail(
            RuntimeError,
            f"heaviside is not yet implemented for tensors with different dtypes: {describe(input, values)}",
        )

    def build(a: Node, b: Node) -> Node:
        zero = number(0, a.dtype, a.shape)
        step = ops.cast(ops.lt(ops.cast(zero, float64), ops.cast(a, float64)), a.dtype)
        return ops.stop_gradient(ops.select(ops.eq(a, zero), b, step))

    return binary("HeavisideBackward0", build, input, values)


@method(inplace=True)
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2 ** other."""
    need_tensors("ldexp", input, other)
    return input * pow_(2.0, other)


@method(inplace=True)
def float_power(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent, in float64."""
    double = [v.to(float64) if isinstance(v, Tensor) else float(v) for v in (input, exponent)]
    return pow_(*double)


@method()
def angle(input: Tensor) -> Tensor:
    """pi where a number is negative, else 0; NaN stays."""

    def build(n: Node) -> Node:
        n = n if n.dtype.is_float else ops.cast(n, get_default_dtype())
        found = ops.select(ops.lt(n, ops.zeros(n.type)), ops.like(n, math.pi), ops.zeros(n.type))
        return ops.stop_gradient(ops.select(ops.isnan(n), n, found))

    return apply("AngleBackward0", build, input)
