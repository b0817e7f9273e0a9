"""The first few elements in an order, inside a trace: one round over the elements for each of them."""

from __future__ import annotations

from math import prod

import numpy as np

from graphc import ops
from graphc.frontend.nodes import cast, number, spread
from graphc.ir.node import Node
from graphc.ir.types import Shape, bool_, int64

FEW = 4  # most rounds over lines: each adds a dozen nodes to the graph
FEW_APART = 8  # and over lines whose elements are apart, of which one vector works through many
SHORT = 256  # elements that all rounds over a line may read, a few vectors each


def rounds_pay(shape: Shape, axis: int, count: int) -> bool:
    """Whether rounds find the first `count` sooner than argsort, which reads a line once, and then waits for
    each element found until the lanes of a vector are one. They do in lines of a few vectors, and in those
    whose elements are apart."""
    if prod(shape[axis + 1 :]) > 1:
        return 0 < count <= FEW_APART
    return 0 < count <= FEW and count * shape[axis] <= SHORT


def first_few(n: Node, axis: int, count: int, largest: bool) -> Node:
    """Positions (int64) of the `count` largest or smallest elements along `axis`, in order: NaN counts as the
    largest, and of equal elements the first comes first.

    A round finds the extreme of what lies after the last element found, then its first position. NaNs are
    infinities that come before all others (of the largest) or after them (of the smallest): positions are
    counted on by the extent for whichever of them comes later.
    """
    n = cast(n, int64) if n.dtype is bool_ else n
    shape, extent = n.shape, n.shape[axis]
    places = ops.iota(shape, axis)
    kind = n.dtype.numpy
    worst = (-np.inf, np.inf) if n.dtype.is_float else (np.iinfo(kind).min, np.iinfo(kind).max)
    if n.dtype.is_float:
        later = ops.isnan(n) if not largest else ops.logical_not(ops.isnan(n))
        places = ops.add(places, ops.mul(cast(later, int64), number(extent, int64, shape)))
        n = ops.select(ops.isnan(n), number(np.inf, n.dtype, shape), n)
    reduce, beyond = (ops.reduce_max, ops.lt) if largest else (ops.reduce_min, ops.gt)
    none = number(worst[0 if largest else 1], n.dtype, shape)
    nowhere = number(2 * extent, int64, shape)
    left: Node | None = None
    found = []
    for _ in range(count):
        best = spread(reduce(n if left is None else ops.select(left, n, none), (axis,)), shape, axis)
        equal = ops.eq(n, best)
        here = equal if left is None else ops.bit_and(left, equal)
        at = ops.reduce_min(ops.select(here, places, nowhere), (axis,))
        found.append(at)
        after = ops.bit_and(equal, ops.gt(places, spread(at, shape, axis)))
        left = ops.bit_or(beyond(n, best), after)
    return _side_by_side(found, axis, extent)


def _side_by_side(found: list[Node], axis: int, extent: int) -> Node:
    """Positions, one an element, along a new axis; those counted on by the extent are counted back."""
    shape = found[0].shape
    columns = [ops.reshape(at, (*shape[:axis], 1, *shape[axis:])) for at in found]
    together = columns[0] if len(columns) == 1 else ops.concat(columns, axis)
    whole = number(extent, int64, together.shape)
    return ops.select(ops.ge(together, whole), ops.sub(together, whole), together)
