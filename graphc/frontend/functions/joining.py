"""Tensors joined into one: along a dim, as blocks, as all combinations of their elements."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.evaluation.known import COPIED, known_value
from graphc.frontend.evaluation.parts import FEW
from graphc.frontend.functions.elementwise import result_dtype
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.shape import reshape
from graphc.frontend.modes import MODE
from graphc.frontend.nodes import cast, normal_axis
from graphc.frontend.repeated import repeatable
from graphc.frontend.tensor import Tensor, apply, from_array, needs_grad
from graphc.ir.node import Node
from graphc.ir.types import bool_, int64


def _joined(tensors: Sequence[Tensor], name: str) -> tuple[Tensor, ...]:
    found = tuple(tensors)
    if not found:
        raise fail(
            ValueError if name == "cat" else RuntimeError, f"{name}(): expected a non-empty list of Tensors"
        )
    for i, t in enumerate(found):
        if not isinstance(t, Tensor):
            raise fail(TypeError, f"expected Tensor as element {i} in argument 0, but got {type(t).__name__}")
    return found


def _join_known(join: Callable[..., np.ndarray], tensors: Any, dim: Any) -> Tensor | None:
    """Tensors joined at once; None if they are not known, if a gradient flows through one, or if there are a
    few large ones, whose reader may read each in its place.

    Which tensors a batch is made of (drawn from a buffer of past steps, of which some are the same) would be
    part of its structure, and each batch another program; to copy them takes no time in comparison.
    """
    if MODE.trace is not None or MODE.recording or type(tensors) not in (list, tuple) or type(dim) is not int:
        return None
    arrays = []
    for tensor in tensors:
        array = known_value(tensor) if isinstance(tensor, Tensor) else None
        if array is None:
            return None
        arrays.append(array)
    few = len(arrays) <= FEW and sum([array.nbytes for array in arrays]) > COPIED
    if few or len({tensor._cell.node.type.dtype for tensor in tensors}) != 1 or needs_grad(*tensors):
        return None
    try:
        return from_array(join(arrays, axis=dim))
    except ValueError:  # shapes that do not fit: for who builds nodes to say
        return None


@method("cat", "concat", "concatenate", only_function=True)
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an existing dim."""
    known = _join_known(np.concatenate, tensors, dim)
    return _cat(tensors, dim) if known is None else known


@repeatable
def _cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    found = _joined(tensors, "cat")
    dtype = result_dtype(*found)
    found = tuple(t for t in found if t._cell.node.type.shape != (0,)) or found[:1]
    rank = found[0].ndim
    if rank == 0:
        raise fail(RuntimeError, "zero-dimensional tensor (at position 0) cannot be concatenated")
    axis = normal_axis(dim, rank)
    first = found[0]._cell.node.type.shape
    for i, t in enumerate(found):
        shape = t._cell.node.type.shape
        if len(shape) != rank:
            raise fail(
                RuntimeError, f"Tensors must have same number of dimensions: got {rank} and {len(shape)}"
            )
        for d in range(rank):
            if d != axis and shape[d] != first[d]:
                raise fail(
                    RuntimeError,
                    f"Sizes of tensors must match except in dimension {axis}. Expected size {first[d]} but "
                    f"got size "
                    f"{shape[d]} for tensor number {i} in the list.",
                )
    return apply("CatBackward0", lambda *ns: ops.concat([cast(n, dtype) for n in ns], axis), *found)


@method(only_function=True)
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dim."""
    known = _join_known(np.stack, tensors, dim)
    return _stack(tensors, dim) if known is None else known


@repeatable
def _stack(tensors: Sequence[Tensor], dim: int) -> Tensor:
    found = _joined(tensors, "stack")
    shape = found[0]._cell.node.type.shape
    for i, t in enumerate(found):
        if t._cell.node.type.shape != shape:
            raise fail(
                RuntimeError,
                f"stack expects each tensor to be equal size, but got {list(shape)} at entry 0 and "
                f"{list(t.shape)} "
                f"at entry {i}",
            )
    axis = normal_axis(dim, len(shape) + 1)
    dtype = result_dtype(*found)
    unit = (*shape[:axis], 1, *shape[axis:])
    return apply(
        "StackBackward0",
        lambda *ns: ops.concat([ops.reshape(cast(n, dtype), unit) for n in ns], axis),
        *found,
    )


@method("vstack", "row_stack", only_function=True)
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined as rows."""
    return cat([reshape(t, (1, -1)) if t.ndim < 2 else t for t in _joined(tensors, "vstack")], 0)


