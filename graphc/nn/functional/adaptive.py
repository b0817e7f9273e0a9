"""Adaptive pooling: windows that cover the input, given how many of them there are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.nodes import cast
from graphc.frontend.tensor import Tensor, apply, from_node
from graphc.ir.node import Node
from graphc.ir.types import int32, int64
from graphc.nn.functional.pooling import check_rank

Axes = tuple[int, ...]


def _adaptive_sizes(name: str, input: Tensor, rank: int, output_size: Any) -> Axes:
    if rank > 1 and input.ndim < rank + 1:
        raise fail(ValueError, f"Input dimension should be at least {rank + 1}, got {input.ndim} ({name})")
    check_rank(name, input, rank)
    single = isinstance(output_size, int) or output_size is None
    wanted: tuple[Any, ...] = (output_size,) * rank if single else tuple(output_size)
    if len(wanted) == 1:
        wanted = wanted * rank
    if len(wanted) != rank:
        raise fail(RuntimeError, f"{name}: output_size must be {rank} numbers, got {wanted}")
    sizes = tuple([n if w is None else int(w) for w, n in zip(wanted, input.shape[-rank:], strict=True)])
    if min(sizes) < 1:
        raise fail(
            RuntimeError,
            f"{name}: elements of output_size must be greater than 0, got {sizes} ({describe(input)})",
        )
    return sizes


def _bounds(extent: int, count: int) -> list[tuple[int, int]]:
    """Where each of `count` adaptive windows over `extent` elements begins and ends."""
    return [(i * extent // count, -(-(i + 1) * extent // count)) for i in range(count)]


def _average_axis(n: Node, axis: int, count: int) -> Node:
    """Adaptive means along one axis: a split and a mean if sizes divide, else a small matrix product."""
    extent = n.shape[axis]
    if count == extent:
        return n
    if extent % count == 0:
        split = ops.reshape(n, (*n.shape[:axis], count, extent // count, *n.shape[axis + 1 :]))
        total = ops.reduce_sum(split, (axis + 1,))
        return ops.div(total, ops.like(total, float(extent // count)))
    matrix = np.zeros((extent, count), n.dtype.numpy)
    for i, (start, end) in enumerate(_bounds(extent, count)):
        matrix[start:end, i] = 1.0 / (end - start)
    moved = ops.dot_general(n, ops.constant(matrix), ((axis,), (0,)))
    rank = n.type.rank
    return ops.transpose(moved, (*range(axis), rank - 1, *range(axis, rank - 1)))


def _adaptive_avg(rank: int, input: Tensor, output_size: Any) -> Tensor:
    sizes = _adaptive_sizes(f"adaptive_avg_pool{rank}d", input, rank, output_size)

    def build(n: Node) -> Node:
        first = n.type.rank - rank
        if set(sizes) == {1}:
            total = ops.reduce_sum(n, range(first, n.type.rank))
            mean = ops.div(total, ops.like(total, float(math.prod(n.shape[first:]))))
            return ops.reshape(mean, (*n.shape[:first], *sizes))
        for i, count in enumerate(sizes):
            n = _average_axis(n, first + i, count)
        return n

    return apply(f"AdaptiveAvgPool{rank}DBackward0", build, input)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means over `output_size` windows that cover L; None keeps a size."""
    return _adaptive_avg(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means over a grid of `output_size` windows that cover H, W; None keeps a size."""
    return _adaptive_avg(2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means over a grid of `output_size` windows that cover D, H, W; None keeps a size."""
    return _adaptive_avg(3, input, output_size)


def _adaptive_max(
    rank: int, input: Tensor, output_size: Any, return_indices: bool
) -> Tensor | tuple[Tensor, Tensor]:
    sizes = _adaptive_sizes(f"adaptive_max_pool{rank}d", input, rank, output_size)
    picked: list[Node] = []

    def build(n: Node) -> Node:
        value, first = _maxima(n, sizes)
        picked.append(first)
        lead, count = n.shape[:-rank], math.prod(sizes)
        line = ops.reshape(n, (*lead, math.prod(n.shape[-rank:])))
        path = ops.take_along(line, ops.reshape(first, (*lead, count)), len(lead))
        return ops.with_gradient(value, ops.reshape(path, value.shape))

    out = apply(f"AdaptiveMaxPool{rank}DBackward0", build, input)
    return (out, from_node(cast(picked[0], int64), tracks=True)) if return_indices else out


def _maxima(n: Node, sizes: Axes) -> tuple[Node, Node]:
    """The maximum of each window, and the number of its first element that is that or NaN, in the order of
    the spatial dims. One axis after another: rows of memory are compared whole, and few are left of them."""
    value = ops.stop_gradient(n)
    index, number = int64 if n.type.size >= 2**31 else int32, len(sizes)
    place = ops.full(n.shape, 0, index)
    for axis in range(n.type.rank - number, n.type.rank):
        step = ops.full(n.shape, math.prod(n.shape[axis + 1 :]), index)
        place = ops.add(place, ops.mul(ops.iota(n.shape, axis, index), step))
    for axis, count in enumerate(sizes, n.type.rank - number):
        values, places = _windows(value, axis, count), _windows(place, axis, count)
        value = ops.reduce_max(values, (axis + 1,))
        kept = tuple([a for a in range(values.type.rank) if a != axis + 1])
        hit = ops.bit_or(ops.eq(values, ops.broadcast(value, values.shape, kept)), ops.isnan(values))
        none = ops.full(places.shape, np.iinfo(index.numpy).max, index)
        place = ops.reduce_min(ops.select(hit, places, none), (axis + 1,))
    return value, place


def _windows(n: Node, axis: int, count: int) -> Node:
    """An axis as (window, element of it). Short windows repeat their last element, which changes neither the
    maximum nor which comes first."""
    extent = n.shape[axis]
    if extent % count == 0:
        return ops.reshape(n, (*n.shape[:axis], count, extent // count, *n.shape[axis + 1 :]))
    bounds = _bounds(extent, count)
    longest = max(end - start for start, end in bounds)
    taps = [np.minimum(np.arange(start, start + longest), end - 1) for start, end in bounds]
    return ops.take(n, ops.constant(np.array(taps, np.int64)), axis)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False):  # type: ignore[no-untyped-def]
    """Maxima over `output_size` windows that cover L; with return_indices also where they were."""
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False):  # type: ignore[no-untyped-def]
    """Maxima over a grid of windows that cover H, W; with return_indices also where they were."""
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False):  # type: ignore[no-untyped-def]
    """Maxima over a grid of windows that cover D, H, W; with return_indices also where they were."""
    return _adaptive_max(3, input, output_size, return_indices)


def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool1d` with return_indices=True."""
    return _adaptive_max(1, input, output_size, True)  # type: ignore[return-value]


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool2d` with return_indices=True."""
    return _adaptive_max(2, input, output_size, True)  # type: ignore[return-value]


def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool3d` with return_indices=True."""
    return _adaptive_max(3, input, output_size, True)  # type: ignore[return-value]
