"""The interpreter's own semantics: what wraps, what is read, what is refused, which failure counts."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.types import bool_, float32, float64, int32, int64, uint8, uint32
from graphc.loop.interpret import run
from graphc.loop.ir import (
    TRUE,
    ZERO,
    Accumulate,
    Alloc,
    Buffer,
    Cast,
    Check,
    Const,
    For,
    If,
    Kernel,
    Let,
    Local,
    Select,
    Store,
    Unary,
    Var,
    binary,
    index_const,
    load,
)

TASK = Var(int64, "t", 1)
FALSE = Const(bool_, False)


def kernel(params, *body, tasks: int = 1) -> Kernel:
    return Kernel("k", tuple(params), TASK, tasks, body)


def value_of(expr, *operands: np.ndarray):
    """The element type's value of an expression; operands are params p0, p1, ... of one element."""
    result = np.zeros(1, expr.dtype.numpy)
    params = [b for b, _ in zip(PARAMS, operands, strict=False)]
    stored = Buffer("out", expr.dtype, (1,))
    run(kernel([*params, stored], Store(stored, (ZERO,), expr)), [*operands, result])
    return result[0]


PARAMS = (Buffer("p0", int64, (1,)), Buffer("p1", int64, (1,)))
A, B = (load(p, (ZERO,)) for p in PARAMS)


@pytest.mark.parametrize("op", ["add", "sub", "mul"])
def test_integers_wrap(op: str) -> None:
    a, b = np.array([2**63 - 1]), np.array([-(2**62)])
    with np.errstate(all="ignore"):
        wanted = getattr(np, {"add": "add", "sub": "subtract", "mul": "multiply"}[op])(a, b)[0]
    assert value_of(binary(op, A, B), a, b) == wanted
    large = Const(int64, 2**63 - 1), Const(int64, -(2**62))
    assert value_of(binary(op, *large)) == wanted
    assert value_of(binary("add", Const(uint8, 200), Const(uint8, 100))) == 44
    assert value_of(binary("mul", Const(int32, 2**30), Const(int32, 6))) == -(2**31)


@pytest.mark.parametrize("a", [-7, 7])
@pytest.mark.parametrize("b", [-2, 2, 0])
def test_division_rounds_down(a: int, b: int) -> None:
    """Of counts and of data alike; by zero as NumPy has it."""
    with np.errstate(all="ignore"):
        wanted = np.floor_divide(np.int64(a), np.int64(b)), np.remainder(np.int64(a), np.int64(b))
    counts, data = (index_const(a), index_const(b)), (A, B)
    for pair, operands in ((counts, ()), (data, (np.array([a]), np.array([b])))):
        assert value_of(binary("div", *pair), *operands) == wanted[0]
        assert value_of(binary("rem", *pair), *operands) == wanted[1]


def test_element_types_are_kept() -> None:
    third = binary("div", Const(float32, 1.0), Const(float32, 3.0))
    assert value_of(third) == np.float32(1) / np.float32(3)
    assert value_of(Cast(float64, third)) == float(np.float32(1) / np.float32(3))
    assert value_of(Cast(int32, Const(float32, -2.7))) == -2
    assert value_of(Cast(uint8, A), np.array([300])) == 44
    assert value_of(Cast(float32, A), np.array([2**60 + 2**36 + 1])) == np.float32(2**60 + 2**37)
    assert value_of(Cast(bool_, Const(float32, np.nan)))
    assert value_of(binary("add", TRUE, TRUE)) is np.True_
    assert value_of(binary("mulhi", Const(uint32, 2**31), Const(uint32, 6))) == 3
    assert value_of(Unary(int64, "neg", index_const(3))) == -3
    assert np.isnan(value_of(binary("max", Const(float32, np.nan), Const(float32, 1.0))))


def test_what_is_masked_off_or_not_chosen_is_not_read() -> None:
    p = Buffer("p", float32, (2,))
    beyond = load(p, (index_const(5),))
    masked = load(p, (index_const(5),), FALSE, Const(float32, 3.0))
    guarded = If(FALSE, (Store(p, (index_const(9),), beyond),))
    chosen = Select(float32, FALSE, beyond, Const(float32, 4.0))
    array = np.zeros(2, np.float32)
    run(kernel([p], guarded, Store(p, (ZERO,), masked), Store(p, (index_const(1),), chosen)), [array])
    assert array.tolist() == [3, 4]


def test_bad_accesses_are_refused() -> None:
    p, q = Buffer("p", float32, (2, 3)), Buffer("q", float32, (1,), "scratch")
    one, i = Const(float32, 1.0), Var(int64, "i", 2)
    cases = {
        r"p\[0, 3\] is outside \[2, 3\]": Store(p, (ZERO, index_const(3)), one),
        r"p\[-1, 0\] is outside": Store(p, (index_const(-1), ZERO), one),
        r"p\[0\] is outside": Store(p, (ZERO,), one),
        "buffer q is not allocated here": Store(q, (ZERO,), one),
        "i has no value here": Store(p, (i, ZERO), one),
        "x has no value here": Store(p, (ZERO, ZERO), Local(float32, "x")),
    }
    for message, stmt in cases.items():
        with pytest.raises(IndexError, match=message):
            run(kernel([p], stmt), [np.zeros((2, 3), np.float32)])


def test_scratch_is_poisoned_at_every_allocation() -> None:
    p, q = Buffer("p", float32, (2,)), Buffer("q", float32, (), "local")
    i = Var(int64, "i", 2)
    body = Alloc(q), Accumulate(q, (), "add", Const(float32, 1.0)), Store(p, (i,), load(q, ()))
    array = np.zeros(2, np.float32)
    run(kernel([p], For(i, index_const(2), body)), [array])
    assert np.isnan(array).all()


def test_all_tasks_run_and_the_first_failure_counts() -> None:
    p = Buffer("p", int64, (4,))
    x = Local(int64, "x")
    small = binary("lt", x, index_const(2))
    body = Let(x, TASK), Store(p, (TASK,), x), Check(small, 7), Check(FALSE, 9)
    array = np.full(4, -1)
    assert run(kernel([p], *body, tasks=4), [array], (3, 1, 0)) == 7
    assert array.tolist() == [0, 1, -1, 3]
    assert run(kernel([p], *body, tasks=4), [array], (1, 3)) == 9
