"""Plans with loops, interpreted on real bytes: places, lifetimes, and barriers within and across trips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc import ops, pipeline
from graphc.autodiff import gradients
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float32, float64
from graphc.program import Plan

from .planned import Interpreted
from .random_scans import random_scans
from .test_plan import check_buffers


def interpreted(plan: Plan, graph: Graph, arrays: list[np.ndarray], seed: int) -> list[np.ndarray]:
    outputs = [np.full(n.shape, 99, n.dtype.numpy) for n in graph.outputs]
    assert Interpreted(plan, seed)([a.copy() for a in arrays], outputs) == 0
    return outputs


def wrong(actual: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return any(not np.allclose(a, e, rtol=1e-9, atol=1e-9) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_random_loops(depth: int) -> None:
    """Calls between barriers run in a random order; without barriers that shows."""
    unordered = 0
    for seed in range(1000 * depth, 1000 * depth + 25):
        graph, arrays = random_scans(seed, float64, depth)
        expected = pipeline.compile(graph, backend="reference")([a.copy() for a in arrays])
        planned = pipeline.inspect(graph).planned
        assert planned is not None
        check_buffers(planned)
        assert not wrong(interpreted(planned.plan, graph, arrays, seed), expected), seed
        bare = replace(planned.plan, calls=tuple(replace(c, barrier=False) for c in planned.plan.calls))
        unordered += wrong(interpreted(bare, graph, arrays, seed), expected)
    assert unordered > 10


def node(name: str, *shape: int) -> Node:
    return ops.input_(name, TensorType(shape, float32))


def lstm_step(length: int, batch: int, width: int) -> Graph:
    """Loss and moved weights of an LSTM."""
    h, c, x = node("h", batch, width), node("c", batch, width), node("x", batch, width)
    xs, start = node("xs", length, batch, width), node("start", batch, width)
    inner, outer = node("w_hh", 4 * width, width), node("w_ih", 4 * width, width)
    both = ((1,), (1,)), ((), ())
    gates = ops.add(ops.dot_general(h, inner, *both), ops.dot_general(x, outer, *both))
    cut = [ops.slice_axis(gates, 1, k * width, (k + 1) * width) for k in range(4)]
    keep, put, out = (ops.sigmoid(g) for g in cut[:3])
    cell = ops.add(ops.mul(keep, c), ops.mul(put, ops.tanh(cut[3])))
    hidden = ops.mul(out, ops.tanh(cell))
    made = ops.scan([h, c], [x], [hidden, cell], [hidden], [start, start], [xs])
    loss = ops.reduce_sum(ops.mul(made.stacked[0], made.stacked[0]), range(3))
    found = gradients((loss,), (ops.like(loss, 1.0),), (inner, outer))
    moved = [ops.sub(w, ops.mul(g, ops.like(g, 0.1))) for w, g in zip((inner, outer), found, strict=True)]
    return Graph((inner, outer, xs, start), (*moved, loss))


def test_memory_of_an_lstm_step() -> None:
    """The arena is close to its lower bound, and what it holds for each step is what backward needs: h and c
    before the step, tanh of c, and one stack for what is the input's part of the gates at first, then the
    gates, and their gradients in the end."""
    length, batch, width = 50, 8, 64
    graph = lstm_step(length, batch, width)
    plan = pipeline.inspect(graph, {0: 0, 1: 1}).planned.plan
    assert plan.arena_bytes <= 1.05 * plan.arena_lower_bound
    step = 4 * batch * width
    assert plan.arena_bytes <= (4 + 2 + 1 + 2) * length * step


def test_temporaries_of_trips_share_memory() -> None:
    """What a trip needs for itself does not grow with the number of trips."""
    sizes = []
    for length in (10, 100):
        h, x = node("h", 64), node("x", 64)
        hidden = ops.exp(ops.flip(ops.tanh(ops.flip(ops.add(h, x), (0,))), (0,)))
        after = ops.sub(hidden, ops.broadcast(ops.reduce_sum(hidden, (0,)), (64,), ()))
        made = ops.scan([h], [x], [after], [], [node("h0", 64)], [node("xs", length, 64)])
        graph = Graph((node("h0", 64), node("xs", length, 64)), tuple(made.finals))
        planned = pipeline.inspect(graph).planned
        sizes.append(planned.plan.arena_bytes)
    assert sizes[0] == sizes[1]


def test_a_carry_is_written_in_place_where_its_reader_is_its_writer() -> None:
    c, x = node("c", 64), node("x", 64)
    after = ops.tanh(ops.add(c, x))
    made = ops.scan([c], [x], [after], [], [node("c0", 64)], [node("xs", 9, 64)])
    graph = Graph((node("c0", 64), node("xs", 9, 64)), tuple(made.finals))
    planned = pipeline.inspect(graph).planned
    assert planned.plan.arena_bytes == 0
    assert [call.kernel.name for call in planned.steps] == ["points"]


def test_a_carry_that_is_read_after_it_is_written_takes_turns() -> None:
    c, x = node("c", 64), node("x", 64)
    after = ops.add(ops.flip(c, (0,)), x)
    made = ops.scan([c], [x], [after], [], [node("c0", 64)], [node("xs", 9, 64)])
    graph = Graph((node("c0", 64), node("xs", 9, 64)), tuple(made.finals))
    planned = pipeline.inspect(graph).planned
    assert planned.plan.arena_bytes == 256
    assert [call.kernel.name for call in planned.steps] == ["points"]


def test_the_plan_shows_loops() -> None:
    text = pipeline.inspect(lstm_step(50, 8, 64)).__getitem__("plan").text
    assert "loop 0: 50 trips" in text
    assert "*t0" in text
    assert "part of" in text


def stacked_over(body, *, again: bool = False, reverse: bool = False) -> tuple[Graph, bool]:
    """A loop on a computed stack, and whether what it stacks lies over that; `body` makes the emit of a carry
    and a slice. `again`: the stack is read after the loop too."""
    c, x = node("c", 4, 32), node("x", 4, 32)
    xs, start = node("xs", 9, 4, 32), node("start", 4, 32)
    computed = ops.dot_general(xs, node("w", 32, 32), ((2,), (0,)), ((), ()))
    emit = body(c, x)
    made = ops.scan([c], [x], [ops.add(c, x)], [emit], [start], [computed], reverse=reverse)
    back = ops.dot_general(made.stacked[0], node("w", 32, 32), ((2,), (0,)), ((), ()))
    outputs = (ops.reduce_sum(ops.mul(back, computed) if again else back, (0,)),)
    graph = Graph((xs, start, node("w", 32, 32)), outputs)
    buffers = pipeline.inspect(graph).planned.buffers
    chains = [[v.op.name for v in b.values if isinstance(v, Node)] for b in buffers]
    return graph, any(chain[:2] == ["dot_general", "scan"] for chain in chains)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_stack_of_results_lies_over_the_stack_it_is_made_of(reverse: bool) -> None:
    graph, over = stacked_over(lambda c, x: ops.tanh(ops.mul(c, x)), reverse=reverse)
    assert over
    arrays = [np.random.default_rng(1).standard_normal(n.shape).astype(np.float32) for n in graph.inputs]
    expected = pipeline.compile(graph, backend="reference")([a.copy() for a in arrays])
    plan = pipeline.inspect(graph).planned.plan
    for actual in (interpreted(plan, graph, arrays, 0), pipeline.compile(graph)(arrays)):
        np.testing.assert_allclose(actual[0], expected[0], rtol=1e-4, atol=1e-4)


def test_a_stack_that_is_wanted_again_is_kept() -> None:
    _, over = stacked_over(lambda c, x: ops.tanh(ops.mul(c, x)), again=True)
    assert not over


def test_a_stack_whose_slices_are_read_elsewhere_is_kept() -> None:
    """A step that reads another element of the slice than it writes must not write over it."""
    _, over = stacked_over(lambda c, x: ops.mul(ops.flip(x, (1,)), c))
    assert not over
