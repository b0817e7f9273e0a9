"""Linear algebra by the names of `torch.linalg`: norms, products, Cholesky, systems, inverses, determinants.

Eigenvalues, singular values and orthogonal factors are not built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.diagonal import diagonal as _diagonal
from graphc.frontend.functions.elementwise import mul
from graphc.frontend.functions.linalg import matmul
from graphc.frontend.functions.product import cross as _cross
from graphc.frontend.functions.reduce import Dims
from graphc.frontend.functions.reduce import norm as _norm
from graphc.frontend.functions.solving import det, inv, matrix_power, slogdet, solve
from graphc.frontend.functions.triangular import cholesky as _cholesky
from graphc.frontend.functions.triangular import solve_triangular
from graphc.frontend.nodes import normal_axis
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType

__all__ = [
    "cholesky", "cross", "det", "diagonal", "inv", "matmul", "matrix_norm", "matrix_power",
    "multi_dot", "norm", "slogdet", "solve", "solve_triangular", "vecdot", "vector_norm",
]  # fmt: skip


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The lower triangular L with L L^T = A (upper: its transpose), for positive definite A [..., n, n].

    A matrix that is not positive definite gives NaN.
    """
    return _cholesky(A, upper)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross product of vectors of three elements along `dim`."""
    return _cross(input, other, dim)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonals of matrices, the last two dims by default."""
    return _diagonal(A, offset, dim1, dim2)


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Inner products along `dim`, broadcast over the others."""
    return mul(x, y).sum(dim)


def vector_norm(
    x: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The vector norm of order `ord` over `dim` (over all elements by default)."""
    return _norm(x, float(ord), dim, keepdim, dtype)


def matrix_norm(
    A: Tensor,
    ord: float | str = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    """The matrix norm over two dims: "fro", or 1, -1, inf, -inf (largest or smallest sum of a column or row).

    RuntimeError for 2, -2 and "nuc", which need singular values.
    """
    if len(tuple(dim)) != 2 or A.ndim < 2:
        raise fail(
            RuntimeError,
            f"linalg.matrix_norm: dim must be a 2-tuple and A have two dims; got {dim}, {describe(A)}",
        )
    rows, columns = (normal_axis(d, A.ndim) for d in dim)
    if ord == "fro":
        return _norm(A, 2.0, (rows, columns), keepdim, dtype)
    if ord not in (1, -1, float("inf"), -float("inf")):
        raise fail(
            RuntimeError, f"linalg.matrix_norm: order {ord!r} needs singular values, which are not built"
        )
    summed, across = (rows, columns) if abs(float(ord)) == 1 else (columns, rows)
    sums = (A if dtype is None else A.to(dtype)).abs().sum(summed, keepdim=True)
    found = sums.amax(across, keepdim=True) if float(ord) > 0 else sums.amin(across, keepdim=True)
    return found if keepdim else found.squeeze((rows, columns))


def norm(
    A: Tensor,
    ord: float | str | None = None,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    """A vector norm, or a matrix norm where `ord` and `dim` say so, by the rules of `torch.linalg.norm`."""
    dims = None if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if ord is None and (dims is None or len(dims) <= 2):
        return vector_norm(A, 2, dims, keepdim, dtype=dtype)
    if dims is None and A.ndim not in (1, 2):
        raise fail(
            RuntimeError,
            f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A.ndim}D.",
        )
    if (A.ndim if dims is None else len(dims)) == 2:
        both = (-2, -1) if dims is None else dims
        return matrix_norm(A, "fro" if ord is None else ord, both, keepdim, dtype=dtype)
    if isinstance(ord, str):
        raise fail(RuntimeError, f"linalg.norm: order {ord!r} is one of matrices, got dim={dim}")
    return vector_norm(A, 2 if ord is None else ord, dims, keepdim, dtype=dtype)


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of two or more matrices (the first and the last may be vectors), in the cheapest order."""
    if len(tensors) < 2:
        raise fail(RuntimeError, f"multi_dot(): expected at least 2 tensors but got {len(tensors)}")
    first, last = tensors[0], tensors[-1]
    chain = [
        first.unsqueeze(0) if first.ndim == 1 else first,
        *tensors[1:-1],
        last.unsqueeze(1) if last.ndim == 1 else last,
    ]
    found = _cheapest(chain, 0, len(chain), {})[1]()
    gone = [d for d, t in ((0, first), (1, last)) if t.ndim == 1]
    return found.squeeze(tuple(gone)) if gone else found


def _cheapest(chain: Sequence[Tensor], start: int, stop: int, known: dict[tuple[int, int], Any]) -> Any:
    """(multiplications, how to compute) the product of chain[start:stop]."""
    if stop - start == 1:
        return 0, lambda: chain[start]
    if (start, stop) not in known:
        sizes = chain[start].shape[0], chain[stop - 1].shape[1]
        options = []
        for middle in range(start + 1, stop):
            left, right = _cheapest(chain, start, middle, known), _cheapest(chain, middle, stop, known)
            own = sizes[0] * chain[middle].shape[0] * sizes[1]
            options.append((left[0] + right[0] + own, left[1], right[1]))
        cost, one, two = min(options, key=lambda option: option[0])
        known[start, stop] = cost, lambda: matmul(one(), two())
    return known[start, stop]


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"module 'graphc.linalg' has no attribute {name!r}: norms, products, cholesky, solve, inv and det "
        "are built; eigenvalues, singular values and orthogonal factors are not"
    )
