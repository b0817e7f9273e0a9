"""Pooling: maxima and means over windows, in one to three spatial dims.

A maximum is computed as such, and differentiated as the sum of the one element chosen: PyTorch's
gradient goes to the first maximum of a window, and only there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.nodes import cast, expand
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import Tensor, apply, from_node
from graphc.ir.node import Node
from graphc.ir.types import int32, int64
from graphc.nn.functional.common import Ints, need_float, need_numbers, tuple_of

Axes = tuple[int, ...]


class Windows:
    """Where the windows of a pooling lie: PyTorch's arguments, checked, with `ceil_mode` worked out."""

    def __init__(
        self,
        name: str,
        spatial: Sequence[int],
        size: Ints,
        stride: Ints | None,
        padding: Ints,
        dilation: Ints,
        ceil_mode: bool,
    ) -> None:
        rank = len(spatial)
        self.spatial = tuple(spatial)
        self.size = tuple_of(size, rank, "kernel_size")
        no_stride = stride is None or (not isinstance(stride, int) and not tuple(stride))
        self.stride = self.size if no_stride else tuple_of(stride, rank, "stride")
        self.low = tuple_of(padding, rank, "padding")
        self.dilation = tuple_of(dilation, rank, "dilation")
        if min(*self.size, *self.stride, *self.dilation) < 1:
            raise fail(RuntimeError, f"{name}: kernel size, stride and dilation must be greater than zero")
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.size, strict=True)]
        if any(p < 0 or p > r // 2 for p, r in zip(self.low, reach, strict=True)):
            raise fail(
                RuntimeError,
                f"{name}: pad should be at most half of effective kernel size and not negative, but got "
                f"pad={self.low}, kernel_size={self.size} and dilation={self.dilation}",
            )
        self.out = tuple(
            [_count(*row, ceil_mode) for row in zip(spatial, self.low, reach, self.stride, strict=True)]
        )
        if min(self.out) < 1:
            raise fail(
                RuntimeError,
                f"{name}: Given input size {list(spatial)}: calculated output size {list(self.out)} "
                "is too small",
            )
        ends = [(o - 1) * s + r for o, s, r in zip(self.out, self.stride, reach, strict=True)]
        rows = zip(ends, spatial, self.low, strict=True)
        self.high = tuple([max(end - n - p, 0) for end, n, p in rows])

    def maxima(self, n: Node) -> Node:
        """The view for a maximum: what lies outside never is one."""
        return self.view(n, -math.inf if n.dtype.is_float else int(np.iinfo(n.dtype.numpy).min))

    def view(self, n: Node, fill: float) -> Node:
        """[..., *spatial] -> [..., *out, *size]."""
        return ops.window(n, self.size, self.stride, self.low, self.high, self.dilation, fill)

    def divisors(self, include_pad: bool) -> np.ndarray:
        """How many elements each window counts."""
        total = np.ones((), np.float64)
        rows = zip(self.spatial, self.size, self.stride, self.low, self.out, strict=True)
        for n, k, s, p, o in rows:
            start = np.arange(o) * s - p
            end = np.minimum(start + k, n + p)
            if not include_pad:
                start, end = np.maximum(start, 0), np.minimum(end, n)
            total = total[..., None] * (end - start)
        return total


def _count(extent: int, pad: int, reach: int, stride: int, ceil_mode: bool) -> int:
    room = extent + 2 * pad - reach
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= extent + pad:
        count -= 1  # a window must start inside the input or its left padding
    return count


def check_rank(name: str, input: Tensor, rank: int, integers: bool = False) -> None:
    """RuntimeError unless `input` is a float tensor of `rank` spatial dims, with or without a batch."""
    (need_numbers if integers else need_float)(name, input)
    if input.ndim not in (rank + 1, rank + 2) or 0 in input.shape[input.ndim - rank - 1 :]:
        raise fail(
            RuntimeError,
            f"{name}: Expected {rank + 1}D or {rank + 2}D (batch mode) tensor with optional 0 dim "
            "batch size for "
            f"input, but got: {list(input.shape)}",
        )


def _first_hit(w: Node, top: Node, taps: int) -> tuple[Node, Node]:
    """(id of each tap, id of the first tap of each window that is its maximum or NaN), int32."""
    axes = tuple(range(w.type.rank - taps, w.type.rank))
    ids = ops.full(w.shape, 0, int32)
    for axis in axes:
        step = math.prod(w.shape[axis + 1 :])
        ids = ops.add(ids, ops.mul(ops.iota(w.shape, axis, int32), ops.full(w.shape, step, int32)))
    kept = tuple(range(w.type.rank - taps))
    hit = ops.eq(w, ops.broadcast(top, w.shape, kept))
    if w.dtype.is_float:
        hit = ops.bit_or(hit, ops.isnan(w))
    last = ops.full(w.shape, math.prod(w.shape[a] for a in axes), int32)
    return ids, ops.reduce_min(ops.select(hit, ids, last), axes)


def maximum(w: Node, taps: int) -> tuple[Node, Node]:
    """(maximum over the last `taps` axes, its gradient going to the first maximum; id of that one)."""
    axes = tuple(range(w.type.rank - taps, w.type.rank))
    top = ops.reduce_max(ops.stop_gradient(w), axes)
    ids, first = _first_hit(ops.stop_gradient(w), top, taps)
    chosen = ops.eq(ids, ops.broadcast(first, w.shape, tuple(range(w.type.rank - taps))))
    return ops.with_gradient(top, ops.reduce_sum(ops.select(chosen, w, ops.zeros(w.type)), axes)), first


def _input_index(first: Node, g: Windows) -> Node:
    """The flat index in the input's spatial dims of tap `first` of each window, int64."""
    rank, total = len(g.out), ops.full(first.shape, 0, int64)
    rest = cast(first, int64)
    for i in range(rank):
        step = math.prod(g.size[i + 1 :])
        tap = ops.div(rest, ops.full(rest.shape, step, int64))
        rest = ops.rem(rest, ops.full(rest.shape, step, int64))
        place = ops.iota(first.shape, first.type.rank - rank + i, int64)
        for factor, term in ((g.stride[i], place), (g.dilation[i], tap)):
            scaled = ops.mul(term, ops.full(term.shape, factor * math.prod(g.spatial[i + 1 :]), int64))
            total = ops.add(total, scaled)
        shift = g.low[i] * math.prod(g.spatial[i + 1 :])
        total = ops.sub(total, ops.full(total.shape, shift, int64))
    return total


def _max_pool(
    rank: int,
    input: Tensor,
    size: Ints,
    stride: Ints | None,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    return_indices: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    name = f"max_pool{rank}d"
    check_rank(name, input, rank, integers=True)
    g = Windows(name, input.shape[-rank:], size, stride, padding, dilation, ceil_mode)
    picked: list[Node] = []

    def build(n: Node) -> Node:
        value, first = maximum(g.maxima(n), rank)
        picked.append(first)
        return value

    out = apply(f"MaxPool{rank}DWithIndicesBackward0", build, input)
    if not return_indices:
        return out
    return out, from_node(_input_index(picked[0], g), tracks=True)


def _pool_functions(rank: int):  # type: ignore[no-untyped-def]
    shape = {1: "L", 2: "H, W", 3: "D, H, W"}[rank]

    def max_pool(
        input: Tensor,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        dilation: Ints = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        return _max_pool(rank, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)

    def max_pool_with_indices(
        input: Tensor,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        dilation: Ints = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        return _max_pool(rank, input, kernel_size, stride, padding, dilation, ceil_mode, True)

    max_pool.__name__ = max_pool.__qualname__ = f"max_pool{rank}d"
    max_pool.__doc__ = f"""The largest element of each window of [N, C, {shape}]; outside counts as -inf.

    stride is kernel_size unless given. With return_indices also where in the input's {shape} it was.
    """
    max_pool_with_indices.__name__ = max_pool_with_indices.__qualname__ = f"max_pool{rank}d_with_indices"
    max_pool_with_indices.__doc__ = f"`max_pool{rank}d` with return_indices=True."
    return repeatable(max_pool), max_pool_with_indices


max_pool1d, max_pool1d_with_indices = _pool_functions(1)
max_pool2d, max_pool2d_with_indices = _pool_functions(2)
max_pool3d, max_pool3d_with_indices = _pool_functions(3)


def _avg_pool(
    rank: int,
    input: Tensor,
    size: Ints,
    stride: Ints | None,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None = None,
) -> Tensor:
    name = f"avg_pool{rank}d"
    check_rank(name, input, rank, integers=True)
    if divisor == 0:
        raise fail(RuntimeError, "divisor must be not zero")
    g = Windows(name, input.shape[-rank:], size, stride, padding, 1, ceil_mode)
    counts = g.divisors(count_include_pad)

    def build(n: Node) -> Node:
        axes = tuple(range(n.type.rank, n.type.rank + rank))
        total = ops.reduce_sum(g.view(n, 0), axes)
        if not n.dtype.is_float:
            return _divided(total, np.full_like(counts, divisor) if divisor else counts)
        if divisor is not None or counts.min() == counts.max():
            return ops.div(total, ops.like(total, float(divisor or counts.max())))
        return ops.div(total, expand(ops.constant(counts.astype(n.dtype.numpy)), total.shape))

    return apply(f"AvgPool{rank}DBackward0", build, input)


def _divided(total: Node, counts: np.ndarray) -> Node:
    """Integer sums over counts, rounded towards zero."""
    divisor = expand(ops.constant(counts.astype(total.dtype.numpy)), total.shape)
    size = ops.div(ops.abs(total), ops.abs(divisor))
    zero = ops.zeros(total.type)
    return ops.select(ops.ne(ops.lt(total, zero), ops.lt(divisor, zero)), ops.neg(size), size)


@repeatable
def avg_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of [N, C, L]; padding counts as zeros, or not at all."""
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


@repeatable
def avg_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of [N, C, H, W] (the sum over `divisor_override`, if given)."""
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@repeatable
def avg_pool3d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of [N, C, D, H, W] (the sum over `divisor_override`, if given)."""
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
