"""Loads and stores of every kind of index, compiled, against the interpreter."""

from __future__ import annotations

import re

import pytest
from build import add, array, idx, kernel, lt, mul, rng, serial, sub, var, vector
from jit import NATIVE, check

from graphc.backends.llvm.emit import emit_kernel
from graphc.backends.llvm.target import get_target
from graphc.ir.types import DType, bool_, float32, float64, int64
from graphc.loop.ir import (
    ZERO,
    Alloc,
    Buffer,
    Const,
    For,
    Let,
    Local,
    Store,
    binary,
    cast,
    load,
)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("dtype", [float32, float64, int64, bool_], ids=str)
@pytest.mark.parametrize("n", [3, 8, 45])
def test_strided_loads_and_stores(n: int, stride: int, dtype: DType) -> None:
    x, y = Buffer("x", dtype, (n, stride)), Buffer("y", dtype, (n, stride))
    t, i = var("t", stride), var("i", n)
    k = kernel([x, y], t, vector(i, 16, Store(y, (i, sub(idx(stride - 1), t)), load(x, (i, t)))))
    check(k, [array(dtype, n, stride), array(dtype, n, stride)])


def test_reversed_and_transposed() -> None:
    x, y = Buffer("x", float32, (21, 33)), Buffer("y", float32, (33, 21))
    t, i, j = var("t", 1), var("i", 33), var("j", 21)
    body = Store(y, (sub(idx(32), i), j), load(x, (j, i)))
    check(kernel([x, y], t, serial(j, vector(i, 8, body))), [array(float32, 21, 33), array(float32, 33, 21)])
    check(kernel([x, y], t, serial(i, vector(j, 8, body))), [array(float32, 21, 33), array(float32, 33, 21)])


@pytest.mark.parametrize("dtype", [float32, float64, int64], ids=str)
@pytest.mark.parametrize("rows,columns", [(16, 16), (45, 37), (7, 64), (70, 5), (32, 33)])
def test_transposing_blocks(rows: int, columns: int, dtype: DType) -> None:
    """y = f(x transposed), written with each loop outside, by loads across and by stores across."""
    x, y = Buffer("x", dtype, (rows, columns)), Buffer("y", dtype, (columns, rows))
    t, i, j, at = var("t", 1), var("i", rows), var("j", columns), Local(int64, "at")
    twice = binary("add", load(x, (i, j)), load(x, (i, j)))
    body = (Let(at, add(j, 0)), Store(y, (at, i), twice))
    arrays = [array(dtype, rows, columns), array(dtype, columns, rows)]
    lanes = 64 // dtype.itemsize
    for loop in (
        serial(j, vector(i, lanes, *body)),
        serial(j, vector(i, 64, Store(y, (j, i), twice))),
        vector(i, lanes, serial(j, *body)),
        serial(i, vector(j, lanes, *body)),
        vector(j, lanes, serial(i, *body)),
    ):
        check(kernel([x, y], t, loop), arrays)


def test_transposing_blocks_are_shuffles() -> None:
    """No lane-by-lane access is left in the panel copy of a transposed matrix."""
    lanes = NATIVE.machine.lanes(4)
    x, y = Buffer("x", float32, (lanes, 64)), Buffer("y", float32, (64, lanes))
    t, i, j = var("t", 1), var("i", lanes), var("j", 64)
    for loop in (
        vector(i, lanes, serial(j, Store(y, (j, i), load(x, (i, j))))),
        serial(j, vector(i, lanes, Store(y, (j, i), load(x, (i, j))))),
    ):
        assert "insertelement" not in emit_kernel(kernel([x, y], t, loop), NATIVE)


def test_division_of_the_vector_variable() -> None:
    """A gather whose addresses are not affine: a reshape across the vector loop."""
    x, y = Buffer("x", float32, (7, 9)), Buffer("y", float32, (63,))
    t, i = var("t", 1), var("i", 63)
    index = (binary("div", i, idx(9)), binary("rem", i, idx(9)))
    check(
        kernel([x, y], t, vector(i, 16, Store(y, (i,), load(x, index)))),
        [array(float32, 7, 9), array(float32, 63)],
    )
    check(
        kernel([y, x], t, vector(i, 16, Store(x, index, load(y, (i,))))),
        [array(float32, 63), array(float32, 7, 9)],
    )


def test_gather_and_scatter_by_loaded_index() -> None:
    n = 50
    x, at, y, z = (
        Buffer("x", float32, (9, 4)),
        Buffer("at", int64, (n,)),
        Buffer("y", float32, (n, 4)),
        Buffer("z", float32, (n, 4)),
    )
    t, i = var("t", 4), var("i", n)
    row = load(at, (i,))
    k = kernel([x, at, y], t, vector(i, 16, Store(y, (i, t), load(x, (row, t)))))
    check(k, [array(float32, 9, 4), rng.integers(0, 9, n), array(float32, n, 4)])
    k = kernel([y, at, z], t, vector(i, 16, Store(z, (row, t), load(y, (i, t)))))
    check(k, [array(float32, n, 4), rng.permutation(n), array(float32, n, 4)])


