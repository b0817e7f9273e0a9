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
    """The arena is close to its lower bound, and what it holds for each step is what backward needs: four
    gates, and h and c before the step, and the gradient of the gates."""
    length, batch, width = 50, 8, 64
    graph = lstm_step(length, batch, width)
    plan = pipeline.inspect(graph, {0: 0, 1: 1}).planned.plan
    assert plan.arena_bytes <= 1.05 * plan.arena_lower_bound
    step = 4 * batch * width
    assert plan.arena_bytes <= (4 + 2 + 4 + 6) * length * step


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
