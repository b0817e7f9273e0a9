"""Identities of elementwise ops that hold for every value, NaN, infinities and -0.0 included.

The one exception is x**3 = x*x*x, which rounds once more than a perfect pow, and less than most.
"""

from __future__ import annotations

import math

import numpy as np

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import DType, bool_
from graphc.ops.constant import Scalar
from graphc.passes.rules import RuleTable, on

RULES: RuleTable = {}


def value(node: Node) -> Scalar | None:
    """The number all elements of a node are, if it is a (broadcast) scalar constant."""
    return ops.scalar_value(node)


def _is(node: Node, number: float) -> bool:
    """Whether all elements are `number`, whose sign counts if it is zero and the dtype a float."""
    found = value(node)
    if found is None or found != number:
        return False
    return not node.dtype.is_float or math.copysign(1, found) == math.copysign(1, number)


def _op(node: Node, name: str) -> bool:
    return node.op.name == name


@on(RULES, "stop_gradient", "with_gradient")
def drop_barrier(node: Node) -> Node:
    """Autodiff is done when passes run."""
    return node.inputs[0]


@on(RULES, "add", "mul", "eq", "ne", "bit_and", "bit_or", "bit_xor")
def constant_on_the_right(node: Node) -> Node | None:
    a, b = node.inputs
    if value(a) is not None and value(b) is None:
        return _again(node, b, a)
    return None


def _again(node: Node, *inputs: Node) -> Node:
    """The same op on other inputs."""
    return getattr(ops, node.op.name)(*inputs)


@on(RULES, "add")
def add_zero(node: Node) -> Node | None:
    """x + -0.0 = x, also for x = -0.0; +0.0 would turn -0.0 into +0.0."""
    a, b = node.inputs
    return a if _is(b, -0.0) or (not node.dtype.is_float and _is(b, 0)) else None


@on(RULES, "add")
def add_negative(node: Node) -> Node | None:
    a, b = node.inputs
    if _op(b, "neg"):
        return ops.sub(a, b.inputs[0])
    return ops.sub(b, a.inputs[0]) if _op(a, "neg") else None


@on(RULES, "sub")
def sub_zero(node: Node) -> Node | None:
    """x - 0.0 = x, also for x = -0.0."""
    a, b = node.inputs
    if _is(b, 0.0):
        return a
    if a is b and not node.dtype.is_float:
        return ops.like(node, 0)
    return ops.add(a, b.inputs[0]) if _op(b, "neg") else None


@on(RULES, "mul", "div")
def times_one(node: Node) -> Node | None:
    a, b = node.inputs
    if _is(b, 1):
        return a
    if _is(b, -1) and node.dtype.kind in "fi":
        return ops.neg(a)
    if _op(a, "neg") and _op(b, "neg") and node.dtype.is_float:
        return _again(node, a.inputs[0], b.inputs[0])
    return None


@on(RULES, "mul")
def integer_times_zero(node: Node) -> Node | None:
    return node.inputs[1] if not node.dtype.is_float and _is(node.inputs[1], 0) else None


@on(RULES, "div")
def divide_by_power_of_two(node: Node) -> Node | None:
    """x / c = x * (1/c) bit for bit if both c and 1/c are normal powers of two."""
    a, b = node.inputs
    c = value(b)
    if c is None or not node.dtype.is_float or not math.isfinite(c) or abs(math.frexp(c)[0]) != 0.5:
        return None
    limits = np.finfo(node.dtype.numpy)
    normal = float(limits.tiny) <= abs(1 / c) <= float(limits.max) and abs(c) >= float(limits.tiny)
    return ops.mul(a, ops.like(b, 1 / c)) if normal else None


@on(RULES, "pow")
def small_power(node: Node) -> Node | None:
    x, exponent = node.inputs
    if _is(exponent, 0):
        return ops.like(node, 1)
    if _is(exponent, 1):
        return x
    if _is(exponent, 2):
        return ops.mul(x, x)
    if _is(exponent, 3):
        return ops.mul(ops.mul(x, x), x)
    if _is(exponent, -1) and node.dtype.is_float:
        return ops.div(ops.like(x, 1), x)
    return None


