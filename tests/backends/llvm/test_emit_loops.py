"""Loops, accumulators and the other statements, compiled, against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from build import add, array, idx, kernel, lt, mul, rng, serial, sub, var, vector
from jit import NATIVE, check

from graphc.backends.llvm.emit import emit_kernel
from graphc.backends.llvm.target import get_target
from graphc.ir.types import DType, bool_, float32, float64, int32, int64
from graphc.loop import ir
from graphc.loop.ir import (
    ONE,
    ZERO,
    Accumulate,
    Alloc,
    Buffer,
    Check,
    Const,
    Expr,
    Fetch,
    For,
    If,
    Let,
    Listed,
    Local,
    Note,
    Prefetch,
    Store,
    Tile,
    address,
    binary,
    cast,
    load,
    unary,
)
from graphc.loop.parser import parse_kernel
from graphc.loop.printer import print_kernel
from graphc.loop.verify import verify_kernel


@pytest.mark.parametrize("lanes", [1, 4, 16, 48])
@pytest.mark.parametrize(
    "combine,dtype",
    [
        ("add", float32),
        ("mul", float64),
        ("max", float32),
        ("min", int64),
        ("add", int32),
        ("or", bool_),
        ("and", bool_),
    ],
)
def test_reductions(combine: str, dtype: DType, lanes: int) -> None:
    n = 75
    x, y = Buffer("x", dtype, (3, n)), Buffer("y", dtype, (3,))
    t, i = var("t", 3), var("i", n)
    acc = Buffer("acc", dtype, (), "local")
    start = ir.identity_of(combine, dtype)
    k = kernel(
        [x, y], t, Alloc(acc), Store(acc, (), start),
        vector(i, lanes, Accumulate(acc, (), combine, load(x, (t, i)))),
        Store(y, (t,), load(acc, ())),
    )  # fmt: skip
    check(k, [array(dtype, 3, n), array(dtype, 3)], rtol=1e-5, atol=1e-5)


def test_max_reduction_finds_nan() -> None:
    n = 75
    x, y = Buffer("x", float32, (3, n)), Buffer("y", float32, (3,))
    t, i, acc = var("t", 3), var("i", n), Buffer("acc", float32, (), "local")
    k = kernel(
        [x, y], t, Alloc(acc), Store(acc, (), Const(float32, -np.inf)),
        vector(i, 16, Accumulate(acc, (), "max", load(x, (t, i)))),
        Store(y, (t,), load(acc, ())),
    )  # fmt: skip
    data = array(float32, 3, n)
    data[0, 3] = data[2, 74] = np.nan
    check(k, [data, array(float32, 3)])


@pytest.mark.parametrize("lanes", [4, 16, 48])
@pytest.mark.parametrize("combine,dtype", [("add", float32), ("max", float64), ("min", int64), ("or", bool_)])
def test_reductions_of_runs(combine: str, dtype: DType, lanes: int) -> None:
    """Serial loops around a vector loop: its lanes are folded after the outermost of them."""
    x, y = Buffer("x", dtype, (3, 4, 5, 21)), Buffer("y", dtype, (3,))
    t, g, h, i = var("t", 3), var("g", 4), var("h", 5), var("i", 21)
    acc = Buffer("acc", dtype, (), "local")
    runs = vector(i, lanes, Accumulate(acc, (), combine, load(x, (t, g, h, i))))
    k = kernel(
        [x, y], t, Alloc(acc), Store(acc, (), ir.identity_of(combine, dtype)), serial(g, serial(h, runs)),
        Store(y, (t,), load(acc, ())),
    )  # fmt: skip
    check(k, [array(dtype, 3, 4, 5, 21), array(dtype, 3)], rtol=1e-5, atol=1e-5)
    text = emit_kernel(k, get_target("x86-64-v4"))
    assert text[text.index("extractelement") :].count("br i1") == 1  # the tasks'


@pytest.mark.parametrize("other", ["read", "written", "single", "narrower"])
def test_reductions_of_runs_that_others_use(other: str) -> None:
    """Inside the serial loop the local is read, written, added to outside of vectors, or by other vectors."""
    x, y = Buffer("x", float32, (9, 37)), Buffer("y", float32, (9,))
    t, h, i, j = var("t", 1), var("h", 9), var("i", 37), var("j", 5)
    acc, zero = Buffer("acc", float32, (), "local"), Const(float32, 0.0)
    store = Store(y, (h,), load(acc, ()))
    before: dict[str, tuple[ir.Stmt, ...]] = {
        "read": (store,),
        "written": (Store(acc, (), load(x, (h, idx(1)))),),
        "single": (Accumulate(acc, (), "add", load(x, (h, idx(2)))),),
        "narrower": (vector(j, 4, Accumulate(acc, (), "add", load(x, (h, j)))),),
    }
    runs = vector(i, 32, Accumulate(acc, (), "add", load(x, (h, i))))
    k = kernel(
        [x, y], t, Alloc(acc), Store(acc, (), zero), serial(h, *before[other], runs),
        Store(y, (idx(3),), load(acc, ())),
    )  # fmt: skip
    check(k, [array(float32, 9, 37), array(float32, 9)], rtol=1e-5, atol=1e-5)


def test_softmax_of_rows() -> None:
    """Three sweeps that share the row loop, a scratch row and two accumulators."""
    n = 83
    x, y = Buffer("x", float32, (4, n)), Buffer("y", float32, (4, n))
    t, i, j, k = var("t", 4), var("i", n), var("j", n), var("k", n)
    top, total = Buffer("top", float32, (), "local"), Buffer("total", float32, (), "local")
    row = Buffer("row", float32, (n,), "scratch")
    e, scale = Local(float32, "e"), Local(float32, "scale")
    body = (
        Alloc(top), Alloc(total), Alloc(row),
        Store(top, (), Const(float32, -np.inf)), Store(total, (), Const(float32, 0.0)),
        vector(i, 32, Accumulate(top, (), "max", load(x, (t, i)))),
        vector(j, 32, Let(e, unary("exp", binary("sub", load(x, (t, j)), load(top, ())))),
               Store(row, (j,), e), Accumulate(total, (), "add", e)),
        Let(scale, binary("div", Const(float32, 1.0), load(total, ()))),
        vector(k, 32, Store(y, (t, k), binary("mul", load(row, (k,)), scale))),
    )  # fmt: skip
    check(kernel([x, y], t, *body), [array(float32, 4, n), array(float32, 4, n)], rtol=2e-6)


def test_outer_loop_vectorised() -> None:
    """Column sums: the serial loop is inside the vector loop, a local holds one number for each lane."""
    x, y = Buffer("x", float32, (13, 45)), Buffer("y", float32, (45,))
    t, i, j, acc = var("t", 1), var("i", 13), var("j", 45), Buffer("acc", float32, (), "local")
    loop = vector(
        j, 16, Alloc(acc), Store(acc, (), Const(float32, 0.0)),
        serial(i, Accumulate(acc, (), "add", load(x, (i, j)))),
        Store(y, (j,), load(acc, ())),
    )  # fmt: skip
    check(kernel([x, y], t, loop), [array(float32, 13, 45), array(float32, 45)], rtol=1e-5)


def test_accumulate_in_memory() -> None:
    x, y, z = Buffer("x", float32, (13, 45)), Buffer("y", float32, (45,)), Buffer("z", float32, (13,))
    t, i, j = var("t", 1), var("i", 13), var("j", 45)
    both = (Accumulate(y, (j,), "add", load(x, (i, j))), Accumulate(z, (i,), "add", load(x, (i, j))))
    k = kernel([x, y, z], t, serial(i, vector(j, 16, *both)))
    check(k, [array(float32, 13, 45), array(float32, 45), array(float32, 13)], rtol=1e-4, atol=1e-5)


def test_array_of_accumulators() -> None:
    """Four rows reduced at once in an unrolled loop inside the vector loop."""
    x, y = Buffer("x", float32, (4, 61)), Buffer("y", float32, (4,))
    t, i, r, s, q = var("t", 1), var("i", 61), var("r", 4), var("s", 4), var("q", 4)
    acc = Buffer("acc", float32, (4,), "local")
    k = kernel(
        [x, y], t, Alloc(acc), For(q, idx(4), (Store(acc, (q,), Const(float32, 1.0)),), "unroll"),
        vector(i, 16, For(r, idx(4), (Accumulate(acc, (r,), "add", load(x, (r, i))),), "unroll")),
        serial(s, Store(y, (s,), load(acc, (s,)))),
    )  # fmt: skip
    check(k, [array(float32, 4, 61), array(float32, 4)], rtol=1e-5, atol=1e-5)


def test_runtime_extents() -> None:
    """Blocks of 16 over 45 columns: the last block's extent is known only when running."""
    x, y, z = Buffer("x", float32, (45,)), Buffer("y", float32, (45,)), Buffer("z", float32, (4,))
    t, i, acc = var("t", 4), var("i", 16), Buffer("acc", float32, (), "local")
    extent = binary("max", ZERO, binary("min", idx(16), sub(idx(45), mul(t, 16))))
    at = add(mul(t, 16), i)
    body = (Store(y, (at,), load(x, (at,))), Accumulate(acc, (), "add", load(x, (at,))))
    k = kernel(
        [x, y, z], t, Alloc(acc), Store(acc, (), Const(float32, 0.5)), For(i, extent, body, "vector", 8),
        Store(z, (t,), load(acc, ())),
    )  # fmt: skip
    check(k, [array(float32, 45), array(float32, 45), array(float32, 4)], rtol=1e-5, atol=1e-6)
    text = emit_kernel(k, get_target("x86-64-v4"))
    assert text.count("phi i64") == 2, "loops over tasks and full groups; what is left is masked"


