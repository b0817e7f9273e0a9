"""Elementwise arithmetic, comparison and logic, with PyTorch's dtype promotion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.functions.checks import need_tensors
from graphc.frontend.functions.methods import method
from graphc.frontend.nodes import broadcast_shapes, cast, expand, number
from graphc.frontend.promotion import Promotion, get_default_dtype, number_dtype
from graphc.frontend.tensor import Tensor, apply, from_array, needs_grad, operand, result
from graphc.ir.node import Node
from graphc.ir.types import DType, Shape, bool_, float64, from_numpy_dtype

Number = int | float | bool
Operand = Tensor | Number
Build = Callable[..., Node]


# ------------------------------------------------------------------- operands


def coerce(value: Any) -> Operand | None:
    """A tensor or a Python number for an operand; None if it is neither and cannot become one."""
    if isinstance(value, (Tensor, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        from_numpy_dtype(value.dtype)
        return from_array(value.copy())
    return None


def need(value: Any, operation: str) -> Operand:
    """`coerce`, or TypeError."""
    found = coerce(value)
    if found is None:
        raise fail(TypeError, f"{operation}(): argument must be Tensor or Number, not {type(value).__name__}")
    return found


def _common_dtype(a: Operand, b: Operand) -> DType | None:
    """The dtype of most pairs of operands, told without ranking them; None for the others."""
    if not isinstance(a, Tensor):
        a, b = b, a
    if not isinstance(a, Tensor) or a._weak:
        return None
    mine = a._cell.node.type
    if not isinstance(b, Tensor):  # a number changes no float tensor
        return mine.dtype if mine.dtype.is_float else None
    theirs = b._cell.node.type
    alike = mine.dtype is theirs.dtype and (not mine.shape) == (not theirs.shape)
    return mine.dtype if alike and not b._weak else None


def result_dtype(*values: Operand) -> DType:
    """The dtype PyTorch's promotion gives to an operation on `values`."""
    if len(values) == 2 and (common := _common_dtype(*values)) is not None:
        return common
    promotion = Promotion()
    for v in values:
        if isinstance(v, Tensor):
            node_type = v._cell.node.type
            if v._weak:
                promotion.number(get_default_dtype() if node_type.dtype.is_float else node_type.dtype)
            else:
                promotion.tensor(node_type.dtype, len(node_type.shape))
        else:
            promotion.number(number_dtype(v))
    return promotion.result()


def _shape(value: Operand) -> Shape:
    return value._cell.node.type.shape if isinstance(value, Tensor) else ()


def pointwise(label: str, build: Build, values: tuple[Operand, ...], dtype: DType) -> Tensor:
    """`build` on `values` brought to one dtype and one shape."""
    tensors = tuple([v for v in values if isinstance(v, Tensor)])
    tracked = needs_grad(*tensors)
    types = {v._cell.node.type for v in tensors}
    shape = (
        tensors[0]._cell.node.type.shape
        if len(types) == 1
        else broadcast_shapes(*[_shape(v) for v in tensors])
    )
    nodes = [
        expand(cast(operand(v, tracked), dtype), shape) if isinstance(v, Tensor) else number(v, dtype, shape)
        for v in values
    ]
    return result(build(*nodes), label, tensors, tracked)


def _is_number(value: Operand) -> bool:
    """A Python number, or a tensor that stands for one (a float argument, a learning rate)."""
    return not isinstance(value, Tensor) or (value._weak and value._cell.node.type.dtype.is_float)


