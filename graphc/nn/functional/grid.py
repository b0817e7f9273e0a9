"""Sampling at given places: `grid_sample`, and grids of affine maps.

A place along an axis of n elements becomes taps: positions with weights. Nearest has one tap, linear two,
cubic four; taps of several axes multiply. Elements are taken from [N, C, H * W] along its last dim.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.nodes import cast
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import DType, int64
from graphc.nn.functional.common import need_float

Tap = tuple[Node, Node | None]  # a position, as a whole number in floating point, and its weight (None: 1)


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """input [N, C, H, W] at the places grid [N, H', W', 2] (x, y from -1 to 1): [N, C, H', W'].

    Or [N, C, D, H, W] at [N, D', H', W', 3]. mode is "bilinear", "nearest" or "bicubic" (4 dims only),
    padding_mode "zeros", "border" or "reflection"; -1 and 1 are the centres of the corner elements with
    `align_corners`, otherwise their edges. RuntimeError, naming the shapes, if they do not fit.
    """
    _check_words(mode, padding_mode)
    align = _aligned(align_corners)
    need_float("grid_sampler", input, grid)
    rank = input.ndim - 2
    _check_shapes(input, grid, mode, rank)

    def build(n: Node, g: Node) -> Node:
        batch, channels, *extents = n.shape
        count = math.prod(g.shape[1:-1])
        g = ops.reshape(g, (batch, count, rank))
        axes = []
        for axis, extent in enumerate(extents):
            place = ops.reshape(ops.slice_axis(g, 2, rank - 1 - axis, rank - axis), (batch, count))
            place = _unnormal(place, extent, align)
            axes.append(_taps(place, extent, mode, padding_mode, align))
        return ops.reshape(_sum_of_taps(n, axes), (batch, channels, *grid.shape[1:-1]))

    return apply("GridSampler2DBackward0" if rank == 2 else "GridSampler3DBackward0", build, input, grid)


def _check_words(mode: str, padding_mode: str) -> None:
    for name, word, words in (
        ("mode", mode, ("bilinear", "nearest", "bicubic")),
        ("padding_mode", padding_mode, ("zeros", "border", "reflection")),
    ):
        if word not in words:
            right = f"'{words[0]}', '{words[1]}' or '{words[2]}'"
            raise fail(
                ValueError,
                f"nn.functional.grid_sample(): expected {name} to be {right}, but got: '{word}'",
            )


def _check_shapes(input: Tensor, grid: Tensor, mode: str, rank: int) -> None:
    given = f"(given {describe(input, grid)})"
    if rank not in (2, 3) or grid.ndim != input.ndim:
        raise fail(
            RuntimeError,
            f"grid_sampler(): expected 4D or 5D input and grid with same number of dimensions {given}",
        )
    if grid.shape[0] != input.shape[0]:
        raise fail(RuntimeError, f"grid_sampler(): expected grid and input to have same batch size {given}")
    if grid.shape[-1] != rank:
        raise fail(
            RuntimeError, f"grid_sampler(): expected grid to have size {rank} in last dimension {given}"
        )
    if 0 in input.shape[2:]:
        raise fail(
            RuntimeError, f"grid_sampler(): expected input to have non-empty spatial dimensions {given}"
        )
    if mode == "bicubic" and rank == 3:
        raise fail(RuntimeError, f"grid_sampler(): bicubic interpolation only supports 4D input {given}")
    if input.dtype is not grid.dtype:
        raise fail(RuntimeError, f"grid_sampler(): expected input and grid to have same dtype {given}")


def _aligned(align_corners: bool | None) -> bool:
    if align_corners is None:
        warnings.warn(
            "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. "
            "Please specify align_corners=True if the old behavior is desired. See the documentation of "
            "grid_sample for details.",
            stacklevel=3,
        )
    return bool(align_corners)


# ----------------------------------------------------------------- places and taps


def _unnormal(place: Node, extent: int, align: bool) -> Node:
    """From -1..1 to positions: 0 is the centre of the first element."""
    if align:
        half = (extent - 1) / 2
        return ops.add(ops.mul(place, ops.like(place, half)), ops.like(place, half))
    return ops.add(ops.mul(place, ops.like(place, extent / 2)), ops.like(place, (extent - 1) / 2))


def _inside(place: Node, extent: int) -> Node:
    """Clipped to 0..extent - 1; beyond, and on the border itself, there is no gradient."""
    last = ops.like(place, extent - 1)
    zero = ops.like(place, 0)
    low = ops.select(ops.gt(place, zero), place, zero)
    return ops.select(ops.lt(low, last), low, last)


def _reflected(place: Node, extent: int, align: bool) -> Node:
    """Mirrored at the centres, or the edges, of the outermost elements as often as need be."""
    low, span = (0.0, extent - 1.0) if align else (-0.5, float(extent))
    if span == 0:
        return ops.like(place, 0)
    away = ops.sub(place, ops.like(place, low))
    away = ops.select(ops.lt(away, ops.like(away, 0)), ops.neg(away), away)
    times = ops.floor(ops.div(away, ops.like(away, span)))
    rest = ops.sub(away, ops.mul(times, ops.like(away, span)))
    even = ops.eq(ops.rem(times, ops.like(times, 2)), ops.like(times, 0))
    back = ops.select(even, rest, ops.sub(ops.like(rest, span), rest))
    return _inside(ops.add(back, ops.like(back, low)), extent)


def _padded(place: Node, extent: int, padding_mode: str, align: bool) -> Node:
    if padding_mode == "border":
        return _inside(place, extent)
    if padding_mode == "reflection":
        return _reflected(place, extent, align)
    return place


def _taps(place: Node, extent: int, mode: str, padding_mode: str, align: bool) -> list[Tap]:
    """The elements of an axis that a place takes part of."""
    if mode == "bicubic":
        base = ops.floor(place)
        share = ops.sub(place, base)
        places = [ops.add(base, ops.like(base, tap)) for tap in (-1, 0, 1, 2)]
        padded = [_padded(p, extent, padding_mode, align) for p in places]
        return list(zip(padded, _cubic_weights(share), strict=True))
    place = _padded(place, extent, padding_mode, align)
    if mode == "nearest":
        return [(ops.round(place), None)]
    low = ops.floor(place)
    share = ops.sub(place, low)
    one = ops.like(share, 1)
    return [(low, ops.sub(one, share)), (ops.add(low, one), share)]


def _cubic_weights(t: Node, a: float = -0.75) -> list[Node]:
    """Of the taps -1, 0, 1, 2 at a place t behind tap 0: the cubic convolution kernel."""

    def polynomial(x: Node, *factors: float) -> Node:
        total = ops.like(x, factors[0])
        for factor in factors[1:]:
            total = ops.add(ops.mul(total, x), ops.like(x, factor))
        return total

    def near(x: Node) -> Node:
        return polynomial(x, a + 2, -(a + 3), 0.0, 1.0)

    def far(x: Node) -> Node:
        return polynomial(x, a, -5 * a, 8 * a, -4 * a)

    one = ops.like(t, 1)
    rest = ops.sub(one, t)
    return [far(ops.add(t, one)), near(t), near(rest), far(ops.add(rest, one))]


def _sum_of_taps(n: Node, axes: Sequence[list[Tap]]) -> Node:
    """[N, C, places]: elements times weights, over all combinations of taps."""
    batch, channels, *extents = n.shape
    flat = ops.reshape(n, (batch, channels, math.prod(extents)))
    shape = (batch, channels, axes[0][0][0].shape[1])
    places = [[(*_index(p, extent), w) for p, w in taps] for taps, extent in zip(axes, extents, strict=True)]
    total = None
    for taps in itertools.product(*places):
        place = share = None
        for (index, weight, own), stride in zip(taps, _strides(extents), strict=True):
            step = ops.mul(index, ops.like(index, stride))
            place = step if place is None else ops.add(place, step)
            for factor in (weight, own):
                if factor is not None:
                    share = factor if share is None else ops.mul(share, factor)
        assert place is not None
        assert share is not None
        found = ops.take_along(flat, ops.broadcast(place, shape, (0, 2)), 2)
        found = ops.mul(found, ops.broadcast(share, shape, (0, 2)))
        total = found if total is None else ops.add(total, found)
    assert total is not None
    return total


def _strides(extents: Sequence[int]) -> list[int]:
    return [math.prod(extents[i + 1 :]) for i in range(len(extents))]


def _index(place: Node, extent: int) -> tuple[Node, Node]:
    """A position as an index in range, and 1 where it was, 0 where it (or NaN) was outside."""
    last = ops.like(place, extent - 1)
    valid = ops.bit_and(ops.ge(place, ops.like(place, 0)), ops.le(place, last))
    index = cast(ops.select(valid, place, ops.like(place, 0)), int64)
    return index, cast(valid, place.dtype)


# ------------------------------------------------------------------- affine grids


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid [N, H, W, 2] of affine maps theta [N, 2, 3] for `grid_sample` to size (N, C, H, W).

    Or [N, D, H, W, 3] of theta [N, 3, 4] for (N, C, D, H, W). ValueError, naming the shapes, if they do not
    fit; NotImplementedError for sizes of other lengths.
    """
    align = _aligned(align_corners)
    size = tuple(int(s) for s in size)
    if not theta.dtype.is_float:
        raise fail(ValueError, f"Expected theta to have floating point type, but got {theta.dtype}")
    if len(size) not in (4, 5):
        raise fail(
            NotImplementedError,
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. "
            f"Got size {size}.",
        )
    rank = len(size) - 2
    if tuple(theta.shape[1:]) != (rank, rank + 1) or theta.shape[0] != size[0]:
        raise fail(
            ValueError,
            f"Expected a batch of {rank}D affine matrices of shape {size[0]}x{rank}x{rank + 1} for size "
            f"{size}. Got {list(theta.shape)}.",
        )
    if min(size) <= 0:
        raise fail(ValueError, f"Expected non-zero, positive output size. Got {size}")

    def build(t: Node) -> Node:
        places = _base(size[2:], align, t.dtype)  # [..., rank + 1]
        moved = ops.dot_general(t, places, ((2,), (rank,)))  # [N, rank, ...]
        return ops.transpose(moved, (0, *range(2, rank + 2), 1))

    return apply("AffineGridGeneratorBackward0", build, theta)


def _base(sizes: tuple[int, ...], align: bool, dtype: DType) -> Node:
    """[*sizes, rank + 1]: x, y (and z) of each element from -1 to 1, and 1."""
    parts = []
    for axis in reversed(range(len(sizes))):
        extent = sizes[axis]
        position = cast(ops.iota((*sizes, 1), axis, int64), dtype)
        span = extent - 1 if align else extent
        if align and extent == 1:
            parts.append(ops.like(position, 0))
            continue
        first = -1.0 if align else 1 / extent - 1
        parts.append(ops.add(ops.mul(position, ops.like(position, 2 / span)), ops.like(position, first)))
    return ops.concat([*parts, ops.like(parts[0], 1)], len(sizes))