def test_helpers_beside_runtime_extents() -> None:
    """Functions with a slow path of their own (sin, rem, integer pow) in a kernel that clamps extents."""
    x, n, y = Buffer("x", float32, (40,)), Buffer("n", int64, (40,)), Buffer("y", float32, (40,))
    t, i = var("t", 3), var("i", 16)
    at = add(mul(t, 16), i)
    value = binary("rem", unary("sin", load(x, (at,))), unary("cos", load(x, (at,))))
    power = cast(binary("pow", load(n, (at,)), Const(int64, 3)), float32)
    loop = For(
        i,
        binary("min", idx(16), sub(idx(40), mul(t, 16))),
        (Store(y, (at,), binary("add", value, power)),),
        "vector",
        8,
    )
    data = array(float32, 40)
    data[::7] = 1e20
    check(
        kernel([x, n, y], t, loop), [data, rng.integers(-3, 4, 40), array(float32, 40)], rtol=1e-5, atol=1e-6
    )


def test_zero_extent_loops_do_nothing() -> None:
    x, y = Buffer("x", float32, (4,)), Buffer("y", float32, (4,))
    t, i = var("t", 4), var("i", 4)
    body = Store(y, (i,), load(x, (t,)))
    for extent in (ZERO, sub(t, t)):
        for mode, lanes in (("serial", 1), ("vector", 4), ("unroll", 1)):
            k = kernel([x, y], t, For(i, extent, (body,), mode, lanes))
            check(k, [array(float32, 4), array(float32, 4)])


