"""Every way of lowering a contraction, run by the loop-IR interpreter against NumPy's evaluation of the
node."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import toposort
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.ir.types import DType, TensorType, float32, float64, int64
from graphc.loop.inplace import statements
from graphc.loop.interpret import run
from graphc.loop.ir import For, Tile
from graphc.loop.lower.ways import lower_contraction
from graphc.loop.lowered import KernelCall, Temp
from graphc.program import Machine

WIDE = Machine("wide", 64, ((6, 4), (8, 3), (14, 2), (28, 1)), True)
NARROW = Machine("narrow", 16, ((8, 3), (6, 4), (12, 2)), False)
CRAMPED = Machine("cramped", 16, ((4, 2),), False, l1_bytes=512, l2_bytes=4096)
MACHINES = (WIDE, NARROW, CRAMPED)


def leaf(name: str, *shape: int, dtype: DType = float32) -> Node:
    return ops.input_(name, TensorType(shape, dtype))


def group_of(*outputs: Node) -> Group:
    nodes = toposort(outputs)
    leaves = tuple(n for n in nodes if n.kind is Kind.INPUT)
    return Group(tuple(n for n in nodes if n not in leaves), leaves, outputs)


def evaluate(outputs: Sequence[Node], values: dict[Node, np.ndarray]) -> list[np.ndarray]:
    known = dict(values)
    for node in toposort(outputs):
        if node not in known:
            known[node] = node.op.evaluate([known[n] for n in node.inputs], node.attrs)
    return [known[n] for n in outputs]


def draw(node: Node, rng: np.random.Generator) -> np.ndarray:
    if node.dtype.is_float:
        return rng.standard_normal(node.shape).astype(node.dtype.numpy)
    return rng.integers(-9, 9, node.shape).astype(node.dtype.numpy)


def execute(
    calls: Sequence[KernelCall],
    values: dict[Node, np.ndarray],
    backwards: bool = False,
    keep_temps: bool = False,
) -> None:
    """Run kernels in order, their tasks in order or backwards; `values` gains what they write, temporaries
    only if `keep_temps`."""
    memory: dict[Node | Temp, np.ndarray] = dict(values)
    for call in calls:
        for arg in call.args:
            if arg not in memory:
                memory[arg] = np.full(arg.type.shape, 99, arg.type.dtype.numpy)
        tasks = range(call.kernel.tasks)
        assert run(call.kernel, [memory[a] for a in call.args], tasks[::-1] if backwards else tasks) == 0
    values.update({k: v for k, v in memory.items() if keep_temps or isinstance(k, Node)})


def check(*outputs: Node, machine: Machine = WIDE, tolerance: float = 2e-5) -> tuple[KernelCall, ...]:
    group = group_of(*outputs)
    rng = np.random.default_rng(7)
    values = {n: draw(n, rng) for n in group.inputs}
    wanted = evaluate(outputs, values)
    calls = lower_contraction(group, machine)
    execute(calls, values, backwards=True)
    for node, want in zip(outputs, wanted, strict=True):
        scale = np.abs(want).max() if want.size else 1
        if node.dtype.is_float:
            np.testing.assert_allclose(values[node], want, rtol=0, atol=tolerance * max(1.0, scale))
        else:
            np.testing.assert_array_equal(values[node], want)
    return calls


def tiles(calls: Sequence[KernelCall]) -> list[Tile]:
    return [s for c in calls for s, _ in statements(c.kernel.body) if isinstance(s, Tile)]


def matmul(x: Node, y: Node) -> Node:
    return ops.dot_general(x, y, ((x.type.rank - 1,), (y.type.rank - 2,)))


# ------------------------------------------------------------------------- matrix products


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("m,n,k", [(24, 64, 16), (37, 71, 45), (5, 33, 7), (64, 10, 20)])
def test_transposes_and_tails(machine, left, right, m, n, k):
    x = leaf("x", *((k, m) if left else (m, k)))
    y = leaf("y", *((n, k) if right else (k, n)))
    check(ops.dot_general(x, y, ((0 if left else 1,), (1 if right else 0,))), machine=machine)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_batched(machine):
    x, y = leaf("x", 3, 9, 20), leaf("y", 3, 20, 17)
    check(ops.dot_general(x, y, ((2,), (1,)), ((0,), (0,))), machine=machine)


def test_several_axes_and_a_transposed_batch():
    x, y = leaf("x", 4, 3, 6, 5), leaf("y", 3, 6, 9, 4)
    check(ops.dot_general(x, y, ((0, 2), (3, 1)), ((1,), (0,))))
    check(ops.dot_general(x, y, ((0, 2), (3, 1)), ((1,), (0,))), machine=CRAMPED)


@pytest.mark.parametrize("shapes", [((7,), (7,)), ((33, 70), (70,)), ((1, 70), (70, 33)), ((2, 90), (90, 3))])
def test_thin(shapes):
    x, y = (leaf(n, *s) for n, s in zip("xy", shapes, strict=True))
    check(ops.dot_general(x, y, ((x.type.rank - 1,), (0,))))


def test_outer_product_and_empty():
    check(ops.dot_general(leaf("x", 3), leaf("y", 40), ((), ())))
    check(matmul(leaf("x", 64, 1), leaf("y", 1, 64)))
    check(matmul(leaf("x", 3, 0), leaf("y", 0, 4)))
    assert lower_contraction(group_of(matmul(leaf("x", 0, 3), leaf("y", 3, 4))), WIDE) == ()


def test_float64_and_integers():
    for dtype in (float64, int64):
        x, y = leaf("x", 21, 30, dtype=dtype), leaf("y", 30, 35, dtype=dtype)
        check(matmul(x, y), tolerance=1e-13)


def test_deep_k_is_blocked():
    """K larger than a panel may be: several passes over the sums in scratch memory."""
    calls = check(matmul(leaf("x", 20, 700), leaf("y", 700, 40)), machine=CRAMPED)
    assert tiles(calls)
    assert all(tile.accumulate for tile in tiles(calls))


def test_long_k_is_split():
    """Few results of many products: partial sums by tasks, then a second kernel."""
    calls = check(matmul(leaf("x", 12, 4000), leaf("y", 4000, 32)))
    assert [c.kernel.name for c in calls] == ["dot_general", "dot_general_combine"]
    assert calls[0].kernel.tasks > 1


def test_a_big_product_has_tasks_and_tiles():
    calls = check(matmul(leaf("x", 60, 48), leaf("y", 48, 192)))
    assert calls[0].kernel.tasks > 1
    assert tiles(calls)


# ------------------------------------------------------------------------- what is fused


@pytest.mark.parametrize("m,n,k", [(30, 40, 20), (3, 5, 2), (6, 16, 900), (1, 50, 60)])
def test_epilogue(m, n, k):
    """Bias, residual and activation on the result; the product itself is wanted too."""
    product = matmul(leaf("x", m, k), leaf("y", k, n))
    biased = ops.add(product, ops.broadcast(leaf("bias", n), (m, n), (1,)))
    result = ops.maximum(ops.add(biased, leaf("rest", m, n)), ops.full((m, n), 0.0, float32))
    check(result, product)


def test_operands_through_views_and_casts():
    x = ops.transpose(ops.reshape(leaf("x", 4, 5, 6), (20, 6)), (1, 0))
    y = ops.cast(leaf("y", 20, 40, dtype=int64), float32)
    check(matmul(x, y))
    check(matmul(ops.broadcast(leaf("v", 20), (9, 20), (1,)), y))


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 5), (6, 1, 1), (6, 1, 2), (1, 1, 40), (70, 1, 3)])
def test_one_column_is_no_vector(m, n, k):
    """The index simplifier drops variables of one value, and a vector loop without its variable is none."""
    calls = check(matmul(leaf("x", m, k), leaf("y", k, n)))
    loops = [s for c in calls for s, _ in statements(c.kernel.body) if isinstance(s, For)]
    assert not any(s.mode == "vector" and s.var.extent == 1 for s in loops)
