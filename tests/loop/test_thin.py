"""Few rows times many columns: dot products and sums of scaled rows, of operands where they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc import ops
from graphc.ir.types import float64
from graphc.loop.lower import ways
from graphc.loop.lowered import KernelCall
from graphc.program import Machine
from tests.loop.running import make_free
from tests.loop.test_cells import OLD, gates
from tests.loop.test_ways import MACHINES, WIDE, check, group_of, leaf, tiles


@pytest.fixture
def prefer(monkeypatch):
    """Make one way of lowering free of charge, so that it is always chosen."""

    def choose(name: str) -> list[object]:
        found = make_free(monkeypatch, name)
        monkeypatch.setattr(ways, "combining", lambda results, splits: 0.0)
        return found

    return choose


@pytest.mark.parametrize("machine", (*MACHINES, OLD), ids=lambda m: m.name)
@pytest.mark.parametrize("m,n,k", [(1, 70, 64), (3, 33, 19), (8, 100, 40), (13, 48, 37)])
def test_dot_products(prefer, machine: Machine, m, n, k):
    found = prefer("plan_dots")
    x, w, bias = leaf("x", m, k), leaf("w", n, k), leaf("b", n)
    y = ops.dot_general(x, w, ((1,), (1,)))
    calls = check(ops.tanh(ops.add(y, ops.broadcast(bias, y.shape, (1,)))), machine=machine)
    assert found
    assert len(calls) == 1
    assert not tiles(calls)


@pytest.mark.parametrize("machine", (*MACHINES, OLD), ids=lambda m: m.name)
@pytest.mark.parametrize("m,n,k", [(4, 20, 210), (8, 33, 120), (13, 17, 70)])
@pytest.mark.parametrize("left", [0, 1])
def test_long_dot_products(prefer, machine: Machine, m, n, k, left):
    """K in parts, with a last part and a last vector that are not full; A in any order."""
    found = prefer("plan_dots")
    x, w, bias = leaf("x", *((m, k), (k, m))[left]), leaf("w", n, k), leaf("b", n)
    y = ops.dot_general(x, w, ((1 - left,), (1,)))
    added = ops.add(y, ops.broadcast(bias, y.shape, (1,)))
    calls = check(ops.tanh(added), machine=replace(machine, l1_bytes=2048), tolerance=1e-4)
    assert found
    assert found[0].part
    assert found[0].part < k
    assert len(calls) == 1


def test_batches_of_long_dot_products(prefer):
    found = prefer("plan_dots")
    x, w = leaf("x", 3, 8, 40, dtype=float64), leaf("w", 3, 20, 40, dtype=float64)
    small = replace(MACHINES[0], l1_bytes=1024)
    (call,) = check(ops.dot_general(x, w, ((2,), (2,)), ((0,), (0,))), machine=small, tolerance=1e-13)
    assert found[0].part
    assert call.kernel.tasks % 3 == 0, "a task copies the rows of one batch element"


@pytest.mark.parametrize("machine", (*MACHINES, OLD), ids=lambda m: m.name)
@pytest.mark.parametrize("m,n,k", [(1, 70, 64), (2, 33, 19), (5, 100, 203), (13, 48, 37)])
def test_sums_of_scaled_rows(prefer, machine: Machine, m, n, k):
    found = prefer("plan_scaled")
    x, w, bias = leaf("x", m, k), leaf("w", k, n), leaf("b", m, n)
    check(ops.maximum(ops.dot_general(x, w, ((1,), (0,))), bias), machine=machine)
    assert found


def test_long_k_is_shared_out(prefer):
    prefer("plan_scaled")
    calls = check(ops.dot_general(leaf("x", 2, 3000), leaf("w", 3000, 64), ((1,), (0,))), tolerance=1e-4)
    assert len(calls) == 2, "partial sums, and a kernel that adds them up"
    assert calls[0].kernel.tasks > 1


@pytest.mark.parametrize("plan", ["plan_dots", "plan_scaled"])
def test_batches_swapped_operands_and_float64(prefer, plan):
    found = prefer(plan)
    stored = (4, 50, 33) if plan == "plan_dots" else (4, 33, 50)
    depth = 2 if plan == "plan_dots" else 1
    x, w = leaf("x", 4, 3, 33, dtype=float64), leaf("w", *stored, dtype=float64)
    check(ops.dot_general(x, w, ((2,), (depth,)), ((0,), (0,))), tolerance=1e-13)
    check(ops.dot_general(w, x, ((depth,), (2,)), ((0,), (0,))), tolerance=1e-13)
    assert len(found) >= 2


@pytest.mark.parametrize("plan", ["plan_dots", "plan_scaled"])
@pytest.mark.parametrize("batch,hidden", [(1, 16), (3, 40), (9, 64)])
def test_gates(prefer, plan, batch, hidden):
    found = prefer(plan)
    h, c = leaf("h", batch, 20), leaf("c", batch, hidden)
    w = leaf("w", 3 * hidden, 20) if plan == "plan_dots" else leaf("w", 20, 3 * hidden)
    z = ops.dot_general(h, w, ((1,), (1 if plan == "plan_dots" else 0,)))
    i, f, g = gates(z, 3)
    check(ops.add(ops.mul(ops.sigmoid(f), c), ops.mul(ops.sigmoid(i), ops.tanh(g))), z)
    assert found


@pytest.mark.parametrize("m,right", [(40, 0), (40, 1)])
def test_many_rows_are_tiled(prefer, m, right):
    dots, scaled = prefer("plan_dots"), prefer("plan_scaled")
    calls = check(ops.dot_general(leaf("x", m, 64), leaf("w", 64, 64), ((1,), (right,))))
    assert not dots
    assert not scaled
    assert tiles(calls)


@pytest.mark.parametrize("n,k", [(1024, 1024), (512, 2048)])
def test_many_columns_are_not_walked_across(n: int, k: int):
    """Sixteen rows times a large matrix as stored: tiles would fetch a cache line for every step of K."""
    group = group_of(ops.dot_general(leaf("x", 16, k), leaf("w", k, n), ((1,), (0,))))
    assert not tiles(ways.lower_contraction(group, WIDE))


@pytest.mark.parametrize("m,n", [(1, 1024), (8, 1023)])
def test_a_matrix_from_memory_is_read_in_long_runs(monkeypatch: pytest.MonkeyPatch, m: int, n: int) -> None:
    """Few rows times a matrix as stored, which stays in no cache: neither column by column, nor
    copied into panels, each a short run of every row."""
    machine = replace(WIDE, vector_bytes=64, l1_bytes=1 << 13, l2_bytes=1 << 16, l3_bytes=1 << 18)
    made = []

    class Spied(ways.Scaled):
        def call(self, name: str) -> KernelCall:
            made.append(name)
            return super().call(name)

    monkeypatch.setattr(ways, "Scaled", Spied)
    node = ops.dot_general(leaf("x", m, 256), leaf("y", 256, n), ((1,), (0,)))
    ways.lower_contraction(group_of(node), machine)
    assert made
