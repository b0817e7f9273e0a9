"""Power averages over windows, and putting pooled maxima back where they came from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.nodes import expand
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import int64
from graphc.nn.functional.common import Ints, need_tensors, tuple_of
from graphc.nn.functional.pooling import Windows, check_rank

Axes = tuple[int, ...]


def _lp_pool(
    rank: int, input: Tensor, norm: float, size: Ints, stride: Ints | None, ceil_mode: bool
) -> Tensor:
    name = f"lp_pool{rank}d"
    check_rank(name, input, rank)
    g = Windows(name, input.shape[-rank:], size, stride, 0, 1, ceil_mode)
    taps, counts = math.prod(g.size), g.divisors(True)

    def build(n: Node) -> Node:
        # PyTorch's: the window's mean times the whole window's size.
        total = ops.reduce_sum(
            g.view(ops.pow(n, ops.like(n, norm)), 0.0), range(n.type.rank, n.type.rank + rank)
        )
        mean = ops.mul(total, expand(ops.constant((taps / counts).astype(n.dtype.numpy)), total.shape))
        return ops.pow(mean, ops.like(mean, 1.0 / norm))

    return apply("PowBackward0", build, input)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x ** norm_type) ** (1 / norm_type) over windows of [N, C, L]."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x ** norm_type) ** (1 / norm_type) over windows of [N, C, H, W]."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x ** norm_type) ** (1 / norm_type) over windows of [N, C, D, H, W]."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _max_unpool(
    rank: int,
    input: Tensor,
    indices: Tensor,
    size: Ints,
    stride: Ints | None,
    padding: Ints,
    output_size: Sequence[int] | None,
) -> Tensor:
    name = f"max_unpool{rank}d"
    check_rank(name, input, rank)
    need_tensors(name, indices)
    if tuple(indices.shape) != tuple(input.shape) or indices.dtype is not int64:
        raise fail(
            RuntimeError, f"{name}: indices must be int64 of the input's shape: {describe(input, indices)}"
        )
    kernel = tuple_of(size, rank, "kernel_size")
    steps = kernel if stride is None else tuple_of(stride, rank, "stride")
    pads = tuple_of(padding, rank, "padding")
    rows = zip(input.shape[-rank:], steps, pads, kernel, strict=True)
    default = tuple([(n - 1) * s - 2 * p + k for n, s, p, k in rows])
    out = default if output_size is None else tuple(output_size)[-rank:]
    for o, d, s in zip(out, default, steps, strict=True):
        if not d - s < o < d + s:
            raise fail(
                ValueError,
                f"invalid output_size {tuple(out)} (dims must be within a stride of {default})",
            )
    lead, count = tuple(input.shape[:-rank]), math.prod(out)

    def build(n: Node, where: Node) -> Node:
        flat = (math.prod(lead), math.prod(n.shape[-rank:]))
        place = ops.check_index(ops.reshape(where, flat), 0, count, f"{name}: found an invalid max index")
        empty = ops.full((flat[0], count), 0, n.dtype)
        return ops.reshape(_put(empty, place, ops.reshape(n, flat)), (*lead, *out))

    return apply(f"MaxUnpool{rank}DBackward0", build, input, indices)


def _put(base: Node, place: Node, value: Node) -> Node:
    """Rows of `value` at `place`s of rows of `base`.

    Several maxima of one place are equal, so their mean is their value; each gets the place's gradient.
    """
    total = ops.scatter_add_along(base, place, value, 1)
    uses = ops.scatter_add_along(base, place, ops.like(value, 1), 1)
    mean = ops.div(ops.stop_gradient(total), ops.maximum(uses, ops.like(uses, 1)))
    return ops.with_gradient(mean, total)


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Puts maxima back where `indices` says they came from; zeros elsewhere."""
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Puts maxima back where `indices` says they came from; zeros elsewhere."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Puts maxima back where `indices` says they came from; zeros elsewhere."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)