@method(only_function=True)
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined as columns."""
    found = [reshape(t, (1,)) if t.ndim == 0 else t for t in _joined(tensors, "hstack")]
    return cat(found, 0 if found[0].ndim == 1 else 1)


@method(only_function=True)
def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of at least three dims (a vector is 1 x n x 1) joined along the third."""
    return cat([atleast_3d(t) for t in _joined(tensors, "dstack")], 2)


@method(only_function=True)
def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined along the second dim; vectors are columns."""
    return cat([reshape(t, (-1, 1)) if t.ndim < 2 else t for t in _joined(tensors, "column_stack")], 1)


def _each(function: Any, tensors: tuple[Any, ...]) -> Any:
    """`function` of one tensor, or of each of several (or of a sequence)."""
    if len(tensors) == 1 and not isinstance(tensors[0], (list, tuple)):
        return function(tensors[0])
    found = tensors[0] if len(tensors) == 1 else tensors
    return tuple(function(t) for t in found)


@method()
def atleast_1d(*tensors: Any) -> Any:
    """With at least one dim (each of several, or of a sequence)."""
    return _each(lambda t: t if t.ndim else reshape(t, (1,)), tensors)


@method()
def atleast_2d(*tensors: Any) -> Any:
    """With at least two dims, new ones in front (each of several, or of a sequence)."""
    return _each(lambda t: t if t.ndim >= 2 else reshape(t, (1, t.numel())), tensors)


@method()
def atleast_3d(*tensors: Any) -> Any:
    """With at least three dims: a vector is 1 x n x 1, a matrix n x m x 1 (each of several)."""

    def lifted(t: Tensor) -> Tensor:
        shapes = {0: (1, 1, 1), 1: (1, *t.shape, 1), 2: (*t.shape, 1)}
        return reshape(t, shapes[t.ndim]) if t.ndim < 3 else t

    return _each(lifted, tensors)


@method(only_function=True)
def block_diag(*tensors: Tensor) -> Tensor:
    """Matrices along the diagonal of a larger one, zeros elsewhere (a vector is one row)."""
    found = tuple(atleast_2d(t) for t in _joined(tensors, "block_diag"))
    for i, t in enumerate(found):
        if t.ndim != 2:
            raise fail(
                RuntimeError, f"block_diag(): tensors must have 2 or fewer dimensions; input {i} has {t.ndim}"
            )
    dtype = result_dtype(*tensors)
    width = sum(t.shape[1] for t in found)

    def build(*blocks: Node) -> Node:
        rows, at = [], 0
        for n in blocks:
            low, high = (0, at), (0, width - at - n.shape[1])
            rows.append(ops.pad(cast(n, dtype), low, high, False if dtype is bool_ else 0))
            at += n.shape[1]
        return ops.concat(rows, 0)

    return apply("BlockDiagBackward0", build, *found)


def _vectors(name: str, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    found = _joined(tensors, name)
    for t in found:
        if t.ndim != 1:
            raise fail(RuntimeError, f"{name}: Expect a 1D vector, but got shape {list(t.shape)}")
    return found


@method(only_function=True)
def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All ways to take one element of each vector, one per row (of one vector: the vector)."""
    found = _vectors("cartesian_prod", tensors)
    if len(found) == 1:
        return found[0]
    picks = np.indices([t.shape[0] for t in found]).reshape(len(found), -1)
    return stack([_taken(t, p) for t, p in zip(found, picks, strict=True)], 1)


def _taken(vector: Tensor, places: np.ndarray) -> Tensor:
    index = ops.constant(places.astype(np.int64), int64)
    return apply("IndexBackward0", lambda n: ops.take(n, index, 0), vector)


@method()
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All combinations of r elements of a vector, one per row, in order."""
    (vector,) = _vectors("combinations", (input,))
    if r < 0:
        raise fail(RuntimeError, f"Expect a non-negative number, but got {r}")
    if r == 0:
        return reshape(vector, (-1,))[:0]
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    picks = np.array(list(choose(range(vector.shape[0]), r)), np.int64).reshape(-1, r)
    return reshape(_taken(vector, picks.reshape(-1)), picks.shape)
