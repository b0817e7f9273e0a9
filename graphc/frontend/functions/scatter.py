"""Copies of a tensor with elements or slices written, added or filled at indices."""

from __future__ import annotations

from typing import Any

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.comparison import truth
from graphc.frontend.functions.gather import corner, fits_along, need_index, same_dtype, with_dim
from graphc.frontend.functions.indexing import checked, index_put, need_own_dtype, setitem
from graphc.frontend.functions.methods import METHODS, method
from graphc.frontend.functions.scatter_reduce import reduced
from graphc.frontend.nodes import cast, normal_axis, number
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import bool_, int64


def _added(base: Node, i: Node, v: Node, axis: int) -> Node:
    """scatter_add_along on the corner that the index reaches. The sum of bools is whether any is true."""
    if base.dtype is bool_:
        return truth(_added(cast(base, int64), i, cast(v, int64), axis))
    if v.shape != i.shape:
        v = ops.slice_(v, (0,) * v.type.rank, i.shape, (1,) * v.type.rank)
    part = corner(base, i.shape, axis)
    if part is base:
        return ops.scatter_add_along(base, i, v, axis)
    high = tuple(e - p for e, p in zip(base.shape, part.shape, strict=True))
    added = ops.scatter_add_along(ops.zeros(part.type), i, v, axis)
    return ops.add(base, ops.pad(added, (0,) * len(high), high, 0))


@method(inplace=True)
@with_dim
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """`input` with each element of `src` added at its index along `dim`."""
    need_index("scatter_add", index)
    same_dtype("scatter", input, src)
    _fits_source("scatter_add", index, src)
    axis = normal_axis(dim, input.ndim)
    fits_along("scatter_add", index, input, axis)
    index = checked(index, input.shape[axis], axis, wrap=False)
    return apply("ScatterAddBackward0", lambda n, i, v: _added(n, i, v, axis), input, index, src)


def _fits_source(name: str, index: Tensor, src: Tensor) -> None:
    """RuntimeError unless every index has an element of `src`."""
    if src.ndim != index.ndim or any(i > s for i, s in zip(index.shape, src.shape, strict=True)):
        raise fail(
            RuntimeError,
            f"{name}(): Index tensor must have the same number of dimensions as src tensor, and fit: "
            f"{describe(index, src)}",
        )


def _writer_along(i: Node, extent: int, axis: int) -> Node:
    """For each place along `axis`, the position of the last index that names it, or -1."""
    shape = (*i.shape[: axis + 1], extent, *i.shape[axis + 1 :])
    dims = tuple(d + (d > axis) for d in range(i.type.rank))
    named = ops.eq(ops.broadcast(i, shape, dims), ops.iota(shape, axis + 1))
    return ops.reduce_max(ops.select(named, ops.iota(shape, axis), ops.full(shape, -1, int64)), (axis,))


def _written(base: Node, i: Node, v: Node, axis: int) -> Node:
    """`base` with the last value written at each index."""
    if not i.type.size:
        return base
    if v.shape != i.shape:
        v = ops.slice_(v, (0,) * v.type.rank, i.shape, (1,) * v.type.rank)
    part = corner(base, i.shape, axis)
    writer = _writer_along(i, base.shape[axis], axis)
    zero = ops.full(writer.shape, 0, int64)
    taken = ops.take_along(v, ops.maximum(writer, zero), axis)
    found = ops.select(ops.ge(writer, zero), taken, part)
    if part is base:
        return found
    high = tuple(e - p for e, p in zip(base.shape, part.shape, strict=True))
    inside = ops.pad(ops.full(part.shape, True, bool_), (0,) * len(high), high, False)
    return ops.select(
        inside, ops.pad(found, (0,) * len(high), high, False if base.dtype is bool_ else 0), base
    )


@method(inplace=True)
@with_dim
def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """`input` with elements of `src` (or one number) written at indices along `dim`; the last one wins."""
    need_index("scatter", index)
    axis = normal_axis(dim, input.ndim)
    fits_along("scatter", index, input, axis)
    source = value if src is None else src
    if isinstance(source, Tensor):
        same_dtype("scatter", input, source)
        _fits_source("scatter", index, source)
    index = checked(index, input.shape[axis], axis, wrap=False)
    if reduce == "add":
        return _scatter_number_or_tensor(input, index, source, axis, _added)
    if reduce == "multiply":
        return _scatter_number_or_tensor(
            input, index, source, axis, lambda n, i, v, at: reduced(n, i, v, at, "prod", True)
        )
    if reduce is not None:
        raise fail(RuntimeError, f"reduce argument must be either add or multiply, got {reduce!r}")
    return _scatter_number_or_tensor(input, index, source, axis, _written)


def _scatter_number_or_tensor(input: Tensor, index: Tensor, source: Any, axis: int, build: Any) -> Tensor:
    if isinstance(source, Tensor):
        return apply("ScatterBackward0", lambda n, i, v: build(n, i, v, axis), input, index, source)
    return apply(
        "ScatterBackward1", lambda n, i: build(n, i, number(source, n.dtype, i.shape), axis), input, index
    )


@method(inplace=True)
@with_dim
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """`input` with slices of `source` added at indices along `dim`."""
    need_index("index_add", index)
    same_dtype("index_add", input, source)
    axis = normal_axis(dim, input.ndim)
    rest = [tuple(e for d, e in enumerate(t.shape) if d != axis) for t in (input, source)]
    if source.ndim != input.ndim or rest[0] != rest[1] or source.shape[axis] != index.numel():
        raise fail(
            RuntimeError,
            "source tensor shape must match self tensor shape, excluding the specified dimension, and have "
            f"one slice for each index: {describe(input, index, source)}",
        )
    index = checked(index.reshape(-1), input.shape[axis], axis, wrap=False)

    def build(n: Node, i: Node, v: Node) -> Node:
        kind = n.dtype
        if kind is bool_:
            n, v = cast(n, int64), cast(v, int64)
        v = v if alpha == 1 else ops.mul(v, number(alpha, v.dtype, v.shape))
        added = ops.scatter_add(n, i, v, axis)
        return truth(added) if kind is bool_ else added

    return apply("IndexAddBackward0", build, input, index, source)


@method(inplace=True)
@with_dim
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`input` with slices along `dim` replaced by those of `source`."""
    need_index("index_copy", index)
    return index_put(input, {normal_axis(dim, input.ndim): index}, source)


@method(inplace=True)
@with_dim
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """`input` with slices along `dim` filled with a number."""
    need_index("index_fill", index)
    fill = (
        value
        if isinstance(value, Tensor)
        else apply("", lambda n: ops.full((), value, n.dtype), input.detach())
    )
    return index_put(input, {normal_axis(dim, input.ndim): index}, fill)


@method("index_put", inplace=True)
def index_put_method(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """`input` with the elements named by a tuple of index tensors replaced or increased."""
    if any(i.dtype is bool_ for i in indices):
        copied = METHODS["clone"](input)
        setitem(copied, tuple(indices), copied[tuple(indices)] + values if accumulate else values)
        return copied
    need_own_dtype(input, values)
    return index_put(input, dict(enumerate(indices)), values, accumulate)
