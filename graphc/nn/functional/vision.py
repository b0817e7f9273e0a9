"""Moving pixels: shuffles between channels and space, patches, and resizing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.functions.shape import interleaved_node
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.nn.functional.adaptive import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from graphc.nn.functional.common import Ints, need_float, need_tensors, tuple_of


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """[..., C * r * r, H, W] -> [..., C, H * r, W * r]."""
    need_tensors("pixel_shuffle", input)
    r = upscale_factor
    if input.ndim < 3 or r < 1 or input.shape[-3] % (r * r):
        raise fail(
            RuntimeError,
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of "
            f"upscale_factor, but input {list(input.shape)} with upscale_factor={r} is not",
        )

    def build(n: Node) -> Node:
        lead, (c, h, w) = n.shape[:-3], n.shape[-3:]
        split = ops.reshape(n, (*lead, c // (r * r), r, r, h, w))
        k = len(lead)
        moved = ops.transpose(split, (*range(k), k, k + 3, k + 1, k + 4, k + 2))
        return ops.reshape(moved, (*lead, c // (r * r), h * r, w * r))

    return apply("PixelShuffleBackward0", build, input)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """[..., C, H * r, W * r] -> [..., C * r * r, H, W]."""
    need_tensors("pixel_unshuffle", input)
    r = downscale_factor
    if input.ndim < 3 or r < 1 or input.shape[-1] % r or input.shape[-2] % r:
        raise fail(
            RuntimeError,
            f"pixel_unshuffle expects height and width to be divisible by downscale_factor, but input "
            f"{list(input.shape)} with downscale_factor={r} is not",
        )

    def build(n: Node) -> Node:
        lead, (c, h, w) = n.shape[:-3], n.shape[-3:]
        split = ops.reshape(n, (*lead, c, h // r, r, w // r, r))
        k = len(lead)
        moved = ops.transpose(split, (*range(k), k, k + 2, k + 4, k + 1, k + 3))
        return ops.reshape(moved, (*lead, c * r * r, h // r, w // r))

    return apply("PixelUnshuffleBackward0", build, input)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Interleaves `groups` groups of channels (dim 1)."""
    need_tensors("channel_shuffle", input)
    if input.ndim < 3 or groups < 1 or input.shape[1] % groups:
        raise fail(
            RuntimeError,
            f"Number of channels must be divisible by groups. Got {list(input.shape)} and {groups} groups.",
        )

    def build(n: Node) -> Node:
        split = ops.reshape(n, (n.shape[0], groups, n.shape[1] // groups, *n.shape[2:]))
        return ops.reshape(ops.transpose(split, (0, 2, 1, *range(3, split.type.rank))), n.shape)

    return apply("ChannelShuffleBackward0", build, input)


def _patches(
    name: str, kernel_size: Ints, dilation: Ints, padding: Ints, stride: Ints
) -> tuple[tuple[int, ...], ...]:
    size, apart = tuple_of(kernel_size, 2, "kernel_size"), tuple_of(dilation, 2, "dilation")
    pads, steps = tuple_of(padding, 2, "padding"), tuple_of(stride, 2, "stride")
    if min(*size, *apart, *steps) < 1 or min(pads) < 0:
        raise fail(RuntimeError, f"{name}: kernel size, dilation and stride should be greater than zero")
    return size, apart, pads, steps


def unfold(
    input: Tensor, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1
) -> Tensor:
    """The patches of [N, C, H, W] as columns: [N, C * KH * KW, count]."""
    need_tensors("unfold", input)
    if input.ndim not in (3, 4):
        raise fail(
            RuntimeError, f"Expected 3D or 4D input tensor, but got input of size: {list(input.shape)}"
        )
    size, apart, pads, steps = _patches("unfold", kernel_size, dilation, padding, stride)
    image = tuple(input.shape[-2:])
    if any(e + 2 * p <= d * (k - 1) for e, p, d, k in zip(image, pads, apart, size, strict=True)):
        raise fail(
            RuntimeError,
            f"unfold: kernel_size={size} with dilation={apart} does not fit an image of {image} with "
            f"padding={pads}",
        )

    def build(n: Node) -> Node:
        w = ops.window(
            n, size, steps, pads, pads, apart, False if n.dtype.kind == "b" else 0
        )  # [..., C, OH, OW, KH, KW]
        k = w.type.rank - 5
        moved = ops.transpose(w, (*range(k + 1), k + 3, k + 4, k + 1, k + 2))
        lead, channels = w.shape[:k], w.shape[k]
        return ops.reshape(moved, (*lead, channels * math.prod(size), math.prod(w.shape[k + 1 : k + 3])))

    return apply("Im2ColBackward0", build, input)


def fold(
    input: Tensor,
    output_size: Ints,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> Tensor:
    """Adds columns [N, C * KH * KW, count] up as overlapping patches of [N, C, *output_size]."""
    need_float("fold", input)
    if input.ndim not in (2, 3):
        raise fail(
            RuntimeError, f"Expected 2D or 3D input tensor, but got input of size: {list(input.shape)}"
        )
    out = tuple_of(output_size, 2, "output_size")
    size, apart, pads, steps = _patches("fold", kernel_size, dilation, padding, stride)
    rows = zip(out, pads, apart, size, steps, strict=True)
    grid = tuple([(o + 2 * p - d * (k - 1) - 1) // s + 1 for o, p, d, k, s in rows])
    taps, count = math.prod(size), math.prod(grid)
    if min(grid) < 1 or input.shape[-2] % taps or input.shape[-1] != count:
        raise fail(
            RuntimeError,
            f"fold: given output_size={out}, kernel_size={size}, dilation={apart}, padding={pads}, "
            f"stride={steps}, "
            f"expected input of [N, C * {taps}, {count}], but got {list(input.shape)}",
        )

    def build(n: Node) -> Node:
        lead, channels = n.shape[:-2], n.shape[-2] // taps
        split = ops.reshape(n, (*lead, channels, *size, *grid))
        k = len(lead)
        moved = ops.transpose(split, (*range(k + 1), k + 3, k + 4, k + 1, k + 2))
        return ops.fold(moved, out, size, steps, pads, pads, apart)

    return apply("Col2ImBackward0", build, input)


# -------------------------------------------------------------------- resizing

_LINEAR = {"linear": 1, "bilinear": 2, "trilinear": 3}
_MODES = ("nearest", "nearest-exact", "area", "bicubic", *_LINEAR)


def _cubic(t: np.ndarray, a: float = -0.75) -> np.ndarray:
    """The cubic convolution kernel at distance t."""
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _places(extent: int, count: int, scale: float | None, align: bool) -> np.ndarray:
    """Where each output element lies in the input."""
    if align:
        return np.arange(count) * ((extent - 1) / (count - 1) if count > 1 else 0.0)
    step = 1.0 / scale if scale else extent / count
    return (np.arange(count) + 0.5) * step - 0.5


def _matrix(mode: str, extent: int, count: int, scale: float | None, align: bool) -> np.ndarray:
    """How much of each input element each output element takes along one axis: [extent, count]."""
    found = np.zeros((extent, count))
    columns = np.arange(count)
    place = _places(extent, count, scale, align)
    if mode == "bicubic":
        base = np.floor(place).astype(int)
        for tap in range(-1, 3):
            rows = np.clip(base + tap, 0, extent - 1)
            np.add.at(found, (rows, columns), _cubic(place - (base + tap)))
        return found
    place = np.maximum(place, 0.0) if not align else place
    low = np.minimum(np.floor(place).astype(int), extent - 1)
    high = np.minimum(low + 1, extent - 1)
    share = np.clip(place - low, 0.0, 1.0)
    np.add.at(found, (low, columns), 1 - share)
    np.add.at(found, (high, columns), share)
    return found


def _smooth_matrix(mode: str, extent: int, count: int, scale: float | None, align: bool) -> np.ndarray:
    """As `_matrix`, with the kernel stretched over all elements that an output element stands for."""
    if align:
        step = (extent - 1) / (count - 1) if count > 1 else 0.0
    else:
        step = 1.0 / scale if scale else extent / count
    stretch = max(step, 1.0)
    reach = (2.0 if mode == "bicubic" else 1.0) * stretch
    found = np.zeros((extent, count))
    for column in range(count):
        centre = step * (column + 0.5)
        low, high = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), extent)
        distance = (np.arange(low, high) - centre + 0.5) / stretch
        weights = _cubic(distance, -0.5) if mode == "bicubic" else np.maximum(1 - np.abs(distance), 0)
        found[low:high, column] = weights / weights.sum()
    return found


def _resize_axis(n: Node, axis: int, matrix: np.ndarray) -> Node:
    moved = ops.dot_general(n, ops.constant(matrix.astype(n.dtype.numpy)), ((axis,), (0,)))
    rank = n.type.rank
    return ops.transpose(moved, (*range(axis), rank - 1, *range(axis, rank - 1)))


def _nearest(extent: int, count: int, scale: float | None, exact: bool) -> np.ndarray:
    step = np.float32(1.0 / scale if scale else extent / count)
    place = (np.arange(count, dtype=np.float32) + np.float32(0.5 if exact else 0.0)) * step
    return np.minimum(np.floor(place).astype(np.int64), extent - 1)


def _taken(n: Node, axis: int, places: np.ndarray) -> Node:
    """The elements at `places` of an axis. Where each is taken equally often, in order, views spread them:
    no kernel looks places up, and the gradient is a sum."""
    extent = n.shape[axis]
    times = len(places) // max(extent, 1)
    if not np.array_equal(places, np.repeat(np.arange(extent), times)):
        return ops.take(n, ops.constant(places), axis)
    return interleaved_node(n, axis, times)


def _target(
    input: Tensor, size: Ints | None, scale: float | Sequence[float] | None, recompute: bool | None
) -> tuple[tuple[int, ...], list[float | None]]:
    """(output sizes, scales to use in finding places)."""
    rank = input.ndim - 2
    if (size is None) == (scale is None):
        which = "only one of size or scale_factor should be defined"
        raise fail(ValueError, which if size is not None else "either size or scale_factor should be defined")
    if size is not None:
        return tuple_of(size, rank, "size"), [None] * rank
    factors = [float(scale)] * rank if isinstance(scale, int | float) else [float(s) for s in scale]  # type: ignore[union-attr]
    if len(factors) != rank:
        raise fail(ValueError, f"scale_factor must have {rank} numbers, got {factors}")
    out = tuple([math.floor(n * f) for n, f in zip(input.shape[2:], factors, strict=True)])
    return out, [None] * rank if recompute else list(factors)


def interpolate(
    input: Tensor,
    size: Ints | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resize the spatial dims of [N, C, ...] to `size`, or by `scale_factor`.

    mode: "nearest", "nearest-exact", "area", "linear" (3 dims), "bilinear" and "bicubic" (4), "trilinear"
    (5). `align_corners` makes the corner elements' centres meet. `antialias` (bilinear and bicubic) takes the
    mean over what an output element stands for, where it makes the image smaller.
    """
    (need_tensors if mode.startswith("nearest") else need_float)("interpolate", input)
    if mode not in _MODES:
        raise fail(NotImplementedError, f"interpolate: unknown mode {mode!r}, use one of {', '.join(_MODES)}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise fail(
            ValueError,
            "Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires a 4-D "
            f"tensor as input, got mode {mode!r}",
        )
    if align_corners is not None and (mode.startswith("nearest") or mode == "area"):
        raise fail(
            ValueError,
            "align_corners option can only be set with the interpolating modes: linear | bilinear | "
            "bicubic | "
            "trilinear",
        )
    rank = _LINEAR.get(mode, 2 if mode == "bicubic" else input.ndim - 2)
    if input.ndim != rank + 2 or input.ndim < 3:
        needed = f"{rank + 2}D" if rank > 0 else "3D, 4D or 5D"
        raise fail(
            NotImplementedError,
            f"Got {input.ndim}D input {list(input.shape)}, but {mode} mode needs {needed} input: batch, "
            "channels and sizes",
        )
    out, scales = _target(input, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return _area(input, out)

    matrix = _smooth_matrix if antialias else _matrix

    def build(n: Node) -> Node:
        for axis, (count, scale) in enumerate(zip(out, scales, strict=True), 2):
            extent = n.shape[axis]
            if mode.startswith("nearest"):
                n = _taken(n, axis, _nearest(extent, count, scale, mode != "nearest"))
            elif count != extent or scale not in (None, 1.0):
                n = _resize_axis(n, axis, matrix(mode, extent, count, scale, bool(align_corners)))
        return n

    return apply("UpsampleBackward0", build, input)


def _area(input: Tensor, out: tuple[int, ...]) -> Tensor:
    from_rank = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}
    return from_rank[len(out)](input, out)


def _deprecated(name: str) -> None:
    warnings.warn(
        f"`nn.functional.{name}` is deprecated. Use `nn.functional.interpolate` instead.", stacklevel=3
    )


def upsample(
    input: Tensor,
    size: Ints | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """The older name of `interpolate`."""
    _deprecated("upsample")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: Tensor, size: Ints | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """`interpolate` of mode "nearest"."""
    _deprecated("upsample_nearest")
    return interpolate(input, size, scale_factor)


def upsample_bilinear(
    input: Tensor, size: Ints | None = None, scale_factor: float | Sequence[float] | None = None
) -> Tensor:
    """`interpolate` of mode "bilinear" whose corners' centres meet."""
    _deprecated("upsample_bilinear")
    return interpolate(input, size, scale_factor, "bilinear", True)
