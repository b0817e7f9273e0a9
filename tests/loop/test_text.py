"""Kernels as text, and the rules of the loop IR: round trips of real kernels, refusals of broken ones."""

from __future__ import annotations

import pytest

from graphc import ops
from graphc.ir.types import bool_, float32, int64
from graphc.loop.ir import (
    ZERO,
    Accumulate,
    Alloc,
    Binary,
    Buffer,
    Check,
    Const,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Store,
    Var,
    index_const,
)
from graphc.loop.parser import ParseError, parse_kernel
from graphc.loop.printer import kernel_key, print_kernel
from graphc.loop.verify import VerifyError, verify_kernel
from graphc.passes.fuse import partition

from . import models as m
from .running import NARROW, WIDE, calls_of

GRAPHS = {
    "softmax": lambda: m.softmax_backward(9, 21),
    "layernorm": lambda: m.layernorm(6, 33, True),
    "batchnorm": lambda: m.batchnorm(3, 5, 4, 4, True),
    "cross entropy": lambda: m.cross_entropy(12, 10),
    "adamw": lambda: m.adamw(7, 900),
    "pool": lambda: m.max_pool(2, 3, 6, True),
    "mlp": lambda: m.mlp(30, (20, 40, 8, 1)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_real_kernels_are_well_formed_and_round_trip(name: str) -> None:
    for machine in (WIDE, NARROW):
        for call in calls_of(partition(GRAPHS[name](), machine), machine):
            verify_kernel(call.kernel)
            text = print_kernel(call.kernel)
            again = parse_kernel(text)
            verify_kernel(again)
            assert print_kernel(again) == text


def test_special_constants_round_trip() -> None:
    x = m.leaf("x", 5)
    y = ops.add(ops.add(x, ops.like(x, float("-inf"))), ops.add(ops.like(x, -0.0), ops.like(x, float("nan"))))
    z = ops.eq(ops.cast(x, int64), ops.like(ops.cast(x, int64), -(2**63)))
    for call in calls_of(partition(m.graph([x], [y, ops.cast(z, float32)]), WIDE)):
        assert print_kernel(parse_kernel(print_kernel(call.kernel))) == print_kernel(call.kernel)


def test_equal_structure_has_equal_text() -> None:
    def text(prefix: str) -> str:
        x = m.leaf(prefix + "x", 6, 7)
        (call,) = calls_of(partition(m.graph([x], [m.softmax(x)]), WIDE))
        return kernel_key(call.kernel)

    assert text("a") == text("b")


@pytest.mark.parametrize(
    "text,says",
    [
        ("", "expected a kernel"),
        ("kernel k(p0: f32[4]) tasks t < 1:\n  p0[0] = frob(1)", "an operation of 1 operands"),
        ("kernel k(p0: f33[4]) tasks t < 1:", "an element type"),
        ("kernel k(p0: f32[4]) tasks t < 1:\n  for i0 < t:\n    p0[i0] = 1.0:f32", "'most' and a bound"),
        ("kernel k(p0: f32[4]) tasks t < 1:\n  p0[0] = x9", "an expression"),
        ("kernel k(p0: f32[4]) tasks t < 1:\n  p0[0] = 1.0:f32 2", "the end of the line"),
        ("kernel k(p0: f32[4]) tasks t < 1:\n  p0[0] = $", "cannot read"),
    ],
)
def test_bad_text(text: str, says: str) -> None:
    with pytest.raises(ParseError, match=says):
        parse_kernel(text)


P = Buffer("p", float32, (8,))
I = Var(int64, "i", 8)  # noqa: E741
ONE = Const(float32, 1.0)


def kernel(*body) -> Kernel:
    return Kernel("k", (P,), Var(int64, "t", 1), 1, tuple(body))


def loop(*body, var: Var = I, mode: str = "serial", lanes: int = 1) -> For:
    return For(var, index_const(var.extent), tuple(body), mode, lanes)  # type: ignore[arg-type]


BROKEN = {
    "outside its scope": kernel(Store(P, (I,), ONE)),
    "not allocated": kernel(Store(Buffer("q", float32, (1,), "scratch"), (ZERO,), ONE)),
    "store to p must be float32": kernel(Store(P, (ZERO,), Const(int64, 1))),
    "has rank 1": kernel(Store(P, (), ONE)),
    "leaves range": kernel(loop(Store(P, (Binary(int64, "add", I, index_const(1)),), ONE))),
    "never within": kernel(If(Const(bool_, True), (Store(P, (index_const(9),), ONE),))),
    "vector loop inside": kernel(
        loop(
            loop(Store(P, (I,), ONE), var=Var(int64, "j", 2), mode="vector", lanes=2), mode="vector", lanes=4
        )
    ),
    "bound twice": (lambda x: kernel(Let(x, ONE), Let(x, ONE)))(Local(float32, "x")),
    "must be positive": kernel(Check(Const(bool_, True), 0)),
    "a condition must be bool": kernel(If(ZERO, ())),
    "needs a mask": kernel(Store(P, (ZERO,), Load(float32, P, (ZERO,), Const(bool_, True), None))),
    "alloc of param": kernel(Alloc(P)),
    "add of float32 and int64": kernel(Store(P, (ZERO,), Binary(float32, "add", ONE, ZERO))),
    "no combine": kernel(Accumulate(P, (ZERO,), "sub", ONE)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("says", BROKEN)
def test_broken_kernels(says: str) -> None:
    with pytest.raises(VerifyError, match=says):
        verify_kernel(BROKEN[says])


def test_masked_and_conditional_accesses_may_leave_the_range() -> None:
    shifted = Binary(int64, "add", I, index_const(1))
    inside = Binary(bool_, "lt", shifted, index_const(8))
    verify_kernel(kernel(loop(Store(P, (I,), Load(float32, P, (shifted,), inside, ONE)))))
    verify_kernel(kernel(loop(If(inside, (Store(P, (shifted,), ONE),)))))
