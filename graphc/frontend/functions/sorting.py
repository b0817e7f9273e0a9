"""Order: sort, argsort, topk, kthvalue, and running extrema.

The order is found first, as an index; values are gathered by it, so gradients flow. The first few of
short lines are looked for one after the other (selection.py).
"""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc import return_types as kinds
from graphc.frontend.cell import has_value
from graphc.frontend.errors import describe, fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.selection import first_few, rounds_pay
from graphc.frontend.modes import MODE
from graphc.frontend.nodes import normal_axis, number
from graphc.frontend.tensor import Tensor, apply, from_array
from graphc.ir.node import Node
from graphc.ops.running import shifted
from graphc.ops.sort import ARGSORT, SortAttrs
from graphc.return_types import ValuesIndices as Sorted

SHORT = 4096  # elements of a value at hand that NumPy has in order sooner than a program is found and run


def order(input: Tensor, axis: int, descending: bool, kept: int | None = None) -> Tensor:
    """Positions in sorted order along `axis` (stable): all, or the first `kept` of them."""
    kept = input.shape[axis] if kept is None else kept
    node = input._cell.node
    if MODE.trace is None and node.type.size <= SHORT and has_value(node):
        assert ARGSORT.evaluate is not None
        return from_array(ARGSORT.evaluate([value(input)], SortAttrs(axis, descending, kept)))
    return apply("", lambda n: ops.argsort(n, axis, descending, kept), input)


def gathered(label: str, input: Tensor, indices: Tensor, axis: int) -> Tensor:
    """The elements at `indices` along `axis`, with history named `label`."""
    return apply(label, lambda n, i: ops.take_along(n, i, axis), input, indices)


@method()
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Sorted:
    """(values in order along `dim`, their positions); always stable."""
    if input.ndim == 0:
        return kinds.sort(apply("SortBackward0", lambda n: n, input), from_array(np.zeros((), np.int64)))
    axis = normal_axis(dim, input.ndim)
    indices = order(input, axis, descending)
    return kinds.sort(gathered("SortBackward0", input, indices, axis), indices)


@method()
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Positions in sorted order along `dim`."""
    return sort(input, dim, descending).indices


@method()
def msort(input: Tensor) -> Tensor:
    """Values in order along the first dim."""
    return sort(input, 0).values


@method()
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Sorted:
    """The k largest (or smallest) values along `dim`, and their positions."""
    if input.ndim == 0:
        return kinds.topk(*sort(input))
    axis = normal_axis(dim, input.ndim)
    if not 0 <= k <= input.shape[axis]:
        raise fail(
            RuntimeError, f"selected index k out of range: k={k} along dim {axis} of {describe(input)}"
        )
    if MODE.trace is not None and rounds_pay(input.shape, axis, k):
        indices = apply("", lambda n: first_few(n, axis, k, largest), input)
    else:
        indices = order(input, axis, largest, k)
    return kinds.topk(gathered("TopkBackward0", input, indices, axis), indices)


@method()
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Sorted:
    """The k-th smallest value along `dim` (k from 1), and its position."""
    if input.ndim == 0:
        if k != 1:
            raise fail(RuntimeError, f"kthvalue(): selected number k out of range for dimension 0: k={k}")
        return kinds.kthvalue(*sort(input))
    axis = normal_axis(dim, input.ndim)
    if not 1 <= k <= input.shape[axis]:
        raise fail(RuntimeError, f"kthvalue(): selected number k out of range for dimension {axis}: k={k}")
    place = order(input, axis, False, k).narrow(axis, k - 1, 1)
    return kinds.kthvalue(*pick(input, place, axis, keepdim, "KthvalueBackward0"))


def pick(input: Tensor, indices: Tensor, axis: int, keepdim: bool, label: str) -> Sorted:
    """The elements at `indices` (of extent 1 along `axis`), with or without that dim."""
    values = gathered(label, input, indices, axis)
    return Sorted(values, indices) if keepdim else Sorted(values.squeeze(axis), indices.squeeze(axis))


def _running(input: Tensor, dim: int, largest: bool) -> Sorted:
    """Extreme values so far along `dim` (the last of equal ones), and their positions."""
    if input.ndim == 0:
        return sort(input)
    axis = normal_axis(dim, input.ndim)
    indices = apply("", lambda n: ops.running_arg(n, axis, largest), input)
    label = "CummaxBackward0" if largest else "CumminBackward0"
    return Sorted(apply(label, lambda n: ops.running_extreme(n, axis, largest), input), indices)


@method()
def cummax(input: Tensor, dim: int) -> Sorted:
    """(largest value so far along `dim`, its position)."""
    return kinds.cummax(*_running(input, dim, True))


@method()
def cummin(input: Tensor, dim: int) -> Sorted:
    """(smallest value so far along `dim`, its position)."""
    return kinds.cummin(*_running(input, dim, False))


@method()
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log(cumsum(exp(input))) along `dim`, computed stably."""
    if input.ndim == 0:
        return apply("LogcumsumexpBackward0", lambda n: n, input)
    axis = normal_axis(dim, input.ndim)

    def build(n: Node) -> Node:
        """Sums of powers relative to the largest so far: what is summed already shrinks where that grows."""
        top = ops.stop_gradient(ops.running_extreme(n, axis, True))
        top = ops.select(ops.isinf(top), number(0, n.dtype, top.shape), top)
        shrink = ops.exp(ops.sub(shifted(top, axis), top))
        return ops.add(top, ops.log(ops.recurrence(shrink, ops.exp(ops.sub(n, top)), axis)))

    return apply("LogcumsumexpBackward0", build, input)
