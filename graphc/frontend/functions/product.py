"""Products that are not plain matrix products: inner, Kronecker, cross, and distances between rows."""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.elementwise import mul, result_dtype, sub
from graphc.frontend.functions.linalg import _same_dtype, dot
from graphc.frontend.functions.methods import METHODS, method
from graphc.frontend.functions.reduce import norm, norm_node
from graphc.frontend.functions.shape import reshape
from graphc.frontend.functions.slicing import roll_node
from graphc.frontend.nodes import broadcast_shapes, cast, expand, normal_axis
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node
from graphc.ir.types import int64


@method()
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last dim of each: [..., k] and [..., k]; a scalar multiplies."""
    if input.ndim == 0 or other.ndim == 0:
        return mul(input, other)
    _same_dtype("inner", input, other)
    if input.shape[-1] != other.shape[-1]:
        raise fail(
            RuntimeError,
            "inner() the last dimension must match on both input tensors but got shapes "
            f"{list(input.shape)} and {list(other.shape)}",
        )
    return apply(
        "SqueezeBackward0",
        lambda a, b: ops.dot_general(a, b, ((a.type.rank - 1,), (b.type.rank - 1,))),
        input,
        other,
    )


@method()
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The inner product of two vectors (`dot`: there are no complex numbers to conjugate)."""
    return dot(input, other)


@method()
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: each element of `input` times the whole of `other`."""
    rank = max(input.ndim, other.ndim)
    a = (1,) * (rank - input.ndim) + tuple(input.shape)
    b = (1,) * (rank - other.ndim) + tuple(other.shape)
    left = reshape(input, tuple(e for extent in a for e in (extent, 1)))
    right = reshape(other, tuple(e for extent in b for e in (1, extent)))
    return reshape(mul(left, right), tuple(x * y for x, y in zip(a, b, strict=True)))


@method()
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """Vector products along a dim of extent 3 (by default the first such dim)."""
    dtype = result_dtype(input, other)
    if input.ndim != other.ndim:
        raise fail(
            RuntimeError,
            f"linalg.cross: inputs must have the same number of dimensions. {describe(input, other)}",
        )
    shape = broadcast_shapes(tuple(input.shape), tuple(other.shape))
    if dim is None:
        found = next((i for i, e in enumerate(shape) if e == 3), None)
        if found is None:
            raise fail(RuntimeError, f"no dimension of size 3 in input: {describe(input, other)}")
        axis = found
    else:
        axis = normal_axis(dim, len(shape))
    if input.shape[axis] != 3 or other.shape[axis] != 3:
        raise fail(
            RuntimeError,
            f"linalg.cross: inputs dimension {dim} must have length 3. Got {input.shape[axis]} and "
            f"{other.shape[axis]}",
        )

    def build(a: Node, b: Node) -> Node:
        a, b = expand(cast(a, dtype), shape), expand(cast(b, dtype), shape)
        ahead = ops.mul(roll_node(a, -1, axis), roll_node(b, -2, axis))
        return ops.sub(ahead, ops.mul(roll_node(a, -2, axis), roll_node(b, -1, axis)))

    return apply("LinalgCrossBackward0", build, input, other)


@method()
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of input - other."""
    return norm(sub(input, other), p)


@method(only_function=True)
def cdist(
    x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary"
) -> Tensor:
    """The p-norm distance of every row of x1 [..., P, M] to every row of x2 [..., R, M], as [..., P, R]."""
    if x1.ndim < 2 or x2.ndim < 2:
        raise fail(
            RuntimeError, f"cdist only supports at least 2D tensors, got {describe(x1, x2)} (a row each)"
        )
    if x1.shape[-1] != x2.shape[-1]:
        raise fail(
            RuntimeError,
            f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}",
        )
    if p < 0:
        raise fail(RuntimeError, f"cdist only supports non-negative p values, got {p}")
    if not x1.dtype.is_float or x1.dtype is not x2.dtype:
        raise fail(RuntimeError, f"cdist only supports floating-point dtypes, got {describe(x1, x2)}")
    gap = sub(METHODS["unsqueeze"](x1, -2), METHODS["unsqueeze"](x2, -3))
    return apply("CdistBackward0", lambda n: norm_node(n, float(p), (n.type.rank - 1,)), gap)


@method(only_function=True)
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances of all pairs of rows of a matrix [N, M], as a vector of N (N - 1) / 2."""
    if input.ndim != 2:
        raise fail(RuntimeError, f"pdist only supports 2D tensors, got: {input.ndim}D ({describe(input)})")
    if not input.dtype.is_float:
        raise fail(RuntimeError, f"pdist only supports floating-point dtypes, got {describe(input)}")
    if p < 0:
        raise fail(RuntimeError, f"pdist only supports non-negative p values, got {p}")
    first, second = (ops.constant(i.astype(np.int64), int64) for i in np.triu_indices(input.shape[0], 1))

    def build(n: Node) -> Node:
        return norm_node(ops.sub(ops.take(n, first, 0), ops.take(n, second, 0)), float(p), (1,))

    return apply("PdistBackward0", build, input)
