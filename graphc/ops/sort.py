"""The order of the elements along an axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import TensorType, bool_, int32, int64, uint8
from graphc.ops.constant import wrong
from graphc.ops.index import check_axis
from graphc.ops.op import fail, register
from graphc.ops.sample import FLOATS, Arg, ErrorSample, Sample


@dataclass(frozen=True, eq=False)
class SortAttrs(Attrs):
    axis: int
    descending: bool
    kept: int  # positions of a line's order that are wanted: its first ones


def _infer_argsort(types: Sequence[TensorType], attrs: SortAttrs) -> TensorType:
    check_axis("argsort", attrs.axis, types[0], types)
    shape, axis = types[0].shape, attrs.axis
    if not 0 <= attrs.kept <= shape[axis]:
        raise fail("argsort", f"the first {attrs.kept} of {shape[axis]} elements along axis {axis}", types)
    return TensorType((*shape[:axis], attrs.kept, *shape[axis + 1 :]), int64)


def _evaluate_argsort(arrays: Sequence[np.ndarray], attrs: SortAttrs) -> np.ndarray:
    x, axis = arrays[0], attrs.axis
    if attrs.descending:
        reverse = np.argsort(np.flip(x, axis), axis, kind="stable")  # of equal elements the last comes first
        order = np.flip(x.shape[axis] - 1 - reverse, axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    first = (slice(None),) * axis + (slice(attrs.kept),)
    return np.ascontiguousarray(order[first], np.int64)


def _argsort_samples() -> Iterable[Sample | ErrorSample]:
    every = (*FLOATS, int64, int32, uint8, bool_)

    def at(axis: int, descending: bool = False, kept: int | None = None):
        return lambda x: argsort(x, axis, descending, kept)

    def expected(x: np.ndarray) -> np.ndarray:
        return np.argsort(x, 1, kind="stable")

    values = Arg((3, 40), low=0, high=9)
    yield Sample(at(1), [values], every, gradient=False, expect=expected)
    yield Sample(at(1, True), [values], every, gradient=False)
    yield Sample(at(0), [Arg((33, 2, 3))], gradient=False)
    odd = (np.nan, 0.0, -0.0, np.inf, -np.inf, -np.nan, -0.0, 0.0, np.nan, 1e-42, -1e-42)
    yield Sample(at(0), [Arg((19,), specials=odd)], gradient=False)
    yield Sample(at(0, True), [Arg((19,), specials=odd)], gradient=False)
    yield Sample(at(1), [Arg((2, 700), specials=odd)], gradient=False)
    yield Sample(at(1, True), [Arg((2, 700, 2), low=-300, high=300)], (*FLOATS, int64, int32), False)
    yield Sample(at(0), [Arg((600,), low=0, high=200)], every, gradient=False)
    yield Sample(at(0), [Arg((1, 3))], gradient=False)
    yield Sample(at(1, True, 5), [values], every, gradient=False)
    yield Sample(at(0, False, 3), [Arg((19,), specials=odd)], gradient=False)
    yield Sample(at(1, True, 9), [Arg((2, 700), specials=odd)], every, gradient=False)
    yield Sample(at(0, False, 4), [Arg((300, 2), specials=odd)], gradient=False)
    yield Sample(at(0, False, 0), [(3, 2)], gradient=False)
    yield wrong(at(0, False, 4), (3,), says="argsort: the first 4 of 3 elements along axis 0")
    yield wrong(at(1), (3,), says="argsort: axis 1 is not a dim within rank 1")


ARGSORT = register(
    "argsort",
    Kind.SORT,
    infer=_infer_argsort,
    evaluate=_evaluate_argsort,
    attrs=SortAttrs,
    cost=16.0,
    samples=_argsort_samples,
)


def argsort(x: Node, axis: int, descending: bool = False, kept: int | None = None) -> Node:
    """Positions (int64) of the elements along an axis in ascending or descending order: of all of them, or of
    the first `kept` in that order.

    Equal elements keep their order. NaN is larger than every number; -0.0 and 0.0 are equal.
    """
    if kept is None:
        check_axis("argsort", axis, x.type, (x.type,))
        kept = x.shape[axis]
    return make(ARGSORT, (x,), SortAttrs(axis, descending, kept))
