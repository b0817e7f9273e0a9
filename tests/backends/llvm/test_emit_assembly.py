"""What the machine code of typical kernels must and must not contain, on every target of the table."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from jit import assembly

from graphc.backends.llvm.target import Target, get_target
from graphc.ir.types import float32, int64
from graphc.loop.ir import (
    Accumulate,
    Alloc,
    Buffer,
    Const,
    Expr,
    For,
    Kernel,
    Store,
    Var,
    binary,
    index_const,
    load,
    select,
    unary,
)

TARGETS = {name: get_target(name) for name in ("x86-64-v4", "x86-64-v3", "aarch64")}
REGISTER = {"x86-64-v4": "zmm", "x86-64-v3": "ymm", "aarch64": r"v\d+\.4s|q\d+"}
FMA = {"x86-64-v4": r"vf[n]?m(add|sub)\d+ps", "x86-64-v3": r"vf[n]?m(add|sub)\d+ps", "aarch64": "fml[as]"}
STACK = r"\(%[er][sb]p|\[sp"
CALL = r"\bcallq?\b|\bblr?\s"
SCALAR = r"\bv?(add|sub|mul|div|fn?m(add|sub)\d+)ss\b|\bf(add|sub|mul|div)\s+s\d"
N = 1024


def pointwise(f: str, lanes: int) -> Kernel:
    x, y = Buffer("x", float32, (8, N)), Buffer("y", float32, (8, N))
    t, i = Var(int64, "t", 8), Var(int64, "i", N)
    value: Expr = load(x, (t, i))
    zero = Const(float32, 0.0)
    if f == "relu":
        value = binary("max", value, zero)
    elif f == "leaky":
        value = select(binary("gt", value, zero), value, binary("mul", value, Const(float32, 0.1)))
    else:
        value = unary(f, value)
    body = For(i, index_const(N), (Store(y, (t, i), value),), "vector", lanes)
    return Kernel("pointwise", (x, y), t, 8, (body,))


def erf_and_slope() -> Kernel:
    """erf(x) + exp(-(x * x)): a function and, but for a factor, its derivative."""
    kernel = pointwise("erf", 16)
    (loop,) = kernel.body
    assert isinstance(loop, For)
    (store,) = loop.body
    assert isinstance(store, Store)
    x = load(kernel.params[0], store.index)
    slope = unary("exp", unary("neg", binary("mul", x, x)))
    body = replace(loop, body=(replace(store, value=binary("add", store.value, slope)),))
    return replace(kernel, body=(body,))


def row_sums(op: str) -> Kernel:
    x, y = Buffer("x", float32, (8, N)), Buffer("y", float32, (8,))
    t, i, acc = Var(int64, "t", 8), Var(int64, "i", N), Buffer("acc", float32, (), "local")
    body = (
        Alloc(acc),
        Store(acc, (), Const(float32, 0.0)),
        For(i, index_const(N), (Accumulate(acc, (), op, load(x, (t, i))),), "vector", 64),
        Store(y, (t,), load(acc, ())),
    )
    return Kernel("rows", (x, y), t, 8, body)


def inner_loop(text: str, target: str) -> str:
    """The first loop that ends in a backward branch and uses vector registers."""
    label = r"^(\.LBB\w+):"
    blocks = re.split(label, text, flags=re.M)
    for name, body in zip(blocks[1::2], blocks[2::2], strict=True):
        if re.search(rf"\b(j\w+|b\.\w+|cb\w+)\s.*{re.escape(name)}\b", body) and re.search(
            REGISTER[target], body
        ):
            return body
    raise AssertionError("no vector loop:\n" + text)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("f", ["relu", "leaky", "exp", "log", "tanh", "sigmoid", "erf"])
def test_pointwise_loops_are_tight(f: str, name: str) -> None:
    """Vectors throughout: no calls, no stack, no scalar arithmetic."""
    target: Target = TARGETS[name]
    loop = inner_loop(assembly(pointwise(f, target.machine.lanes(4)), target), name)
    assert not re.search(CALL, loop), loop
    assert not re.search(SCALAR, loop), loop
    if name == "x86-64-v4" or f in ("relu", "leaky"):  # elsewhere not all constants of a polynomial fit
        assert not re.search(STACK, loop), loop
    if f not in ("relu", "leaky"):
        assert re.search(FMA[name], loop), loop


@pytest.mark.parametrize("name", TARGETS)
def test_reductions_keep_their_partial_sums_in_registers(name: str) -> None:
    loop = inner_loop(assembly(row_sums("add"), TARGETS[name]), name)
    assert not re.search(STACK, loop), loop
    assert len(re.findall(r"\bv?f?addp?s?\b", loop)) >= 64 // TARGETS[name].machine.lanes(4)


def test_erf_and_its_derivative_share_an_exponential() -> None:
    """vscalefps is what ends an exponential on this target."""
    target = TARGETS["x86-64-v4"]
    loop = inner_loop(assembly(erf_and_slope(), target), "x86-64-v4")
    assert len(re.findall(r"vscalefps", loop)) == 1, loop


def test_relu_is_one_instruction() -> None:
    loop = inner_loop(assembly(pointwise("relu", 16), TARGETS["x86-64-v4"]), "x86-64-v4")
    assert len(re.findall(r"vmaxps", loop)) == 1
    assert "vcmp" not in loop
