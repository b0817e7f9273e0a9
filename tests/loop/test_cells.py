"""Contractions whose result is cut into gates: cells of recurrent networks, gated units, and the stacks of
gates that their gradients write."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from graphc import ops
from graphc.ir.graph import Graph, toposort
from graphc.ir.node import Kind, Node
from graphc.ir.types import DType, float32, float64
from graphc.loop.lower.contraction.cells import Cells, cells_of, stays_inside
from graphc.loop.lower.evaluate import LoweringError
from graphc.loop.lower.ways import anchor_of
from graphc.passes.fuse import partition
from graphc.program import Machine
from tests.loop.running import check as check_graph
from tests.loop.test_repeated import reads, steps
from tests.loop.test_ways import CRAMPED, MACHINES, WIDE, check, group_of, leaf, tiles

OLD = Machine("old", 32, ((6, 2), (4, 3), (12, 1)), False)


def gates(z: Node, count: int) -> list[Node]:
    """Equal slices of the last axis."""
    width = z.shape[-1] // count
    return [ops.slice_axis(z, z.type.rank - 1, g * width, (g + 1) * width) for g in range(count)]


def matmul(x: Node, w: Node) -> Node:
    return ops.dot_general(x, w, ((x.type.rank - 1,), (0,)))


def lstm(batch: int, hidden: int, dtype: DType = float32) -> tuple[tuple[Node, ...], Node, Node]:
    """((h, c), w, z)."""
    h, c = leaf("h", batch, hidden, dtype=dtype), leaf("c", batch, hidden, dtype=dtype)
    w, x = leaf("w", hidden, 4 * hidden, dtype=dtype), leaf("x", batch, 4 * hidden, dtype=dtype)
    z = ops.add(matmul(h, w), x)
    i, f, g, o = gates(z, 4)
    cell = ops.add(ops.mul(ops.sigmoid(f), c), ops.mul(ops.sigmoid(i), ops.tanh(g)))
    return (ops.mul(ops.sigmoid(o), ops.tanh(cell)), cell), w, z


def gru(batch: int, hidden: int) -> tuple[Node, Node]:
    """(h, w): the hidden part of the new gate is multiplied by the reset gate."""
    h, w = leaf("h", batch, hidden), leaf("w", 3 * hidden, hidden)
    x, bias = leaf("x", batch, 3 * hidden), leaf("bias", 3 * hidden)
    z = ops.dot_general(h, w, ((1,), (1,)))
    z = ops.add(z, ops.broadcast(bias, z.shape, (1,)))
    (xr, xz, xn), (hr, hz, hn) = gates(x, 3), gates(z, 3)
    r, u = ops.sigmoid(ops.add(xr, hr)), ops.sigmoid(ops.add(xz, hz))
    n = ops.tanh(ops.add(xn, ops.mul(r, hn)))
    return ops.add(n, ops.mul(u, ops.sub(h, n))), w


def backward(batch: int, hidden: int) -> tuple[tuple[Node, ...], Node]:
    """((dz, dc), w): from the gradient of a product to the gradients of four gates, stored side by side."""
    dz, w = leaf("dz", batch, 4 * hidden), leaf("w", 4 * hidden, hidden)
    kept, dc = leaf("kept", batch, 4 * hidden), leaf("dc", batch, hidden)
    dh = matmul(dz, w)
    i, f, g, o = gates(kept, 4)
    cell = ops.add(dc, ops.mul(dh, o))
    parts = [ops.mul(cell, g), ops.mul(cell, f), ops.mul(cell, i), ops.mul(dh, ops.tanh(f))]
    return (ops.concat(parts, 1), ops.mul(cell, f)), w


MODELS: dict[str, Callable[[int, int], tuple[tuple[Node, ...], Node]]] = {
    "lstm": lambda m, h: lstm(m, h)[:2],
    "gru": lambda m, h: ((gru(m, h)[0],), gru(m, h)[1]),
    "backward": backward,
}


@pytest.mark.parametrize("machine", (*MACHINES, OLD), ids=lambda m: m.name)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("batch,hidden", [(1, 6), (13, 37)])
def test_cells(model, machine, batch, hidden):
    outputs, _ = MODELS[model](batch, hidden)
    check(*outputs, machine=machine)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("batch,hidden", [(32, 64), (7, 50)])
def test_cells_with_a_weight_that_stays(model, batch, hidden):
    outputs, w = MODELS[model](batch, hidden)
    found = steps(outputs, (w,))
    assert w not in reads(found.each)
    assert len(found.each) == 1, "one kernel for the product and all that follows"
    assert tiles(found.each)


def test_whole_results_beside_cells():
    """The gates before they are combined are wanted too (what the gradient needs)."""
    (h, c), w, z = lstm(9, 40)
    steps((h, c, z), (w,))
    check(z, c, machine=CRAMPED)


def test_float64():
    outputs, w, _ = lstm(8, 24, float64)
    steps(outputs, (w,), tolerance=1e-13)


def test_gated_units():
    """GLU: two halves, after a wide product that is packed by every task."""
    x, w = leaf("x", 2, 33, 40), leaf("w", 40, 96)
    a, b = gates(matmul(x, w), 2)
    calls = check(ops.mul(a, ops.sigmoid(b)))
    assert len(calls) == 1
    x, w = leaf("x", 5, 9, 20), leaf("w", 5, 20, 66)
    a, b = gates(ops.dot_general(x, w, ((2,), (1,)), ((0,), (0,))), 2)
    check(ops.mul(a, ops.sigmoid(b)))


def test_gates_by_reshape_and_an_own_axis():
    h, w = leaf("h", 6, 32), leaf("w", 32, 3, 20)
    z = ops.dot_general(h, w, ((1,), (0,)))
    a, b, c = (ops.reshape(ops.slice_axis(z, 1, g, g + 1), (6, 20)) for g in range(3))
    check(ops.add(ops.mul(a, ops.exp(b)), c))


def test_what_cells_are():
    (h, c), _, z = lstm(4, 8)
    group = group_of(h, c, z)
    assert cells_of(group, anchor_of(group)) == Cells(4, 8)
    assert cells_of(group_of(z), anchor_of(group)) is None


def test_values_that_mix_cells_are_refused():
    h, w = leaf("h", 4, 8), leaf("w", 8, 32)
    z = matmul(h, w)
    a, b = gates(z, 2)
    group = group_of(ops.add(a, ops.flip(b, (1,))))
    with pytest.raises(LoweringError, match="no cells"):
        cells_of(group, anchor_of(group))


def _random_cell(rng: random.Random) -> tuple[tuple[Node, ...], Node]:
    """Random gates combined at random; outputs of both widths."""
    batch, hidden, depth = (
        rng.choice([1, 2, 5, 8, 17]),
        rng.choice([1, 3, 16, 20, 33]),
        rng.choice([1, 7, 40]),
    )
    count = rng.choice([2, 3, 4, 5])
    h, w = leaf("h", batch, depth), leaf("w", depth, count * hidden)
    wide, narrow = leaf("wide", batch, count * hidden), leaf("narrow", batch, hidden)
    z = matmul(h, w)
    if rng.random() < 0.5:
        z = ops.add(z, wide)
    values = [*gates(z, count), narrow, gates(wide, count)[rng.randrange(count)]]
    for _ in range(rng.randint(2, 6)):
        op = rng.choice([ops.add, ops.mul, ops.sub, ops.maximum])
        values.append(op(rng.choice(values), rng.choice(values[-3:])))
        if rng.random() < 0.3:
            values.append(ops.tanh(values[-1]))
    whole = ops.mul(gates(z, count)[0], values[-1])
    outputs: list[Node] = [whole]
    if rng.random() < 0.5:
        outputs.append(ops.concat([rng.choice(values) for _ in range(rng.choice([2, 3]))], 1))
    if rng.random() < 0.3:
        outputs.append(ops.neg(z))
    return tuple(dict.fromkeys(outputs)), w


@pytest.mark.parametrize("seed", range(16))
def test_random_cells(seed):
    rng = random.Random(seed)
    outputs, w = _random_cell(rng)
    machine = rng.choice((*MACHINES, OLD))
    steps(outputs, (w,) if rng.random() < 0.7 else (), machine, count=1, tolerance=1e-4)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("batch,hidden", [(32, 64), (1, 6)])
def test_fusion_makes_one_group_of_a_cell(model, batch, hidden):
    outputs, _ = MODELS[model](batch, hidden)
    leaves = tuple(n for n in toposort(outputs) if n.kind is Kind.INPUT)
    (group,) = partition(Graph(leaves, outputs), WIDE).groups
    assert set(group.outputs) == set(outputs)


def test_fusion_leaves_results_alone_that_others_read_whole():
    """A slice with its own user joins the product only if the rest of the result is not stored for others."""
    h, w, v = leaf("h", 16, 32), leaf("w", 32, 64), leaf("v", 64, 8)
    z = matmul(h, w)
    a, _ = gates(z, 2)
    outputs = (ops.tanh(a), matmul(z, v))
    groups = partition(Graph((h, w, v), outputs), WIDE).groups
    assert len(groups) == 3


def test_a_gate_put_back_into_a_value_of_the_whole_size():
    """Outputs of the size of the product may read gates all the same."""
    h, w, ct = leaf("h", 3, 3, dtype=float64), leaf("w", 3, 3, dtype=float64), leaf("ct", 3, 1, dtype=float64)
    z = ops.tanh(matmul(h, w))
    part = ops.mul(ct, ops.cos(gates(z, 3)[0]))
    out = ops.mul(ops.pad(part, (0, 0), (0, 2)), ops.sub(ops.like(z, 1.0), ops.mul(z, z)))
    for machine in MACHINES:
        check(out, machine=machine)
    check_graph(Graph((h, w, ct), (out,)), partition(Graph((h, w, ct), (out,)), WIDE))


def test_what_stays_inside_a_cell_is_known_by_structure_and_by_what_is_given():
    """Answers are remembered: equal questions share one, but not those about other givens or slices."""
    for first, second in [(0, 1), (1, 0)]:  # either may be asked first
        z, b = leaf(f"z{first}", 4, 6), leaf(f"b{first}", 4, 6)
        ours, theirs = ops.mul(z, b), ops.mul(gates(z, 2)[first], gates(b, 2)[second])
        cells = Cells(4, 3)
        for _ in range(2):
            assert stays_inside(ours, cells, (z,), (b,))
            assert not stays_inside(ours, cells, (), (b,))
            assert not stays_inside(ours, cells, (z,), ())
            assert stays_inside(theirs, cells, (z,), (b,))
        whole = Cells(4, 6)
        assert not stays_inside(ops.mul(z, ops.flip(z, (1,))), whole, (z,), ())
        assert stays_inside(ops.mul(z, z), whole, (z,), ())
