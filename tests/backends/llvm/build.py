"""Loop-IR kernels by hand: short names for the parts, random arrays of any dtype."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.ir.types import DType, bool_, int64
from graphc.loop.ir import Buffer, Const, Expr, For, Kernel, Stmt, Store, Var, binary, index_const, load

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
