"""Stacks of gates put side by side: which are, what the graph computes, what a step of training holds."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops, pipeline
from graphc.autodiff import gradients
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.types import TensorType, float64
from graphc.passes import beside, loops, simplify

BATCH, WIDTH = 3, 16
rng = np.random.default_rng(7)


def node(name: str, *shape: int) -> Node:
    return ops.input_(name, TensorType(shape, float64))


def trained(length: int, *, reverse: bool = False, kept: bool = False, given: bool = False) -> Graph:
    """Loss and gradients of a recurrence with three gates.

    kept   the stack of a gate is an output of its own
    given  the stack that is cut into gates is an input
    """
    h, x = node("h", BATCH, WIDTH), node("x", BATCH, 3 * WIDTH)
    xs = node("xs", length, BATCH, 3 * WIDTH if given else WIDTH)
    inner, outer = node("inner", WIDTH, 3 * WIDTH), node("outer", WIDTH, 3 * WIDTH)
    start = node("start", BATCH, WIDTH)
    stack = xs if given else ops.dot_general(xs, outer, ((2,), (0,)), ((), ()))
    z = ops.add(ops.dot_general(h, inner, ((1,), (0,)), ((), ())), x)
    cut = [ops.slice_axis(z, 1, k * WIDTH, (k + 1) * WIDTH) for k in range(3)]
    r, u, n = ops.sigmoid(cut[0]), ops.sigmoid(cut[1]), ops.tanh(cut[2])
    after = ops.add(ops.mul(u, h), ops.mul(r, n))
    made = ops.scan([h], [x], [after], [after, r], [start], [stack], reverse=reverse)
    states, gate = made.stacked
    loss = ops.reduce_sum(ops.mul(states, states), range(3))
    found = gradients((loss,), (ops.like(loss, 1.0),), (inner, start))
    return Graph((xs, inner, start, outer), (loss, *found, *[gate] * kept))


def prepared(graph: Graph) -> Graph:
    return loops.run(simplify.run(graph))


def stacked(graph: Graph) -> list[tuple[int, ...]]:
    """Shapes of the stacks that loops make."""
    return [n.type.shape for n in graph.nodes if n.kind is Kind.SCAN and n.attrs.emit is not None]


def arrays_for(graph: Graph) -> list[np.ndarray]:
    return [0.3 * rng.standard_normal(n.shape) for n in graph.inputs]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [2, 5])
def test_values(length: int, reverse: bool) -> None:
    graph = trained(length, reverse=reverse)
    changed = beside.run(prepared(graph))
    arrays = arrays_for(graph)
    expected = pipeline.compile(graph, backend="reference")(arrays)
    for actual in (pipeline.compile(changed, backend="reference")(arrays), pipeline.compile(graph)(arrays)):
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-12)


def test_three_stacks_become_one_of_the_shape_of_what_they_are_cut_from() -> None:
    graph = prepared(trained(5))
    changed = beside.run(graph)
    gate, whole = (5, BATCH, WIDTH), (5, BATCH, 3 * WIDTH)
    assert stacked(graph).count(gate) - stacked(changed).count(gate) == 3
    assert stacked(changed).count(whole) - stacked(graph).count(whole) == 1
    assert beside.run(changed) is changed


@pytest.mark.parametrize("option", ["kept", "given"])
def test_left_alone(option: str) -> None:
    """A gate that somebody else reads stays a stack; and without memory to lie over nothing is gained."""
    graph = prepared(trained(5, **{option: True}))
    assert beside.run(graph) is graph


def test_gates_and_their_gradients_lie_over_what_they_are_made_of() -> None:
    length = 200
    planned = pipeline.inspect(trained(length)).planned
    whole = length * BATCH * 3 * WIDTH * 8
    chains = [[v for v in b.values if v.type.nbytes == whole] for b in planned.buffers]
    assert max(map(len, chains)) == 3
    assert planned.plan.arena_bytes < 2 * whole