def binary(label: str, build: Build, a: Operand, b: Operand, floating: bool = False) -> Tensor:
    """An operation on two operands, in their common dtype (the default float dtype if `floating`)."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        one, two = a._cell.node.type, b._cell.node.type
        if one == two and not a._weak and not b._weak and (one.dtype.is_float or not floating):
            tracked = needs_grad(a, b)
            return result(build(operand(a, tracked), operand(b, tracked)), label, (a, b), tracked)
    elif not isinstance(a, Tensor) and not isinstance(b, Tensor):
        raise fail(
            TypeError,
            "received an invalid combination of arguments - got "
            f"({type(a).__name__}, {type(b).__name__}), but one of them must be a Tensor",
        )
    if _is_number(a) and _is_number(b):
        found = pointwise(label, build, (a, b), float64)
        found._weak = True
        return found
    dtype = result_dtype(a, b)
    if floating and not dtype.is_float:
        dtype = get_default_dtype()
    return pointwise(label, build, (a, b), dtype)


# ------------------------------------------------------------------ arithmetic


def _no_bool(*operands: Operand) -> None:
    found = [v.dtype is bool_ if isinstance(v, Tensor) else isinstance(v, bool) for v in operands]
    if any(found):
        which, instead = "a bool tensor", "If you are trying to invert a mask, use the `~` or `logical_not()`"
        if all(found):
            which, instead = "two bool tensors", "Use the `^` or `logical_xor()`"
        raise fail(
            RuntimeError,
            f"Subtraction, the `-` operator, with {which} is not supported. {instead} operator instead.",
        )


def _add_build(dtype: DType) -> Build:
    return ops.bit_or if dtype is bool_ else ops.add


def _scaled(other: Operand, alpha: Number, dtype: DType) -> Operand:
    """alpha * other, for a result of `dtype`. RuntimeError if that cannot hold `alpha`."""
    if isinstance(alpha, bool) and dtype is not bool_:
        raise fail(RuntimeError, "Boolean alpha only supported for Boolean results.")
    if isinstance(alpha, float) and not dtype.is_float:
        message = "For integral input tensors, argument alpha must not be a floating point number."
        raise fail(RuntimeError, message)
    if dtype is bool_ and isinstance(alpha, int):
        alpha = bool(alpha)
    if alpha == 1:
        return other
    return mul(other, alpha) if isinstance(other, Tensor) else other * alpha


@method(inplace=True, repeats=True)
def add(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input + alpha * other."""
    input, other = need(input, "add"), need(other, "add")
    other = _scaled(other, alpha, result_dtype(input, other))
    return binary("AddBackward0", _add_build(result_dtype(input, other)), input, other)


@method("sub", "subtract", inplace=True, repeats=True)
def sub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input - alpha * other."""
    input, other = need(input, "sub"), need(other, "sub")
    _no_bool(input, other)
    other = _scaled(other, alpha, result_dtype(input, other))
    return binary("SubBackward0", ops.sub, input, other)


def rsub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """other - alpha * input."""
    need_tensors("rsub", input)
    return sub(other, input, alpha=alpha)


@method("mul", "multiply", inplace=True, repeats=True)
def mul(input: Operand, other: Operand) -> Tensor:
    """input * other."""
    input, other = need(input, "mul"), need(other, "mul")
    label = (
        "MulBackward0" if isinstance(input, Tensor) and isinstance(other, Tensor) else "MulScalarBackward0"
    )
    build = ops.bit_and if result_dtype(input, other) is bool_ else ops.mul
    return binary(label, build, input, other)


@method("div", "divide", inplace=True, repeats=True)
def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other; `rounding_mode` None (true division), "trunc" or "floor"."""
    input, other = need(input, "div"), need(other, "div")
    if rounding_mode is None:
        label = "DivBackward0" if isinstance(other, Tensor) else "DivScalarBackward0"
        return binary(label, ops.div, input, other, floating=True)
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode != "trunc":
        raise fail(
            RuntimeError,
            f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'",
        )
    if result_dtype(input, other).is_float:
        return binary("DivBackward0", lambda a, b: ops.stop_gradient(ops.trunc(ops.div(a, b))), input, other)
    return binary("DivBackward0", _trunc_div, input, other)


def _trunc_div(a: Node, b: Node) -> Node:
    """Integer division towards zero, from the floor division of the IR."""
    quotient = ops.div(a, b)
    zero, one = ops.full(a.shape, 0, a.dtype), ops.full(a.shape, 1, a.dtype)
    inexact = ops.ne(ops.mul(quotient, b), a)
    return ops.select(ops.bit_and(inexact, ops.lt(quotient, zero)), ops.add(quotient, one), quotient)


@method(inplace=True, repeats=True)
def true_divide(input: Operand, other: Operand) -> Tensor:
    """input / other, in floating point."""
    return div(input, other)


@method(inplace=True, repeats=True)
def floor_divide(input: Operand, other: Operand) -> Tensor:
    """The quotient rounded towards minus infinity."""
    input, other = need(input, "floor_divide"), need(other, "floor_divide")
    if result_dtype(input, other).is_float:
        return binary("FloorDivideBackward0", _float_floor_div, input, other)
    return binary("FloorDivideBackward0", ops.div, input, other)


def _float_floor_div(a: Node, b: Node) -> Node:
    """floor(a / b), exact where a is a multiple of b; division by zero as in a / b."""
    zero = ops.zeros(a.type)
    plain = ops.div(a, b)
    exact = ops.round(ops.div(ops.sub(a, ops.rem(a, b)), b))
    return ops.stop_gradient(ops.select(ops.eq(b, zero), plain, exact))


