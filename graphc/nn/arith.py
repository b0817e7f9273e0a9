"""Arithmetic on nodes for formulas of activations, losses and optimizers.

A formula reads as on paper (``m + (g - m) * (1 - beta)``). Two sorts of values take part: arrays (of
one shape and dtype: a parameter, its gradient, its state) and scalars (0-d float64: a learning rate, a
bias correction). Scalars combine in float64 and are cast to the array's dtype where they meet it, as
Python numbers are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import DType, float64

Operand = Union["Num", int, float]


class Num:
    """A node with operators. `scalar` marks 0-d float64 values that adapt to arrays."""

    __slots__ = ("node", "scalar")

    def __init__(self, node: Node, scalar: bool = False) -> None:
        self.node = node
        self.scalar = scalar

    def __add__(self, other: Operand) -> Num:
        return _binary(ops.add, self, other)

    def __radd__(self, other: Operand) -> Num:
        return _binary(ops.add, other, self)

    def __sub__(self, other: Operand) -> Num:
        return _binary(ops.sub, self, other)

    def __rsub__(self, other: Operand) -> Num:
        return _binary(ops.sub, other, self)

    def __mul__(self, other: Operand) -> Num:
        return _binary(ops.mul, self, other)

    def __rmul__(self, other: Operand) -> Num:
        return _binary(ops.mul, other, self)

    def __truediv__(self, other: Operand) -> Num:
        return _binary(ops.div, self, other)

    def __rtruediv__(self, other: Operand) -> Num:
        return _binary(ops.div, other, self)

    def __pow__(self, other: Operand) -> Num:
        return _binary(ops.pow, self, other)

    def __rpow__(self, other: Operand) -> Num:
        return _binary(ops.pow, other, self)

    def __neg__(self) -> Num:
        return Num(ops.neg(self.node), self.scalar)

    def __ge__(self, other: Operand) -> Num:
        return _binary(ops.ge, self, other)

    def __le__(self, other: Operand) -> Num:
        return _binary(ops.le, self, other)

    def __gt__(self, other: Operand) -> Num:
        return _binary(ops.gt, self, other)

    def __lt__(self, other: Operand) -> Num:
        return _binary(ops.lt, self, other)

    def map(self, build: Callable[[Node], Node]) -> Num:
        """`build` applied to the node: `x.map(ops.exp)`."""
        return Num(build(self.node), self.scalar)

    def maximum(self, other: Operand) -> Num:
        return _binary(ops.maximum, self, other)

    def minimum(self, other: Operand) -> Num:
        return _binary(ops.minimum, self, other)

    def to(self, dtype: DType) -> Node:
        """The plain node, cast to `dtype`."""
        return self.node if self.node.dtype is dtype else ops.cast(self.node, dtype)


def scalar(node: Node) -> Num:
    """A 0-d node of any dtype as a scalar."""
    return Num(node if node.dtype is float64 else ops.cast(node, float64), scalar=True)


def ne(a: Num, b: Operand) -> Num:
    """Where `a` differs from `b`. (`!=` compares Num objects, as in all of Python.)"""
    return _binary(ops.ne, a, b)


def select(condition: Num, a: Operand, b: Operand) -> Num:
    """`a` where `condition` (a comparison) holds, else `b`; one of them is a Num."""
    like = next((x.node for x in (a, b) if isinstance(x, Num) and not x.scalar), None)
    is_scalar = like is None
    dtype, shape = (float64, ()) if like is None else (like.dtype, like.shape)
    chosen = condition.node if condition.node.shape == shape else ops.broadcast(condition.node, shape, ())
    return Num(ops.select(chosen, _fit(a, dtype, shape), _fit(b, dtype, shape)), is_scalar)


def _binary(build: Callable[[Node, Node], Node], a: Operand, b: Operand) -> Num:
    array = next((x for x in (a, b) if isinstance(x, Num) and not x.scalar), None)
    dtype, shape = (float64, ()) if array is None else (array.node.dtype, array.node.shape)
    return Num(build(_fit(a, dtype, shape), _fit(b, dtype, shape)), array is None)


def _fit(x: Operand, dtype: DType, shape: tuple[int, ...]) -> Node:
    """`x` as a node of this dtype and shape; arrays have them already."""
    if not isinstance(x, Num):
        return ops.full(shape, float(x), dtype)
    if not x.scalar:
        return x.node
    node = x.to(dtype)
    return node if shape == () else ops.broadcast(node, shape, ())
