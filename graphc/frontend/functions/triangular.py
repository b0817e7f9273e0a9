"""Cholesky factors and triangular systems: loops over rows, as `scan`s, with gradients of any order."""

from __future__ import annotations

from typing import Any

from graphc import ops
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.checks import need_tensors
from graphc.frontend.functions.creation import arange, eye
from graphc.frontend.functions.elementwise import where
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.scan import scan
from graphc.frontend.nodes import broadcast_shapes, number
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node


def need_square(name: str, input: Any) -> None:
    """TypeError, or RuntimeError with PyTorch's text, unless this is a batch of square matrices of floats."""
    need_tensors(name, input)
    if not input.dtype.is_float:
        raise fail(RuntimeError, f"{name}: Expected a floating point tensor as input. Got {input.dtype}")
    if input.ndim < 2 or input.shape[-1] != input.shape[-2]:
        raise fail(
            RuntimeError,
            f"{name}: A must be batches of square matrices, but they are "
            f"{'x'.join(map(str, input.shape[-2:]))} matrices ({describe(input)})",
        )


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """The lower triangular L with L L^T = input, for symmetric positive definite matrices [..., n, n].

    With `upper` its transpose. Only the lower triangle is read. A matrix that is not positive definite gives
    NaN from the first bad row on (PyTorch raises an error; values are not known here before they are read).
    """
    need_square("linalg.cholesky", input)
    n = input.shape[-1]
    if n == 0:
        return input.clone()
    lower = apply("", _symmetric_gradient, input).tril()
    whole = lower + lower.tril(-1).transpose(-1, -2)
    rows = arange(n)

    def column(rest: Tensor, x: Any) -> tuple[Tensor, Tensor]:
        unit, below = x
        part = (rest * unit).sum(-1)
        pivot = (part * unit).sum(-1, keepdim=True).sqrt()
        found = where(below, part / pivot, 0.0)
        return rest - found.unsqueeze(-1) * found.unsqueeze(-2), found

    below = rows.unsqueeze(0) >= rows.unsqueeze(1)
    _, columns = scan(column, whole, (eye(n, dtype=input.dtype), below))
    found = columns.movedim(0, -1)
    return found.transpose(-1, -2) if upper else found


method("cholesky")(cholesky)


def _symmetric_gradient(a: Node) -> Node:
    """`a` with a gradient that is the same in both triangles, as a change of a symmetric matrix is."""
    rank = a.type.rank
    turned = ops.transpose(a, (*range(rank - 2), rank - 1, rank - 2))
    return ops.with_gradient(a, ops.mul(ops.add(a, turned), number(0.5, a.dtype, a.shape)))


def solve_triangular(
    input: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """X with input X = B (left=False: X input = B), for triangular matrices [..., n, n] and B [..., n, k].

    upper          whether `input` is upper triangular; the other triangle is not read
    unitriangular  take the diagonal as ones
    """
    need_square("linalg.solve_triangular", input)
    if not left:
        turned = solve_triangular(
            input.transpose(-1, -2), B.transpose(-1, -2), upper=not upper, unitriangular=unitriangular
        )
        return turned.transpose(-1, -2)
    n, k = input.shape[-1], B.shape[-1] if B.ndim else 0
    if B.ndim < 2 or B.shape[-2] != n:
        raise fail(
            RuntimeError,
            f"linalg.solve_triangular: Incompatible shapes of A and B for the equation AX = B "
            f"({'x'.join(map(str, input.shape[-2:]))} and {'x'.join(map(str, B.shape[-2:]))})",
        )
    if B.dtype is not input.dtype:
        raise fail(RuntimeError, f"linalg.solve_triangular: dtypes differ: {describe(input, B)}")
    batch = broadcast_shapes(tuple(input.shape[:-2]), tuple(B.shape[:-2]))
    matrix, right = input.expand((*batch, n, n)), B.expand((*batch, n, k))
    if n == 0:
        return right + 0 * matrix.sum()

    def row(known: Tensor, x: Any) -> tuple[Tensor, Tensor]:
        factors, wanted, unit = x
        rest = wanted - (factors * (1 - unit)).unsqueeze(-2).matmul(known).squeeze(-2)
        found = rest if unitriangular else rest / (factors * unit).sum(-1, keepdim=True)
        return known + unit.unsqueeze(-1) * found.unsqueeze(-2), found

    stacks = (matrix.movedim(-2, 0), right.movedim(-2, 0), eye(n, dtype=input.dtype))
    _, rows = scan(row, right.new_zeros((*batch, n, k)), stacks, reverse=upper)
    return rows.movedim(0, -2)


@method()
def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X with A X = input, for the matrix A of which `L` [..., n, n] is the lower Cholesky factor (the upper
    one with `upper`)."""
    lower = L.transpose(-1, -2) if upper else L
    half = solve_triangular(lower, input, upper=False)
    return solve_triangular(lower.transpose(-1, -2), half, upper=True)


@method()
def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of the matrix of which `L` [..., n, n] is the lower Cholesky factor (`upper`: the upper
    one)."""
    need_square("cholesky_inverse", L)
    half = solve_triangular(L.transpose(-1, -2) if upper else L, eye(L.shape[-1], dtype=L.dtype), upper=False)
    return half.transpose(-1, -2).matmul(half)
