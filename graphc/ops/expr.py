"""Index arithmetic for lowering rules: loop-IR expressions over int64, with constants folded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from graphc.loop.ir import Const, Expr, binary, index_const

Index = tuple[Expr, ...]


def lift(value: Expr | int) -> Expr:
    """An int as an index expression."""
    return index_const(value) if isinstance(value, int) else value


def add(a: Expr, b: Expr | int) -> Expr:
    b = lift(b)
    if isinstance(a, Const) and isinstance(b, Const):
        return index_const(a.value + b.value)
    if isinstance(b, Const) and b.value == 0:
        return a
    if isinstance(a, Const) and a.value == 0:
        return b
    return binary("add", a, b)


def mul(a: Expr, b: int) -> Expr:
    if isinstance(a, Const):
        return index_const(a.value * b)
    if b == 1:
        return a
    return index_const(0) if b == 0 else binary("mul", a, index_const(b))


def floordiv(a: Expr, b: int) -> Expr:
    if isinstance(a, Const):
        return index_const(a.value // b)
    return a if b == 1 else binary("div", a, index_const(b))


def mod(a: Expr, b: int) -> Expr:
    if isinstance(a, Const):
        return index_const(a.value % b)
    return index_const(0) if b == 1 else binary("rem", a, index_const(b))


def compare(op: str, a: Expr, b: int) -> Expr:
    return binary(op, a, index_const(b))


def all_of(conditions: Sequence[Expr]) -> Expr | None:
    """The conjunction of bool expressions; None if there are none."""
    return reduce(lambda a, b: binary("and", a, b), conditions) if conditions else None


def linear(index: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """The row-major position of `index` in an array of this shape."""
    position: Expr = index_const(0)
    for i, extent in zip(index, shape, strict=True):
        position = add(mul(position, extent), i)
    return position


def delinear(position: Expr, shape: Sequence[int]) -> Index:
    """The index at a row-major position of an array of this shape."""
    index: list[Expr] = []
    for axis in range(len(shape) - 1, 0, -1):
        index.append(mod(position, shape[axis]))
        position = floordiv(position, shape[axis])
    return (position, *reversed(index)) if shape else ()
