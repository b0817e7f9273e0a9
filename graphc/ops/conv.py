"""Convolution and its two gradients: three ops, each the derivative of the others.

With x [N, C, *S], w [O, C/groups, *K] and y [N, O, *S'] all three are one sum

    y[n, o, p]  +=  x[n, c, p*stride + k*dilation - low]  *  w[o, c, k]

over what the result does not have, so that their gradients need no other op. The input gradient
is also what is called transposed convolution. Values other than the weight may have their channels behind
the spatial dims instead: [N, *S, C].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import TypeVar

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import Shape, TensorType, float64
from graphc.ops.constant import wrong
from graphc.ops.elementwise import NUMBERS
from graphc.ops.op import fail, register
from graphc.ops.sample import ErrorSample, Sample, Typed
from graphc.ops.spread import Axes
from graphc.ops.window import Geometry, check_geometry, trailing

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ConvAttrs(Attrs):
    """The same for the three ops of one convolution; tuples have one entry for each spatial dim.
    `last`: channels are the last dim of everything but the weight."""

    stride: Axes
    low: Axes
    high: Axes
    dilation: Axes
    groups: int
    input_spatial: Shape
    kernel: Shape
    last: bool = False

    @cached_property
    def geometry(self) -> Geometry:
        return Geometry(self.kernel, self.stride, self.low, self.high, self.dilation)

    @cached_property
    def output_spatial(self) -> Shape:
        return self.geometry.windows(self.input_spatial)

    def place(self, sample: T, channel: T, spatial: Iterable[T]) -> tuple[T, ...]:
        """The index of an element of anything but the weight (or its shape, given extents)."""
        return (sample, *spatial, channel) if self.last else (sample, channel, *spatial)

    def parts(self, place: Sequence[T]) -> tuple[T, T, tuple[T, ...]]:
        """(sample, channel, spatial) of an index or a shape."""
        if self.last:
            return place[0], place[-1], tuple(place[1:-1])
        return place[0], place[1], tuple(place[2:])


def _check(name: str, types: Sequence[TensorType], attrs: ConvAttrs) -> Shape:
    """What the three ops ask of their operands' dtypes and of their geometry; the output's spatial dims."""
    a, b = types
    if a.dtype is not b.dtype or a.dtype not in NUMBERS:
        raise fail(name, "operands must be numbers of equal dtype; cast first", types, TypeError)
    rank = len(attrs.kernel)
    if a.rank != rank + 2 or b.rank != rank + 2:
        raise fail(name, f"over {rank} spatial dims both operands have {rank + 2} dims", types)
    if attrs.groups < 1:
        raise fail(name, f"groups must be positive, not {attrs.groups}", types)
    return check_geometry(name, attrs.geometry, attrs.input_spatial, types)


def _infer_conv(types: Sequence[TensorType], attrs: ConvAttrs) -> TensorType:
    x, w = types
    spatial = _check("conv", types, attrs)
    channels, outputs = w.shape[1] * attrs.groups, w.shape[0]
    samples, given, extents = attrs.parts(x.shape)
    if given != channels:
        raise fail(
            "conv", f"the weight takes {channels} channels, in {attrs.groups} groups, not {given}", types
        )
    if outputs % attrs.groups:
        raise fail("conv", f"{outputs} output channels do not divide into {attrs.groups} groups", types)
    if extents != attrs.input_spatial or w.shape[2:] != attrs.kernel:
        raise fail("conv", f"spatial dims must be {attrs.input_spatial} and {attrs.kernel}", types)
    return TensorType(attrs.place(samples, outputs, spatial), x.dtype)


def _infer_input_grad(types: Sequence[TensorType], attrs: ConvAttrs) -> TensorType:
    dy, w = types
    spatial = _check("conv_input_grad", types, attrs)
    samples, given, extents = attrs.parts(dy.shape)
    if given != w.shape[0] or w.shape[0] % attrs.groups:
        what = f"the weight gives {w.shape[0]} channels in {attrs.groups} groups, not {given}"
        raise fail("conv_input_grad", what, types)
    if extents != spatial or w.shape[2:] != attrs.kernel:
        raise fail("conv_input_grad", f"spatial dims must be {spatial} and {attrs.kernel}", types)
    return TensorType(attrs.place(samples, w.shape[1] * attrs.groups, attrs.input_spatial), dy.dtype)


def _infer_weight_grad(types: Sequence[TensorType], attrs: ConvAttrs) -> TensorType:
    x, dy = types
    spatial = _check("conv_weight_grad", types, attrs)
    (samples, ins, near), (others, outs, far) = attrs.parts(x.shape), attrs.parts(dy.shape)
    if samples != others:
        raise fail("conv_weight_grad", "both operands must have the same batch size", types)
    if ins % attrs.groups or outs % attrs.groups:
        raise fail("conv_weight_grad", f"channels must divide into {attrs.groups} groups", types)
    if near != attrs.input_spatial or far != spatial:
        raise fail("conv_weight_grad", f"spatial dims must be {attrs.input_spatial} and {spatial}", types)
    return TensorType((outs, ins // attrs.groups, *attrs.kernel), x.dtype)


# ------------------------------------------------------------------ evaluation
# One batched matmul for each tap: [groups, O/g, C/g] with [N, groups, C/g, pixels] and so on.


def _first(a: np.ndarray, attrs: ConvAttrs) -> np.ndarray:
    """Channels where they are by default."""
    return np.moveaxis(a, -1, 1) if attrs.last else a


def _back(a: np.ndarray, attrs: ConvAttrs) -> np.ndarray:
    """Channels where `attrs` wants them."""
    return np.ascontiguousarray(np.moveaxis(a, 1, -1)) if attrs.last else a


def _split(a: np.ndarray, groups: int) -> np.ndarray:
    """[N, C, *S] as [N, groups, C/groups, *S]."""
    return a.reshape(a.shape[0], groups, a.shape[1] // groups, *a.shape[2:])


def _pixels(a: np.ndarray, rank: int) -> np.ndarray:
    """Trailing `rank` dims as one."""
    return a.reshape(*a.shape[: a.ndim - rank], prod(a.shape[a.ndim - rank :]))


def _grouped_weight(w: np.ndarray, groups: int) -> np.ndarray:
    """[O, C/g, *K] as [g, O/g, C/g, *K]."""
    return w.reshape(groups, w.shape[0] // groups, *w.shape[1:])


def _evaluate_conv(arrays: Sequence[np.ndarray], attrs: ConvAttrs) -> np.ndarray:
    x, w = _first(arrays[0], attrs), arrays[1]
    g, out, rank = attrs.geometry, attrs.output_spatial, len(attrs.kernel)
    padded, weight = _split(g.padded(x), attrs.groups), _grouped_weight(w, attrs.groups)
    y = np.zeros((x.shape[0], attrs.groups, weight.shape[1], prod(out)), x.dtype)
    for tap, cuts in g.taps(out):
        y += np.matmul(weight[trailing(tap)], _pixels(padded[trailing(cuts)], rank))
    return _back(y.reshape(x.shape[0], w.shape[0], *out), attrs)


def _evaluate_input_grad(arrays: Sequence[np.ndarray], attrs: ConvAttrs) -> np.ndarray:
    dy, w = _first(arrays[0], attrs), arrays[1]
    g, out, rank = attrs.geometry, attrs.output_spatial, len(attrs.kernel)
    weight = _grouped_weight(w, attrs.groups)
    dims = zip(attrs.input_spatial, attrs.low, attrs.high, strict=True)
    dx = np.zeros((dy.shape[0], attrs.groups, w.shape[1], *[n + a + b for n, a, b in dims]), dy.dtype)
    pixels = _pixels(_split(dy, attrs.groups), rank)
    for tap, cuts in g.taps(out):
        part = np.matmul(weight[trailing(tap)].swapaxes(1, 2), pixels)
        dx[trailing(cuts)] += part.reshape(*part.shape[:3], *out)
    inner = [slice(a, a + n) for a, n in zip(attrs.low, attrs.input_spatial, strict=True)]
    dx = dx[trailing(inner)]
    return _back(dx.reshape(dy.shape[0], attrs.groups * w.shape[1], *attrs.input_spatial), attrs)


def _evaluate_weight_grad(arrays: Sequence[np.ndarray], attrs: ConvAttrs) -> np.ndarray:
    x, dy = [_first(a, attrs) for a in arrays]
    g, out, rank = attrs.geometry, attrs.output_spatial, len(attrs.kernel)
    padded = _split(g.padded(x), attrs.groups)
    pixels = _pixels(_split(dy, attrs.groups), rank)
    dw = np.empty((attrs.groups, pixels.shape[2], padded.shape[2], *attrs.kernel), x.dtype)
    for tap, cuts in g.taps(out):
        part = np.matmul(pixels, _pixels(padded[trailing(cuts)], rank).swapaxes(2, 3))
        dw[trailing(tap)] = part.sum(axis=0, dtype=x.dtype)
    return dw.reshape(dy.shape[1], padded.shape[2], *attrs.kernel)


# -------------------------------------------------------------------- gradients


def _vjp_conv(ct: Node, node: Node) -> Sequence[Node | None]:
    if not ct.type.dtype.is_float:
        return None, None
    x, w = node.inputs
    return make(CONV_INPUT_GRAD, (ct, w), node.attrs), make(CONV_WEIGHT_GRAD, (x, ct), node.attrs)


def _vjp_input_grad(ct: Node, node: Node) -> Sequence[Node | None]:
    if not ct.type.dtype.is_float:
        return None, None
    dy, w = node.inputs
    return make(CONV, (ct, w), node.attrs), make(CONV_WEIGHT_GRAD, (ct, dy), node.attrs)


def _vjp_weight_grad(ct: Node, node: Node) -> Sequence[Node | None]:
    if not ct.type.dtype.is_float:
        return None, None
    x, dy = node.inputs
    return make(CONV_INPUT_GRAD, (dy, ct), node.attrs), make(CONV, (x, ct), node.attrs)


# ---------------------------------------------------------------------- samples

_CASES: tuple[tuple[Shape, Shape, dict], ...] = (
    ((2, 3, 6, 5), (4, 3, 3, 3), {"low": (1, 1), "high": (1, 1)}),
    ((2, 3, 7, 8), (4, 3, 3, 2), {"stride": (2, 3), "low": (1, 0), "high": (2, 1)}),
    ((1, 2, 9, 9), (3, 2, 3, 3), {"dilation": (2, 3)}),
    ((2, 4, 5, 5), (6, 2, 3, 3), {"groups": 2, "low": (1, 1), "high": (1, 1)}),
    ((2, 4, 5, 6), (4, 1, 3, 3), {"groups": 4, "stride": (2, 1)}),
    ((2, 3, 8), (2, 3, 3), {"stride": (2,), "low": (2,)}),
    ((1, 2, 4, 3, 5), (2, 2, 2, 2, 3), {"high": (1, 0, 0)}),
    ((2, 5, 4, 4), (7, 5, 1, 1), {}),
    ((1, 2, 8, 8), (2, 2, 3, 3), {"stride": (3, 3)}),
    ((2, 6, 5, 3), (4, 3, 3, 3), {"low": (1, 1), "high": (1, 1), "last": True}),
    ((2, 7, 9, 18), (18, 1, 3, 5), {"groups": 18, "stride": (2, 1), "low": (1, 2), "last": True}),
    ((1, 5, 5, 4), (6, 2, 3, 3), {"groups": 2, "dilation": (2, 1), "last": True}),
    ((2, 4, 4, 5), (7, 5, 1, 1), {"last": True}),
    ((1, 4, 3, 5, 2), (2, 2, 2, 2, 3), {"high": (1, 0, 0), "last": True}),
)


def _conv_samples() -> Iterable[Sample | ErrorSample]:
    for x, w, options in _CASES:
        yield Sample(lambda x, w, options=options: conv(x, w, **options), [x, w])
    yield Sample(
        lambda x, w: conv(x, w, low=(1, 1), high=(1, 1)), [(2, 19, 14, 15), (35, 19, 3, 3)], gradient=False
    )
    yield wrong(
        conv, (1, 3, 5, 5), (2, 4, 3, 3), says="conv: the weight takes 4 channels, in 1 groups, not 3"
    )
    yield wrong(
        conv, (1, 3, 2, 2), (2, 3, 3, 3), says="conv: a window of (3, 3) does not fit the padded input (2, 2)"
    )
    yield wrong(conv, (3, 5, 5), (2, 3, 3, 3), says="conv: over 2 spatial dims both operands have 4 dims")
    yield wrong(conv, (1, 3, 5), Typed((2, 3, 3), float64), says="conv: operands must be", error=TypeError)
    odd = Typed((1, 4, 5)), Typed((3, 2, 3))
    yield wrong(lambda x, w: conv(x, w, groups=2), *odd, says="3 output channels do not divide into 2 groups")


def _spatial(shape: Shape, last: bool = False) -> Shape:
    """The spatial dims of anything but a weight."""
    return shape[1:-1] if last else shape[2:]


def _output_of(x: Shape, w: Shape, options: dict) -> Shape:
    attrs = _attrs(_spatial(x, options.get("last", False)), w[2:], **options)
    return attrs.place(x[0], w[0], attrs.output_spatial)


def _input_grad_samples() -> Iterable[Sample | ErrorSample]:
    for x, w, options in _CASES:
        full = {"input_spatial": _spatial(x, options.get("last", False)), **options}
        yield Sample(lambda dy, w, o=full: conv_input_grad(dy, w, **o), [_output_of(x, w, options), w])
    yield wrong(
        lambda dy, w: conv_input_grad(dy, w, (6,)),
        (1, 2, 3),
        (2, 3, 3),
        says="spatial dims must be (4,) and (3,)",
    )
    yield wrong(
        lambda dy, w: conv_input_grad(dy, w, (6,)), (1, 3, 4), (2, 3, 3), says="the weight gives 2 channels"
    )


def _weight_grad_samples() -> Iterable[Sample | ErrorSample]:
    for x, w, options in _CASES:
        full = {"kernel": w[2:], **options}
        yield Sample(lambda x, dy, o=full: conv_weight_grad(x, dy, **o), [x, _output_of(x, w, options)])
    both = lambda x, dy: conv_weight_grad(x, dy, (3,))  # noqa: E731
    yield wrong(both, (2, 3, 6), (1, 4, 4), says="both operands must have the same batch size")
    yield wrong(both, (1, 3, 6), (1, 4, 5), says="spatial dims must be (6,) and (4,)")


# --------------------------------------------------------------------- builders

CONV = register(
    "conv",
    Kind.CONV,
    infer=_infer_conv,
    evaluate=_evaluate_conv,
    vjp=_vjp_conv,
    attrs=ConvAttrs,
    cost=2.0,
    samples=_conv_samples,
)
CONV_INPUT_GRAD = register(
    "conv_input_grad",
    Kind.CONV,
    infer=_infer_input_grad,
    evaluate=_evaluate_input_grad,
    vjp=_vjp_input_grad,
    attrs=ConvAttrs,
    cost=2.0,
    samples=_input_grad_samples,
)
CONV_WEIGHT_GRAD = register(
    "conv_weight_grad",
    Kind.CONV,
    infer=_infer_weight_grad,
    evaluate=_evaluate_weight_grad,
    vjp=_vjp_weight_grad,
    attrs=ConvAttrs,
    cost=2.0,
    samples=_weight_grad_samples,
)


def _attrs(
    input_spatial: Shape,
    kernel: Shape,
    stride: Axes | None = None,
    low: Axes | None = None,
    high: Axes | None = None,
    dilation: Axes | None = None,
    groups: int = 1,
    last: bool = False,
) -> ConvAttrs:
    ones, none = (1,) * len(kernel), (0,) * len(kernel)
    return ConvAttrs(
        stride or ones, low or none, high or none, dilation or ones, groups, input_spatial, kernel, last
    )


def channels_last(attrs: ConvAttrs) -> ConvAttrs:
    """The same convolution of values whose channels are their last dim."""
    return replace(attrs, last=True)


def conv(
    x: Node,
    w: Node,
    stride: Axes | None = None,
    low: Axes | None = None,
    high: Axes | None = None,
    dilation: Axes | None = None,
    groups: int = 1,
    last: bool = False,
) -> Node:
    """Cross-correlation of x [N, C, *S] with w [O, C/groups, *K]: y [N, O, *S'].

    `low` and `high` are zeros before and after each spatial dim; defaults are strides and dilations of
    1 and no padding. With `last`, x is [N, *S, C] and y [N, *S', O]; so it is for the gradients.
    """
    spatial = _spatial(x.type.shape, last)
    attrs = _attrs(spatial, w.type.shape[2:], stride, low, high, dilation, groups, last)
    return make(CONV, (x, w), attrs)


def conv_input_grad(
    dy: Node,
    w: Node,
    input_spatial: Shape,
    stride: Axes | None = None,
    low: Axes | None = None,
    high: Axes | None = None,
    dilation: Axes | None = None,
    groups: int = 1,
    last: bool = False,
) -> Node:
    """The gradient of `conv` to its input: dy [N, O, *S'] and w give [N, C, *input_spatial].

    As an op of its own it is transposed convolution.
    """
    attrs = _attrs(input_spatial, w.type.shape[2:], stride, low, high, dilation, groups, last)
    return make(CONV_INPUT_GRAD, (dy, w), attrs)


def conv_weight_grad(
    x: Node,
    dy: Node,
    kernel: Shape,
    stride: Axes | None = None,
    low: Axes | None = None,
    high: Axes | None = None,
    dilation: Axes | None = None,
    groups: int = 1,
    last: bool = False,
) -> Node:
    """The gradient of `conv` to its weight: x and dy [N, O, *S'] give [O, C/groups, *kernel]."""
    attrs = _attrs(_spatial(x.type.shape, last), kernel, stride, low, high, dilation, groups, last)
    return make(CONV_WEIGHT_GRAD, (x, dy), attrs)
