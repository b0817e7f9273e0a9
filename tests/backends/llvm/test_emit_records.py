"""Vectors across records of a few elements: taken apart and put together in registers."""

from __future__ import annotations

import re

import pytest
from build import add, array, idx, kernel, mul, serial, var, vector
from jit import assembly, check

from graphc.backends.llvm.target import get_target
from graphc.ir.types import DType, float32, float64
from graphc.loop.ir import Buffer, Kernel, Let, Local, Stmt, Store, binary, load


def records(n: int, size: int, dtype: DType, elements: tuple[int, ...], lanes: int) -> Kernel:
    """out[t, i, k] = x[t, i, e] * x[t, i, e'] for all k: e runs through `elements`, e' backwards."""
    x, y = Buffer("x", dtype, (2, n, size)), Buffer("y", dtype, (2, n, len(elements)))
    t, i = var("t", 2), var("i", n)
    names = [Local(dtype, f"e{k}") for k in range(len(elements))]
    body: list[Stmt] = [Let(name, load(x, (t, i, idx(e)))) for name, e in zip(names, elements, strict=True)]
    for k, (a, b) in enumerate(zip(names, reversed(names), strict=True)):
        body.append(Store(y, (t, i, idx(k)), binary("mul", a, b)))
    return kernel([x, y], t, vector(i, lanes, *body))


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 10, 16])
@pytest.mark.parametrize("n", [3, 45])
def test_whole_records(n: int, size: int, dtype: DType) -> None:
    k = records(n, size, dtype, tuple(range(size)), 64 // dtype.itemsize)
    check(k, [array(dtype, 2, n, size), array(dtype, 2, n, size)])


@pytest.mark.parametrize("elements", [(0, 1, 2, 3, 4), (1, 3, 5, 6, 8), (8, 2, 4, 1), (1, 1, 2), (8, 7)])
@pytest.mark.parametrize("n", [5, 37])
def test_some_elements_of_records(n: int, elements: tuple[int, ...]) -> None:
    """Nothing behind the last record's last element may be touched: `check` guards only writes, but lanes of
    the last record must not mix with what lies there either."""
    k = records(n, 9, float32, elements, 16)
    check(k, [array(float32, 2, n, 9), array(float32, 2, n, len(elements))])


def test_stores_that_other_accesses_may_see_stay_in_order() -> None:
    """An element that is stored twice, and records that are read in the same loop."""
    n = 32
    x, y = Buffer("x", float32, (2 * n,)), Buffer("y", float32, (2 * n,))
    t, i, read = var("t", 1), var("i", n), Local(float32, "read")
    even, odd = (Store(y, (add(mul(i, 2), k),), load(x, (add(i, k),))) for k in (0, 1))
    twice = [even, odd, Store(y, even.index, load(x, (add(i, n - 1),)))]
    seen = [even, Let(read, load(y, even.index)), Store(y, odd.index, read)]
    for stores in (twice, seen):
        check(kernel([x, y], t, vector(i, 16, *stores)), [array(float32, 2 * n), array(float32, 2 * n)])


def test_records_inside_a_serial_loop() -> None:
    """Rows of records, as in the gradient of a pooling window."""
    x, y = Buffer("x", float32, (6, 20)), Buffer("y", float32, (6, 2, 20, 2))
    t, r, i = var("t", 1), var("r", 6), var("i", 20)
    value = load(x, (r, i))
    stores = [Store(y, (r, idx(a), i, idx(b)), binary("add", value, value)) for a in (0, 1) for b in (0, 1)]
    check(
        kernel([x, y], t, serial(r, vector(i, 16, *stores))),
        [array(float32, 6, 20), array(float32, 6, 2, 20, 2)],
    )


@pytest.mark.parametrize("size", [2, 3, 4, 10])
def test_no_lane_goes_on_its_own(size: int) -> None:
    """Vectors of whole lines and shuffles; no masked stores for short records."""
    target = get_target("x86-64-v4")
    text = assembly(records(64, size, float32, tuple(range(size)), 16), target)
    assert not re.search(r"vmovss|vinsertps|vextractps|gather|scatter", text), text
    if size <= 4:
        assert not re.search(r"\{%k\d\}", text), text


@pytest.mark.parametrize("size", [2, 3, 4, 7, 16])
@pytest.mark.parametrize("n", [12, 32])
def test_one_value_for_all_elements_of_a_record(n: int, size: int) -> None:
    """The gradient of an average: one operand stands on both sides of every shuffle."""
    x, y = Buffer("x", float32, (n,)), Buffer("y", float32, (n, size))
    t, i, mean = var("t", 1), var("i", n), Local(float32, "mean")
    stores = [Store(y, (i, idx(k)), mean) for k in range(size)]
    body = vector(i, 16, Let(mean, load(x, (i,))), *stores)
    check(kernel([x, y], t, body), [array(float32, n), array(float32, n, size)])
