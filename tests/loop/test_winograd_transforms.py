"""The matrices of minimal filtering, exactly, and the code that multiplies by them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from graphc.ir.types import float64, int64
from graphc.loop.interpret import run
from graphc.loop.ir import Binary, Buffer, Kernel, Let, Var, identity_of, index_const, load
from graphc.loop.lower.convolution.winograd.transforms import Matrix, apply, cook_toom, filtering, transposed
from graphc.loop.lower.writer import Writer

SIZES = ((2, 3), (4, 3), (3, 2), (5, 2), (3, 4), (2, 5), (1, 1))


def times(matrix: Matrix, vector: list[Fraction]) -> list[Fraction]:
    return [sum((c * x for c, x in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


@pytest.mark.parametrize(("outputs", "taps"), SIZES)
def test_filters_exactly(outputs: int, taps: int) -> None:
    f = filtering(outputs, taps)
    rng = np.random.default_rng(3)
    g = [Fraction(int(v)) for v in rng.integers(-9, 9, taps)]
    d = [Fraction(int(v)) for v in rng.integers(-9, 9, f.inputs)]
    products = [a * b for a, b in zip(times(f.g, g), times(f.bt, d), strict=True)]
    assert times(f.at, products) == [sum(g[t] * d[i + t] for t in range(taps)) for i in range(outputs)]


@pytest.mark.parametrize(("outputs", "taps"), SIZES)
def test_gradient_of_the_filter_exactly(outputs: int, taps: int) -> None:
    f = filtering(outputs, taps)
    rng = np.random.default_rng(4)
    dy = [Fraction(int(v)) for v in rng.integers(-9, 9, outputs)]
    d = [Fraction(int(v)) for v in rng.integers(-9, 9, f.inputs)]
    products = [a * b for a, b in zip(times(transposed(f.at), dy), times(f.bt, d), strict=True)]
    expected = [sum(dy[i] * d[i + t] for i in range(outputs)) for t in range(taps)]
    assert times(transposed(f.g), products) == expected


def test_transforms_of_data_and_results_are_exact_in_single_precision() -> None:
    for m in (2, 4):
        f = filtering(m, 3)
        for row in (*f.at, *f.bt):
            assert all(Fraction(float(np.float32(float(c)))) == c for c in row)


def test_refuses_points_that_are_too_few_or_equal() -> None:
    with pytest.raises(ValueError, match="distinct points"):
        cook_toom(4, 3, [Fraction(0), Fraction(1), Fraction(-1)])
    with pytest.raises(ValueError, match="distinct points"):
        cook_toom(2, 3, [Fraction(0), Fraction(1), Fraction(1)])


def compiled(matrix: Matrix, present: list[bool]) -> tuple[Kernel, list[bool], int]:
    """A kernel y = matrix @ x without the absent x; which y are not zero; operations in it."""
    w = Writer()
    source, target = Buffer("x", float64, (len(present),)), Buffer("y", float64, (len(matrix),))
    at = [index_const(i) for i in range(max(len(present), len(matrix)))]
    values = [w.let(load(source, (at[i],))) if there else None for i, there in enumerate(present)]
    results = apply(w, matrix, values)
    for i, value in enumerate(results):
        w.store(target, (at[i],), identity_of("add", float64) if value is None else value)
    block = w.done()
    count = sum(_operations(s.value) for s in block if isinstance(s, Let))
    kernel = Kernel("apply", (source, target), Var(int64, "t", 1), 1, block)
    return kernel, [value is not None for value in results], count


def _operations(value) -> int:
    """Multiply-adds count once."""
    if not isinstance(value, Binary):
        return 0
    fused = value.op == "add" and isinstance(value.b, Binary) and value.b.op == "mul"
    return (0 if fused else 1) + _operations(value.a) + _operations(value.b)


def matrices(m: int) -> dict[str, Matrix]:
    f = filtering(m, 3)
    return {"at": f.at, "g": f.g, "bt": f.bt, "a": transposed(f.at), "gt": transposed(f.g)}


@pytest.mark.parametrize("name", ["at", "g", "bt", "a", "gt"])
@pytest.mark.parametrize("m", [2, 4])
def test_code_multiplies(m: int, name: str) -> None:
    matrix = matrices(m)[name]
    width = len(matrix[0])
    rng = np.random.default_rng(5)
    dense = np.array([[float(c) for c in row] for row in matrix])
    for absent in (None, 0, width - 1, 1):
        present = [i != absent for i in range(width)]
        kernel, some, _ = compiled(matrix, present)
        x = rng.standard_normal(width)
        y = np.full(len(matrix), 7.0)
        assert run(kernel, [x, y]) == 0
        np.testing.assert_allclose(y, dense @ np.where(present, x, 0), rtol=1e-13, atol=1e-13)
        assert some == [any(c != 0 for c, p in zip(row, present, strict=True) if p) for row in matrix]


def test_rows_of_opposite_points_share_their_halves() -> None:
    counts = {name: compiled(m, [True] * len(m[0]))[2] for name, m in matrices(4).items()}
    assert counts["bt"] <= 12
    assert counts["at"] <= 12
    assert counts["g"] <= 10
    assert compiled(matrices(2)["bt"], [True] * 4)[2] == 4


def test_a_part_of_the_rows() -> None:
    f = filtering(4, 3)
    kernel, _, count = compiled(f.bt[1:3], [True] * 6)
    x, y = np.arange(6.0), np.zeros(2)
    assert run(kernel, [x, y]) == 0
    np.testing.assert_allclose(
        y, [sum(float(c) * v for c, v in zip(row, x, strict=True)) for row in f.bt[1:3]]
    )
    assert count == 4
