"""Sliding windows over the trailing dims, and their transpose: pooling, unfold and fold are made of these."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import Shape, TensorType, bool_, int64
from graphc.loop import index as ix
from graphc.loop.ir import Expr
from graphc.ops.constant import Scalar, wrong
from graphc.ops.elementwise import NUMBERS
from graphc.ops.op import Read, Reduction, fail, register
from graphc.ops.sample import FLOATS, ErrorSample, Sample, Typed
from graphc.ops.spread import Axes
from graphc.ops.view import fill_constant


def window_count(extent: int, size: int, stride: int, low: int, high: int, dilation: int) -> int:
    """How many windows fit along one dim; not positive if the window is larger than the padded dim."""
    return (extent + low + high - dilation * (size - 1) - 1) // stride + 1


@dataclass(frozen=True, eq=False)
class Geometry(Attrs):
    """How windows lie on the trailing dims: window o starts at o*stride - low, taps are `dilation` apart."""

    size: Axes
    stride: Axes
    low: Axes
    high: Axes
    dilation: Axes

    @cached_property
    def rank(self) -> int:
        return len(self.size)

    def windows(self, spatial: Shape) -> Shape:
        """The number of windows along each dim of an input."""
        dims = zip(spatial, self.size, self.stride, self.low, self.high, self.dilation, strict=True)
        return tuple([window_count(*dim) for dim in dims])

    def taps(self, windows: Shape) -> Iterator[tuple[Axes, tuple[slice, ...]]]:
        """Each tap, and the slices of the padded input that it reads in all windows."""
        for tap in itertools.product(*map(range, self.size)):
            cuts = []
            for t, o, stride, dilation in zip(tap, windows, self.stride, self.dilation, strict=True):
                start = t * dilation
                cuts.append(slice(start, start + max((o - 1) * stride + 1, 0), stride))
            yield tap, tuple(cuts)

    def padded(self, x: np.ndarray, fill: Scalar = 0) -> np.ndarray:
        """An array with `fill` around its trailing dims."""
        if not any(self.low) and not any(self.high):
            return x
        widths = [(0, 0)] * (x.ndim - self.rank) + list(zip(self.low, self.high, strict=True))
        return np.pad(x, widths, constant_values=np.array(fill).astype(x.dtype))


def trailing(cuts: Sequence[Any]) -> tuple[Any, ...]:
    """A NumPy index of the last dims."""
    return (..., *cuts)


def check_geometry(name: str, g: Geometry, spatial: Shape, types: Sequence[TensorType]) -> Shape:
    """The number of windows along each dim, or the error that says why there are none."""
    if not len(spatial) == g.rank == len(g.stride) == len(g.low) == len(g.high) == len(g.dilation):
        raise fail(
            name, f"size, stride, padding and dilation need one entry for each of {len(spatial)} dims", types
        )
    if min((*g.size, *g.stride, *g.dilation), default=1) < 1:
        raise fail(name, f"size {g.size}, stride {g.stride}, dilation {g.dilation} must be positive", types)
    if min((*g.low, *g.high), default=0) < 0:
        raise fail(name, f"padding {g.low}, {g.high} must not be negative", types)
    out = g.windows(spatial)
    if min(out, default=1) < 1:
        reach = tuple([d * (k - 1) + 1 for d, k in zip(g.dilation, g.size, strict=True)])
        padded = tuple([n + a + b for n, a, b in zip(spatial, g.low, g.high, strict=True)])
        raise fail(name, f"a window of {reach} does not fit the padded input {padded}", types)
    return out


def tap_position(o: Expr, tap: Expr, stride: int, low: int, dilation: int) -> Expr:
    """The input position that tap `tap` of window `o` reads; outside the input it is padding."""
    return ix.sub(ix.add(ix.mul(o, stride), ix.mul(tap, dilation)), low)


# ---------------------------------------------------------------------- window


@dataclass(frozen=True, eq=False)
class WindowAttrs(Geometry):
    fill: Scalar


def _infer_window(types: Sequence[TensorType], attrs: WindowAttrs) -> TensorType:
    g, x = attrs, types[0]
    if x.rank < g.rank:
        raise fail("window", f"a window over {g.rank} dims needs an input of at least that rank", types)
    lead = x.rank - g.rank
    out = check_geometry("window", g, x.shape[lead:], types)
    return TensorType((*x.shape[:lead], *out, *g.size), x.dtype)


def _evaluate_window(arrays: Sequence[np.ndarray], attrs: WindowAttrs) -> np.ndarray:
    x, g = arrays[0], attrs
    lead = x.ndim - g.rank
    out = g.windows(x.shape[lead:])
    padded = g.padded(x, attrs.fill)
    steps = padded.strides[lead:]
    return np.lib.stride_tricks.as_strided(
        padded,
        (*x.shape[:lead], *out, *g.size),
        (
            *padded.strides[:lead],
            *[a * b for a, b in zip(steps, g.stride, strict=True)],
            *[a * b for a, b in zip(steps, g.dilation, strict=True)],
        ),
        writeable=False,
    )


def _vjp_window(ct: Node, node: Node) -> Sequence[Node | None]:
    if not ct.type.dtype.is_float:
        return (None,)
    a, shape = node.attrs, node.inputs[0].type.shape
    return (fold(ct, shape[len(shape) - a.rank :], a.size, a.stride, a.low, a.high, a.dilation),)


def _lower_window(node: Node, index: ix.Index, reads: Sequence[Read]) -> Expr:
    g, shape = node.attrs, node.inputs[0].type.shape
    lead = len(shape) - g.rank
    place, inside = list(index[:lead]), []
    for d in range(g.rank):
        o, tap = index[lead + d], index[lead + g.rank + d]
        p = tap_position(o, tap, g.stride[d], g.low[d], g.dilation[d])
        inside.append(ix.inside(p, shape[lead + d]))
        place.append(p)
    mask = ix.all_of(inside)
    if ix.is_true(mask):
        return reads[0](tuple(place))
    return reads[0](tuple(place), mask=mask, other=fill_constant(node, g.fill))


def _window_samples() -> Iterable[Sample | ErrorSample]:
    def pool(x: Node, fill: Scalar = 0.0) -> Node:
        return window(x, (3, 2), (2, 1), (1, 0), (1, 1), (1, 2), fill)

    yield Sample(lambda x: window(x, (2, 2), (2, 2), (0, 0), (0, 0), (1, 1)), [(2, 4, 6)], (*FLOATS, int64))
    yield Sample(pool, [(2, 3, 7, 5)])
    yield Sample(lambda x: pool(x, float("-inf")), [(3, 7, 5)], gradient=False)
    sliding = np.lib.stride_tricks.sliding_window_view
    yield Sample(
        lambda x: window(x, (3,), (1,), (0,), (0,), (1,)), [(2, 8)], expect=lambda x: sliding(x, 3, axis=1)
    )
    yield Sample(lambda x: window(x, (2,), (3,), (0,), (4,), (1,), 9.0), [(5,)])
    plain = ((0,), (0,), (1,))
    yield wrong(lambda x: window(x, (5,), (1,), *plain), (4,), says="window: a window of (5,) does not fit")
    yield wrong(
        lambda x: window(x, (2,), (0,), *plain), (4,), says="stride (0,), dilation (1,) must be positive"
    )
    yield wrong(lambda x: window(x, (2,), (1,), (-1,), (0,), (1,)), (4,), says="must not be negative")
    yield wrong(lambda x: window(x, (2,), (1, 1), *plain), (4,), says="one entry for each of 1 dims")
    yield wrong(lambda x: window(x, (2, 2), (1, 1), *plain), (4,), says="an input of at least that rank")


WINDOW = register(
    "window",
    Kind.VIEW,
    infer=_infer_window,
    evaluate=_evaluate_window,
    vjp=_vjp_window,
    lower=_lower_window,
    attrs=WindowAttrs,
    cost=0.0,
    samples=_window_samples,
)


def window(
    x: Node, size: Axes, stride: Axes, low: Axes, high: Axes, dilation: Axes, fill: Scalar = 0.0
) -> Node:
    """All windows over the trailing len(size) dims: [..., *dims] -> [..., *windows, *size].

    Window o reads positions o*stride + tap*dilation - low; outside the input that is `fill`.
    """
    return make(WINDOW, (x,), WindowAttrs(size, stride, low, high, dilation, fill))


# ------------------------------------------------------------------------ fold


@dataclass(frozen=True, eq=False)
class FoldAttrs(Geometry):
    spatial: Shape


def _infer_fold(types: Sequence[TensorType], attrs: FoldAttrs) -> TensorType:
    g, y = attrs, types[0]
    if y.dtype not in NUMBERS:
        raise fail("fold", "cannot add bools; cast to an integer type first", types, TypeError)
    out = check_geometry("fold", g, attrs.spatial, types)
    lead = y.rank - 2 * g.rank
    if lead < 0 or y.shape[lead:] != (*out, *g.size):
        raise fail("fold", f"windows over {attrs.spatial} end in the dims {(*out, *g.size)}", types)
    return TensorType((*y.shape[:lead], *attrs.spatial), y.dtype)


def _evaluate_fold(arrays: Sequence[np.ndarray], attrs: FoldAttrs) -> np.ndarray:
    y, g = arrays[0], attrs
    lead = y.ndim - 2 * g.rank
    dims = zip(attrs.spatial, g.low, g.high, strict=True)
    total = np.zeros((*y.shape[:lead], *[n + a + b for n, a, b in dims]), y.dtype)
    for tap, cuts in g.taps(y.shape[lead : lead + g.rank]):
        total[trailing(cuts)] += y[trailing(tap)]
    inner = [slice(a, a + n) for a, n in zip(g.low, attrs.spatial, strict=True)]
    return total[trailing(inner)]


def _vjp_fold(ct: Node, node: Node) -> Sequence[Node | None]:
    if not ct.type.dtype.is_float:
        return (None,)
    a = node.attrs
    return (window(ct, a.size, a.stride, a.low, a.high, a.dilation, 0),)


def _lower_fold(node: Node) -> Reduction:
    """In gather form: position p is tap t of window (p + low - t*dilation) / stride, if that is one."""
    g, shape = node.attrs, node.inputs[0].type.shape
    lead = len(shape) - 2 * g.rank

    def element(index: tuple[Expr, ...], r: tuple[Expr, ...], reads: Sequence[Read]) -> Expr:
        place, inside = list(index[:lead]), []
        for d in range(g.rank):
            start = ix.sub(ix.add(index[lead + d], g.low[d]), ix.mul(r[d], g.dilation[d]))
            o = ix.floordiv(start, g.stride[d])
            inside.append(ix.compare("eq", ix.mod(start, g.stride[d]), 0))
            inside.append(ix.inside(o, shape[lead + d]))
            place.append(o)
        return reads[0]((*place, *r), mask=ix.all_of(inside), other=fill_constant(node, 0))

    return Reduction(g.size, "add", element, None)


def _fold_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(
        lambda y: fold(y, (4, 6), (2, 2), (2, 2), (0, 0), (0, 0), (1, 1)), [(2, 2, 3, 2, 2)], (*FLOATS, int64)
    )
    yield Sample(lambda y: fold(y, (7, 5), (3, 2), (2, 1), (1, 0), (1, 1), (1, 2)), [(2, 4, 4, 3, 2)])
    yield Sample(lambda y: fold(y, (8,), (3,), (1,), (0,), (0,), (1,)), [(2, 6, 3)])
    yield Sample(lambda y: fold(y, (5,), (2,), (3,), (0,), (4,), (1,)), [(3, 2)])
    one = ((0,), (0,), (1,))
    yield wrong(
        lambda y: fold(y, (8,), (3,), (1,), *one), (5, 3), says="windows over (8,) end in the dims (6, 3)"
    )
    typed = Typed((6, 3), bool_)
    yield wrong(
        lambda y: fold(y, (8,), (3,), (1,), *one), typed, says="fold: cannot add bools", error=TypeError
    )


FOLD = register(
    "fold",
    Kind.REDUCE,
    infer=_infer_fold,
    evaluate=_evaluate_fold,
    vjp=_vjp_fold,
    lower=_lower_fold,
    attrs=FoldAttrs,
    samples=_fold_samples,
)


def fold(y: Node, spatial: Shape, size: Axes, stride: Axes, low: Axes, high: Axes, dilation: Axes) -> Node:
    """The transpose of `window`: [..., *windows, *size] -> [..., *spatial], adding where taps overlap."""
    return make(FOLD, (y,), FoldAttrs(size, stride, low, high, dilation, spatial))
