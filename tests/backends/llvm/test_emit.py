"""Every operation of the loop IR's expressions, compiled, against the interpreter; grammar errors."""

from __future__ import annotations

import numpy as np
import pytest
from build import array, kernel, pointwise, rng, var, vector
from jit import NATIVE, TARGETS, Compiled, check

from graphc.backends.llvm.emit import emit_kernel
from graphc.ir.types import DType, bool_, float32, float64, int32, int64, uint8, uint32
from graphc.loop import ir
from graphc.loop.ir import (
    ZERO,
    Buffer,
    Const,
    For,
    Local,
    Store,
    binary,
    cast,
    load,
    select,
    unary,
)


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

    k = pointwise(float32, float32, lambda a, b: binary("mul", a, b), 16)
    for target in TARGETS:
        x, y = array(float32, 2, 37), array(float32, 2, 37)
        wanted = x * y
        Compiled(k, target)(x, y, x)
        np.testing.assert_array_equal(x, wanted)


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
