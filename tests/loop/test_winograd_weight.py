"""Weight gradients by minimal filtering, run by the loop-IR interpreter against NumPy, and where they are
chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import float64
from graphc.loop.lower.convolution.winograd.weight_grad import weight_grad_calls
from graphc.loop.lower.convolution.winograd.weight_plan import Plan, plan_weight_grad
from graphc.loop.lower.ways import lower_contraction
from graphc.program import Machine
from tests.loop.test_ways import CRAMPED, NARROW, WIDE, draw, evaluate, execute, group_of, leaf

Sides = tuple[int, int, int, int]  # padding: top, left, bottom, right


def weight_grad(n: int, c: int, k: int, h: int, w: int, pad: Sides = (1, 1, 1, 1), groups: int = 1, **given):
    """The gradient node of a 3x3 convolution."""
    at = {"stride": (1, 1), "low": pad[:2], "high": pad[2:], "dilation": (1, 1), "groups": groups} | given
    x, weight = leaf("x", n, c, h, w), leaf("w", k, c // groups, 3, 3)
    dy = leaf("dy", *ops.conv(x, weight, **at).shape)
    return ops.conv_weight_grad(x, dy, (3, 3), **at)


def ahead(plan: Plan) -> Plan:
    """The same blocks, with all tiles transformed ahead."""
    rows = (tuple(range(plan.size[0])),)
    return replace(plan, rows=rows, shares=1, strips_at_once=plan.strips, ahead=True)


def check(node: Node, plan: Plan, machine: Machine) -> None:
    group = group_of(node)
    values = {n: draw(n, np.random.default_rng(3)) for n in group.inputs}
    calls = weight_grad_calls(node, plan, group)
    got = dict(values)
    execute(calls, got, backwards=True)
    (want,) = evaluate([node], values)
    np.testing.assert_allclose(got[node], want, rtol=0, atol=2e-5 * np.abs(want).max())


SHAPES = {
    "even": (2, 9, 5, 8, 8),
    "odd": (1, 17, 5, 7, 9),
    "wide": (1, 3, 2, 5, 19),
    "tiny": (3, 2, 4, 1, 1),
    "no-padding": (2, 4, 16, 9, 6, (0, 0, 0, 0)),
    "uneven": (1, 5, 6, 6, 5, (0, 2, 1, 0)),
    "much-padding": (1, 4, 4, 3, 2, (5, 0, 4, 6)),
    "groups": (1, 6, 4, 6, 6, (1, 1, 1, 1), 2),
}


@pytest.mark.parametrize("machine", [WIDE, NARROW, CRAMPED], ids=lambda m: m.name)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str, machine: Machine) -> None:
    node = weight_grad(*SHAPES[name])
    found = plan_weight_grad(node, machine)
    assert found is not None
    check(node, found[0], machine)
    check(node, ahead(found[0]), machine)


def test_only_where_it_applies() -> None:
    assert plan_weight_grad(weight_grad(1, 4, 4, 8, 8, stride=(2, 1)), WIDE) is None
    assert plan_weight_grad(weight_grad(1, 4, 4, 8, 8, dilation=(1, 2)), WIDE) is None
    x, dy = leaf("x", 1, 4, 8, 8, dtype=float64), leaf("dy", 1, 4, 8, 8, dtype=float64)
    at = {"stride": (1, 1), "low": (1, 1), "high": (1, 1), "dilation": (1, 1), "groups": 1}
    assert plan_weight_grad(ops.conv_weight_grad(x, dy, (3, 3), **at), WIDE) is None


def names(node: Node, machine: Machine) -> list[str]:
    return [call.kernel.name for call in lower_contraction(group_of(node), machine)]


def test_choice() -> None:
    """Many channels: products of transformed tiles; few channels or hardly a tile: the direct sum. Never
    if it is turned off."""
    large = weight_grad(8, 64, 64, 32, 32)
    off = Machine("off", 64, WIDE.tiles, True, winograd=False)
    assert "conv_weight_grad_winograd" in names(large, WIDE)
    assert "conv_weight_grad_winograd" not in names(large, off)
    assert "conv_weight_grad_winograd" not in names(weight_grad(32, 3, 64, 32, 32), WIDE)
    assert "conv_weight_grad_winograd" not in names(weight_grad(8, 64, 64, 1, 1), WIDE)