@method("remainder", inplace=True, repeats=True)
def remainder(input: Operand, other: Operand) -> Tensor:
    """The remainder with the sign of `other` (Python's %)."""
    return binary("RemainderBackward0", ops.rem, need(input, "remainder"), need(other, "remainder"))


@method(inplace=True, repeats=True)
def fmod(input: Operand, other: Operand) -> Tensor:
    """The remainder with the sign of `input` (C's fmod)."""
    need_tensors("fmod", input)

    def build(a: Node, b: Node) -> Node:
        zero = ops.zeros(a.type)
        r = ops.rem(a, b)
        wrong = ops.bit_and(ops.ne(r, zero), ops.ne(ops.lt(a, zero), ops.lt(r, zero)))
        return ops.select(wrong, ops.sub(r, b), r)

    return binary("FmodBackward0", build, need(input, "fmod"), need(other, "fmod"))


@method(inplace=True, repeats=True)
def pow_(input: Operand, exponent: Operand) -> Tensor:
    """input ** exponent."""
    input, exponent = need(input, "pow"), need(exponent, "pow")
    if not isinstance(exponent, Tensor) and isinstance(input, Tensor):
        dtype = result_dtype(input, exponent)
        if not dtype.is_float and exponent < 0:
            raise fail(RuntimeError, "Integers to negative integer powers are not allowed.")
        special = _POWERS.get(exponent) if exponent is not True else None
        if special is not None and (dtype.is_float or exponent >= 1) and dtype is not bool_:
            return apply("PowBackward0", lambda n: special(cast(n, dtype)), input)
    return binary("PowBackward0", ops.pow, input, exponent)


_POWERS: dict[Number, Callable[[Node], Node]] = {
    1: lambda n: n,
    2: lambda n: ops.mul(n, n),
    3: lambda n: ops.mul(ops.mul(n, n), n),
    0.5: ops.sqrt,
    -0.5: ops.rsqrt,
    -1: lambda n: ops.div(ops.ones(n.type), n),
    -2: lambda n: ops.div(ops.ones(n.type), ops.mul(n, n)),
}


@method(repeats=True)
def maximum(input: Operand, other: Operand) -> Tensor:
    """The larger of two elements; NaN wins."""
    need_tensors("maximum", input, other)
    return binary("MaximumBackward0", _logical_or_max, need(input, "maximum"), need(other, "maximum"))


@method(repeats=True)
def minimum(input: Operand, other: Operand) -> Tensor:
    """The smaller of two elements; NaN wins."""
    need_tensors("minimum", input, other)
    return binary("MinimumBackward0", _logical_and_min, need(input, "minimum"), need(other, "minimum"))


def _logical_or_max(a: Node, b: Node) -> Node:
    return ops.bit_or(a, b) if a.dtype is bool_ else ops.maximum(a, b)


def _logical_and_min(a: Node, b: Node) -> Node:
    return ops.bit_and(a, b) if a.dtype is bool_ else ops.minimum(a, b)


@method(repeats=True)
def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two elements, ignoring NaN."""
    need_tensors("fmax", input, other)
    return binary("FmaxBackward0", lambda a, b: _skip_nan(a, b, _logical_or_max), input, other)


@method(repeats=True)
def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two elements, ignoring NaN."""
    need_tensors("fmin", input, other)
    return binary("FminBackward0", lambda a, b: _skip_nan(a, b, _logical_and_min), input, other)


def _skip_nan(a: Node, b: Node, build: Build) -> Node:
    if not a.dtype.is_float:
        return build(a, b)
    return ops.select(ops.isnan(a), b, ops.select(ops.isnan(b), a, build(a, b)))


def lerp_node(a: Node, b: Node, weight: Node) -> Node:
    """a + weight * (b - a), counted from the nearer end, so that both ends are exact."""
    gap = ops.sub(b, a)
    near = ops.lt(ops.abs(weight), ops.like(weight, 0.5))
    from_b = ops.sub(b, ops.mul(gap, ops.sub(ops.like(weight, 1), weight)))
    return ops.select(near, ops.add(a, ops.mul(weight, gap)), from_b)


