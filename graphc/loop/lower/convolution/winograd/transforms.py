"""Minimal filtering: the matrices of F(m, r), exactly, and their products with vectors as straight-line code.

F(m, r) computes m outputs of a filter with r taps from n = m + r - 1 inputs with n multiplications::

    y = A^T [(G g) * (B^T d)]          y[i] = sum over t of g[t] d[i + t]

It is the transposed Toom-Cook multiplication of polynomials of degrees m - 1 and r - 1: values at n - 1
points and at infinity (Winograd 1980; Lavin & Gray 2015, arXiv:1509.09308). Nested, F(m, r) x F(m, r) filters
images. The transposed forms hold with the same matrices; the filter's gradient is
dg = G^T [(A dy) * (B^T d)].

The points decide the rounding error (Barabasz et al. 2018, arXiv:1803.10986). They come in pairs +p, -p,
whose rows share their even and odd parts, and have few bits, so that A and B are exact in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from graphc.ir.types import DType
from graphc.loop import index as ix
from graphc.loop.ir import Buffer, Const, Expr, binary, load
from graphc.loop.lower.writer import Writer

Row = tuple[Fraction, ...]
Matrix = tuple[Row, ...]

# Finite points for n inputs. Largest errors in float32, relative to the sum of |g| |d| (direct: 6e-8), on 64
# channels of normal data: F(2x2, 3x3) 9e-8; F(4x4, 3x3) 5e-7, and 1.5e-6 on the usual points 0, +-1, +-2.
POINTS: dict[int, Row] = {
    1: (),
    4: (Fraction(0), Fraction(1), Fraction(-1)),
    6: (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)),
}


@dataclass(frozen=True)
class Filtering:
    """F(outputs, taps).

    at  A^T, outputs x inputs
    g   G, inputs x taps
    bt  B^T, inputs x inputs
    """

    outputs: int
    taps: int
    at: Matrix
    g: Matrix
    bt: Matrix

    @property
    def inputs(self) -> int:
        """Elements that go in, and multiplications."""
        return self.outputs + self.taps - 1


@cache
def filtering(outputs: int, taps: int) -> Filtering:
    """F(outputs, taps) on the points of the table. KeyError if there are none for so many inputs."""
    return cook_toom(outputs, taps, POINTS[outputs + taps - 1])


def outputs_of(size: int, taps: tuple[int, int]) -> tuple[int, int]:
    """Outputs along two axes from `size` inputs; from one, where there is one tap."""
    down, across = taps
    return size - down + 1 if down > 1 else 1, size - across + 1 if across > 1 else 1


def cook_toom(outputs: int, taps: int, points: Sequence[Fraction]) -> Filtering:
    """F(outputs, taps) on outputs + taps - 2 distinct points and infinity.

    Row i of B^T has the coefficients of the product of (x - q) over all finite points q but the i-th, and G
    is divided by that product's value at the i-th point: what is left of interpolation after transposition.
    """
    inputs = outputs + taps - 1
    if len(set(points)) != inputs - 1:
        raise ValueError(f"F({outputs}, {taps}) needs {inputs - 1} distinct points, got {list(points)}")
    bt, g = [], []
    for i, p in enumerate(points):
        others = [q for j, q in enumerate(points) if j != i]
        product = _product(others)
        bt.append((*product, Fraction(0)))
        scale = sum(c * p**k for k, c in enumerate(product))
        g.append(tuple([p**k / scale for k in range(taps)]))
    bt.append(_product(points))
    g.append(_last(taps))
    at = zip(*([p**k for k in range(outputs)] for p in points), _last(outputs), strict=True)
    return Filtering(outputs, taps, tuple(at), tuple(g), tuple(bt))


def _product(roots: Sequence[Fraction]) -> Row:
    """Coefficients, lowest first, of the product of (x - root)."""
    result = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *result]
        result = [s - root * c for s, c in zip(shifted, [*result, Fraction(0)], strict=True)]
    return tuple(result)


def _last(size: int) -> Row:
    """The value at infinity: the highest coefficient."""
    return tuple([Fraction(int(k == size - 1)) for k in range(size)])


def transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


# ----------------------------------------------------------------- products as code

Terms = list[tuple[Fraction, Expr]]  # a sum of multiples


def apply(w: Writer, matrix: Sequence[Row], values: Sequence[Expr | None]) -> list[Expr | None]:
    """matrix @ values, written to `w`; None among values and results is zero.

    Sums and differences that rows or columns have in common are computed once.
    """
    columns = [(tuple([row[j] for row in matrix]), x) for j, x in enumerate(values) if x is not None]
    columns = _butterflies(w, columns)
    rows: list[Terms] = [[(c[i], x) for c, x in columns if c[i]] for i in range(len(matrix))]
    results: list[Expr | None] = [None] * len(rows)
    left = list(range(len(rows)))
    while left:
        i = left.pop(0)
        pairs = ((k, _halves(rows[i], rows[k])) for k in left)
        k, halves = next(((k, halves) for k, halves in pairs if halves is not None), (i, None))
        if halves is None:
            results[i] = _total(w, rows[i])
            continue
        left.remove(k)
        even = _total(w, halves[0])
        scale = halves[1][-1][0]
        odd = _total(w, [(c / scale, x) for c, x in halves[1]])
        assert even is not None
        assert odd is not None
        results[i] = w.let(_plus(even, scale, odd), "t")
        results[k] = w.let(_plus(even, -scale, odd), "t")
    return results


_Column = tuple[Row, Expr]


def _butterflies(w: Writer, columns: list[_Column]) -> list[_Column]:
    """The same product with pairs of columns that differ in signs alone replaced by their sum and difference,
    if that leaves fewer additions."""
    result: list[_Column] = []
    left = list(columns)
    while left:
        a, x = left.pop(0)
        match = next((k for k, (b, _) in enumerate(left) if _like(a, b)), None)
        if match is None:
            result.append((a, x))
            continue
        b, y = left.pop(match)
        same = tuple([c if c == d else Fraction(0) for c, d in zip(a, b, strict=True)])
        other = tuple([c if c != d else Fraction(0) for c, d in zip(a, b, strict=True)])
        if any(same):
            result.append((same, w.let(_plus(x, Fraction(1), y), "s")))
        if any(other):
            result.append((other, w.let(_plus(x, Fraction(-1), y), "s")))
    return result


def _like(a: Row, b: Row) -> bool:
    """Whether two columns are equal but for signs, and their sum and difference save additions."""
    if any(abs(c) != abs(d) for c, d in zip(a, b, strict=True)):
        return False
    same = sum(c == d != 0 for c, d in zip(a, b, strict=True))
    other = sum(c != d for c, d in zip(a, b, strict=True))
    return same + other > (same > 0) + (other > 0)


def _halves(a: Terms, b: Terms) -> tuple[Terms, Terms] | None:
    """(even, odd) with a = even + odd and b = even - odd, if they share all terms but for signs."""
    sizes = [[(abs(c), x) for c, x in terms] for terms in (a, b)]
    if sizes[0] != sizes[1]:
        return None
    even = [term for term, (d, _) in zip(a, b, strict=True) if term[0] == d]
    odd = [term for term, (d, _) in zip(a, b, strict=True) if term[0] != d]
    return (even, odd) if even and odd else None


def _total(w: Writer, terms: Terms) -> Expr | None:
    """A sum of multiples: it starts from one that needs no multiplication, if there is one."""
    if not terms:
        return None
    first, *rest = sorted(terms, key=lambda term: term[0] != 1)
    scale, x = first
    total = x if scale == 1 else binary("mul", _constant(scale, x.dtype), x)
    for scale, x in rest:
        total = _plus(total, scale, x)
    return w.let(total, "t")


def _plus(total: Expr, scale: Fraction, x: Expr) -> Expr:
    """total + scale * x."""
    if abs(scale) == 1:
        return binary("add" if scale > 0 else "sub", total, x)
    return binary("add", total, binary("mul", _constant(scale, x.dtype), x))


def _constant(value: Fraction, dtype: DType) -> Const:
    return Const(dtype, float(value))


def nested(
    w: Writer,
    matrices: tuple[Matrix, Matrix],
    half: Buffer,
    lanes: Callable[[], AbstractContextManager[Expr]],
    element: Callable[[int, Expr, Expr], Expr],
    put: Callable[[Expr, int, Expr, Expr], None],
) -> None:
    """put(i, j, lane, (left @ x @ right^T)[i, j]) for vectors of `lanes()`; `matrices` are left and right,
    element(i, j, lane) is x's.

    Loops over columns, then over rows, with `half` [rows, columns, lanes] between them: a sixth of the code
    that all elements in a line would be, at the same speed, for it does not spill.
    """
    left, right = matrices
    high, wide = len(left[0]), len(right[0])
    with w.loop("j", wide) as column, lanes() as v:
        values = apply(w, left, [w.let(element(i, column, v), "x") for i in range(high)])
        for i, value in enumerate(values):
            assert value is not None
            w.store(half, (ix.const(i), column, v), value)
    with w.loop("i", len(left)) as row, lanes() as v:
        values = apply(w, right, [w.let(load(half, (row, ix.const(j), v)), "x") for j in range(wide)])
        for j, value in enumerate(values):
            assert value is not None
            put(row, j, v, value)
