"""Gather and scatter by index tensors, masks, diagonals and triangles, running sums."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.indexing import checked, index_put, setitem
from graphc.frontend.lazy import value
from graphc.frontend.linalg import diagonal_node
from graphc.frontend.methods import METHODS, method
from graphc.frontend.modes import MODE
from graphc.frontend.nodes import broadcast_shapes, cast, expand, normal_axis, number
from graphc.frontend.shape import ravel, reshape_node
from graphc.frontend.tensor import Tensor, apply, from_array, is_concrete
from graphc.ir.node import Node
from graphc.ir.types import Shape, bool_, int32, int64

F = TypeVar("F", bound=Callable[..., Any])


def _with_dim(f: F) -> F:
    """Let an operation along a dim take 0-d tensors: as vectors of one element."""

    @functools.wraps(f)
    def wrapped(input: Tensor, dim: int, index: Tensor, *rest: Any, **options: Any) -> Tensor:
        if input.ndim:
            return f(input, dim, index, *rest, **options)
        normal_axis(dim, 0)
        lifted = [METHODS["atleast_1d"](v) if isinstance(v, Tensor) and v.ndim == 0 else v for v in rest]
        return f(ravel(input), 0, METHODS["atleast_1d"](index), *lifted, **options)[0]

    return wrapped  # type: ignore[return-value]


def _need_index(name: str, index: Tensor) -> None:
    if index.dtype not in (int64, int32):
        raise fail(RuntimeError, f"{name}(): Expected dtype int32 or int64 for index, got {index.dtype.name}")


def _fits_along(name: str, index: Tensor, input: Tensor, axis: int) -> None:
    if index.ndim != input.ndim:
        raise fail(
            RuntimeError,
            f"Index tensor must have the same number of dimensions as input tensor: {name} of "
            f"{describe(input, index)}",
        )
    for d in range(index.ndim):
        if d != axis and index.shape[d] > input.shape[d]:
            raise fail(
                RuntimeError,
                f"Size does not match at dimension {d} expected index {list(index.shape)} to be no larger "
                f"than self "
                f"{list(input.shape)} apart from dimension {axis} ({name})",
            )


def _corner(n: Node, shape: Shape, axis: int) -> Node:
    """The part of `n` that an index of `shape` can reach along `axis`."""
    stop = tuple(e if d == axis else s for d, (e, s) in enumerate(zip(n.shape, shape, strict=True)))
    return n if stop == n.shape else ops.slice_(n, (0,) * len(stop), stop, (1,) * len(stop))


@method()
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """out[i][j][k] = input[i][index[i][j][k]][k] (for dim 1)."""
    _need_index("gather", index)
    if input.ndim == 0:
        return apply("GatherBackward0", lambda n, i: reshape_node(n, i.shape), input, index)
    axis = normal_axis(dim, input.ndim)
    _fits_along("gather", index, input, axis)
    index = checked(index, input.shape[axis], axis, wrap=False)
    return apply(
        "GatherBackward0", lambda n, i: ops.take_along(_corner(n, i.shape, axis), i, axis), input, index
    )


@method()
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Like `gather`, with the other dims broadcast."""
    _need_index("take_along_dim", indices)
    if dim is None:
        input, indices, dim = ravel(input), ravel(indices), 0
    axis = normal_axis(dim, input.ndim)
    if input.ndim != indices.ndim:
        raise fail(
            RuntimeError,
            "torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
            f"{input.ndim} dimensions for input, and {indices.ndim} dimensions for indices",
        )
    index = checked(indices, input.shape[axis], axis)

    def build(n: Node, i: Node) -> Node:
        other = tuple(max(a, b) for a, b in zip(n.shape, i.shape, strict=True))
        n = expand(n, tuple(n.shape[d] if d == axis else other[d] for d in range(len(other))))
        i = expand(i, tuple(i.shape[d] if d == axis else other[d] for d in range(len(other))))
        return ops.take_along(n, i, axis)

    return apply("GatherBackward0", build, input, index)


@method()
@_with_dim
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Slices along `dim`, in the order of `index`."""
    _need_index("index_select", index)
    if index.ndim > 1:
        raise fail(IndexError, "index_select(): Index is supposed to be a vector")
    axis = normal_axis(dim, input.ndim)
    index = checked(index.reshape(-1), input.shape[axis], axis, wrap=False)
    return apply("IndexSelectBackward0", lambda n, i: ops.take(n, i, axis), input, index)


@method()
def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements of the flat tensor, in the shape of `index`."""
    flat = ravel(input)
    index = checked(index, flat.shape[0], 0)
    return apply("TakeBackward0", lambda n, i: ops.take(n, i, 0), flat, index)


