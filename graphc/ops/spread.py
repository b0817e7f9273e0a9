"""broadcast and reduce_sum: each other's transposes, and the constants made with them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import DType, Shape, TensorType, bool_, int32, int64
from graphc.loop.ir import Expr
from graphc.ops.constant import Scalar, constant, wrong
from graphc.ops.op import Read, Reduction, fail, register
from graphc.ops.sample import FLOATS, ErrorSample, Sample, Typed

Axes = tuple[int, ...]


# ------------------------------------------------------------------- broadcast


@dataclass(frozen=True, eq=False)
class BroadcastAttrs(Attrs):
    """Input dim i is output dim dims[i]; dims is increasing."""

    shape: Shape
    dims: Axes

    @cached_property
    def new_axes(self) -> Axes:
        """The output dims along which the input is repeated."""
        return tuple(d for d in range(len(self.shape)) if d not in self.dims)


def _infer_broadcast(types: Sequence[TensorType], attrs: BroadcastAttrs) -> TensorType:
    shape, dims = attrs.shape, attrs.dims
    source = types[0].shape
    if len(dims) != len(source):
        raise fail("broadcast", f"dims {dims} must name one output dim for each input dim", types)
    if any(b <= a for a, b in itertools.pairwise(dims)) or (
        dims and not 0 <= dims[0] <= dims[-1] < len(shape)
    ):
        raise fail("broadcast", f"dims {dims} must increase within the output's rank {len(shape)}", types)
    for i, d in enumerate(dims):
        if source[i] != shape[d]:
            raise fail("broadcast", f"input dim {i} must have the size of output dim {d} of {shape}", types)
    return TensorType(shape, types[0].dtype)


def _evaluate_broadcast(arrays: Sequence[np.ndarray], attrs: BroadcastAttrs) -> np.ndarray:
    return np.broadcast_to(np.expand_dims(arrays[0], attrs.new_axes), attrs.shape)


def _lower_broadcast(node: Node, index: tuple[Expr, ...], reads: Sequence[Read]) -> Expr:
    return reads[0](tuple([index[d] for d in node.attrs.dims]))


def _broadcast_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(lambda x: broadcast(x, (2, 3), (1,)), [(3,)], (*FLOATS, int32, bool_))
    yield Sample(lambda x: broadcast(x, (4, 2, 5, 3), (1, 3)), [(2, 3)])
    yield Sample(lambda x: broadcast(x, (2, 3), ()), [()])
    yield Sample(lambda x: broadcast(x, (0, 3), (1,)), [(3,)], gradient=False)
    yield wrong(
        lambda x: broadcast(x, (2, 3), (0,)), (3,), says="input dim 0 must have the size of output dim 0"
    )
    yield wrong(
        lambda x: broadcast(x, (2, 3), (0,)), (2, 3), says="must name one output dim for each input dim"
    )
    yield wrong(
        lambda x: broadcast(x, (2, 3), (1, 0)), (3, 2), says="must increase within the output's rank 2"
    )
    yield wrong(
        lambda x: broadcast(x, (2, 2), (1, 0)), (2, 2), says="must increase within the output's rank 2"
    )


BROADCAST = register(
    "broadcast",
    Kind.VIEW,
    infer=_infer_broadcast,
    evaluate=_evaluate_broadcast,
    vjp=lambda ct, node: (reduce_sum(ct, node.attrs.new_axes),),
    lower=_lower_broadcast,
    attrs=BroadcastAttrs,
    cost=0.0,
    samples=_broadcast_samples,
)


def broadcast(x: Node, shape: Shape, dims: Axes) -> Node:
    """Repeat x along the output dims that `dims` does not name.

    Input dim i becomes output dim dims[i], of equal size (reshape away size-1 dims first).
    """
    if len(shape) == len(dims) and shape == x.type.shape and tuple(dims) == tuple(range(len(dims))):
        return x
    return make(BROADCAST, (x,), BroadcastAttrs(shape, dims))


# ------------------------------------------------------------------ reductions


@dataclass(frozen=True, eq=False)
class ReduceAttrs(Attrs):
    """The input axes that are reduced away: increasing."""

    axes: Axes


def infer_reduce(name: str, types: Sequence[TensorType], attrs: ReduceAttrs) -> TensorType:
    """The shape without the axes; shared by all reductions."""
    axes, shape = attrs.axes, types[0].shape
    if any(b <= a for a, b in itertools.pairwise(axes)) or (
        axes and not 0 <= axes[0] <= axes[-1] < len(shape)
    ):
        raise fail(name, f"axes {axes} must be distinct dims within rank {len(shape)}", types)
    return TensorType(tuple([n for i, n in enumerate(shape) if i not in axes]), types[0].dtype)


def kept_axes(node: Node) -> Axes:
    """The input axes that a reduction keeps, in order."""
    axes = node.attrs.axes
    return tuple([i for i in range(len(node.inputs[0].type.shape)) if i not in axes])


def lower_reduce(node: Node, combine: str) -> Reduction:
    """A plain reduction over `attrs.axes`."""
    axes, source = node.attrs.axes, node.inputs[0].type.shape
    kept = kept_axes(node)

    def element(index: tuple[Expr, ...], r: tuple[Expr, ...], reads: Sequence[Read]) -> Expr:
        place = dict(zip(kept, index, strict=True)) | dict(zip(axes, r, strict=True))
        return reads[0](tuple([place[i] for i in range(len(source))]))

    return Reduction(tuple([source[a] for a in axes]), combine, element, axes)  # type: ignore[arg-type]


def spread_back(y: Node, node: Node) -> Node:
    """Broadcast a value of a reduction's output shape to its input shape."""
    return broadcast(y, node.inputs[0].type.shape, kept_axes(node))


