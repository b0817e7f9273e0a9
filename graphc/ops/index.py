"""Reading and adding at positions that are data, and running sums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.node import Attrs, Kind, Node, make
from graphc.ir.types import TensorType, bool_, int32, int64
from graphc.loop import index as ix
from graphc.loop.ir import Expr, cast
from graphc.ops.compare import cast as cast_node
from graphc.ops.compare import eq, select
from graphc.ops.constant import wrong
from graphc.ops.elementwise import INTEGERS, NUMBERS
from graphc.ops.generate import iota
from graphc.ops.op import Read, fail, register
from graphc.ops.sample import FLOATS, Arg, ErrorSample, Sample, Typed
from graphc.ops.spread import broadcast, like, zeros
from graphc.ops.view import reshape


@dataclass(frozen=True, eq=False)
class AxisAttrs(Attrs):
    axis: int


def check_axis(name: str, axis: int, x: TensorType, types: Sequence[TensorType]) -> None:
    if not 0 <= axis < x.rank:
        raise fail(name, f"axis {axis} is not a dim within rank {x.rank}", types)


def _check_indices(name: str, indices: TensorType, types: Sequence[TensorType]) -> None:
    if indices.dtype not in INTEGERS:
        raise fail(name, "indices must be integers", types, TypeError)


def _check_bounds(name: str, indices: np.ndarray, extent: int) -> None:
    """The oracle's own test: a program must have checked its indices before it uses them."""
    if indices.size and not (indices.min() >= 0 and indices.max() < extent):
        raise IndexError(f"{name}: an index is not in range({extent}); guard it with check_index")


# ------------------------------------------------------------- take, scatter_add


