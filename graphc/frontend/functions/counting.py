"""Running sums, differences, one-hot rows, counts and distinct values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontend.errors import fail
from graphc.frontend.evaluation.lazy import value
from graphc.frontend.functions.checks import need_known
from graphc.frontend.functions.indexing import checked
from graphc.frontend.functions.joining import cat
from graphc.frontend.functions.methods import METHODS, method
from graphc.frontend.nodes import cast, normal_axis
from graphc.frontend.tensor import Tensor, apply, from_array, is_concrete
from graphc.ir.node import Node
from graphc.ir.types import DType, bool_, int64


def _running(
    name: str, build: Callable[[Node, int], Node], input: Tensor, dim: int, dtype: DType | None
) -> Tensor:
    out = dtype or (input.dtype if input.dtype.is_float else int64)
    if input.ndim == 0:
        return apply(name, lambda n: cast(n, out), input)
    axis = normal_axis(dim, input.ndim)
    return apply(name, lambda n: build(cast(n, out), axis), input)


@method(inplace=True)
def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Running sums along `dim`."""
    return _running("CumsumBackward0", ops.cumsum, input, dim, dtype)


@method(inplace=True)
def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Running products along `dim`."""
    return _running("CumprodBackward0", ops.cumprod, input, dim, dtype)


@method()
def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours along `dim`, after joining `prepend` and `append`."""
    if input.ndim == 0:
        raise fail(RuntimeError, "diff expects input to be at least one-dimensional")
    axis = normal_axis(dim, input.ndim)
    if n < 0:
        raise fail(RuntimeError, f"order must be non-negative but got {n}")
    if n == 0:
        return METHODS["clone"](input)
    parts = [t for t in (prepend, input, append) if t is not None]
    if len(parts) > 1:
        input = cat(parts, axis)
    for _ in range(n):
        extent = input.shape[axis]
        length = max(0, extent - 1)
        after = METHODS["narrow"](input, axis, min(1, extent), length)
        before = METHODS["narrow"](input, axis, 0, length)
        input = after.logical_xor(before) if input.dtype is bool_ else after - before
    return input


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Each class index as a row of zeros with a one; without `num_classes`, the values are read."""
    if tensor.dtype is not int64:
        raise fail(RuntimeError, "one_hot is only applicable to index tensor of type LongTensor.")
    if num_classes == -1:
        array = value(tensor)
        if array.size == 0:
            raise fail(RuntimeError, "Can not infer total number of classes from empty tensor.")
        num_classes = int(array.max()) + 1
    classes = num_classes
    if is_concrete(tensor):
        array = value(tensor)
        if array.size and (array.min() < 0):
            raise fail(RuntimeError, "Class values must be non-negative.")
        if array.size and array.max() >= classes:
            raise fail(RuntimeError, "Class values must be smaller than num_classes.")
    index = checked(tensor, classes, 0, "class value", wrap=False)

    def build(n: Node) -> Node:
        shape = (*n.shape, classes)
        wide = ops.broadcast(n, shape, tuple(range(n.type.rank)))
        return cast(ops.eq(wide, ops.iota(shape, len(shape) - 1)), int64)

    return apply("", build, index)


@method()
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each value occurs; reads the values."""
    need_known("bincount()", "the number of counts", input, "use graphc.zeros(n).scatter_add(0, input, ones)")
    counts = np.bincount(value(input), None if weights is None else value(weights), minlength)
    if weights is not None and weights.dtype.is_float:
        counts = counts.astype(weights.dtype.numpy)
    return from_array(counts)


@method()
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct values, sorted; reads the values."""
    need_known("unique()", "the number of distinct elements", input, "call it outside")
    found = np.unique(value(input), return_inverse=True, return_counts=True, axis=dim)
    values, inverse, counts = (from_array(np.ascontiguousarray(a)) for a in found)
    parts = [values]
    if return_inverse:
        parts.append(inverse if dim is not None else inverse.reshape(input.shape))
    if return_counts:
        parts.append(counts)
    return parts[0] if len(parts) == 1 else tuple(parts)