def _infer_sum(types: Sequence[TensorType], attrs: ReduceAttrs) -> TensorType:
    if types[0].dtype is bool_:
        raise fail("reduce_sum", "cannot add bools; cast to an integer type first", types, TypeError)
    return infer_reduce("reduce_sum", types, attrs)


def _sum_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(lambda x: reduce_sum(x, (1,)), [(2, 3)], (*FLOATS, int32, int64))
    yield Sample(lambda x: reduce_sum(x, (0, 2)), [(3, 4, 5)])
    yield Sample(lambda x: reduce_sum(x, (0, 1)), [(7, 33)])
    yield Sample(lambda x: reduce_sum(x, (0,)), [(70, 5)])
    yield Sample(lambda x: reduce_sum(x, (1,)), [(3, 0)], gradient=False)
    yield wrong(lambda x: reduce_sum(x, (2,)), (2, 3), says="axes (2,) must be distinct dims within rank 2")
    yield wrong(lambda x: reduce_sum(x, (0,)), Typed((2,), bool_), says="cannot add bools", error=TypeError)


REDUCE_SUM = register(
    "reduce_sum",
    Kind.REDUCE,
    infer=_infer_sum,
    evaluate=lambda arrays, attrs: np.sum(arrays[0], axis=attrs.axes, dtype=arrays[0].dtype),
    vjp=lambda ct, node: (spread_back(ct, node),),
    lower=lambda node: lower_reduce(node, "add"),
    attrs=ReduceAttrs,
    samples=_sum_samples,
)


def reduce_sum(x: Node, axes: Iterable[int]) -> Node:
    """Sum over `axes`, which are dropped."""
    axes = tuple(sorted(axes))
    return make(REDUCE_SUM, (x,), ReduceAttrs(axes)) if axes else x


# ----------------------------------------------------------- spread constants


def full(shape: Shape, value: Scalar, dtype: DType) -> Node:
    """A tensor of equal elements."""
    scalar = constant(value, dtype)
    return make(BROADCAST, (scalar,), _spread(shape)) if shape else scalar


@lru_cache(4096)
def _spread(shape: Shape) -> BroadcastAttrs:
    """The attributes that repeat a scalar all over a shape."""
    return BroadcastAttrs(shape, ())


def zeros(type_: TensorType) -> Node:
    return full(type_.shape, 0, type_.dtype)


def ones(type_: TensorType) -> Node:
    return full(type_.shape, 1, type_.dtype)


def like(x: Node, value: Scalar) -> Node:
    """A tensor of equal elements, with x's shape and dtype."""
    return full(x.type.shape, value, x.type.dtype)


def scalar_value(node: Node) -> Scalar | None:
    """The number that every element of `node` is, if it is a (broadcast) scalar constant."""
    if node.kind is Kind.VIEW and node.op is BROADCAST:
        node = node.inputs[0]
    if node.kind is Kind.CONSTANT and not node.type.shape:
        return node.attrs.value
    return None
