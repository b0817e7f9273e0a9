"""Finding values: places in sorted sequences, membership, runs of equal elements, the commonest."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import ops
from graphc import return_types as kinds
from graphc.frontend.errors import describe, fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.checks import need_known
from graphc.frontend.functions.creation import as_tensor
from graphc.frontend.functions.elementwise import result_dtype
from graphc.frontend.functions.methods import METHODS, method
from graphc.frontend.functions.shape import ravel
from graphc.frontend.functions.sorting import Sorted, gathered, order
from graphc.frontend.nodes import cast, normal_axis, number
from graphc.frontend.tensor import Tensor, apply, from_array
from graphc.ir.node import Node
from graphc.ir.types import int32, int64
from graphc.ops.running import shifted

PAIRS = 400  # comparisons in vectors that take as long as putting an element in order, there and back


def _side(right: bool, side: str | None) -> bool:
    if side not in (None, "left", "right"):
        raise fail(RuntimeError, f"side can only be 'left' or 'right' but got {side}")
    if right and side == "left":
        raise fail(
            RuntimeError, "side and right can't be set to opposites, got side of left while right was True"
        )
    return right or side == "right"


def _places(edges: Node, values: Node, right: bool) -> Node:
    """How many of the edges [..., m] come before each value [..., n] (at `right`: or are equal to it)."""
    shape = (*values.shape, edges.shape[-1])
    rank = values.type.rank
    dims = (rank,) if edges.type.rank == 1 else (*range(rank - 1), rank)
    edges = ops.broadcast(edges, shape, dims)
    values = ops.broadcast(values, shape, tuple(range(rank)))
    after = ops.gt(edges, values) if right else ops.ge(edges, values)
    return ops.reduce_sum(cast(ops.logical_not(after), int64), (rank,))


@method(only_function=True)
def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where values belong in ascending sequences, so that these stay sorted.

    sorted_sequence [..., m] (or one [m] for all), input [..., n]: int64 indices of input's shape, before
    equal elements, or after them with right=True. `sorter` gives the order of an unsorted sequence.
    """
    values = as_tensor(input, dtype=None if isinstance(input, Tensor) else sorted_sequence.dtype)
    after = _side(right, side)
    lead = tuple(sorted_sequence.shape[:-1])
    if sorted_sequence.ndim == 0 or (sorted_sequence.ndim > 1 and lead != tuple(values.shape[:-1])):
        raise fail(
            RuntimeError,
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of "
            f"boundaries tensor and input value tensor must match, but we got boundaries tensor "
            f"{list(sorted_sequence.shape)} and input value tensor {list(values.shape)}",
        )
    if sorter is not None:
        if sorter.dtype is not int64 or sorter.shape != sorted_sequence.shape:
            raise fail(
                RuntimeError,
                "torch.searchsorted(): boundary and sorter must have the same size, and sorter be int64: "
                f"{describe(sorted_sequence, sorter)}",
            )
        sorted_sequence = METHODS["gather"](sorted_sequence, -1, sorter)
    dtype = result_dtype(sorted_sequence, values)
    out = int32 if out_int32 else int64
    return apply(
        "", lambda e, v: cast(_places(cast(e, dtype), cast(v, dtype), after), out), sorted_sequence, values
    )


@method(only_function=True)
def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of the interval between ascending `boundaries` [m] in which each value lies."""
    if boundaries.ndim != 1:
        raise fail(RuntimeError, f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


@method(only_function=True)
def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element is among `test_elements`."""
    found, among = as_tensor(elements), ravel(as_tensor(test_elements))
    dtype = result_dtype(found, among)

    def build(n: Node, t: Node) -> Node:
        n, t = cast(n, dtype), cast(t, dtype)
        each, many = n.type.size, t.type.size
        hit = (_among_sorted if each * many > PAIRS * (each + many) else _among)(n, t)
        return ops.logical_not(hit) if invert else hit

    return apply("", build, found, among)


def _among(n: Node, t: Node) -> Node:
    """Whether each element is one of t: all pairs are compared."""
    shape = (*n.shape, *t.shape)
    wide = ops.broadcast(n, shape, tuple(range(n.type.rank)))
    return ops.reduce_or(ops.eq(wide, ops.broadcast(t, shape, (n.type.rank,))), (n.type.rank,))


def _among_sorted(n: Node, t: Node) -> Node:
    """The same by sorting: in the order of both, of equal ones those of t first, an element of t that is
    equal to one of n is the last of t before it."""
    many = t.shape[0]
    both = ops.concat([t, ops.reshape(n, (n.type.size,))], 0)
    order = ops.argsort(both, 0)
    values, at = ops.take_along(both, order, 0), ops.iota(both.shape, 0)
    of_t = ops.lt(order, number(many, int64, both.shape))
    before = ops.running_extreme(ops.select(of_t, at, number(-1, int64, both.shape)), 0, True)
    none = ops.lt(before, number(0, int64, both.shape))
    nearest = ops.take_along(values, ops.select(none, at, before), 0)
    hit = ops.bit_and(ops.eq(nearest, values), ops.logical_not(none))
    back = ops.slice_axis(ops.argsort(order, 0), 0, many, many + n.type.size)
    return ops.reshape(ops.take_along(hit, back, 0), n.shape)


@method()
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """Each run of equal elements (slices along `dim`) once; reads the values."""
    need_known("unique_consecutive()", "the number of elements that are left", input, "call it outside")
    array = value(input)
    lines = array.reshape(-1) if dim is None else np.moveaxis(array, normal_axis(dim, array.ndim), 0)
    flat = lines.reshape(lines.shape[0], -1) if lines.size else lines.reshape(lines.shape[0], 0)
    starts = np.ones(flat.shape[0], np.bool_)
    if flat.shape[0]:
        starts[1:] = (flat[1:] != flat[:-1]).any(axis=1)
    kept = lines[starts]
    shown = kept if dim is None else np.moveaxis(kept, 0, normal_axis(dim, array.ndim))
    parts = [from_array(np.ascontiguousarray(shown))]
    if return_inverse:
        inverse = np.cumsum(starts) - 1
        parts.append(from_array(inverse.reshape(array.shape) if dim is None else inverse))
    if return_counts:
        edges = np.append(np.nonzero(starts)[0], flat.shape[0])
        parts.append(from_array(np.diff(edges)))
    return parts[0] if len(parts) == 1 else tuple(parts)


@method()
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Sorted:
    """(the commonest value along `dim`, the smallest of equally common ones; where it last is)."""
    if input.ndim == 0:
        return kinds.mode(apply("ModeBackward0", lambda n: n, input), from_array(np.zeros((), np.int64)))
    axis = normal_axis(dim, input.ndim)
    if input.shape[axis] == 0:
        raise fail(IndexError, f"mode(): Expected reduction dim {axis} to have non-zero size.")

    ordered = order(input, axis, False)

    def build(n: Node, ordered: Node) -> Node:
        """Where the first of the longest runs of equal elements ends in the sorted line."""
        line = ops.take_along(n, ordered, axis)
        again = cast(ops.eq(line, shifted(line, axis)), int64)
        counts = ops.recurrence(again, ops.like(again, 1), axis)
        most = ops.argmax(counts, axis)
        most = ops.reshape(most, (*n.shape[:axis], 1, *n.shape[axis + 1 :]))
        return ops.take_along(ordered, most, axis)

    indices = apply("", build, input, ordered)
    values = gathered("ModeBackward0", input, indices, axis)
    return kinds.mode(values, indices) if keepdim else kinds.mode(values.squeeze(axis), indices.squeeze(axis))