def test_if_and_masks() -> None:
    """A condition on the task branches, one on the vector variable masks stores and accumulators."""
    n = 45
    x, y, z = Buffer("x", float32, (3, n)), Buffer("y", float32, (3, n)), Buffer("z", float32, (3,))
    t, i, acc = var("t", 3), var("i", n), Buffer("acc", float32, (), "local")
    positive = binary("gt", load(x, (t, i)), Const(float32, 0.0))
    inner = If(positive, (
        Store(y, (t, i), unary("sqrt", load(x, (t, i)))), Accumulate(acc, (), "add", load(x, (t, i))),
    ))  # fmt: skip
    k = kernel(
        [x, y, z], t, Alloc(acc), Store(acc, (), Const(float32, 0.0)),
        If(lt(t, 2), (vector(i, 16, inner),)), Store(z, (t,), load(acc, ())),
    )  # fmt: skip
    check(k, [array(float32, 3, n), array(float32, 3, n), array(float32, 3)], rtol=1e-5, atol=1e-6)


def test_masked_scatter() -> None:
    n = 45
    x, y = Buffer("x", float32, (n,)), Buffer("y", float32, (n, 3))
    t, i = var("t", 3), var("i", n)
    body = If(lt(binary("rem", i, idx(5)), 3), (Store(y, (i, t), load(x, (i,))),))
    check(kernel([x, y], t, vector(i, 16, body)), [array(float32, n), array(float32, n, 3)])