@method(inplace=True, repeats=True)
def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """input + weight * (end - input), exactly `end` at 1. RuntimeError for tensors of several dtypes."""
    for name, given in (("end", end), ("weight", weight)):
        if isinstance(given, Tensor) and given.dtype is not input.dtype and not given._weak:
            message = f"expected dtype {input.dtype.name} for `{name}` but got dtype {given.dtype.name}"
            raise fail(RuntimeError, message)

    return pointwise("LerpBackward0", lerp_node, (input, end, weight), result_dtype(input, end))


@method(inplace=True)
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Operand = 1) -> Tensor:
    """input + value * tensor1 * tensor2; for integers, `value` is cut to one."""
    found = mul(tensor1, tensor2)
    if isinstance(value, float) and not result_dtype(input, found).is_float:
        value = int(value)
    return add(input, found if isinstance(value, int) and value == 1 else mul(found, value))


@method(inplace=True)
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Operand = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    found = div(tensor1, tensor2)
    return add(input, found if isinstance(value, int) and value == 1 else mul(found, value))


# ------------------------------------------------------------ clamp and where


@method("clamp", "clip", inplace=True, repeats=True)
def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """Elements limited to [min, max]; NaN stays. Bounds are numbers or tensors."""
    need_tensors("clamp", input)
    if min is None and max is None:
        raise fail(RuntimeError, "clamp: At least one of 'min' or 'max' must not be None")
    bounds = tuple(v for v in (min, max) if v is not None)
    dtype = result_dtype(input, *bounds)

    def build(x: Node, *limits: Node) -> Node:
        rest = list(limits)
        if min is not None:
            low = rest.pop(0)
            x = ops.select(ops.lt(x, low), low, x)
        if max is not None:
            high = rest.pop(0)
            x = ops.select(ops.gt(x, high), high, x)
        return x

    return pointwise("ClampBackward1", build, (input, *bounds), dtype)


@method("clamp_min", inplace=True, repeats=True)
def clamp_min(input: Tensor, min: Operand) -> Tensor:
    """Elements not below `min`."""
    return clamp(input, min=min)


@method("clamp_max", inplace=True, repeats=True)
def clamp_max(input: Tensor, max: Operand) -> Tensor:
    """Elements not above `max`."""
    return clamp(input, max=max)


def where(condition: Tensor, input: Operand | None = None, other: Operand | None = None) -> Any:
    """`input` where `condition` is true, else `other`; with one argument, `nonzero(as_tuple=True)`."""
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)
    if not isinstance(condition, Tensor) or condition.dtype is not bool_:
        raise fail(
            RuntimeError,
            f"where expected condition to be a boolean tensor, but got a tensor with dtype "
            f"{getattr(condition, 'dtype', type(condition).__name__)}",
        )
    input, other = need(input, "where"), need(other, "where")
    dtype = result_dtype(input, other)
    values = (condition, input, other)
    tensors = tuple(v for v in values if isinstance(v, Tensor))
    tracked = needs_grad(*tensors)
    shape = broadcast_shapes(*[_shape(v) for v in values])
    test = expand(operand(condition, tracked), shape)
    sides = [
        expand(cast(operand(v, tracked), dtype), shape) if isinstance(v, Tensor) else number(v, dtype, shape)
        for v in (input, other)
    ]
    return result(ops.select(test, *sides), "WhereBackward0", tensors, tracked)


method(only_function=True, repeats=True)(where)


@method("where", function=False, repeats=True)
def where_method(self: Tensor, condition: Tensor, other: Operand) -> Tensor:
    """`self` where `condition` is true, else `other`."""
    return where(condition, self, other)


@method(inplace=True, repeats=True)
def masked_fill(input: Tensor, mask: Tensor, value: Operand) -> Tensor:
    """`input` with `value` where `mask` is true."""
    if mask.dtype is not bool_:
        raise fail(
            RuntimeError,
            f"masked_fill_ only supports boolean masks, but got mask with dtype {mask.dtype.name}",
        )
    if isinstance(value, Tensor) and value.ndim:
        raise fail(
            RuntimeError,
            f"masked_fill only supports a 0-dimensional value tensor, but got tensor with {value.ndim} "
            f"dimension(s).",
        )
    shape = broadcast_shapes(_shape(input), _shape(mask))
    dtype = input.dtype

    def build(x: Node, m: Node, *rest: Node) -> Node:
        fill = expand(cast(rest[0], dtype), shape) if rest else number(value, dtype, shape)  # type: ignore[arg-type]
        return ops.select(expand(m, shape), fill, expand(x, shape))

    extra = (value,) if isinstance(value, Tensor) else ()
    return apply("MaskedFillBackward0", build, input, mask, *extra)
