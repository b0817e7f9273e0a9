"""Contractions that run many times with the same operand: it is packed once, and never read again."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.types import float32, float64
from graphc.loop.lower import Repeated, lower_group, lower_repeated
from graphc.loop.lowered import Temp
from graphc.passes.fuse import partition
from tests.loop.test_ways import (
    CRAMPED,
    MACHINES,
    WIDE,
    check,
    draw,
    evaluate,
    execute,
    group_of,
    leaf,
    tiles,
)


def steps(outputs, fixed, machine=WIDE, count=2, tolerance=2e-5) -> Repeated:
    """Run `once`, then `each` for several values of the other inputs; compare with NumPy."""
    group = group_of(*outputs)
    rng = np.random.default_rng(3)
    given = {n: draw(n, rng) for n in group.inputs}
    found = lower_repeated(group, machine, frozenset(fixed))
    memory = dict(given)
    execute(found.once, memory, keep_temps=True)
    for _ in range(count):
        for n in group.inputs:
            if n not in fixed:
                given[n] = memory[n] = draw(n, rng)
        execute(found.each, memory, backwards=True, keep_temps=True)
        for node, want in zip(outputs, evaluate(outputs, given), strict=True):
            scale = max(1.0, np.abs(want).max())
            np.testing.assert_allclose(memory[node], want, rtol=0, atol=tolerance * scale)
    return found


def reads(calls) -> set:
    return {a for c in calls for a in c.args}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("m,n,k", [(1, 64, 48), (8, 100, 37), (32, 128, 64), (13, 33, 90)])
def test_a_fixed_right_operand_is_packed_once(machine, transposed, m, n, k):
    h, w = leaf("h", m, k), leaf("w", *((n, k) if transposed else (k, n)))
    z = ops.dot_general(h, w, ((1,), (1 if transposed else 0,)))
    found = steps((z,), (w,), machine)
    if found.once:
        assert w not in reads(found.each)
        assert tiles(found.each)
    assert found.once or m < 16


def test_a_fixed_left_operand_is_packed_once():
    w, h = leaf("w", 96, 64), leaf("h", 64, 20)
    found = steps((ops.dot_general(w, h, ((1,), (0,))),), (w,))
    assert found.once
    assert w not in reads(found.each)


def test_deep_k_batches_views_and_an_epilogue():
    h, w, b = leaf("h", 3, 9, 300), leaf("w", 40, 300, 3), leaf("b", 3, 9, 40)
    z = ops.dot_general(h, ops.transpose(w, (2, 1, 0)), ((2,), (1,)), ((0,), (0,)))
    y = ops.tanh(ops.add(z, b))
    for machine in (WIDE, CRAMPED):
        found = steps((y,), (w,), machine)
        assert found.once
        assert w not in reads(found.each)


def test_float64():
    h, w = leaf("h", 8, 64, dtype=float64), leaf("w", 64, 96, dtype=float64)
    assert steps((ops.dot_general(h, w, ((1,), (0,))),), (w,), tolerance=1e-13).once


def test_operands_that_change_are_not_packed_before():
    h, w, s = leaf("h", 32, 64), leaf("w", 64, 128), leaf("s", 64, 128)
    z = ops.dot_general(h, ops.mul(w, s), ((1,), (0,)))
    assert not steps((z,), (w,)).once
    assert steps((z,), (w, s)).once


def test_other_groups_are_lowered_as_ever():
    x = leaf("x", 30)
    found = steps((ops.exp(x),), ())
    assert found.once == ()


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_an_operand_made_of_numbers_is_written_before_it_is_read(machine):
    """The first state of a network times a weight: nothing is fixed, so the copy is made every time."""
    weight, bias = leaf("w", 48, 16), leaf("b", 48)
    halves = ops.broadcast(ops.constant(0.5, float32), (2, 16), ())
    product = ops.dot_general(halves, weight, ((1,), (1,)))
    last = ops.broadcast(ops.slice_axis(bias, 0, 32, 48), (2, 16), (1,))
    outputs = product, ops.add(ops.slice_axis(product, 1, 32, 48), last)
    check(*outputs, machine=machine)
    (group,) = partition(Graph((weight, bias), outputs), machine).groups
    written = set()
    for call in lower_group(group, machine):
        reads = [a for i, a in enumerate(call.args) if i not in call.writes and isinstance(a, Temp)]
        assert written.issuperset(reads)
        written.update(call.args[w] for w in call.writes)