def _added(base: Node, i: Node, v: Node, axis: int) -> Node:
    """scatter_add_along on the corner that the index reaches."""
    if v.shape != i.shape:
        v = ops.slice_(v, (0,) * v.type.rank, i.shape, (1,) * v.type.rank)
    part = _corner(base, i.shape, axis)
    if part is base:
        return ops.scatter_add_along(base, i, v, axis)
    high = tuple(e - p for e, p in zip(base.shape, part.shape, strict=True))
    added = ops.scatter_add_along(ops.zeros(part.type), i, v, axis)
    return ops.add(base, ops.pad(added, (0,) * len(high), high, 0))


@method(inplace=True)
@_with_dim
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """`input` with each element of `src` added at its index along `dim`."""
    _need_index("scatter_add", index)
    _same_dtype("scatter", input, src)
    axis = normal_axis(dim, input.ndim)
    _fits_along("scatter_add", index, input, axis)
    index = checked(index, input.shape[axis], axis, wrap=False)
    return apply("ScatterAddBackward0", lambda n, i, v: _added(n, i, v, axis), input, index, src)


def _same_dtype(name: str, input: Tensor, src: Tensor) -> None:
    if input.dtype is not src.dtype:
        raise fail(
            RuntimeError, f"{name}(): Expected self.dtype to be equal to src.dtype: {describe(input, src)}"
        )


def _writer_along(i: Node, extent: int, axis: int) -> Node:
    """For each place along `axis`, the position of the last index that names it, or -1."""
    shape = (*i.shape[: axis + 1], extent, *i.shape[axis + 1 :])
    dims = tuple(d + (d > axis) for d in range(i.type.rank))
    named = ops.eq(ops.broadcast(i, shape, dims), ops.iota(shape, axis + 1))
    return ops.reduce_max(ops.select(named, ops.iota(shape, axis), ops.full(shape, -1, int64)), (axis,))


def _written(base: Node, i: Node, v: Node, axis: int) -> Node:
    """`base` with the last value written at each index."""
    if v.shape != i.shape:
        v = ops.slice_(v, (0,) * v.type.rank, i.shape, (1,) * v.type.rank)
    part = _corner(base, i.shape, axis)
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
@_with_dim
def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    """`input` with elements of `src` (or one number) written at indices along `dim`; the last one wins."""
    _need_index("scatter", index)
    axis = normal_axis(dim, input.ndim)
    _fits_along("scatter", index, input, axis)
    index = checked(index, input.shape[axis], axis, wrap=False)
    source = value if src is None else src
    if isinstance(source, Tensor):
        _same_dtype("scatter", input, source)
    if reduce == "add":
        return _scatter_number_or_tensor(input, index, source, axis, _added)
    if reduce is not None:
        raise fail(RuntimeError, f"scatter(): reduce={reduce!r} is not supported (None or 'add')")
    return _scatter_number_or_tensor(input, index, source, axis, _written)


def _scatter_number_or_tensor(input: Tensor, index: Tensor, source: Any, axis: int, build: Any) -> Tensor:
    if isinstance(source, Tensor):
        return apply("ScatterBackward0", lambda n, i, v: build(n, i, v, axis), input, index, source)
    return apply(
        "ScatterBackward1", lambda n, i: build(n, i, number(source, n.dtype, i.shape), axis), input, index
    )


@method(inplace=True)
@_with_dim
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """`input` with slices of `source` added at indices along `dim`."""
    _need_index("index_add", index)
    _same_dtype("index_add", input, source)
    axis = normal_axis(dim, input.ndim)
    index = checked(index.reshape(-1), input.shape[axis], axis, wrap=False)

    def build(n: Node, i: Node, v: Node) -> Node:
        v = v if alpha == 1 else ops.mul(v, number(alpha, v.dtype, v.shape))
        return ops.scatter_add(n, i, v, axis)

    return apply("IndexAddBackward0", build, input, index, source)


@method(inplace=True)
@_with_dim
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`input` with slices along `dim` replaced by those of `source`."""
    _need_index("index_copy", index)
    return index_put(input, {normal_axis(dim, input.ndim): index}, source)


@method(inplace=True)
@_with_dim
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """`input` with slices along `dim` filled with a number."""
    _need_index("index_fill", index)
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
    return index_put(input, dict(enumerate(indices)), values, accumulate)


# -------------------------------------------------------------------------- masks


@method()
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where `mask` holds, as a vector (not inside traces: the size depends on values)."""
    shape = np.broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    return input.expand(shape)[mask.expand(shape)]