def test_local_of_each_lane_under_a_mask() -> None:
    n = 45
    x, y = Buffer("x", float32, (n,)), Buffer("y", float32, (n,))
    t, i, best = var("t", 1), var("i", n), Buffer("best", float32, (), "local")
    k = kernel([x, y], t, vector(
        i, 16, Alloc(best), Store(best, (), Const(float32, -1.0)),
        If(binary("gt", load(x, (i,)), Const(float32, 0.0)), (Store(best, (), load(x, (i,))),)),
        Store(y, (i,), load(best, ())),
    ))  # fmt: skip
    check(k, [array(float32, n), array(float32, n)])


@pytest.mark.parametrize("bad", [None, 3, 44])
def test_checks(bad: int | None) -> None:
    n = 45
    x = Buffer("x", int64, (n,))
    t, i = var("t", 1), var("i", n)
    data = rng.integers(0, 10, n)
    if bad is not None:
        data[bad] = 10
    for loop in (vector(i, 16, Check(lt(load(x, (i,)), 10), 3)), serial(i, Check(lt(load(x, (i,)), 10), 3))):
        check(kernel([x], t, loop), [data])


def test_lets_and_loop_carried_memory() -> None:
    """A Let keeps the value its expression had, although the memory changes afterwards."""
    x, y = Buffer("x", float32, (9,)), Buffer("y", float32, (9,))
    t, i, acc, old = var("t", 1), var("i", 9), Buffer("acc", float32, (), "local"), Local(float32, "old")
    k = kernel(
        [x, y], t, Alloc(acc), Store(acc, (), Const(float32, 0.0)),
        serial(i, Let(old, load(acc, ())), Accumulate(acc, (), "add", load(x, (i,))),
               Store(y, (i,), binary("sub", load(acc, ()), old))),
    )  # fmt: skip
    check(k, [array(float32, 9), array(float32, 9)], rtol=1e-5, atol=1e-6)


def test_index_lets_keep_accesses_wide() -> None:
    x, y = Buffer("x", float32, (40,)), Buffer("y", float32, (30,))
    t, i, at = var("t", 1), var("i", 30), Local(int64, "at")
    k = kernel([x, y], t, vector(i, 16, Let(at, add(i, 7)), Store(y, (i,), load(x, (at,)))))
    check(k, [array(float32, 40), array(float32, 30)])
    assert "insertelement <16 x float>" not in emit_kernel(k, NATIVE)


def test_tile() -> None:
    rows, vectors = NATIVE.machine.tiles[-1]
    lanes, depth = vectors * NATIVE.machine.lanes(4), 9
    a, b, c = (
        Buffer("a", float32, (depth, rows)),
        Buffer("b", float32, (depth, lanes)),
        Buffer("c", float32, (2, rows, lanes)),
    )
    t = var("t", 2)
    tile = Tile(
        rows, lanes, sub(idx(depth), t), address(a, (ZERO, ZERO)), ONE, idx(rows), address(b, (ZERO, ZERO)),
        idx(lanes), address(c, (t, ZERO, ZERO)), idx(lanes), True,
    )  # fmt: skip
    arrays = [array(float32, depth, rows), array(float32, depth, lanes), array(float32, 2, rows, lanes)]
    check(kernel([a, b, c], t, tile), arrays, rtol=1e-5, atol=1e-5, targets=[NATIVE])