@pytest.mark.parametrize("dtype", [float32, int64, bool_], ids=str)
@pytest.mark.parametrize("stride", [0, 1, 2, 3, 4, 5])
def test_masked_loads(stride: int, dtype: DType) -> None:
    """A padded window: out-of-range lanes give `other` and touch nothing."""
    n, pad = 29, 5
    x, y = Buffer("x", dtype, (n * max(stride, 1),)), Buffer("y", dtype, (n + 2 * pad,))
    t, i = var("t", 1), var("i", n + 2 * pad)
    at = sub(i, pad)
    inside = binary("and", binary("ge", at, ZERO), lt(at, n))
    position = mul(at, stride) if stride else ZERO
    value = load(x, (position,), inside, Const(dtype, 1))
    check(
        kernel([x, y], t, vector(i, 16, Store(y, (i,), value))),
        [array(dtype, *x.shape), array(dtype, n + 2 * pad)],
    )
    check(
        kernel([x, y], t, serial(i, Store(y, (i,), value))),
        [array(dtype, *x.shape), array(dtype, n + 2 * pad)],
    )


def test_mask_that_is_the_same_in_all_lanes() -> None:
    x, y = Buffer("x", float32, (4, 21)), Buffer("y", float32, (8, 21))
    t, i = var("t", 8), var("i", 21)
    row = sub(t, 2)
    inside = binary("and", binary("ge", row, ZERO), lt(row, 4))
    for index in ((row, i), (row, ZERO)):
        value = load(x, index, inside, cast(i, float32))
        k = kernel([x, y], t, vector(i, 8, Store(y, (t, i), value)))
        check(k, [array(float32, 4, 21), array(float32, 8, 21)])


@pytest.mark.parametrize("n", [7, 16, 21, 40])
@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("dtype", [float32, float64, int64], ids=str)
def test_strided_loads_under_masks_stay_in_bounds(dtype: DType, stride: int, n: int) -> None:
    """Windows' rows above and below an image: a condition on the row for all lanes, one on each lane, and
    rows of a length that is not known before running."""
    x, y = Buffer("x", dtype, (4, n * stride)), Buffer("y", dtype, (6, n))
    t, i = var("t", 6), var("i", n)
    row, at = sub(t, 1), sub(mul(i, stride), 1)
    same = binary("and", binary("ge", row, ZERO), lt(row, 4))
    each = binary("ge", at, ZERO)
    for mask, index in (
        (same, (row, mul(i, stride))),
        (each, (ZERO, at)),
        (binary("and", same, each), (row, at)),
    ):
        value = load(x, index, mask, cast(i, dtype))
        arrays = [array(dtype, 4, n * stride), array(dtype, 6, n)]
        check(kernel([x, y], t, vector(i, 16, Store(y, (t, i), value))), arrays)
        some = For(i, sub(idx(n), t), (Store(y, (t, i), value),), "vector", 16)
        check(kernel([x, y], t, some), arrays)


def test_strided_loads_under_masks_are_no_gathers() -> None:
    x, y = Buffer("x", float32, (64,)), Buffer("y", float32, (32,))
    t, i = var("t", 1), var("i", 32)
    at = sub(mul(i, 2), 1)
    value = load(x, (at,), binary("ge", at, ZERO), Const(float32, 0.0))
    text = emit_kernel(kernel([x, y], t, vector(i, 16, Store(y, (i,), value))), get_target("x86-64-v4"))
    assert "masked.gather" not in text
    assert "masked.load" in text


def test_what_inner_loops_add_to_is_opaque() -> None:
    """A row's address is not taken apart again in the loop along the row; a local's is left alone."""
    x, y, kept = (
        Buffer("x", float32, (8, 4, 32)),
        Buffer("y", float32, (8, 4, 32)),
        Buffer("kept", float32, (4,), "local"),
    )
    t, i, j = var("t", 8), var("i", 4), var("j", 32)
    body = (
        Alloc(kept),
        serial(i, Store(kept, (i,), load(x, (t, i, idx(0))))),
        serial(i, vector(j, 16, Store(y, (t, i, j), binary("add", load(x, (t, i, j)), load(kept, (i,)))))),
    )
    made = kernel([x, y], t, *body)
    text = emit_kernel(made, NATIVE)
    slots = set(re.findall(r"(%\w+) = alloca", text))
    frozen = {
        line.split(" = ")[0].strip(): line.split()[-1] for line in text.splitlines() if "freeze ptr" in line
    }
    assert len(frozen) >= 2
    assert slots.isdisjoint(frozen.values())
    for base in frozen:
        assert f"getelementptr float, ptr {base}," in text  # something is added to it
    check(made, [array(float32, 8, 4, 32), array(float32, 8, 4, 32)])
