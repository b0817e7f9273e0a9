"""Fractional max pooling: windows at random, irregular steps that together cover the input."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.random import rand
from graphc.frontend.nodes import cast
from graphc.frontend.tensor import Tensor, apply, from_node
from graphc.ir.node import Node
from graphc.ir.types import int64
from graphc.nn.functional.common import Ints, need_float, tuple_of
from graphc.nn.functional.pooling import maximum

Ratio = float | Sequence[float]


def _pooled(
    rank: int,
    input: Tensor,
    kernel_size: Ints,
    output_size: Ints | None,
    output_ratio: Ratio | None,
    samples: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """(maxima, their flat indices in the spatial dims)."""
    name = f"fractional_max_pool{rank}d"
    need_float(name, input)
    if input.ndim not in (rank + 1, rank + 2) or 0 in input.shape[-rank - 1 :]:
        raise fail(
            RuntimeError,
            f"{name}: expected {rank + 1}D or {rank + 2}D input without empty dims, got {describe(input)}",
        )
    size = tuple_of(kernel_size, rank, "kernel_size")
    spatial = tuple(input.shape[-rank:])
    counts = _counts(name, spatial, rank, output_size, output_ratio)
    if any(
        k < 1 or o < 1 or o + k - 1 > n - (rank == 3) for k, o, n in zip(size, counts, spatial, strict=True)
    ):
        raise fail(
            RuntimeError,
            f"{name}: windows of {size} in {counts} places are too large relative to the input {spatial}",
        )
    batch = 1 if input.ndim == rank + 1 else input.shape[0]
    planes = batch * input.shape[-rank - 1]
    if samples is None:
        samples = rand(batch, input.shape[-rank - 1], rank, dtype=input.dtype)
    if samples.ndim == 3 and input.ndim == rank + 1:
        samples = samples[:1]  # PyTorch reads the first of a batch of samples
    if tuple(samples.shape) != (batch, input.shape[-rank - 1], rank) or samples.dtype is not input.dtype:
        raise fail(
            RuntimeError,
            f"{name}: expected _random_samples of the input's dtype and shape "
            f"{[batch, input.shape[-rank - 1], rank]}, got {describe(samples, input)}",
        )
    indices: list[Node] = []

    def build(n: Node, random: Node) -> Node:
        random = ops.reshape(random, (planes, rank))
        places = _places(random, spatial, counts, size)  # [planes, *counts, *size]
        flat = ops.reshape(n, (planes, math.prod(spatial)))
        found = ops.take_along(flat, ops.reshape(places, (planes, math.prod((*counts, *size)))), 1)
        windows = (planes, *counts, math.prod(size))
        top, first = maximum(ops.reshape(found, windows), 1)
        first = ops.reshape(cast(first, int64), (*first.shape, 1))
        index = ops.take_along(ops.reshape(places, windows), first, rank + 1)
        shape = (*n.shape[:-rank], *counts)
        indices.append(ops.reshape(index, shape))
        return ops.reshape(top, shape)

    out = apply(f"FractionalMaxPool{rank}DBackward0", build, input, samples)
    return out, from_node(indices[0], tracks=True)


def _counts(
    name: str, spatial: tuple[int, ...], rank: int, size: Ints | None, ratio: Ratio | None
) -> tuple[int, ...]:
    if size is not None:
        return tuple_of(size, rank, "output_size")
    if ratio is None:
        raise fail(ValueError, f"{name} requires specifying either an output_size or an output_ratio")
    ratios = (ratio,) * rank if isinstance(ratio, int | float) else tuple(ratio)
    if len(ratios) != rank:
        raise fail(ValueError, f"{name} requires output_ratio to be a number or {rank} numbers, got {ratio}")
    return tuple(int(n * r) for n, r in zip(spatial, ratios, strict=True))


def _places(random: Node, spatial: tuple[int, ...], counts: tuple[int, ...], size: tuple[int, ...]) -> Node:
    """Flat index [planes, *counts, *size] of each element of each window."""
    rank, planes = len(spatial), random.shape[0]
    shape = (planes, *counts, *size)
    total = None
    for axis, (extent, count, kernel) in enumerate(zip(spatial, counts, size, strict=True)):
        column = rank - 1 - axis if rank == 2 else axis  # PyTorch draws for W before H, but for T before H
        sample = ops.reshape(ops.slice_axis(random, 1, column, column + 1), (planes,))
        start = ops.broadcast(_starts(sample, extent, count, kernel), shape, (0, 1 + axis))
        place = ops.add(start, ops.iota(shape, 1 + rank + axis, int64))
        place = ops.mul(place, ops.like(place, math.prod(spatial[axis + 1 :])))
        total = place if total is None else ops.add(total, place)
    assert total is not None
    return total


def _starts(sample: Node, extent: int, count: int, kernel: int) -> Node:
    """Where the windows of an axis start, [planes, count]: steps of a mean length, rounded at random."""
    shape = (sample.shape[0], count)
    position = ops.iota(shape, 1, int64)
    last = ops.like(position, extent - kernel)
    if count == 1:
        return last
    alpha = (extent - kernel) / (count - 1)
    u = ops.broadcast(sample, shape, (0,))

    def reached(x: Node) -> Node:
        return cast(ops.floor(ops.mul(x, ops.like(x, alpha))), int64)

    steps = ops.sub(reached(ops.add(cast(position, u.dtype), u)), reached(u))
    return ops.select(ops.eq(position, ops.like(position, count - 1)), last, ops.minimum(steps, last))


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Ints,
    output_size: Ints | None = None,
    output_ratio: Ratio | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
):  # type: ignore[no-untyped-def]
    """Maxima of [N, C, H, W] over windows at random steps, `output_size` or `output_ratio` of H, W in number.

    With return_indices also where they were. `_random_samples` [N, C, 2] in [0, 1) are the steps' offsets.
    """
    pair = _pooled(2, input, kernel_size, output_size, output_ratio, _random_samples)
    return pair if return_indices else pair[0]


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Ints,
    output_size: Ints | None = None,
    output_ratio: Ratio | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
):  # type: ignore[no-untyped-def]
    """Maxima of [N, C, D, H, W] over windows at random steps; as `fractional_max_pool2d`."""
    pair = _pooled(3, input, kernel_size, output_size, output_ratio, _random_samples)
    return pair if return_indices else pair[0]


def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Ints,
    output_size: Ints | None = None,
    output_ratio: Ratio | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool2d` with return_indices=True."""
    return _pooled(2, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Ints,
    output_size: Ints | None = None,
    output_ratio: Ratio | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool3d` with return_indices=True."""
    return _pooled(3, input, kernel_size, output_size, output_ratio, _random_samples)