def test_prefetch_changes_nothing() -> None:
    """Lines outside of the array may be asked for."""
    x, y = Buffer("x", float32, (3, 20)), Buffer("y", float32, (3, 20))
    t, r, s, j = var("t", 1), var("r", 3), var("s", 3), var("j", 20)
    ahead = serial(r, Prefetch(x, (r, idx(16))), Prefetch(x, (add(r, ONE), idx(-64)), near=False))
    k = kernel([x, y], t, ahead, serial(s, vector(j, 8, Store(y, (s, j), load(x, (s, j))))))
    check(k, [array(float32, 3, 20), array(float32, 3, 20)])
    text = print_kernel(k)
    assert text.count("prefetch p0[") == text.count("prefetch far p0[") == 1
    assert print_kernel(parse_kernel(text)) == text
    assert emit_kernel(k, NATIVE).count("call void @llvm.prefetch") == 2


def test_fetching_tile() -> None:
    """What a tile asks for may lie outside the buffer, and changes no number."""
    rows, vectors = NATIVE.machine.tiles[-1]
    lanes, depth = vectors * NATIVE.machine.lanes(4), 9
    a, b = Buffer("a", float32, (depth, rows)), Buffer("b", float32, (depth, lanes))
    c, t = Buffer("c", float32, (1, rows, lanes)), var("t", 1)
    fetch = Fetch(address(b, (idx(depth - 1), ZERO)), idx(1 << 20), 2)
    tile = Tile(
        rows, lanes, idx(depth), address(a, (ZERO, ZERO)), ONE, idx(rows), address(b, (ZERO, ZERO)),
        idx(lanes), address(c, (t, ZERO, ZERO)), idx(lanes), False, fetch,
    )  # fmt: skip
    arrays = [array(float32, depth, rows), array(float32, depth, lanes), array(float32, 1, rows, lanes)]
    check(kernel([a, b, c], t, tile), arrays, rtol=1e-5, atol=1e-5, targets=[NATIVE])


def test_tile_with_a_list() -> None:
    """Places may lie outside the buffer; the list is written by the kernel."""
    rows, vectors = NATIVE.machine.tiles[-1]
    lanes, depth = vectors * NATIVE.machine.lanes(4), 9
    a, b = Buffer("a", float32, (depth, rows)), Buffer("b", float32, (depth, lanes))
    c, t = Buffer("c", float32, (1, rows, lanes)), var("t", 1)
    places, i = Buffer("places", int64, (2,), "scratch"), var("i", 2)
    note = serial(i, Note(places, i, b, (mul(i, 1000), idx(-64))))
    tile = Tile(
        rows, lanes, idx(depth), address(a, (ZERO, ZERO)), ONE, idx(rows), address(b, (ZERO, ZERO)),
        idx(lanes), address(c, (t, ZERO, ZERO)), idx(lanes), False, Listed(address(places, (ZERO,)), 2),
    )  # fmt: skip
    k = kernel([a, b, c], t, Alloc(places), note, tile)
    verify_kernel(k)
    assert print_kernel(parse_kernel(print_kernel(k))) == print_kernel(k)
    arrays = [array(float32, depth, rows), array(float32, depth, lanes), array(float32, 1, rows, lanes)]
    check(k, arrays, rtol=1e-5, atol=1e-5, targets=[NATIVE])


def test_deep_expressions() -> None:
    """Expressions are walked without recursion, and shared parts are emitted once."""
    x, y = Buffer("x", int64, (20,)), Buffer("y", int64, (20,))
    t, i = var("t", 1), var("i", 20)
    value: Expr = load(x, (i,))
    for _ in range(3000):
        value = binary("add", value, value)
        value = binary("xor", value, Const(int64, 12345))
    k = kernel([x, y], t, vector(i, 8, Store(y, (i,), value)))
    assert emit_kernel(k, NATIVE).count(" xor ") <= 2 * 3000
