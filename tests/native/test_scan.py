"""Loops, native: random ones, nested ones, state beside them, and what does not depend on their length."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import ops, pipeline, threads
from graphc.autodiff import gradients
from graphc.backends.llvm import Backend, objects, table
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, float32, float64, int64
from graphc.loop import lower

from ..random_scans import random_scans
from ..test_plan_loops import lstm_step

TOLERANCE = {float32: 2e-5, float64: 1e-10}


@pytest.fixture
def many_threads(monkeypatch):
    """Every call that has several tasks is shared by threads, however small it is."""
    monkeypatch.setattr(table, "SERIAL_US", 0.0)
    monkeypatch.setattr(table, "ALONE_US", 0.0)
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def assert_native(graph: Graph, arrays: list[np.ndarray], tolerance: float) -> None:
    """As the reference, with the same bits on 1, 2 and 3 threads."""
    expected = pipeline.compile(graph, backend="reference")([a.copy() for a in arrays])
    program = pipeline.compile(graph)
    bits = set()
    for count in (1, 2, 3):
        threads.set_num_threads(count)
        for _ in range(2):
            actual = program([a.copy() for a in arrays])
            bits.add(tuple(a.tobytes() for a in actual))
        for a, e in zip(actual, expected, strict=True):
            scale = max(1.0, float(np.abs(e).max(initial=0)))
            np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance * scale)
    assert len(bits) == 1


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda t: t.name)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_random_loops(many_threads, depth: int, dtype: DType) -> None:
    for seed in range(8):
        assert_native(*random_scans(100 * depth + seed, dtype, depth), TOLERANCE[dtype])


def node(name: str, *shape: int) -> Node:
    return ops.input_(name, TensorType(shape, float32))


def rnn(length: int, batch: int, width: int, reverse: bool = False) -> tuple[Graph, list[np.ndarray]]:
    """Loss, last state and gradients of a tanh network; its weights are moved in place."""
    h, x = node("h", batch, width), node("x", batch, width)
    h0, xs, weight = node("h0", batch, width), node("xs", length, batch, width), node("w", width, width)
    after = ops.tanh(ops.add(x, ops.dot_general(h, weight, ((1,), (1,)), ((), ()))))
    made = ops.scan([h], [x], [after], [after], [h0], [xs], reverse=reverse)
    squares = ops.mul(made.stacked[0], made.stacked[0])
    loss = ops.reduce_sum(squares, range(3))
    found = gradients((loss,), (ops.like(loss, 1.0),), (weight, xs, h0))
    new = ops.sub(weight, ops.mul(found[0], ops.like(found[0], 0.01)))
    rng = np.random.default_rng(0)
    graph = Graph((h0, xs, weight), (new, loss, made.finals[0], *found[1:]))
    return graph, [(rng.standard_normal(n.shape) * 0.3).astype(np.float32) for n in graph.inputs]


@pytest.mark.parametrize("reverse", [False, True])
def test_shared_by_threads(many_threads, reverse: bool) -> None:
    """Kernels of many tasks in a loop: a trip may not start before the one before has done its part."""
    graph, arrays = rnn(6, 40, 200, reverse)
    assert pipeline.inspect(graph).planned is not None
    assert_native(graph, arrays, 1e-4)


def test_state_is_updated_beside_loops() -> None:
    graph, arrays = rnn(5, 4, 16)
    given = [a.copy() for a in arrays]
    expected_given = [a.copy() for a in arrays]
    program = pipeline.compile(graph, {0: 2})
    reference = pipeline.compile(graph, {0: 2}, backend="reference")
    for _ in range(3):
        actual, expected = program(given), reference(expected_given)
        assert actual[0] is given[2]
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)
    assert program.plan is not None
    updates = [c for c in pipeline.inspect(graph, {0: 2}).planned.steps if c.kernel.name == "copy"]
    assert all(c.args[0] is not graph.outputs[0] for c in updates)  # the weight is written in place


def test_carried_state_is_donated() -> None:
    """The last state over the initial one: it is read on the first trip only, but copied all the same."""
    graph, arrays = rnn(5, 4, 16)
    graph = graph.with_outputs(graph.outputs[2:3])
    expected = pipeline.compile(graph, backend="reference")(arrays)
    given = [a.copy() for a in arrays]
    (actual,) = pipeline.compile(graph, {0: 0})(given)
    assert actual is given[0]
    np.testing.assert_allclose(actual, expected[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_a_check_of_what_a_loop_computes_comes_before_updates(many_threads, count: int) -> None:
    """The gate lies behind a loop, and counts its trips."""
    threads.set_num_threads(count)
    steps = ops.input_("steps", TensorType((6, 3), int64))
    table, state = node("table", 40, 5), node("state", 3, 5)
    total, step = (ops.input_(n, TensorType((3,), int64)) for n in ("total", "step"))
    after = ops.add(total, step)
    zeros = ops.like(ops.reduce_sum(steps, (0,)), 0)
    last = ops.scan([total], [step], [after], [], [zeros], [steps]).finals[0]
    rows = ops.take(table, ops.check_index(last, 0, 40, "sum out of range"), 0)
    h, x = node("h", 3, 5), node("x", 3, 5)
    moved = ops.scan(
        [h], [x], [ops.tanh(ops.add(h, x))], [], [state], [ops.broadcast(rows, (4, 3, 5), (1, 2))]
    )
    graph = Graph((steps, table, state), (moved.finals[0],))
    program = pipeline.compile(graph, {0: 2})
    rng = np.random.default_rng(1)
    given = [rng.integers(0, 6, (6, 3)), rng.standard_normal((40, 5)).astype(np.float32)]
    state_array = np.zeros((3, 5), np.float32)
    (actual,) = program([*given, state_array])
    expected = np.zeros((3, 5), np.float32)
    for _ in range(4):
        expected = np.tanh(expected + given[1][given[0].sum(0)])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    before = actual.copy()
    with pytest.raises(IndexError, match="sum out of range"):
        program([given[0] + 100, given[1], state_array])
    np.testing.assert_array_equal(state_array, before)


def test_a_program_with_loops_survives_the_disk() -> None:
    graph, arrays = rnn(7, 3, 8)
    planned = pipeline.inspect(graph).planned
    assert planned is not None
    assert planned.plan.loops
    backend = Backend()
    first = backend.compile(None, planned.plan)
    again = backend.load(backend.serialize(first))
    results = []
    for executable in (first, again):
        outputs = [np.zeros(n.shape, np.float32) for n in graph.outputs]
        assert executable(arrays, outputs) == 0
        results.append(outputs)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def compiled_bytes(length: int) -> int:
    """Size of all the object code of a step, when nothing is known from before."""
    graph = lstm_step(length, 8, 32)
    objects._memory.clear()
    lower._known.clear()
    planned = pipeline.inspect(graph).planned
    assert planned is not None
    Backend().compile(None, planned.plan)
    return sum(map(len, objects._memory.values()))


def test_what_is_compiled_does_not_grow_with_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is the same code; contractions before and behind it that are long are cut in other ways."""
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    compiled_bytes(2)  # the runtime is compiled once
    short, *long = [compiled_bytes(length) for length in (16, 256, 1024, 4096)]
    assert max(long) < 1.05 * min(long)
    assert max(long) < 1.25 * short


def test_plans_of_all_lengths_are_alike() -> None:
    short, long = (pipeline.inspect(rnn(length, 8, 32)[0]).planned for length in (512, 4096))
    assert short is not None
    assert long is not None
    assert len(short.plan.calls) == len(long.plan.calls)
    kernels = [[k.name for k in p.plan.kernels] for p in (short, long)]
    assert kernels[0] == kernels[1]
    assert [loop.trips for loop in long.plan.loops] == [4096, 4096]
