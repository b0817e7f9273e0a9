"""Helpers on nodes that the front end's operations share: casts, broadcasting, axes."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

from graphc import ops
from graphc.frontend.errors import fail
from graphc.ir.node import Node
from graphc.ir.types import DType, Shape


def cast(node: Node, dtype: DType) -> Node:
    """`node` as `dtype`; itself if it has it."""
    return node if node.type.dtype is dtype else ops.cast(node, dtype)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape under NumPy's rules; RuntimeError with PyTorch's text if there is none."""
    rank = max(map(len, shapes))
    out = [1] * rank
    for shape in shapes:
        offset = rank - len(shape)
        for i in range(len(shape) - 1, -1, -1):
            extent = shape[i]
            if extent != 1 and out[offset + i] != extent:
                if out[offset + i] != 1:
                    raise fail(
                        RuntimeError,
                        f"The size of tensor a ({out[offset + i]}) must match the size of tensor b "
                        f"({extent}) at "
                        f"non-singleton dimension {offset + i} (shapes "
                        f"{', '.join(str(list(s)) for s in shapes)})",
                    )
                out[offset + i] = extent
    return tuple(out)


def expand(node: Node, shape: Shape) -> Node:
    """Broadcast `node` to `shape` (NumPy's rules; the caller has checked that it fits)."""
    own = node.type.shape
    if own == shape:
        return node
    offset = len(shape) - len(own)
    kept = tuple([i for i, extent in enumerate(own) if extent == shape[offset + i]])
    if len(kept) != len(own):
        node = ops.reshape(node, tuple([own[i] for i in kept]))
    return ops.broadcast(node, shape, tuple([offset + i for i in kept]))


def number(value: int | float | bool, dtype: DType, shape: Shape) -> Node:
    """A Python number as a node of `dtype`, repeated over `shape`."""
    return ops.full(shape, value, dtype)


def normal_axis(axis: int, rank: int) -> int:
    """`axis` as 0..rank-1; IndexError with PyTorch's text outside -rank..rank-1."""
    bound = max(rank, 1)
    if not isinstance(axis, int):
        try:
            axis = operator.index(axis)
        except TypeError:
            raise fail(TypeError, f"a dim must be an int, not {type(axis).__name__} {axis!r}") from None
    if not -bound <= axis < bound:
        raise fail(
            IndexError,
            f"Dimension out of range (expected to be in range of [{-bound}, {bound - 1}], but got {axis})",
        )
    return axis + bound if axis < 0 else axis


def normal_axes(axes: int | Iterable[int] | None, rank: int, none_is_all: bool = True) -> tuple[int, ...]:
    """Axes as a sorted tuple of distinct non-negative ints; None (and (), unless told otherwise) is all."""
    if isinstance(axes, int) or not (axes is None or isinstance(axes, Iterable)):
        axes = (axes,)
    elif axes is None or (none_is_all and not tuple(axes)):
        return tuple(range(rank))
    found = [normal_axis(a, rank) for a in axes]
    if len(set(found)) != len(found):
        twice = next(a for a in found if found.count(a) > 1)
        raise fail(RuntimeError, f"dim {twice} appears multiple times in the list of dims")
    return tuple(sorted(found)) if rank else ()


def without(shape: Sequence[int], axes: Sequence[int], keepdim: bool = False) -> Shape:
    """`shape` after a reduction over `axes`."""
    if keepdim:
        return tuple(1 if i in axes else extent for i, extent in enumerate(shape))
    return tuple(extent for i, extent in enumerate(shape) if i not in axes)


def spread(node: Node, shape: Shape, axes: int | Sequence[int]) -> Node:
    """Broadcast a reduction's result back over the reduced `axes` of `shape`."""
    if isinstance(axes, int):
        axes = (axes,)
    return ops.broadcast(node, shape, tuple([i for i in range(len(shape)) if i not in axes]))


def shape_args(args: Sequence) -> Shape:
    """Shapes given as `f(2, 3)` or as `f((2, 3))`."""
    if len(args) == 1 and not isinstance(args[0], int) and hasattr(args[0], "__iter__"):
        args = tuple(args[0])
    try:
        return tuple([extent if type(extent) is int else extent.__index__() for extent in args])
    except AttributeError:
        raise fail(TypeError, f"a shape must be a sequence of ints, got {tuple(args)!r}") from None
