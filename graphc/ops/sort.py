"""The order of the elements along an axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import TensorType, bool_, int32, int64, uint8
from graphc.ops.constant import wrong
from graphc.ops.index import check_axis
from graphc.ops.op import register
from graphc.ops.sample import FLOATS, Arg, ErrorSample, Sample


@dataclass(frozen=True, eq=False)
class SortAttrs(Attrs):
    axis: int
    descending: bool


def _infer_argsort(types: Sequence[TensorType], attrs: SortAttrs) -> TensorType:
    check_axis("argsort", attrs.axis, types[0], types)
    return TensorType(types[0].shape, int64)


def _evaluate_argsort(arrays: Sequence[np.ndarray], attrs: SortAttrs) -> np.ndarray:
    x, axis = arrays[0], attrs.axis
    if not attrs.descending:
        return np.argsort(x, axis, kind="stable").astype(np.int64, copy=False)
    reverse = np.argsort(np.flip(x, axis), axis, kind="stable")  # of equal elements the last comes first
    return np.ascontiguousarray(np.flip(x.shape[axis] - 1 - reverse, axis), np.int64)


def _argsort_samples() -> Iterable[Sample | ErrorSample]:
    every = (*FLOATS, int64, int32, uint8, bool_)

    def at(axis: int, descending: bool = False):
        return lambda x: argsort(x, axis, descending)

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


def argsort(x: Node, axis: int, descending: bool = False) -> Node:
    """Positions (int64) of the elements along an axis in ascending or descending order.

    Equal elements keep their order. NaN is larger than every number; -0.0 and 0.0 are equal.
    """
    return make(ARGSORT, (x,), SortAttrs(axis, descending))
