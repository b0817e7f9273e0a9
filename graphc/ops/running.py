"""Values that run along an axis: linear recurrences, running products, the extreme so far and where it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import TensorType, bool_, int32, int64, uint8
from graphc.ops.arithmetic import mul
from graphc.ops.compare import eq, select
from graphc.ops.constant import wrong
from graphc.ops.elementwise import NUMBERS
from graphc.ops.generate import iota
from graphc.ops.index import check_axis, scatter_add_along
from graphc.ops.op import fail, register
from graphc.ops.sample import FLOATS, Arg, ErrorSample, Sample, Typed
from graphc.ops.spread import full, like, zeros
from graphc.ops.view import pad, slice_axis


def shifted(x: Node, axis: int, reverse: bool = False, fill: float = 0) -> Node:
    """The element before each one along an axis (after it, if `reverse`), and `fill` before the first."""
    extent, low, high = x.type.shape[axis], [0] * x.type.rank, [0] * x.type.rank
    if not extent:
        return x
    (high if reverse else low)[axis] = 1
    kept = slice_axis(x, axis, 1, extent) if reverse else slice_axis(x, axis, 0, extent - 1)
    return pad(kept, tuple(low), tuple(high), fill)


# ------------------------------------------------------------------- recurrence


@dataclass(frozen=True, eq=False)
class RecurrenceAttrs(Attrs):
    axis: int
    reverse: bool


def _infer_recurrence(types: Sequence[TensorType], attrs: RecurrenceAttrs) -> TensorType:
    scale, x = types
    check_axis("recurrence", attrs.axis, x, types)
    if scale != x or x.dtype not in NUMBERS:
        raise fail("recurrence", "scales and terms must be numbers of equal shapes and dtypes", types)
    return x


def _evaluate_recurrence(arrays: Sequence[np.ndarray], attrs: RecurrenceAttrs) -> np.ndarray:
    scale, x = [np.moveaxis(a, attrs.axis, 0) for a in arrays]
    result = x.copy()
    steps = range(len(x))[::-1] if attrs.reverse else range(len(x))
    with np.errstate(all="ignore"):
        for before, i in pairwise(steps):
            result[i] += scale[i] * result[before]
    return np.moveaxis(result, 0, attrs.axis)


def _vjp_recurrence(ct: Node, node: Node) -> Sequence[Node | None]:
    """What a cotangent does to later steps runs back as it came."""
    if not ct.type.dtype.is_float:
        return None, None
    scale, axis, reverse = node.inputs[0], node.attrs.axis, node.attrs.reverse
    back = recurrence(shifted(scale, axis, not reverse), ct, axis, not reverse)
    return mul(back, shifted(node, axis, reverse)), back


def _recurrence_samples() -> Iterable[Sample | ErrorSample]:
    def at(axis: int, reverse: bool = False):
        return lambda a, x: recurrence(a, x, axis, reverse)

    def sums(a: np.ndarray, x: np.ndarray) -> np.ndarray:
        weights = [np.prod(a[:, j + 1 : i + 1], 1) for i in range(4) for j in range(i + 1)]
        terms = iter(weights)
        return np.stack([sum(next(terms) * x[:, j] for j in range(i + 1)) for i in range(4)], 1)

    yield Sample(at(1), [(3, 4), (3, 4)], expect=sums)
    yield Sample(at(1), [(2, 5), (2, 5)], (int64, int32))
    yield Sample(at(0, True), [(6, 5), (6, 5)])
    yield Sample(at(1, True), [(4, 33), (4, 33)])
    yield Sample(at(0), [(1, 3), (1, 3)])
    yield wrong(at(1), (3,), (3,), says="recurrence: axis 1 is not a dim within rank 1")
    yield wrong(at(0), (3,), (4,), says="recurrence: scales and terms must be numbers of equal shapes")


RECURRENCE = register(
    "recurrence",
    Kind.CUMULATIVE,
    infer=_infer_recurrence,
    evaluate=_evaluate_recurrence,
    vjp=_vjp_recurrence,
    attrs=RecurrenceAttrs,
    cost=2.0,
    samples=_recurrence_samples,
)


def recurrence(scale: Node, x: Node, axis: int, reverse: bool = False) -> Node:
    """y[i] = scale[i] * y[i-1] + x[i] along an axis; y[0] = x[0]. From the end if `reverse`.

    The first scale is not read. Running sums (scales of one), products, moving averages and discounted sums
    are recurrences, and so is the gradient of one.
    """
    return make(RECURRENCE, (scale, x), RecurrenceAttrs(axis, reverse))


def cumprod(x: Node, axis: int, reverse: bool = False) -> Node:
    """Running products along an axis, from the end if `reverse`.

    No division, so that zeros need no care, in the gradient (of any order) either.
    """
    extent = x.type.shape[axis]
    first = eq(iota(x.type.shape, axis), full(x.type.shape, extent - 1 if reverse else 0, int64))
    return recurrence(x, select(first, x, like(x, -0.0 if x.dtype.is_float else 0)), axis, reverse)


# ------------------------------------------------------------- running positions


@dataclass(frozen=True, eq=False)
class RunningAttrs(Attrs):
    axis: int
    largest: bool


def _infer_running(types: Sequence[TensorType], attrs: RunningAttrs) -> TensorType:
    check_axis("running_arg", attrs.axis, types[0], types)
    return TensorType(types[0].shape, int64)


def _evaluate_running(arrays: Sequence[np.ndarray], attrs: RunningAttrs) -> np.ndarray:
    x = np.moveaxis(arrays[0], attrs.axis, 0)
    found = np.zeros(x.shape, np.int64)
    best = x[:1].copy()[0] if len(x) else x
    for i in range(1, len(x)):
        better = x[i] >= best if attrs.largest else x[i] <= best
        better = better | (x[i] != x[i])
        best = np.where(better, x[i], best)
        found[i] = np.where(better, i, found[i - 1])
    return np.moveaxis(found, 0, attrs.axis)


def _running_samples() -> Iterable[Sample | ErrorSample]:
    every = (*FLOATS, int64, int32, uint8, bool_)

    def at(axis: int, largest: bool = True):
        return lambda x: running_arg(x, axis, largest)

    values = Arg((3, 40), low=0, high=30)
    odd = (-np.inf, -np.inf, 0.0, -0.0, 1.0, np.inf, np.nan, 2.0, np.nan, np.inf)
    yield Sample(at(1), [values], every, gradient=False)
    yield Sample(at(0, False), [Arg((33, 5), low=0, high=30)], every, gradient=False)
    yield Sample(at(0), [Arg((19,), specials=odd)], gradient=False)
    yield Sample(at(0, False), [Arg((19,), specials=odd)], gradient=False)
    yield Sample(at(0), [Arg((1, 3))], gradient=False)
    yield Sample(at(1), [Arg((1, 300), low=-30, high=30)], every, gradient=False)
    yield Sample(at(1, False), [Arg((4, 700), specials=(np.nan, -np.inf, -3.0))], gradient=False)
    yield wrong(at(1), (3,), says="running_arg: axis 1 is not a dim within rank 1")
    yield wrong(at(-1), Typed((3,), bool_), says="running_arg: axis -1 is not a dim within rank 1")


RUNNING_ARG = register(
    "running_arg",
    Kind.CUMULATIVE,
    infer=_infer_running,
    evaluate=_evaluate_running,
    attrs=RunningAttrs,
    cost=3.0,
    samples=_running_samples,
)


def running_arg(x: Node, axis: int, largest: bool) -> Node:
    """Position (int64) of the largest, or smallest, element so far along an axis: the last of equal ones.

    The first NaN, and after it every further one, is taken for the extreme.
    """
    return make(RUNNING_ARG, (x,), RunningAttrs(axis, largest))


def _infer_extreme(types: Sequence[TensorType], attrs: RunningAttrs) -> TensorType:
    check_axis("running_extreme", attrs.axis, types[0], types)
    return types[0]


def _evaluate_extreme(arrays: Sequence[np.ndarray], attrs: RunningAttrs) -> np.ndarray:
    return np.take_along_axis(arrays[0], _evaluate_running(arrays, attrs), attrs.axis)


def _vjp_extreme(ct: Node, node: Node) -> Sequence[Node | None]:
    """What an element is the extreme of goes to it."""
    (x,), axis = node.inputs, node.attrs.axis
    if not ct.type.dtype.is_float:
        return (None,)
    return (scatter_add_along(zeros(x.type), running_arg(x, axis, node.attrs.largest), ct, axis),)


def _extreme_samples() -> Iterable[Sample | ErrorSample]:
    def at(axis: int, largest: bool = True):
        return lambda x: running_extreme(x, axis, largest)

    every = (*FLOATS, int64, int32, uint8, bool_)
    odd = (-np.inf, -np.inf, 0.0, -0.0, 1.0, np.inf, np.nan, 2.0, np.nan, np.inf)
    yield Sample(at(1), [(3, 40)], expect=lambda x: np.maximum.accumulate(x, 1))
    yield Sample(at(0, False), [(33, 5)], expect=lambda x: np.minimum.accumulate(x, 0))
    yield Sample(at(1), [Arg((3, 40), low=0, high=30)], every, gradient=False)
    yield Sample(at(0), [Arg((19,), specials=odd)], gradient=False)
    yield Sample(at(0, False), [Arg((19,), specials=odd)], gradient=False)
    yield Sample(at(1), [Arg((1, 300), low=-30, high=30)], every, gradient=False)
    yield Sample(at(1, False), [Arg((4, 700), specials=(np.nan, -np.inf, -3.0))], gradient=False)
    yield Sample(at(0), [(1, 3)])
    yield wrong(at(1), (3,), says="running_extreme: axis 1 is not a dim within rank 1")


RUNNING_EXTREME = register(
    "running_extreme",
    Kind.CUMULATIVE,
    infer=_infer_extreme,
    evaluate=_evaluate_extreme,
    vjp=_vjp_extreme,
    attrs=RunningAttrs,
    cost=2.0,
    samples=_extreme_samples,
)


def running_extreme(x: Node, axis: int, largest: bool) -> Node:
    """The largest, or smallest, element so far along an axis: the one at `running_arg`, which its gradient
    goes to."""
    return make(RUNNING_EXTREME, (x,), RunningAttrs(axis, largest))
