"""Triangles and diagonals of matrices, and copies with a part replaced."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.creation import constant_array
from graphc.frontend.functions.linalg import diagonal_node
from graphc.frontend.functions.methods import METHODS, method
from graphc.frontend.functions.placement import placed
from graphc.frontend.functions.shape import ravel
from graphc.frontend.functions.slicing import select
from graphc.frontend.nodes import normal_axis
from graphc.frontend.tensor import Tensor, apply, apply_view, from_array
from graphc.ir.node import Node
from graphc.ir.types import DType, bool_, int64


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

    rows, columns = input.shape[i], input.shape[j]
    first, second = (0, offset) if offset >= 0 else (-offset, 0)
    length = max(0, min(rows - first, columns - second))
    low, high = min(i, j), max(i, j)

    def forward(n: Node) -> Node:
        if length == 0:
            rest = tuple(e for d, e in enumerate(n.shape) if d not in (i, j))
            return ops.full((*rest, 0), False if n.dtype is bool_ else 0, n.dtype)
        n = ops.slice_axis(ops.slice_axis(n, i, first, first + length), j, second, second + length)
        found = diagonal_node(n, low, high)
        return ops.transpose(found, (*[d for d in range(found.type.rank) if d != low], low))

    def back(base: Node, n: Node) -> Node:
        if length == 0:
            return base
        ends = [0] * (n.type.rank - 1)
        after = rows - first - length
        n = ops.pad(n, (*ends, first), (*ends, after), False if n.dtype is bool_ else 0)
        kept = [d for d in range(base.type.rank) if d not in (i, j)]
        wide = ops.broadcast(n, (*[base.shape[d] for d in kept], rows, columns), tuple(range(n.type.rank)))
        order = [*kept, i, j]
        wide = ops.transpose(wide, tuple(order.index(d) for d in range(base.type.rank)))
        here = _on_diagonal(rows, columns, offset) if i < j else _on_diagonal(columns, rows, -offset)
        return ops.select(ops.broadcast(here, base.shape, (low, high)), wide, base)

    return apply_view("DiagonalBackward0", forward, back, input)


def _on_diagonal(rows: int, columns: int, offset: int) -> Node:
    """Where column == row + offset."""
    i, j = ops.iota((rows, columns), 0), ops.iota((rows, columns), 1)
    return ops.eq(j, ops.add(i, ops.full((rows, columns), offset, int64)))


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
    kept = ops.broadcast(_on_diagonal(side, side, offset), shape, (rank - 2, rank - 1))
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
    return diagonal(input).sum()


@method("fill_diagonal_", function=False)
def fill_diagonal_(self: Tensor, fill_value: float) -> Tensor:
    """The main diagonal of a matrix filled with a number."""
    rows, columns = self.shape
    mask = from_array(np.eye(rows, columns, dtype=np.bool_))
    return METHODS["masked_fill_"](self, mask, fill_value)


@method()
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """All elements as a diagonal of a matrix."""
    return diag_embed(ravel(input), offset)


def _indices(rows: int, columns: int, offset: int, lower: bool, dtype: DType | None) -> Tensor:
    if rows < 0 or columns < 0:
        raise fail(RuntimeError, f"row and col must be non-negative, got {rows} and {columns}")
    side = np.tri(rows, columns, offset if lower else offset - 1, dtype=np.bool_)
    places = np.nonzero(side if lower else ~side)
    return constant_array(np.stack(places).astype((dtype or int64).numpy))


@placed
def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DType | None = None) -> Tensor:
    """Rows and columns, [2, n], of the elements on and below a diagonal."""
    return _indices(row, col, offset, True, dtype)


@placed
def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DType | None = None) -> Tensor:
    """Rows and columns, [2, n], of the elements on and above a diagonal."""
    return _indices(row, col, offset, False, dtype)


method(only_function=True)(tril_indices)
method(only_function=True)(triu_indices)


@method()
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy of `input` with a diagonal replaced by `src`."""
    return _replaced(input, src, lambda x: diagonal(x, offset, dim1, dim2), "diagonal_scatter")


@method()
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of `input` with one slice along `dim` replaced by `src`."""
    return _replaced(input, src, lambda x: select(x, dim, index), "select_scatter")


@method()
def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """A copy of `input` with start:end:step along `dim` replaced by `src`."""
    axis = normal_axis(dim, input.ndim)
    where = (slice(None),) * axis + (slice(start, end, step),)
    return _replaced(input, src, lambda x: x[where], "slice_scatter")


def _replaced(input: Tensor, src: Tensor, part: Callable[[Tensor], Tensor], name: str) -> Tensor:
    copied = METHODS["clone"](input)
    target = part(copied)
    if tuple(target.shape) != tuple(src.shape):
        raise fail(
            RuntimeError,
            f"{name}: expected src to have a size equal to the slice of self. src size = {list(src.shape)}, "
            f"slice size = {list(target.shape)}",
        )
    METHODS["copy_"](target, src)
    return copied
