"""Lookup tables read in bags: the sum, mean or maximum of several rows."""

from __future__ import annotations

import math

import numpy as np

from graphc import ops
from graphc.frontend.cell import fresh_input
from graphc.frontend.errors import describe, fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.nodes import cast, number, spread
from graphc.frontend.tensor import Tensor, apply, is_concrete, operand
from graphc.ir.node import Node
from graphc.ir.types import TensorType, int64
from graphc.nn.functional.common import need_tensors
from graphc.nn.functional.embedding import looked_up, need_indices, shorten, table_rows
from graphc.nn.functional.linear import check_labels
from graphc.ops.scan import scan


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Rows of `weight` [n, d], looked up and reduced bag by bag: [bags, d].

    input               integers [bags, size]; or [total], cut into bags by `offsets`
    offsets             integers [bags]: where each bag begins; from 0, not decreasing. With
                        `include_last_offset` [bags + 1]: the last one is where the last bag ends
    mode                "sum", "mean" or "max" of the rows; an empty bag gives zeros
    per_sample_weights  factors of the rows, of the shape of `input`; for "sum" only
    padding_idx         lookups of this row are left out, also of the mean

    The other options are those of `embedding`. ValueError or RuntimeError, as PyTorch's, for arguments that
    do not fit; IndexError, when the program runs, for an index out of range.
    """
    given = [t for t in (offsets, per_sample_weights) if t is not None]
    need_tensors("embedding_bag", input, weight, *given)
    need_indices("embedding_bag", "indices", input)
    _check_bag(input, weight, offsets, mode, sparse, scale_grad_by_freq, per_sample_weights)
    count = table_rows(weight)
    if padding_idx is not None:
        if not -count <= padding_idx < count:
            raise fail(
                RuntimeError,
                f"padding_idx must be within the number of embeddings, -{count} through {count - 1}, but got "
                f"{padding_idx}",
            )
        padding_idx %= count
    indices = check_labels("embedding_bag", operand(input, False), count, "index")
    if max_norm is not None:
        shorten(weight, indices, max_norm, norm_type)
    starts = None if offsets is None else _checked_offsets(offsets, input.shape[0], include_last_offset)

    def build(w: Node, factors: Node | None = None) -> Node:
        rows = looked_up(w, indices, scale_grad_by_freq)
        kept = None
        if padding_idx is not None:
            kept = ops.ne(indices, ops.like(indices, padding_idx))
        if factors is not None:
            rows = ops.mul(rows, spread(factors, rows.shape, rows.type.rank - 1))
        if starts is None:
            return _fixed_bags(rows, kept, mode)
        ends = _ends(starts, indices.shape[0], include_last_offset)
        if mode == "max":
            return _segment_max(rows, kept, starts, ends)
        return _segment_sum(rows, kept, starts, ends, mode == "mean")

    tensors = (weight,) if per_sample_weights is None else (weight, per_sample_weights)
    return apply("EmbeddingBagBackward0", build, *tensors)


def _check_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None,
    mode: str,
    sparse: bool,
    by_frequency: bool,
    factors: Tensor | None,
) -> None:
    """What can be said without values."""
    if factors is not None and tuple(factors.shape) != tuple(input.shape):
        raise fail(
            ValueError,
            f"embedding_bag: If per_sample_weights ({tuple(factors.shape)}) is not None, then it must have "
            f"the same shape as the input ({tuple(input.shape)})",
        )
    if input.ndim == 2 and offsets is not None:
        raise fail(
            ValueError,
            "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed "
            f"length sequences. However, found offsets of type {type(offsets)}",
        )
    if input.ndim == 1:
        if offsets is None:
            raise fail(ValueError, "offsets has to be a 1D Tensor but got None")
        if offsets.ndim != 1:
            raise fail(ValueError, f"offsets has to be a 1D Tensor, got {describe(offsets)}")
        need_indices("embedding_bag", "offsets", offsets)
    elif input.ndim != 2:
        raise fail(ValueError, f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}")
    if mode not in ("sum", "mean", "max"):
        raise fail(ValueError, "mode has to be one of sum, mean or max")
    if mode == "max" and by_frequency:
        raise fail(ValueError, "max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise fail(ValueError, "max mode does not support sparse weights")
    if factors is None:
        return
    if mode != "sum":
        raise fail(
            NotImplementedError,
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for "
            f"mode='sum' (got mode='{mode}').",
        )
    if factors.dtype is not weight.dtype:
        raise fail(
            RuntimeError,
            "Expected tensor for argument #1 'weight' to have the same type as tensor for argument #1 "
            f"'per_sample_weights'; but {describe(weight)} and {describe(factors)} differ",
        )


def _checked_offsets(offsets: Tensor, total: int, with_last: bool) -> Node:
    """Offsets, int64: tested now if they are known, else when the program runs."""
    if with_last and offsets.shape[0] == 0:
        raise fail(RuntimeError, "include_last_offset: number of offset should be at least 1")
    node = cast(operand(offsets, False), int64)
    if is_concrete(offsets):
        _check_offsets(value(offsets), total)
        return node
    if offsets.shape[0] == 0:
        return node
    first = ops.slice_axis(node, 0, 0, 1)
    first = ops.check_index(first, 0, 1, "embedding_bag: offsets[0] has to be 0")
    before, after = ops.slice_axis(node, 0, 0, node.shape[0] - 1), ops.slice_axis(node, 0, 1, node.shape[0])
    growth = ops.check_index(ops.sub(after, before), 0, total + 1, "embedding_bag: offsets must not decrease")
    node = ops.concat([first, ops.add(before, growth)], 0)
    message = f"embedding_bag: offsets can not be greater than input's length {total}"
    return ops.check_index(node, 0, total + 1, message)


def _check_offsets(offsets: np.ndarray, total: int) -> None:
    if offsets.size and offsets[0] != 0:
        raise fail(
            RuntimeError,
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position "
            f"0. However, got {offsets[0]}",
        )
    if (np.diff(offsets) < 0).any():
        raise fail(RuntimeError, f"embedding_bag: offsets must not decrease, got {offsets.tolist()}")
    if offsets.size and offsets[-1] > total:
        raise fail(
            RuntimeError,
            f"offsets[-1] can not be greater than input's length {total} but got offsets[-1] of "
            f"{offsets[-1]}",
        )


def _ends(starts: Node, total: int, with_last: bool) -> Node:
    """Where each bag ends: where the next one starts."""
    later = ops.slice_axis(starts, 0, 1, starts.shape[0])
    return later if with_last else ops.concat([later, number(total, int64, (1,))], 0)


def _or_zero(some: Node, x: Node) -> Node:
    """x [bags, d] where `some` [bags], else zeros."""
    return ops.select(spread(some, x.shape, 1), x, ops.like(x, 0))


def _fixed_bags(rows: Node, kept: Node | None, mode: str) -> Node:
    """Bags of one size: rows [bags, size, d] reduced over their middle."""
    bags, size, width = rows.shape
    if size == 0:
        return number(0, rows.dtype, (bags, width))
    outside = -math.inf if mode == "max" else 0
    if kept is not None:
        rows = ops.select(spread(kept, rows.shape, 2), rows, ops.like(rows, outside))
    if mode == "max":
        top = _first_max(rows)
        return top if kept is None else _or_zero(ops.reduce_or(kept, (1,)), top)
    total = ops.reduce_sum(rows, (1,))
    if mode == "sum":
        return total
    if kept is None:
        return ops.div(total, ops.like(total, size))
    return _mean(total, ops.reduce_sum(cast(kept, rows.dtype), (1,)))


def _first_max(rows: Node) -> Node:
    """The largest along dim 1 of [bags, size, d]; of equal ones the first gets the gradient."""
    winner = ops.argmax(rows, 1)
    shape = (rows.shape[0], 1, rows.shape[2])
    chosen = ops.take_along(rows, ops.reshape(winner, shape), 1)
    path = ops.reshape(chosen, (rows.shape[0], rows.shape[2]))
    return ops.with_gradient(ops.reduce_max(rows, (1,)), path)


def _mean(total: Node, count: Node) -> Node:
    """total [bags, d] / count [bags]; where nothing is counted, the total, which is zero."""
    return ops.div(total, spread(ops.maximum(count, ops.like(count, 1)), total.shape, 1))


def _bag_numbers(starts: Node, ends: Node, total: int) -> Node:
    """The bag of each of `total` lookups, int64: how many bags have ended before it.

    What is behind the last bag gets the number of bags.
    """
    ended = ops.scatter_add(number(0, int64, (total + 1,)), ends, ops.like(ends, 1), 0)
    return ops.slice_axis(ops.cumsum(ended, 0), 0, 0, total)


def _segment_sum(rows: Node, kept: Node | None, starts: Node, ends: Node, mean: bool) -> Node:
    """Bags of any size: sums or means of rows [total, d]."""
    (total, width), bags = rows.shape, ends.shape[0]
    if kept is not None:
        rows = ops.select(spread(kept, rows.shape, 1), rows, ops.like(rows, 0))
    bag = _bag_numbers(starts, ends, total)
    sums = ops.scatter_add(number(0, rows.dtype, (bags + 1, width)), bag, rows, 0)
    sums = ops.slice_axis(sums, 0, 0, bags)
    if not mean:
        return sums
    ones = number(1, rows.dtype, (total,)) if kept is None else cast(kept, rows.dtype)
    counts = ops.scatter_add(number(0, rows.dtype, (bags + 1,)), bag, ones, 0)
    return _mean(sums, ops.slice_axis(counts, 0, 0, bags))


def _segment_max(rows: Node, kept: Node | None, starts: Node, ends: Node) -> Node:
    """Bags of any size: a running maximum of rows [total, d] that begins anew with each bag."""
    total, width = rows.shape
    if total == 0:
        return number(0, rows.dtype, (ends.shape[0], width))
    lowest = number(-math.inf, rows.dtype, (width,))
    begins = ops.scatter_add(number(0, int64, (total + 1,)), starts, ops.like(starts, 1), 0)
    begins = ops.gt(ops.slice_axis(begins, 0, 0, total), number(0, int64, (total,)))
    if kept is not None:
        rows = ops.select(spread(kept, rows.shape, 1), rows, ops.like(rows, -math.inf))
    top, row = fresh_input(lowest.type), fresh_input(lowest.type)
    begin = fresh_input(TensorType((), begins.dtype))
    before = ops.select(ops.broadcast(begin, (width,), ()), lowest, top)
    after = ops.select(ops.gt(row, before), row, before)
    running = scan([top], [row, begin], [after], [after], [lowest], [rows, begins]).stacked[0]
    last = ops.maximum(ops.sub(ends, ops.like(ends, 1)), ops.like(ends, 0))
    found = ops.take(running, last, 0)
    first = ops.slice_axis(starts, 0, 0, ends.shape[0])
    some = ops.gt(ends, first)
    if kept is not None:  # a bag of padding only has not seen any row
        low = spread(ops.reduce_max(found, (1,)), found.shape, 1)
        found = ops.select(ops.eq(low, ops.like(low, -math.inf)), ops.like(found, 0), found)
    return _or_zero(some, found)
