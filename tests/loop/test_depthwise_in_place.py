"""Depthwise convolutions that read planes where they are: which do, their values against NumPy's evaluation,
and that nothing outside a window reaches a result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.loop.inplace import statements
from graphc.loop.interpret import run
from graphc.loop.ir import Alloc
from graphc.loop.lower.ways import lower_contraction
from graphc.loop.lowered import KernelCall
from graphc.program import Machine
from tests.loop.test_conv import Case
from tests.loop.test_ways import WIDE, check, group_of, leaf

CASES = {
    "3x3": Case((2, 9, 21, 20), (9, 1, 3, 3), low=1, groups=9),
    "3x3-stride-2": Case((1, 8, 40, 40), (8, 1, 3, 3), stride=2, low=1, groups=8),
    "no-border": Case((1, 8, 26, 26), (8, 1, 3, 3), groups=8),
    "uneven-padding": Case((1, 8, 24, 16), (8, 1, 3, 3), low=2, high=0, groups=8),
    "below-only": Case((1, 8, 24, 16), (8, 1, 3, 3), low=0, high=2, groups=8),
    "dilated": Case((1, 8, 40, 16), (8, 1, 3, 3), low=4, dilation=4, groups=8),
    "even": Case((1, 8, 24, 31), (8, 1, 2, 4), low=1, groups=8),
    "more-taps-than-registers": Case((1, 8, 32, 16), (8, 1, 5, 5), low=2, groups=8),
}
FAR = replace(WIDE, l2_bytes=8 << 10)  # planes come from beyond the second-level cache


def is_in_place(call: KernelCall) -> bool:
    """Whether the kernel has no copies of planes."""
    made = {
        s.buffer.name.rstrip("0123456789") for s, _ in statements(call.kernel.body) if isinstance(s, Alloc)
    }
    return not made & {"planes", "grads"}


@pytest.mark.parametrize("name", CASES)
def test_forward(name: str) -> None:
    (call,) = check(CASES[name].forward())
    assert is_in_place(call)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.stride == 1])
def test_input_gradient(name: str) -> None:
    (call,) = check(CASES[name].input_grad())
    assert is_in_place(call)


@pytest.mark.parametrize("name", CASES)
def test_weight_gradient(name: str) -> None:
    (call,) = check(CASES[name].weight_grad(), machine=FAR, tolerance=1e-4)
    assert is_in_place(call)


def test_what_is_fused_to_it() -> None:
    case = CASES["3x3"]
    y = case.forward()
    (call,) = check(ops.exp(ops.add(y, leaf("z", *y.shape))))
    assert is_in_place(call)


SQUARE = Case((1, 8, 24, 24), (8, 1, 3, 3), low=1, groups=8)


@pytest.mark.parametrize(
    ("node", "machine"),
    [
        (SQUARE.forward(), replace(WIDE, masked=False)),
        (Case((1, 8, 24, 18), (8, 1, 3, 3), stride=2, low=1, groups=8).forward(), WIDE),
        (Case((1, 8, 9, 9), (8, 1, 3, 3), low=1, groups=8).forward(), WIDE),
        (Case((1, 8, 48, 48), (8, 1, 3, 3), stride=3, groups=8).forward(), WIDE),
        (Case((1, 8, 48, 48), (8, 1, 5, 5), stride=2, low=2, groups=8).forward(), WIDE),
        (Case((1, 8, 24, 24), (8, 1, 3, 3), stride=2, low=1, groups=8).input_grad(), WIDE),
        (Case((1, 8, 8, 6, 24), (8, 1, 2, 3, 3), low=1, groups=8).forward(), WIDE),
        (Case((1, 8, 12, 12), (8, 1, 7, 7), low=3, groups=8).forward(), WIDE),
        (Case((2, 32, 5, 12), (32, 1, 3, 3), low=1, groups=32).weight_grad(), FAR),
    ],
    ids=[
        "no-masks",
        "short-rows",
        "odd-rows",
        "stride-3",
        "many-strided-taps",
        "spread",
        "volume",
        "borders",
        "no-block-inside",
    ],
)
def test_where_copies_are_better(node: Node, machine: Machine) -> None:
    (call,) = check(node, machine=machine)
    assert not is_in_place(call)


def test_sources_that_do_not_lie_in_rows() -> None:
    """Computed on the way, or with rows along another axis."""
    w, shape = leaf("w", 8, 1, 3, 3), (1, 8, 24, 24)
    for x in (ops.neg(leaf("x", *shape)), ops.transpose(leaf("x", *shape), (0, 1, 3, 2))):
        (call,) = check(ops.conv(x, w, **SQUARE.options))
        assert not is_in_place(call)


def test_what_no_window_sees_reaches_nothing() -> None:
    """The last column, which the stride leaves out, and lanes behind the end of a row."""
    case = Case((1, 8, 24, 24), (8, 1, 3, 3), stride=2, groups=8)
    node = case.weight_grad()
    (call,) = lower_contraction(group_of(node), WIDE)
    assert is_in_place(call)
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(i.shape).astype(np.float32) for i in node.inputs)
    want = node.op.evaluate([x, dy], node.attrs)
    x[..., -1], x[..., -1, :] = np.inf, np.nan
    arrays = {node.inputs[0]: x.reshape(-1), node.inputs[1]: dy.reshape(-1)}
    given = [arrays.get(a, np.zeros(node.type.size, np.float32)) for a in call.args]
    assert run(call.kernel, given, range(call.kernel.tasks)) == 0
    got = given[call.args.index(node)].reshape(node.shape)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
