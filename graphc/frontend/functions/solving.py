"""Linear systems, inverses and determinants: Gauss-Jordan elimination with pivoting, as one `scan`.

Nothing raises for a singular matrix: values are not known before they are read. Its determinant is 0, its
inverse is infinite or NaN (PyTorch raises an error there).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from graphc import ops
from graphc import return_types as kinds
from graphc.frontend.errors import describe, fail
from graphc.frontend.functions.creation import arange, eye
from graphc.frontend.functions.elementwise import where
from graphc.frontend.functions.joining import cat
from graphc.frontend.functions.methods import method
from graphc.frontend.functions.scan import scan
from graphc.frontend.functions.triangular import need_square
from graphc.frontend.nodes import broadcast_shapes
from graphc.frontend.tensor import Tensor, apply
from graphc.ir.node import Node


class _Reduced(NamedTuple):
    """Elimination's results: solutions [..., n, k], pivots [..., n], the rows chosen, one-hot [..., n, n]."""

    right: Tensor
    pivots: Tensor
    rows: Tensor


def _eliminate(matrix: Tensor, right: Tensor | None) -> _Reduced:
    """Turn [matrix | right] into [permuted identity | solutions], one column a step."""
    n = matrix.shape[-1]
    whole = matrix if right is None else cat([matrix, right], -1)
    width, lead = whole.shape[-1], tuple(matrix.shape[:-2])
    order = arange(n)

    def column(carry: Any, unit: Tensor) -> tuple[Any, Any]:
        rest, used = carry
        found = (rest * unit).sum(-1)
        size = where(used > 0, -1.0, found.detach().abs())
        size = where(size.isnan(), 0.0, size)
        chosen = (size.argmax(-1).unsqueeze(-1) == order).to(rest.dtype)
        row = (rest * chosen.unsqueeze(-1)).sum(-2)
        pivot = (found * chosen).sum(-1)
        factor = (found - chosen) / pivot.unsqueeze(-1)
        factor = where(chosen > 0, 1 - 1 / pivot.unsqueeze(-1), factor)
        return (rest - factor.unsqueeze(-1) * row.unsqueeze(-2), used + chosen), (pivot, chosen)

    units = eye(width, dtype=matrix.dtype)[:n]
    start = (whole, matrix.new_zeros((*lead, n)))
    (rest, _), (pivots, rows) = scan(column, start, units)
    rows = rows.movedim(0, -2)
    return _Reduced(rows.matmul(rest)[..., n:], pivots.movedim(0, -1), rows)


def _parity(rows: Tensor) -> Tensor:
    """1 for even permutations, -1 for odd ones, of one-hot rows [..., n, n]."""
    place = rows.detach().argmax(-1)
    order = arange(place.shape[-1])
    earlier = order.unsqueeze(1) < order
    swapped = (place.unsqueeze(-1) > place.unsqueeze(-2)).logical_and(earlier)
    return (1 - 2 * (swapped.sum((-2, -1)) % 2)).to(rows.dtype)


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A X = B (left=False: X A = B), for A [..., n, n] and B [..., n, k], or vectors [..., n]."""
    need_square("linalg.solve", A)
    n = A.shape[-1]
    vector = B.ndim == 1 or (B.ndim == A.ndim - 1 and tuple(B.shape) == tuple(A.shape[:-1]))
    if not left:
        if vector:
            return solve(A.transpose(-1, -2), B)
        return solve(A.transpose(-1, -2), B.transpose(-1, -2)).transpose(-1, -2)
    right = B.unsqueeze(-1) if vector else B
    if right.shape[-2] != n or A.dtype is not B.dtype:
        raise fail(
            RuntimeError,
            f"linalg.solve: Incompatible shapes of A and B for the equation AX = B ({describe(A, B)})",
        )
    batch = broadcast_shapes(tuple(A.shape[:-2]), tuple(right.shape[:-2]))
    right = right.expand((*batch, n, right.shape[-1]))
    found = right.clone() if n == 0 else _eliminate(A.expand((*batch, n, n)), right).right
    return found.squeeze(-1) if vector else found


@method("inverse")
def inv(A: Tensor) -> Tensor:
    """The inverses of square matrices [..., n, n]."""
    need_square("linalg.inv", A)
    n = A.shape[-1]
    if n == 0:
        return A.clone()
    return _eliminate(A, eye(n, dtype=A.dtype).expand(A.shape)).right


@method("det")
def det(A: Tensor) -> Tensor:
    """The determinants of square matrices [..., n, n]."""
    need_square("linalg.det", A)
    if A.shape[-1] == 0:
        return A.sum((-2, -1)) + 1
    found = _eliminate(A, None)
    known = found.pivots.detach().isnan().any(-1)  # a row of zeros has been divided: the matrix is singular
    pivots = where(known.unsqueeze(-1), 0.0, found.pivots)
    return pivots.prod(-1) * _parity(found.rows)


@method("slogdet")
def slogdet(A: Tensor) -> kinds.slogdet:
    """(sign, log(abs(determinant))) of square matrices [..., n, n]."""
    need_square("linalg.slogdet", A)
    if A.shape[-1] == 0:
        nothing = A.sum((-2, -1))
        return kinds.slogdet(nothing + 1, nothing)
    found = _eliminate(A, None)
    sign = found.pivots.sign().prod(-1) * _parity(found.rows)
    return kinds.slogdet(sign, found.pivots.abs().log().sum(-1))


@method("logdet")
def logdet(A: Tensor) -> Tensor:
    """The logarithms of the determinants: NaN where these are negative."""
    found = slogdet(A)
    return where(found.sign < 0, float("nan"), found.logabsdet)


def _identity(a: Node) -> Node:
    same = ops.eq(ops.iota(a.shape, a.type.rank - 2), ops.iota(a.shape, a.type.rank - 1))
    return ops.cast(same, a.dtype)


@method("matrix_power")
def matrix_power(input: Tensor, n: int) -> Tensor:
    """Products of `n` factors `input` [..., m, m], by repeated squaring; of its inverse for n < 0."""
    need_square("linalg.matrix_power", input)
    if n < 0:
        return matrix_power(inv(input), -n)
    found = apply("MatrixPowerBackward0", _identity, input)
    power, first = input, True
    while n:
        if n & 1:
            found, first = (power if first else found.matmul(power)), False
        n >>= 1
        power = power.matmul(power) if n else power
    return found