def _taken(x: TensorType, indices: TensorType, axis: int) -> tuple[int, ...]:
    return (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _infer_take(types: Sequence[TensorType], attrs: AxisAttrs) -> TensorType:
    x, indices = types
    _check_indices("take", indices, types)
    check_axis("take", attrs.axis, x, types)
    return TensorType(_taken(x, indices, attrs.axis), x.dtype)


def _evaluate_take(arrays: Sequence[np.ndarray], attrs: AxisAttrs) -> np.ndarray:
    x, indices = arrays
    _check_bounds("take", indices, x.shape[attrs.axis])
    return np.take(x, indices.astype(np.int64), attrs.axis)


def _vjp_take(ct: Node, node: Node) -> Sequence[Node | None]:
    x, indices = node.inputs
    if not ct.type.dtype.is_float:
        return None, None
    return scatter_add(zeros(x.type), indices, ct, node.attrs.axis), None


def _lower_take(node: Node, index: ix.Index, reads: Sequence[Read]) -> Expr:
    axis, rank = node.attrs.axis, node.inputs[1].type.rank
    position = cast(reads[1](index[axis : axis + rank]), int64)
    return reads[0]((*index[:axis], position, *index[axis + rank :]))


def _rows(n: int, shape: tuple[int, ...], dtype=int64) -> Arg:
    return Arg(shape, dtype, low=0, high=n)


def _take_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(lambda x, i: take(x, i, 0), [(5, 3), _rows(5, (7,))], (*FLOATS, int64, bool_))
    yield Sample(lambda x, i: take(x, i, 1), [(2, 5, 3), _rows(5, (2, 4), int32)])
    yield Sample(lambda x, i: take(x, i, 1), [(2, 5), _rows(5, ())])
    at = _rows(5, (7,))
    yield Sample(lambda x, i: take(x, i, 1), [(2, 5), at], expect=lambda x, i: x[:, i])
    yield wrong(
        lambda x, i: take(x, i, 0), (5, 3), (7,), says="take: indices must be integers", error=TypeError
    )
    bad = (5, 3), Typed((7,), int64)
    yield wrong(lambda x, i: take(x, i, 2), *bad, says="take: axis 2 is not a dim within rank 2")


TAKE = register(
    "take",
    Kind.GATHER,
    infer=_infer_take,
    evaluate=_evaluate_take,
    vjp=_vjp_take,
    lower=_lower_take,
    attrs=AxisAttrs,
    samples=_take_samples,
)


def take(x: Node, indices: Node, axis: int) -> Node:
    """x at `indices` along an axis: the axis is replaced by the dims of `indices`.

    Indices must be in range(extent); guard those of users with check_index.
    """
    return make(TAKE, (x, indices), AxisAttrs(axis))


def _infer_scatter(types: Sequence[TensorType], attrs: AxisAttrs) -> TensorType:
    base, indices, updates = types
    _check_indices("scatter_add", indices, types)
    check_axis("scatter_add", attrs.axis, base, types)
    expected = _taken(base, indices, attrs.axis)
    if updates.shape != expected or updates.dtype is not base.dtype or base.dtype not in NUMBERS:
        raise fail("scatter_add", f"updates must be numbers of the base's dtype and shape {expected}", types)
    return base


def _evaluate_scatter(arrays: Sequence[np.ndarray], attrs: AxisAttrs) -> np.ndarray:
    base, indices, updates = arrays
    _check_bounds("scatter_add", indices, base.shape[attrs.axis])
    result = np.moveaxis(base, attrs.axis, 0).copy()
    axes = range(attrs.axis, attrs.axis + indices.ndim)
    np.add.at(result, indices.astype(np.int64), np.moveaxis(updates, axes, range(indices.ndim)))
    return np.moveaxis(result, 0, attrs.axis)


def _vjp_scatter(ct: Node, node: Node) -> Sequence[Node | None]:
    if not ct.type.dtype.is_float:
        return None, None, None
    return ct, None, take(ct, node.inputs[1], node.attrs.axis)


def _scatter_samples() -> Iterable[Sample | ErrorSample]:
    def at(axis: int):
        return lambda base, i, u: scatter_add(base, i, u, axis)

    yield Sample(at(0), [(5, 3), _rows(5, (7,)), (7, 3)], (*FLOATS, int64))
    yield Sample(at(1), [(2, 5, 3), _rows(5, (2, 4), int32), (2, 2, 4, 3)])
    yield Sample(at(0), [(3,), _rows(3, (40,)), (40,)])
    yield Sample(at(0), [(5,), _rows(5, ()), ()])
    yield wrong(
        at(0),
        (5, 3),
        Typed((7,), int64),
        (7, 4),
        says="scatter_add: updates must be numbers of the base's dtype",
    )


SCATTER_ADD = register(
    "scatter_add",
    Kind.SCATTER,
    infer=_infer_scatter,
    evaluate=_evaluate_scatter,
    vjp=_vjp_scatter,
    attrs=AxisAttrs,
    samples=_scatter_samples,
)


def scatter_add(base: Node, indices: Node, updates: Node, axis: int) -> Node:
    """base with each update added at its index along an axis, in the order of the updates.

    The transpose of `take`: updates have the shape of take(base, indices, axis).
    """
    return make(SCATTER_ADD, (base, indices, updates), AxisAttrs(axis))


# --------------------------------------------------- take_along, scatter_add_along


def _check_along(
    name: str, types: Sequence[TensorType], x: TensorType, indices: TensorType, axis: int
) -> None:
    _check_indices(name, indices, types)
    check_axis(name, axis, x, types)
    if indices.rank != x.rank:
        raise fail(name, f"indices must have rank {x.rank}", types)
    if any(d != axis and i > n for d, (i, n) in enumerate(zip(indices.shape, x.shape, strict=True))):
        raise fail(name, f"indices must not be larger than the tensor except in dim {axis}", types)


def _infer_take_along(types: Sequence[TensorType], attrs: AxisAttrs) -> TensorType:
    x, indices = types
    _check_along("take_along", types, x, indices, attrs.axis)
    return TensorType(indices.shape, x.dtype)


def _along(x: np.ndarray, indices: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """The full index arrays of the elements of x that `indices` name along an axis."""
    place = list(np.ogrid[tuple(map(slice, indices.shape))])
    place[axis] = indices.astype(np.int64)
    return tuple(place)


def _evaluate_take_along(arrays: Sequence[np.ndarray], attrs: AxisAttrs) -> np.ndarray:
    x, indices = arrays
    _check_bounds("take_along", indices, x.shape[attrs.axis])
    return x[_along(x, indices, attrs.axis)]


def _vjp_take_along(ct: Node, node: Node) -> Sequence[Node | None]:
    x, indices = node.inputs
    axis = node.attrs.axis
    if not ct.type.dtype.is_float:
        return None, None
    if indices.type.shape == (*x.type.shape[:axis], 1, *x.type.shape[axis + 1 :]):
        return _put_one(ct, indices, x, axis), None
    return scatter_add_along(zeros(x.type), indices, ct, axis), None


def _put_one(ct: Node, indices: Node, x: Node, axis: int) -> Node:
    """One index a line: a scatter without memory traffic, that fuses with what is around it."""
    shape = x.type.shape
    rest = tuple([d for d in range(len(shape)) if d != axis])
    line = tuple([shape[d] for d in rest])
    place = int32 if shape[axis] < 2**31 else int64
    chosen = broadcast(reshape(cast_node(indices, place), line), shape, rest)
    hit = eq(iota(shape, axis, place), chosen)
    return select(hit, broadcast(reshape(ct, line), shape, rest), like(x, 0))


def _lower_take_along(node: Node, index: ix.Index, reads: Sequence[Read]) -> Expr:
    axis = node.attrs.axis
    position = cast(reads[1](index), int64)
    return reads[0]((*index[:axis], position, *index[axis + 1 :]))


def _take_along_samples() -> Iterable[Sample | ErrorSample]:
    def at(axis: int):
        return lambda x, i: take_along(x, i, axis)

    yield Sample(
        at(1),
        [(4, 5), _rows(5, (4, 2))],
        (*FLOATS, int64, bool_),
        expect=lambda x, i: np.take_along_axis(x, i, 1),
    )
    yield Sample(at(0), [(4, 5), _rows(4, (6, 3), int32)])
    yield Sample(at(1), [(3, 4, 5), _rows(4, (2, 7, 5))])
    yield Sample(at(1), [(6, 5), _rows(5, (6, 1))])
    yield Sample(at(1), [(3, 4, 5), _rows(4, (3, 1, 5), int32)])
    yield Sample(at(1), [(3, 4), _rows(4, (2, 1))])
    yield wrong(at(0), (5, 3), Typed((7,), int64), says="take_along: indices must have rank 2")
    yield wrong(
        at(0), (5, 3), Typed((7, 4), int64), says="must not be larger than the tensor except in dim 0"
    )


TAKE_ALONG = register(
    "take_along",
    Kind.GATHER,
    infer=_infer_take_along,
    evaluate=_evaluate_take_along,
    vjp=_vjp_take_along,
    lower=_lower_take_along,
    attrs=AxisAttrs,
    samples=_take_along_samples,
)


def take_along(x: Node, indices: Node, axis: int) -> Node:
    """out[i] = x[i with i[axis] replaced by indices[i]] (torch.gather); indices as for `take`."""
    return make(TAKE_ALONG, (x, indices), AxisAttrs(axis))


def _infer_scatter_along(types: Sequence[TensorType], attrs: AxisAttrs) -> TensorType:
    base, indices, updates = types
    _check_along("scatter_add_along", types, base, indices, attrs.axis)
    if updates.shape != indices.shape or updates.dtype is not base.dtype or base.dtype not in NUMBERS:
        raise fail(
            "scatter_add_along",
            f"updates must be numbers of the base's dtype and shape {indices.shape}",
            types,
        )
    return base


def _evaluate_scatter_along(arrays: Sequence[np.ndarray], attrs: AxisAttrs) -> np.ndarray:
    base, indices, updates = arrays
    _check_bounds("scatter_add_along", indices, base.shape[attrs.axis])
    result = base.copy()
    np.add.at(result, _along(base, indices, attrs.axis), updates)
    return result


def _vjp_scatter_along(ct: Node, node: Node) -> Sequence[Node | None]:
    if not ct.type.dtype.is_float:
        return None, None, None
    return ct, None, take_along(ct, node.inputs[1], node.attrs.axis)


def _scatter_along_samples() -> Iterable[Sample | ErrorSample]:
    def at(axis: int):
        return lambda base, i, u: scatter_add_along(base, i, u, axis)

    yield Sample(at(1), [(4, 5), _rows(5, (4, 8)), (4, 8)], (*FLOATS, int64))
    yield Sample(at(0), [(4, 5), _rows(4, (6, 3), int32), (6, 3)])
    yield Sample(at(1), [(3, 4, 5), _rows(4, (2, 7, 5)), (2, 7, 5)])
    bad = (4, 5), Typed((4, 2), int64), (4, 3)
    yield wrong(
        at(1), *bad, says="scatter_add_along: updates must be numbers of the base's dtype and shape (4, 2)"
    )


SCATTER_ADD_ALONG = register(
    "scatter_add_along",
    Kind.SCATTER,
    infer=_infer_scatter_along,
    evaluate=_evaluate_scatter_along,
    vjp=_vjp_scatter_along,
    attrs=AxisAttrs,
    samples=_scatter_along_samples,
)


def scatter_add_along(base: Node, indices: Node, updates: Node, axis: int) -> Node:
    """The transpose of `take_along`: base[i with i[axis] = indices[i]] += updates[i], in order."""
    return make(SCATTER_ADD_ALONG, (base, indices, updates), AxisAttrs(axis))


# ------------------------------------------------------------------------ cumsum


@dataclass(frozen=True, eq=False)
class CumsumAttrs(Attrs):
    axis: int
    reverse: bool


def _infer_cumsum(types: Sequence[TensorType], attrs: CumsumAttrs) -> TensorType:
    if types[0].dtype not in NUMBERS:
        raise fail("cumsum", "cannot add bools; cast to an integer type first", types, TypeError)
    check_axis("cumsum", attrs.axis, types[0], types)
    return types[0]


def _evaluate_cumsum(arrays: Sequence[np.ndarray], attrs: CumsumAttrs) -> np.ndarray:
    x = np.flip(arrays[0], attrs.axis) if attrs.reverse else arrays[0]
    total = np.cumsum(x, attrs.axis, dtype=x.dtype)
    return np.flip(total, attrs.axis) if attrs.reverse else total


def _vjp_cumsum(ct: Node, node: Node) -> Sequence[Node | None]:
    if not ct.type.dtype.is_float:
        return (None,)
    return (cumsum(ct, node.attrs.axis, not node.attrs.reverse),)


def _cumsum_samples() -> Iterable[Sample | ErrorSample]:
    yield Sample(
        lambda x: cumsum(x, 1), [(3, 5)], (*FLOATS, int64, int32), expect=lambda x: np.cumsum(x, 1, x.dtype)
    )
    yield Sample(lambda x: cumsum(x, 0, reverse=True), [(6, 5)])
    yield Sample(lambda x: cumsum(x, 1), [(2, 33, 3)])
    yield wrong(lambda x: cumsum(x, 1), (3,), says="cumsum: axis 1 is not a dim within rank 1")
    yield wrong(lambda x: cumsum(x, 0), Typed((3,), bool_), says="cumsum: cannot add bools", error=TypeError)


CUMSUM = register(
    "cumsum",
    Kind.CUMULATIVE,
    infer=_infer_cumsum,
    evaluate=_evaluate_cumsum,
    vjp=_vjp_cumsum,
    attrs=CumsumAttrs,
    samples=_cumsum_samples,
)


def cumsum(x: Node, axis: int, reverse: bool = False) -> Node:
    """Running sums along an axis, from its end if `reverse`."""
    return make(CUMSUM, (x,), CumsumAttrs(axis, reverse))
