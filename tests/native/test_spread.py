"""Input gradients of strided convolutions with a window of one element against NumPy, interpreted and
compiled: what is zero, what is not, and what is fused to both."""

from __future__ import annotations

import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import float32, float64
from tests.loop.running import NARROW, WIDE
from tests.loop.test_ways import check, leaf

from .test_contractions import TARGETS, compare

CASES = {
    "even": (2, 5, 7, (8, 12), (2, 2), 1),
    "odd": (3, 4, 6, (9, 7), (2, 2), 1),
    "one axis": (2, 6, 4, (6, 5), (3, 1), 1),
    "long rows": (1, 9, 5, (4, 70), (1, 2), 1),
    "line": (2, 8, 8, (37,), (4,), 1),
    "box": (1, 4, 6, (3, 4, 5), (2, 1, 3), 1),
    "groups": (2, 6, 9, (6, 6), (2, 2), 3),
    "stride beyond": (2, 3, 4, (2, 3), (5, 4), 1),
}


def gradient(name: str, dtype=float32) -> Node:
    images, ins, outs, space, stride, groups = CASES[name]
    places = [-(-e // s) for e, s in zip(space, stride, strict=True)]
    dy = leaf("dy", images, outs, *places, dtype=dtype)
    w = leaf("w", outs, ins // groups, *(1,) * len(space), dtype=dtype)
    return ops.conv_input_grad(dy, w, space, stride=stride, groups=groups)


@pytest.mark.parametrize("machine", [WIDE, NARROW], ids=lambda m: m.name)
@pytest.mark.parametrize("name", CASES)
def test_interpreted(name: str, machine) -> None:
    dx = gradient(name)
    calls = check(ops.maximum(ops.add(dx, leaf("r", *dx.shape)), ops.like(dx, -0.5)), dx, machine=machine)
    assert calls[-1].kernel.name == "conv_input_grad_spread"
    assert len([c for c in calls if c.kernel.name == "conv_input_grad"]) == 1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [float32, float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_compiled(name: str, dtype, target: str) -> None:
    dx = gradient(name, dtype)
    scaled = ops.mul(ops.exp(dx), leaf("s", *dx.shape, dtype=dtype))
    compare((scaled, dx), target)


def test_through_a_cast_and_a_view_of_the_operands() -> None:
    """Members of the group that the operands need are computed where they are read."""
    dy = ops.reshape(leaf("dy", 2, 6 * 16, dtype=float64), (2, 6, 4, 4))
    w = ops.transpose(leaf("w", 5, 6, 1, 1), (1, 0, 2, 3))
    dx = ops.conv_input_grad(ops.cast(dy, float32), w, (7, 8), stride=(2, 2))
    check(ops.neg(dx))


def test_padding_and_larger_windows_take_the_phases() -> None:
    dy = leaf("dy", 2, 6, 5, 5)
    for kernel, low in ((1, 1), (2, 0)):
        space = (2 * (5 - 1) + kernel - 2 * low,) * 2
        w = leaf("w", 6, 3, kernel, kernel)
        dx = ops.conv_input_grad(dy, w, space, stride=(2, 2), low=(low, low), high=(low, low))
        assert all(call.kernel.name != "conv_input_grad_spread" for call in check(dx))
