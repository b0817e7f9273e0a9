"""Gathering by index tensors and by masks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.checks import need_known
from graphc.frontend.functions.indexing import checked
from graphc.frontend.functions.methods import METHODS, method
from graphc.frontend.functions.shape import ravel, reshape_node
from graphc.frontend.nodes import broadcast_shapes, cast, expand, normal_axis
from graphc.frontend.tensor import Tensor, apply, from_array
from graphc.ir.node import Node
from graphc.ir.types import Shape, bool_, int32, int64, uint8

F = TypeVar("F", bound=Callable[..., Any])


def with_dim(f: F) -> F:
    """Let an operation along a dim take 0-d tensors: as vectors of one element."""

    @functools.wraps(f)
    def wrapped(input: Tensor, dim: int, index: Tensor, *rest: Any, **options: Any) -> Tensor:
        if input.ndim:
            return f(input, dim, index, *rest, **options)
        normal_axis(dim, 0)
        lifted = [METHODS["atleast_1d"](v) if isinstance(v, Tensor) and v.ndim == 0 else v for v in rest]
        return f(ravel(input), 0, METHODS["atleast_1d"](index), *lifted, **options)[0]

    return wrapped  # type: ignore[return-value]


def need_index(name: str, index: Tensor) -> None:
    """RuntimeError unless an index is of int64 or int32."""
    if index.dtype not in (int64, int32):
        raise fail(RuntimeError, f"{name}(): Expected dtype int32 or int64 for index, got {index.dtype.name}")


def fits_along(name: str, index: Tensor, input: Tensor, axis: int) -> None:
    """RuntimeError unless `index` has the rank of `input` and is no larger than it in other dims."""
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


def corner(n: Node, shape: Shape, axis: int) -> Node:
    """The part of `n` that an index of `shape` can reach along `axis`."""
    stop = tuple(e if d == axis else s for d, (e, s) in enumerate(zip(n.shape, shape, strict=True)))
    return n if stop == n.shape else ops.slice_(n, (0,) * len(stop), stop, (1,) * len(stop))


@method()
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """out[i][j][k] = input[i][index[i][j][k]][k] (for dim 1)."""
    if index.dtype is uint8:
        index = index.to(int64)
    need_index("gather", index)
    if input.ndim == 0:
        return apply("GatherBackward0", lambda n, i: reshape_node(n, i.shape), input, index)
    axis = normal_axis(dim, input.ndim)
    if index._cell.node.type.size == 0:
        return apply("GatherBackward0", lambda n, i: ops.full(i.shape, 0, n.dtype), input, index)
    fits_along("gather", index, input, axis)
    index = checked(index, input.shape[axis], axis, wrap=False)
    return apply(
        "GatherBackward0", lambda n, i: ops.take_along(corner(n, i.shape, axis), i, axis), input, index
    )


@method()
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Like `gather`, with the other dims broadcast."""
    need_index("take_along_dim", indices)
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
@with_dim
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Slices along `dim`, in the order of `index`."""
    need_index("index_select", index)
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


def same_dtype(name: str, input: Tensor, src: Tensor) -> None:
    """RuntimeError unless the dtypes are equal."""
    if input.dtype is not src.dtype:
        raise fail(
            RuntimeError, f"{name}(): Expected self.dtype to be equal to src.dtype: {describe(input, src)}"
        )


# -------------------------------------------------------------------------- masks


@method()
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where `mask` holds, as a vector (not inside traces: the size depends on values)."""
    shape = np.broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    return input.expand(shape)[mask.expand(shape)]


@method()
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`input` with elements where `mask` holds taken from `source`, in order."""
    same_dtype("masked_scatter", input, source)
    if mask.dtype is not bool_:
        raise fail(
            RuntimeError,
            f"masked_scatter_ only supports boolean masks, but got mask with dtype {mask.dtype.name}",
        )
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
    need_known("nonzero()", "the number of non-zero elements", input, "use graphc.where(condition, a, b)")
    found = np.nonzero(np.atleast_1d(value(input)))
    if as_tuple:
        return tuple(from_array(p) for p in found)
    stacked = np.stack(found, 1) if input.ndim else np.zeros((len(found[0]), 0), np.int64)
    return from_array(stacked)


@method()
def argwhere(input: Tensor) -> Tensor:
    """Positions of non-zero elements, one per row."""
    return nonzero(input)
