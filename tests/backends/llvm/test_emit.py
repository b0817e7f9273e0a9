"""Every construct of the loop IR, compiled, against the interpreter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from jit import NATIVE, check

from graphc.backends.llvm.emit import emit_kernel
from graphc.ir.types import DType, bool_, float32, float64, int32, int64, uint8, uint32
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
    For,
    If,
    Kernel,
    Let,
    Local,
    Stmt,
    Store,
    Tile,
    Var,
    address,
    binary,
    cast,
    index_const,
    load,
    select,
    unary,
)

rng = np.random.default_rng(7)


def var(name: str, extent: int) -> Var:
    return Var(int64, name, extent)


def idx(value: int) -> Const:
    return index_const(value)


def add(a: Expr, b: Expr | int) -> Expr:
    return binary("add", a, idx(b) if isinstance(b, int) else b)


def mul(a: Expr, b: Expr | int) -> Expr:
    return binary("mul", a, idx(b) if isinstance(b, int) else b)


def sub(a: Expr, b: Expr | int) -> Expr:
    return binary("sub", a, idx(b) if isinstance(b, int) else b)


def lt(a: Expr, b: Expr | int) -> Expr:
    return binary("lt", a, idx(b) if isinstance(b, int) else b)


def vector(v: Var, lanes: int, *body: Stmt) -> For:
    return For(v, idx(v.extent), body, "vector", lanes)


def serial(v: Var, *body: Stmt) -> For:
    return For(v, idx(v.extent), body)


def kernel(params: list[Buffer], task: Var, *body: Stmt) -> Kernel:
    return Kernel("kernel", tuple(params), task, task.extent, body)


def array(dtype: DType, *shape: int) -> np.ndarray:
    if dtype is bool_:
        return rng.random(shape) < 0.5
    if dtype.is_float:
        return rng.normal(size=shape).astype(dtype.numpy)
    low = 0 if dtype.kind == "u" else -100
    return rng.integers(low, 100, shape).astype(dtype.numpy)


def pointwise(dtype: DType, out: DType, f: Callable[[Expr, Expr], Expr], lanes: int, n: int = 37) -> Kernel:
    """z[t, i] = f(x[t, i], y[t, i])"""
    x, y, z = Buffer("x", dtype, (2, n)), Buffer("y", dtype, (2, n)), Buffer("z", out, (2, n))
    t, i = var("t", 2), var("i", n)
    return kernel([x, y, z], t, vector(i, lanes, Store(z, (t, i), f(load(x, (t, i)), load(y, (t, i))))))


# ------------------------------------------------------------------ elementwise


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("dtype", [float32, float64, int64, bool_], ids=str)
def test_lanes_and_tails(dtype: DType, lanes: int) -> None:
    for n in (1, 16, 37, 130):
        k = pointwise(dtype, dtype, lambda x, y: binary("max", x, y), lanes, n)
        check(k, [array(dtype, 2, n), array(dtype, 2, n), array(dtype, 2, n)])


NUMBERS = [float32, float64, int64, int32, uint8, uint32]


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "rem", "max", "min"])
def test_arithmetic(op: str, dtype: DType) -> None:
    x, y, z = (array(dtype, 2, 37) for _ in range(3))
    if not dtype.is_float:
        y[0, :9] = 0
        info = np.iinfo(dtype.numpy)
        x[1, :2], y[1, :2] = info.min, info.max if dtype.kind == "u" else -1
    k = pointwise(dtype, dtype, lambda a, b: binary(op, a, b), 16)
    with np.errstate(all="ignore"):
        check(k, [x, y, z])


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("op", ["max", "min"])
def test_extremes_keep_nan(op: str, dtype: DType) -> None:
    special = np.array([np.nan, -np.inf, np.inf, 0.0, 1.0, -2.0], dtype.numpy)
    x, y = (a.reshape(2, 18).copy() for a in np.meshgrid(special, special))
    check(pointwise(dtype, dtype, lambda a, b: binary(op, a, b), 8, 18), [x, y, x.copy()])
    for constant in (0.0, np.nan):
        c = Const(dtype, constant)
        for f in (lambda a, b, c=c: binary(op, a, c), lambda a, b, c=c: binary(op, c, a)):
            check(pointwise(dtype, dtype, f, 8, 18), [x, y, x.copy()])


@pytest.mark.parametrize("dtype", [int64, int32, uint8, uint32, bool_], ids=str)
@pytest.mark.parametrize("op", ["and", "or", "xor"])
def test_bits(op: str, dtype: DType) -> None:
    k = pointwise(dtype, dtype, lambda a, b: binary(op, a, b), 16)
    check(k, [array(dtype, 2, 37) for _ in range(3)])


@pytest.mark.parametrize("dtype", [int64, int32, uint32], ids=str)
@pytest.mark.parametrize("op", ["shl", "shr"])
def test_shifts(op: str, dtype: DType) -> None:
    y = rng.integers(0, 8 * dtype.itemsize, (2, 37)).astype(dtype.numpy)
    check(
        pointwise(dtype, dtype, lambda a, b: binary(op, a, b), 16),
        [array(dtype, 2, 37), y, array(dtype, 2, 37)],
    )


def test_high_half_of_a_product() -> None:
    x, y = (rng.integers(0, 2**32, (2, 37), np.uint32) for _ in range(2))
    check(pointwise(uint32, uint32, lambda a, b: binary("mulhi", a, b), 16), [x, y, x.copy()])


@pytest.mark.parametrize("dtype", [*NUMBERS, bool_], ids=str)
@pytest.mark.parametrize("op", sorted(ir.COMPARE_OPS))
def test_comparisons(op: str, dtype: DType) -> None:
    x, y = array(dtype, 2, 37), array(dtype, 2, 37)
    y[:, ::3] = x[:, ::3]
    if dtype.is_float:
        y[:, ::5] = np.nan
    check(pointwise(dtype, bool_, lambda a, b: binary(op, a, b), 32), [x, y, array(bool_, 2, 37)])


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize(
    "op", ["neg", "abs", "sign", "floor", "ceil", "round", "trunc", "isnan", "isinf", "isfinite"]
)
def test_simple_unary(op: str, dtype: DType) -> None:
    x = array(dtype, 2, 37)
    if dtype.is_float:
        x *= 3
        x[0, :9] = [np.nan, np.inf, -np.inf, 0.5, 1.5, -0.5, -0.0, 2.5, 0.0]
    out = bool_ if op in ir.PREDICATE_OPS else dtype
    check(pointwise(dtype, out, lambda a, b: unary(op, a), 16), [x, x.copy(), array(out, 2, 37)])


@pytest.mark.parametrize("source", [*NUMBERS, bool_], ids=str)
@pytest.mark.parametrize("target", [*NUMBERS, bool_], ids=str)
def test_casts(source: DType, target: DType) -> None:
    x = array(source, 2, 37)
    if source.is_float and target.kind == "u":
        x = np.abs(x) * 100
    k = pointwise(source, target, lambda a, b: cast(a, target), 16)
    check(k, [x, x.copy(), array(target, 2, 37)])


def test_select_and_mixed_widths() -> None:
    n = 53
    c, x, y, z = (
        Buffer("c", bool_, (n,)),
        Buffer("x", float64, (n,)),
        Buffer("y", int64, (n,)),
        Buffer("z", float32, (n,)),
    )
    t, i = var("t", 1), var("i", n)
    value = select(load(c, (i,)), load(x, (i,)), cast(load(y, (i,)), float64))
    k = kernel([c, x, y, z], t, vector(i, 32, Store(z, (i,), cast(value, float32))))
    check(k, [array(bool_, n), array(float64, n), array(int64, n), array(float32, n)])


def test_in_place() -> None:
    """Two params may be the same memory when each element is read before it is written."""
    from jit import TARGETS, Compiled

    k = pointwise(float32, float32, lambda a, b: binary("mul", a, b), 16)
    for target in TARGETS:
        x, y = array(float32, 2, 37), array(float32, 2, 37)
        wanted = x * y
        Compiled(k, target)(x, y, x)
        np.testing.assert_array_equal(x, wanted)


# ------------------------------------------------------------------- addressing


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("dtype", [float32, float64, bool_], ids=str)
def test_strided_loads_and_stores(stride: int, dtype: DType) -> None:
    n = 45
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
@pytest.mark.parametrize("stride", [0, 1, 2])
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


# ---------------------------------------------------------- loops and accumulators


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


# --------------------------------------------------------------- other statements


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


# --------------------------------------------------------------------- errors


def test_errors() -> None:
    x, y = Buffer("x", float32, (20,)), Buffer("y", float32, (20,))
    t, i, j = var("t", 1), var("i", 20), var("j", 4)
    bad = {
        "vector loop j inside": vector(i, 4, vector(j, 4, Store(y, (i,), load(x, (j,))))),
        "only Accumulate": vector(i, 4, Store(y, (ZERO,), load(x, (i,)))),
        "outside of its scope": Store(y, (ZERO,), load(Buffer("q", float32, (1,), "local"), (ZERO,))),
        "must not depend": vector(i, 4, For(j, i, (Store(y, (i,), load(x, (i,))),))),
        "'gone' outside": Store(y, (ZERO,), Local(float32, "gone")),
    }
    for message, stmt in bad.items():
        with pytest.raises(ValueError, match=message):
            emit_kernel(kernel([x, y], t, stmt), NATIVE)
