"""The plan: right numbers on real memory, disjoint live buffers, donation, gate, barriers, peak."""

from __future__ import annotations

import itertools
import random

import networkx as nx
import numpy as np
import pytest

from graphc import ops, plan
from graphc.analysis.arena import Interval, lower_bound, pack
from graphc.analysis.barriers import Range, barriers
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, float32, int64
from graphc.ops.evaluate import evaluate_node
from graphc.passes import checks

from .planned import Lowered, Machine, make_plan
from .random_graphs import assert_same, random_graph, random_inputs


def run(graph: Graph, donated: dict[int, int], arrays: list[np.ndarray], seed: int = 0, flags=()) -> tuple:
    """Plan and run; returns status and outputs. Donated arrays are overwritten."""
    planned, lowered = make_plan(graph, donated, flags)
    check_buffers(planned)
    outputs = [
        arrays[donated[o]] if o in donated else np.full(n.shape, 99, n.dtype.numpy)
        for o, n in enumerate(graph.outputs)
    ]
    status = Machine(planned.plan, lowered.node, seed)(arrays, outputs)
    return status, outputs, planned


def evaluate_graph(graph: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs, with dense operands as in a plan (NumPy's results may depend on strides)."""
    values = dict(zip(graph.inputs, arrays, strict=True))
    for node in graph.nodes:
        if node not in values:
            values[node] = np.asarray(evaluate_node(node, [values[n] for n in node.inputs]), order="C")
    return [values[node] for node in graph.outputs]


def check_buffers(planned: plan.Planned) -> None:
    """No two buffers that are live at once share a byte; the bound and the size are honest."""
    buffers = [b for b in planned.buffers if b.interval.size]
    together = nx.Graph()
    together.add_nodes_from(range(len(buffers)))
    for i, j in itertools.combinations(range(len(buffers)), 2):
        a, b = buffers[i], buffers[j]
        if a.interval.start <= b.interval.end and b.interval.start <= a.interval.end:
            together.add_edge(i, j)
            apart = a.offset + a.interval.size <= b.offset or b.offset + b.interval.size <= a.offset
            assert apart, (a, b)
    cliques = (sum(-(-buffers[i].interval.size // 64) * 64 for i in c) for c in nx.find_cliques(together))
    assert planned.plan.arena_lower_bound == max(cliques, default=0)
    assert all(b.offset % 64 == 0 for b in buffers)
    size = max((b.offset + -(-b.interval.size // 64) * 64 for b in buffers), default=0)
    assert planned.plan.arena_bytes == size >= planned.plan.arena_lower_bound


def assert_right(graph: Graph, donated: dict[int, int], seed: int) -> plan.Planned:
    arrays = random_inputs(graph, seed)
    expected = evaluate_graph(graph, [a.copy() for a in arrays])
    before = [a.copy() for a in arrays]
    status, outputs, planned = run(graph, donated, arrays, seed)
    assert status == 0
    for actual, right in zip(outputs, expected, strict=True):
        assert_same(actual, right)
    for i, (array, old) in enumerate(zip(arrays, before, strict=True)):
        if i not in donated.values():
            assert_same(array, old)
    return planned


@pytest.mark.parametrize("block", range(4))
def test_random_graphs(block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        assert_right(random_graph(seed, steps=30, outputs=4), {}, seed)


@pytest.mark.parametrize("block", range(8))
def test_random_graphs_with_state(block: int) -> None:
    """Inputs paired at random with outputs of their type, passed through and swapped ones included."""
    for seed in range(block * 25, block * 25 + 25):
        graph = random_graph(seed, steps=30, outputs=3)
        pick = random.Random(seed)
        extra = [pick.choice(graph.inputs) for _ in range(3)]
        extra += [n for n in graph.nodes if any(n.type == i.type for i in graph.inputs)][-6:]
        graph = graph.with_outputs((*graph.outputs, *pick.sample(extra, len(extra))))
        free = list(range(len(graph.inputs)))
        donated = {}
        for o, node in enumerate(graph.outputs):
            fits = [i for i in free if graph.inputs[i].type == node.type]
            if fits and pick.random() < 0.8:
                donated[o] = pick.choice(fits)
                free.remove(donated[o])
        assert_right(graph, donated, seed)


P = ops.input_("p", TensorType((64,), float32))
Q = ops.input_("q", TensorType((64,), float32))
G = ops.input_("g", TensorType((64,), float32))


def calls(planned: plan.Planned) -> list[str]:
    return [step.kernel.name for step in planned.steps]


def test_update_is_in_place() -> None:
    new = ops.sub(P, G)
    planned = assert_right(Graph((P, G), (new,)), {0: 0}, 1)
    assert calls(planned) == ["sub"]
    assert planned.plan.arena_bytes == 0


def test_update_waits_for_readers_of_the_old_value() -> None:
    new = ops.sub(P, G)
    old_norm = ops.reduce_sum(ops.exp(P), (0,))
    planned = assert_right(Graph((P, G), (new, old_norm)), {0: 0}, 2)
    order = calls(planned)
    assert order.index("exp") < order.index("sub")
    assert "copy" not in order


def test_update_that_feeds_a_reader_of_the_old_value_is_copied() -> None:
    """new is needed before the last reader of the old value has run."""
    new = ops.sub(P, G)
    mixed = ops.mul(ops.exp(new), P)
    planned = assert_right(Graph((P, G), (new, mixed)), {0: 0}, 3)
    assert calls(planned).count("copy") == 1


def test_update_by_a_kernel_that_is_not_elementwise_is_copied() -> None:
    new = ops.flip(P, (0,))
    planned = assert_right(Graph((P,), (new,)), {0: 0}, 4)
    assert calls(planned) == ["flip", "copy"]


def test_states_may_swap() -> None:
    assert_right(Graph((P, Q), (Q, P)), {0: 0, 1: 1}, 5)
    assert_right(Graph((P, Q, G), (Q, G, P)), {0: 0, 1: 1, 2: 2}, 6)


def test_kept_state_costs_nothing() -> None:
    planned = assert_right(Graph((P,), (P,)), {0: 0}, 7)
    assert planned.plan.calls == ()


def test_one_value_in_several_outputs() -> None:
    new = ops.sub(P, Q)
    assert_right(Graph((P, Q), (new, new, new, P)), {0: 0, 2: 1}, 8)


def test_constants_inputs_and_views_as_outputs() -> None:
    table = ops.constant(np.arange(6, dtype=np.float32).reshape(2, 3))
    exp = ops.exp(P)
    view = ops.reshape(exp, (8, 8))
    graph = Graph((P,), (table, P, ops.reshape(P, (8, 8)), ops.constant(2.5, float32), exp, view))
    planned = assert_right(graph, {}, 9)
    assert calls(planned).count("exp") == 1


def test_empty_values_take_no_calls() -> None:
    empty = ops.slice_axis(P, 0, 3, 3)
    planned = assert_right(Graph((P,), (empty, ops.exp(empty))), {}, 10)
    assert planned.plan.calls == ()


def test_chain_runs_in_one_buffer() -> None:
    node: Node = ops.reduce_sum(ops.broadcast(P, (3, 64), (1,)), (0,))
    for _ in range(5):
        node = ops.tanh(node)
    planned = assert_right(Graph((P,), (ops.reduce_max(node, (0,)),)), {}, 11)
    longest = max(planned.buffers, key=lambda b: len(b.values))
    assert len(longest.values) == 6


def test_a_value_that_is_read_and_never_written_is_refused() -> None:
    x = ops.input_("x", TensorType((8,), float32))
    middle = ops.neg(x)
    graph = Graph((x,), (ops.exp(middle),))
    lowered = Lowered(graph)
    without = {group: calls for group, calls in lowered.calls.items() if middle not in group.outputs}
    with pytest.raises(ValueError, match=r"kernel exp reads .*neg.* which nobody wrote"):
        plan.make(graph, list(without), without)


def test_impossible_donations_are_refused() -> None:
    small = ops.input_("small", TensorType((3,), float32))
    with pytest.raises(
        ValueError, match=r"output 0 is f32\[64\]: it cannot take the memory of input 1, f32\[3\]"
    ):
        make_plan(Graph((P, small), (ops.exp(P),)), {0: 1})
    with pytest.raises(ValueError, match="donated to one output only"):
        make_plan(Graph((P,), (ops.exp(P), ops.tanh(P))), {0: 0, 1: 0})


# ------------------------------------------------------------------------- checks

LABELS = ops.input_("labels", TensorType((4,), int64))
TABLE = ops.input_("table", TensorType((5, 64), float32))


def checked_step() -> tuple[checks.Checked, Graph]:
    labels = ops.check_index(LABELS, 0, 5, "label out of range")
    picked = ops.take(TABLE, labels, 0)
    new = ops.sub(P, ops.reduce_sum(picked, (0,)))
    graph = Graph((P, TABLE, LABELS), (new, ops.neg(TABLE)))
    return checks.run(graph), graph


def test_a_failed_check_leaves_state_alone() -> None:
    checked, _ = checked_step()
    arrays = random_inputs(checked.graph, 1, specials=False)
    arrays[2] = np.array([0, 4, 5, 1])
    before = [a.copy() for a in arrays]
    status, _, planned = run(checked.graph, {0: 0, 1: 1}, arrays, flags=checked.flags)
    assert status == 1
    assert planned.plan.checks == ("check 0",)
    for array, old in zip(arrays, before, strict=True):
        assert_same(array, old)


def test_a_check_that_holds_lets_the_program_run() -> None:
    checked, graph = checked_step()
    arrays = random_inputs(graph, 1, specials=False)
    arrays[2] = np.array([0, 4, 3, 1])
    expected = evaluate_graph(graph, [a.copy() for a in arrays])
    status, outputs, planned = run(checked.graph, {0: 0, 1: 1}, arrays, flags=checked.flags)
    assert status == 0
    for actual, right in zip(outputs, expected, strict=True):
        assert_same(actual, right)
    assert 0 < planned.plan.gate < len(planned.plan.calls)


def test_the_first_failing_check_wins() -> None:
    first = ops.check_index(LABELS, 0, 5, "first")
    second = ops.check_index(ops.add(LABELS, LABELS), 0, 5, "second")
    checked = checks.run(Graph((LABELS,), (ops.sub(first, second),)))
    for labels, expected in (([0, 1, 2, 2], 0), ([0, 1, 2, 3], 2), ([9, 0, 0, 0], 1)):
        status, _, _ = run(checked.graph, {}, [np.array(labels)], flags=checked.flags)
        assert status == expected


def test_state_written_before_the_gate_is_copied_after_it() -> None:
    """The check depends on the new state: it is computed aside until the check has passed."""
    counter = ops.input_("counter", TensorType((4,), int64))
    new = ops.add(counter, LABELS)
    guarded = ops.check_index(new, 0, 100, "too many")
    checked = checks.run(Graph((counter, LABELS), (new, ops.neg(guarded))))
    for labels, status in (([1, 2, 3, 4], 0), ([1, 2, 3, 400], 1)):
        arrays = [np.zeros(4, np.int64), np.array(labels)]
        got, _, _ = run(checked.graph, {0: 0}, arrays, flags=checked.flags)
        assert got == status
        assert list(arrays[0]) == ([0, 0, 0, 0] if status else labels)


def test_checks_on_checked_values_stay_in_bounds() -> None:
    """Whatever guards a later check is clamped: it runs before anybody looks at the first flag."""
    inner = ops.check_index(LABELS, 0, 5, "inner")
    counts = ops.input_("counts", TensorType((5,), int64))
    outer = ops.check_index(ops.take(counts, inner, 0), 0, 3, "outer")
    checked = checks.run(Graph((LABELS, counts), (outer,)))
    status, _, _ = run(
        checked.graph, {}, [np.array([0, 1, 77, 2]), np.array([0, 1, 2, 2, 9])], flags=checked.flags
    )
    assert status == 1


# --------------------------------------------------------------- arena and barriers


def test_packing_is_near_the_bound() -> None:
    ratios = []
    for seed in range(60):
        pick = random.Random(seed)
        intervals = [
            Interval(pick.choice([0, 8, 100, 1000, 4096, 100_000]), s, s + pick.randint(0, 12))
            for s in (pick.randrange(40) for _ in range(80))
        ]
        offsets, total = pack(intervals)
        for (a, x), (b, y) in itertools.combinations(zip(intervals, offsets, strict=True), 2):
            if a.start <= b.end and b.start <= a.end and a.size and b.size:
                assert x + a.size <= y or y + b.size <= x
        ratios.append(total / lower_bound(intervals))
    assert min(ratios) >= 1
    assert sum(ratios) / len(ratios) < 1.10


def flags(reads: list[list[Range]], writes: list[list[Range]]) -> list[bool]:
    return barriers(lambda i, trips: (reads[i], writes[i]), len(reads))


def test_barriers_only_where_bytes_meet() -> None:
    a, b, c = Range("m", 0, 64), Range("m", 64, 128), Range("other", 0, 64)
    assert flags([[a], [a], [a]], [[b], [c], []]) == [False, False, False]
    assert flags([[], [a]], [[a], [b]]) == [False, True]  # read after write
    assert flags([[a], []], [[b], [a]]) == [False, True]  # write after read
    assert flags([[], []], [[a], [a]]) == [False, True]  # write after write
    assert flags([[], [a], [a]], [[a], [b], [c]]) == [False, True, False]