@method()
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`input` with elements where `mask` holds taken from `source`, in order."""
    _same_dtype("masked_scatter", input, source)
    shape = broadcast_shapes(input._cell.node.type.shape, mask._cell.node.type.shape)

    def build(n: Node, m: Node, v: Node) -> Node:
        n, m = expand(n, shape), expand(m, shape)
        count = n.type.size
        place = ops.sub(ops.cumsum(ops.reshape(cast(m, int64), (count,)), 0), ops.full((count,), 1, int64))
        place = ops.maximum(place, ops.full((count,), 0, int64))
        place = ops.minimum(place, ops.full((count,), v.type.size - 1, int64))
        taken = ops.reshape(ops.take(reshape_node(v, (v.type.size,)), place, 0), shape)
        return ops.select(m, taken, n)

    return apply("MaskedScatterBackward0", build, input, mask, source)


@method()
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Positions of non-zero elements (not inside traces: their number depends on values)."""
    if MODE.trace is not None and not is_concrete(input):
        raise MODE.trace.needs_value(
            "nonzero(): the number of non-zero elements depends on values, and shapes are static inside a "
            "trace; use "
            "graphc.where(condition, a, b)"
        )
    found = np.nonzero(np.atleast_1d(value(input)))
    if as_tuple:
        return tuple(from_array(p) for p in found)
    stacked = np.stack(found, 1) if input.ndim else np.zeros((len(found[0]), 0), np.int64)
    return from_array(stacked)


@method()
def argwhere(input: Tensor) -> Tensor:
    """Positions of non-zero elements, one per row."""
    return nonzero(input)


# ------------------------------------------------------------ triangles, diagonals


def _triangle(n: Node, k: int, lower: bool) -> Node:
    rows, columns = n.shape[-2:]
    i, j = ops.iota((rows, columns), 0), ops.iota((rows, columns), 1)
    edge = ops.add(i, ops.full((rows, columns), k, int64))
    kept = ops.le(j, edge) if lower else ops.ge(j, edge)
    wide = ops.broadcast(kept, n.shape, (n.type.rank - 2, n.type.rank - 1))
    return ops.select(wide, n, ops.full(n.shape, False if n.dtype is bool_ else 0, n.dtype))


def _need_matrix(name: str, input: Tensor) -> None:
    if input.ndim < 2:
        raise fail(
            RuntimeError, f"{name}: input tensor must have at least 2 dimensions, got {describe(input)}"
        )


@method(inplace=True)
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The elements on and below a diagonal, zeros elsewhere."""
    _need_matrix("tril", input)
    return apply("TrilBackward0", lambda n: _triangle(n, diagonal, True), input)


@method(inplace=True)
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The elements on and above a diagonal, zeros elsewhere."""
    _need_matrix("triu", input)
    return apply("TriuBackward0", lambda n: _triangle(n, diagonal, False), input)


@method()
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A diagonal of two dims, as the last dim."""
    i, j = normal_axis(dim1, input.ndim), normal_axis(dim2, input.ndim)
    if i == j:
        raise fail(RuntimeError, f"diagonal dimensions cannot be identical {dim1}, {dim2}")

    def build(n: Node) -> Node:
        rows, columns = n.shape[i], n.shape[j]
        first, second = (0, offset) if offset >= 0 else (-offset, 0)
        length = max(0, min(rows - first, columns - second))
        n = ops.slice_axis(ops.slice_axis(n, i, first, first + length), j, second, second + length)
        low, high = min(i, j), max(i, j)
        found = diagonal_node(n, low, high)
        rest = [d for d in range(found.type.rank) if d != low]
        return ops.transpose(found, (*rest, low))

    return apply("DiagonalBackward0", build, input)


def _embed(n: Node, offset: int) -> Node:
    """The last dim as a diagonal of two new last dims."""
    length, extra = n.shape[-1], abs(offset)
    side = length + extra
    shape = (*n.shape[:-1], side, side)
    low = [0] * n.type.rank
    high = [0] * n.type.rank
    (high if offset >= 0 else low)[-1] = extra
    padded = ops.pad(n, tuple(low), tuple(high), False if n.dtype is bool_ else 0)
    rank = len(shape)
    wide = ops.broadcast(padded, shape, (*range(rank - 2), rank - 2))
    i, j = ops.iota((side, side), 0), ops.iota((side, side), 1)
    here = ops.eq(j, ops.add(i, ops.full((side, side), offset, int64)))
    kept = ops.broadcast(here, shape, (rank - 2, rank - 1))
    return ops.select(kept, wide, ops.full(shape, False if n.dtype is bool_ else 0, n.dtype))


@method()
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Vectors as diagonals of matrices."""
    made = apply("DiagEmbedBackward0", lambda n: _embed(n, offset), input)
    return made if (dim1, dim2) == (-2, -1) else made.movedim((-2, -1), (dim1, dim2))


@method()
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A vector as a diagonal matrix, or the diagonal of a matrix."""
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise fail(RuntimeError, f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    return METHODS["diagonal"](input, diagonal)


@method()
def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal."""
    if input.ndim != 2:
        raise fail(RuntimeError, f"trace: expected a matrix, but got tensor with dim {input.ndim}")
    return METHODS["diagonal"](input).sum()


@method("fill_diagonal_", function=False)
def fill_diagonal_(self: Tensor, fill_value: float) -> Tensor:
    """The main diagonal of a matrix filled with a number."""
    rows, columns = self.shape
    mask = from_array(np.eye(rows, columns, dtype=np.bool_))
    return METHODS["masked_fill_"](self, mask, fill_value)