@on(RULES, "neg", "logical_not")
def twice_is_nothing(node: Node) -> Node | None:
    x = node.inputs[0]
    return x.inputs[0] if x.op is node.op and x.inputs[0].dtype is node.dtype else None


_WHOLE = frozenset(["floor", "ceil", "round", "trunc"])


@on(RULES, *_WHOLE)
def round_whole(node: Node) -> Node | None:
    """Numbers without a fraction round to themselves."""
    x = node.inputs[0]
    whole = x.op.name in _WHOLE or (_op(x, "cast") and not x.inputs[0].dtype.is_float)
    return x if whole else None


@on(RULES, "abs")
def absolute(node: Node) -> Node | None:
    x = node.inputs[0]
    if _op(x, "abs"):
        return x
    return ops.abs_(x.inputs[0]) if _op(x, "neg") else None


_OPPOSITE = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "le": "gt", "gt": "le"}


@on(RULES, "logical_not")
def not_of_comparison(node: Node) -> Node | None:
    """not (a < b) is a >= b only where nothing is NaN."""
    x = node.inputs[0]
    opposite = _OPPOSITE.get(x.op.name)
    if opposite is None or (x.inputs[0].dtype.is_float and x.op.name not in ("eq", "ne")):
        return None
    return getattr(ops, opposite)(*x.inputs)


@on(RULES, "maximum", "minimum", "bit_and", "bit_or")
def same_twice(node: Node) -> Node | None:
    a, b = node.inputs
    return a if a is b else None


@on(RULES, "bit_and", "bit_or", "bit_xor")
def bits_of_constant(node: Node) -> Node | None:
    x, mask = node.inputs
    number = value(mask)
    if number is None:
        return None
    none, all_ = number == 0, number == (1 if node.dtype is bool_ else _all_bits(node.dtype))
    if node.op.name == "bit_and":
        return mask if none else x if all_ else None
    if node.op.name == "bit_or":
        return x if none else mask if all_ else None
    if all_ and node.dtype is bool_:
        return ops.logical_not(x)
    return x if none else None


def _all_bits(dtype: DType) -> int:
    return 2 ** (8 * dtype.itemsize) - 1 if dtype.kind == "u" else -1


@on(RULES, "select")
def select_known(node: Node) -> Node | None:
    condition, a, b = node.inputs
    known = value(condition)
    if known is not None:
        return a if known else b
    if a is b:
        return a
    if _op(condition, "logical_not") and condition.inputs[0].dtype is bool_:
        return ops.select(condition.inputs[0], b, a)
    return None


@on(RULES, "select")
def select_nested(node: Node) -> Node | None:
    """The inner of two selects on one condition is decided by the outer."""
    condition, a, b = node.inputs
    if _op(a, "select") and a.inputs[0] is condition:
        return ops.select(condition, a.inputs[1], b)
    if _op(b, "select") and b.inputs[0] is condition:
        return ops.select(condition, a, b.inputs[2])
    if node.dtype is bool_ and _is(a, 1) and _is(b, 0):
        return condition
    return None


@on(RULES, "cast")
def cast_of_cast(node: Node) -> Node | None:
    """Drop the inner of two casts if it loses nothing that the outer would have seen."""
    inner = node.inputs[0]
    if not _op(inner, "cast"):
        return None
    x = inner.inputs[0]
    if not lossless(x.dtype, inner.dtype):
        return None
    wraps = inner.dtype.is_float and not node.dtype.is_float and not lossless(x.dtype, node.dtype)
    if wraps and node.dtype is not bool_:
        return None  # float to integer does not wrap as integer to integer does
    return x if x.dtype is node.dtype else ops.cast(x, node.dtype)


def lossless(source: DType, target: DType) -> bool:
    """Whether `target` has every value of `source`."""
    if source is target or source is bool_:
        return True
    if target is bool_ or (source.is_float and not target.is_float):
        return False
    if source.is_float:
        return target.itemsize >= source.itemsize
    if target.is_float:
        return 8 * source.itemsize <= (24 if target.itemsize == 4 else 53)
    low, high = np.iinfo(source.numpy), np.iinfo(target.numpy)
    return high.min <= low.min and high.max >= low.max
