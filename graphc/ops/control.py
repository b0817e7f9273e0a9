"""Nodes that compute nothing: a run-time check, a stop for gradients, and another path for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import TensorType, bool_, int32, int64
from graphc.ops.constant import wrong
from graphc.ops.elementwise import ANY, INTEGERS
from graphc.ops.op import fail, register
from graphc.ops.sample import Arg, ErrorSample, Sample


@dataclass(frozen=True, eq=False)
class CheckAttrs(Attrs):
    """low <= x < high must hold for all elements; `message` is for the user who broke it."""

    low: int
    high: int
    message: str

    def holds(self, array: np.ndarray) -> bool:
        """Whether no element is out of bounds."""
        return not array.size or bool(array.min() >= self.low and array.max() < self.high)


def _infer_check(types: Sequence[TensorType], attrs: CheckAttrs) -> TensorType:
    if types[0].dtype not in INTEGERS:
        raise fail("check_index", "indices must be integers", types, TypeError)
    return types[0]


def _check_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(lambda x: check_index(x, -3, 3, "far"), [Arg((4,), low=-3, high=3)], (int64, int32), False)
    yield wrong(
        lambda x: check_index(x, 0, 3, ""),
        (4,),
        says="check_index: indices must be integers",
        error=TypeError,
    )


CHECK = register(
    "check_index",
    Kind.CHECK,
    infer=_infer_check,
    evaluate=lambda arrays, attrs: arrays[0],
    lower=lambda node, index, reads: reads[0](index),
    attrs=CheckAttrs,
    samples=_check_samples,
)


def check_index(x: Node, low: int, high: int, message: str) -> Node:
    """x itself; running the program fails with `message` if an element is not in range(low, high).

    The check happens before any state changes. Users of the result may rely on the bounds.
    """
    return make(CHECK, (x,), CheckAttrs(low, high, message))


def _stop_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(stop_gradient, [(2, 3)], tuple(sorted(ANY, key=lambda t: t.name)), gradient=False)
    yield Sample(lambda x: stop_gradient(x), [Arg((), bool_)], (bool_,), gradient=False)


STOP = register(
    "stop_gradient",
    Kind.BARRIER,
    infer=lambda types, attrs: types[0],
    evaluate=lambda arrays, attrs: arrays[0],
    vjp=lambda ct, node: (None,),
    lower=lambda node, index, reads: reads[0](index),
    cost=0.0,
    samples=_stop_samples,
)


def stop_gradient(x: Node) -> Node:
    """x, as a constant to autodiff."""
    return make(STOP, (x,))


# --------------------------------------------------------------- with_gradient


def _infer_with_gradient(types: Sequence[TensorType], attrs: Any) -> TensorType:
    value, path = types
    if value != path:
        raise fail("with_gradient", "the value and the path must have equal shapes and dtypes", types)
    return value


def _with_gradient_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(with_gradient, [(2, 3), (2, 3)], gradient=False, expect=lambda value, path: value)
    yield wrong(with_gradient, (2,), (3,), says="with_gradient: the value and the path must have equal")


WITH_GRADIENT = register(
    "with_gradient",
    Kind.ELEMENTWISE,
    infer=_infer_with_gradient,
    evaluate=lambda arrays, attrs: arrays[0],
    vjp=lambda ct, node: (None, ct),
    lower=lambda node, index, reads: reads[0](index),
    cost=0.0,
    samples=_with_gradient_samples,
)


def with_gradient(value: Node, path: Node) -> Node:
    """`value`, whose gradient is that of `path`: another expression of the same quantity.

    For values that are cheap to compute in one way and differentiate well in another (the maximum of a
    window, and the sum of the one element chosen). After autodiff it is `value`, and `path` is dead
    unless a gradient uses it.
    """
    return make(WITH_GRADIENT, (value, path))
