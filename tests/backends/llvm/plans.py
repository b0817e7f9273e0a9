"""Small hand-made plans for tests of the backend, built without the compiler above it."""

from __future__ import annotations

import numpy as np

from graphc.ir.types import TensorType, float32, int64
from graphc.loop.ir import (
    ZERO,
    Accumulate,
    Alloc,
    Buffer,
    Check,
    Const,
    Expr,
    For,
    Kernel,
    Store,
    Tile,
    Var,
    address,
    binary,
    index_const,
    load,
)
from graphc.program import Call, Plan, Slot

ROWS, COLUMNS = 64, 512
SHAPE = (ROWS, COLUMNS)
BYTES = 4 * ROWS * COLUMNS
BIG = 1e9  # an estimate that makes every call parallel


def affine_kernel(scale: float, shift: float, name: str = "affine", cost: float = BIG) -> Kernel:
    """y = x * scale + shift, one task a row."""
    x, y = Buffer("x", float32, SHAPE), Buffer("y", float32, SHAPE)
    task, column = Var(int64, "row", ROWS), Var(int64, "column", COLUMNS)
    value: Expr = binary("mul", load(x, (task, column)), Const(float32, scale))
    value = binary("add", value, Const(float32, shift))
    loop = For(column, index_const(COLUMNS), (Store(y, (task, column), value),), "vector", 16)
    return Kernel(name, (x, y), task, ROWS, (loop,), cost, cost)


def total_kernel(cost: float = BIG) -> Kernel:
    """s[0] = the sum of the first column, one task."""
    x, s = Buffer("x", float32, SHAPE), Buffer("s", float32, (1,))
    acc = Buffer("acc", float32, (), "local")
    task, row = Var(int64, "t", 1), Var(int64, "row", ROWS)
    body = (
        Alloc(acc),
        Store(acc, (), Const(float32, 0.0)),
        For(row, index_const(ROWS), (Accumulate(acc, (), "add", load(x, (row, ZERO))),)),
        Store(s, (ZERO,), load(acc, ())),
    )
    return Kernel("total", (x, s), task, 1, body, cost, cost)


def check_kernel() -> Kernel:
    """Code 1 unless every x is below 1000, one task a row."""
    x = Buffer("x", float32, SHAPE)
    task, column = Var(int64, "row", ROWS), Var(int64, "column", COLUMNS)
    good = binary("lt", load(x, (task, column)), Const(float32, 1000.0))
    return Kernel(
        "check", (x,), task, ROWS, (For(column, index_const(COLUMNS), (Check(good, 1),)),), BIG, BIG
    )


def chain_plan(length: int = 6, cost: float = BIG, check: bool = False) -> Plan:
    """out = x * 1.5 + 1, `length` times over, through two arena buffers; total = its first column's sum."""
    kernels = (affine_kernel(1.5, 1.0, cost=cost), total_kernel(cost), check_kernel())
    calls = [Call(2, (Slot("input", 0),))] if check else []
    place = Slot("input", 0)
    for step in range(length):
        target = Slot("output", 0) if step == length - 1 else Slot("arena", 0, BYTES * (step % 2))
        calls.append(Call(0, (place, target)))
        place = target
    calls.append(Call(1, (place, Slot("output", 1))))
    return Plan(
        kernels,
        tuple(calls),
        (TensorType(SHAPE, float32),),
        (TensorType(SHAPE, float32), TensorType((1,), float32)),
        arena_bytes=2 * BYTES,
        gate=1 if check else 0,
        checks=("value too large",) if check else (),
    )


def chain_numpy(x: np.ndarray, length: int = 6) -> np.ndarray:
    """What `chain_plan` computes, with fused multiply-adds."""
    for _ in range(length):
        x = (x.astype(np.float64) * 1.5 + 1.0).astype(np.float32)
    return x


def matmul_plan(rows: int, lanes: int, depth: int, tasks: int, constant: np.ndarray) -> Plan:
    """out[t] = x[t] @ constant, where x[t] is rows x depth and the constant depth x lanes: a Tile a task."""
    x = Buffer("x", float32, (tasks, rows, depth))
    w = Buffer("w", float32, (depth, lanes))
    y = Buffer("y", float32, (tasks, rows, lanes))
    task = Var(int64, "t", tasks)
    tile = Tile(
        rows,
        lanes,
        index_const(depth),
        address(x, (task, ZERO, ZERO)),
        index_const(depth),
        index_const(1),
        address(w, (ZERO, ZERO)),
        index_const(lanes),
        address(y, (task, ZERO, ZERO)),
        index_const(lanes),
        False,
    )
    kernel = Kernel("matmul", (x, w, y), task, tasks, (tile,), BIG, BIG)
    call = Call(0, (Slot("input", 0), Slot("constant", 0), Slot("output", 0)))
    return Plan(
        (kernel,), (call,), (TensorType(x.shape, float32),), (TensorType(y.shape, float32),), (constant,)
    )
