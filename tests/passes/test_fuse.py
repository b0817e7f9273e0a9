"""The partition: what fuses with what, and the promises that every partition keeps."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc import ops
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Partition
from graphc.ir.types import TensorType, float32
from graphc.loop.inplace import statements, walk
from graphc.loop.ir import Select, Store
from graphc.passes.fit import READ
from graphc.passes.fuse import MOST, partition
from graphc.passes.roles import is_leaf
from tests.loop import models as m
from tests.loop.running import NARROW, WIDE, calls_of, check
from tests.random_graphs import random_graph

# groups and kernels of the patterns that must fuse; small sizes, so that no reduction is cut into parts
PATTERNS = {
    "softmax, forward and backward": (lambda: m.softmax_backward(9, 21), 1, 1),
    "layernorm forward": (lambda: m.layernorm(6, 33, False), 1, 1),
    "layernorm, forward and backward": (lambda: m.layernorm(6, 33, True), 2, 2),
    "batch norm, relu": (lambda: m.batchnorm(3, 5, 4, 4, False), 1, 1),
    "batch norm, relu, forward and backward": (lambda: m.batchnorm(3, 5, 4, 4, True), 1, 1),
    "cross entropy and its gradient": (lambda: m.cross_entropy(12, 10), 2, 2),
    "adamw": (lambda: m.adamw(7, 9), 1, 1),
    "relu, max pool": (lambda: m.max_pool(2, 3, 6, False), 1, 1),
}


def verify(parts: Partition) -> None:
    """Assert what a Partition promises."""
    written: dict[Node, int] = {}
    for i, group in enumerate(parts.groups):
        members, inputs = set(group.nodes), set(group.inputs)
        assert group.outputs
        assert members.issuperset(group.outputs)
        for node in group.nodes:
            assert all(x in members or x in inputs for x in node.inputs)
        for x in group.inputs:
            assert is_leaf(x) or written[x] < i, "a value is read before it is written"
        for node in group.outputs:
            assert node not in written, "a value is written twice"
            written[node] = i
    for node in parts.graph.outputs:
        assert node in written or node.kind in (Kind.INPUT, Kind.CONSTANT)
    read = {x for g in parts.groups for x in g.inputs}
    assert all(n in read or n in parts.graph.outputs for n in written), "a value is written for nobody"


def quotient(parts: Partition) -> nx.DiGraph:
    """The groups, with an edge for every value that one writes and another reads."""
    home = {n: i for i, g in enumerate(parts.groups) for n in g.outputs}
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(parts.groups)))
    graph.add_edges_from((home[x], i) for i, g in enumerate(parts.groups) for x in g.inputs if x in home)
    return graph


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern(name: str) -> None:
    build, groups, kernels = PATTERNS[name]
    graph = build()
    parts = partition(graph, WIDE)
    verify(parts)
    assert (len(parts.groups), len(calls_of(parts))) == (groups, kernels)
    check(graph, parts)
    check(graph, partition(graph, NARROW), NARROW)


def test_update_is_one_pass_over_memory() -> None:
    """p, m and v are read once and written once, in one loop."""
    (call,) = calls_of(partition(m.adamw(4, 40), WIDE))
    big = [a for a in call.args if a.type.size == 160]
    assert len(big) == 4 + 3
    assert len(call.writes) == 3


def test_epilogue_joins_its_contraction() -> None:
    x, w, b = m.leaf("x", 8, 16), m.leaf("w", 4, 16), m.leaf("b", 4)
    y = ops.dot_general(x, w, ((1,), (1,)), ((), ()))
    y = m.relu(ops.add(y, m.spread(b, y, (1,))))
    (group,) = partition(m.graph([x, w, b], [y]), WIDE).groups
    assert group.outputs == (y,)


def test_operands_of_contractions_are_in_memory() -> None:
    """A function of one contraction that feeds another is stored in between, whatever joins."""
    x, w = m.leaf("x", 8, 8), m.leaf("w", 8, 8)
    h = ops.tanh(ops.dot_general(x, w, ((1,), (0,)), ((), ())))
    y = ops.add(ops.dot_general(h, w, ((1,), (0,)), ((), ())), h)
    graph = m.graph([x, w], [y])
    parts = partition(graph, WIDE)
    verify(parts)
    assert [sum(n.kind is Kind.CONTRACT for n in g.nodes) for g in parts.groups] == [1, 1]
    check(graph, parts)


def test_no_cycle_through_a_reduction() -> None:
    """x -> sum -> exp(sum), and x * that: the sum over all rows needs all of x first."""
    x = m.leaf("x", 600, 700)
    e = ops.exp(x)
    total = ops.reduce_sum(e, (0,))
    y = ops.div(e, m.spread(total, e, (1,)))
    z = ops.reduce_sum(y, (1,))
    parts = partition(m.graph([x], [y, z]), WIDE)
    verify(parts)
    assert nx.is_directed_acyclic_graph(quotient(parts))
    # each kernel has reductions of one kind of row only
    for group in parts.groups:
        assert len({n.shape for n in group.nodes if n.kind is Kind.REDUCE}) <= 1


def test_cheap_values_are_computed_again() -> None:
    """The mask of a relu is not stored for the backward pass."""
    x, w = m.leaf("x", 8, 16), m.leaf("w", 16, 16)
    h = m.relu(ops.dot_general(x, w, ((1,), (0,)), ((), ())))
    y = ops.dot_general(h, w, ((1,), (0,)), ((), ()))
    ct = m.leaf("ct", 8, 16)
    graph = m.graph([x, w, ct], m.with_gradients(y, [w], ct))
    parts = partition(graph, WIDE)
    verify(parts)
    check(graph, parts)


def test_reshapes_that_are_outputs_are_groups_of_their_own() -> None:
    """The plan renames memory for them instead of copying."""
    x = m.leaf("x", 6, 4)
    y = ops.exp(x)
    parts = partition(m.graph([x], [y, ops.reshape(y, (24,))]), WIDE)
    assert [[n.op.name for n in g.nodes] for g in parts.groups] == [["exp"], ["reshape"]]


def test_inputs_and_constants_as_outputs_are_in_no_group() -> None:
    x = m.leaf("x", 3)
    parts = partition(m.graph([x], [x, ops.constant(2.0, x.dtype)]), WIDE)
    assert parts.groups == ()


def test_long_chains_do_not_recurse() -> None:
    x = m.leaf("x", 4)
    y = x
    for _ in range(1500):
        y = ops.add(ops.sin(y), x)
    graph = m.graph([x], [y])
    parts = partition(graph, WIDE)
    verify(parts)
    assert len(parts.groups) < 100
    assert max(len(group.nodes) for group in parts.groups) <= MOST
    check(graph, parts)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100000))
def test_random_graphs(seed: int) -> None:
    graph: Graph = random_graph(seed, steps=14)
    parts = partition(graph, WIDE)
    verify(parts)
    assert nx.is_directed_acyclic_graph(quotient(parts))
    calls_of(parts)


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs_compute_the_same(seed: int) -> None:
    graph = random_graph(7000 + seed, steps=12)
    if sum(n.type.size for n in graph.nodes) > 6000:
        pytest.skip("too large to interpret")
    check(graph, partition(graph, WIDE), tolerance=1e-4)


def gates_backward(batch: int, width: int) -> Graph:
    """The elementwise half of a GRU's backward step: two stacks of gates' gradients, and a sum over rows."""
    names = [ops.input_(n, TensorType((batch, width), float32)) for n in ("dh", "r", "z", "n", "h")]
    dh, r, z, n, h = names
    one = ops.like(dh, 1.0)
    dn = ops.mul(ops.mul(dh, ops.sub(one, z)), ops.sub(one, ops.mul(n, n)))
    dr = ops.mul(ops.mul(dn, h), ops.mul(r, ops.sub(one, r)))
    dz = ops.mul(ops.mul(dh, ops.sub(h, n)), ops.mul(z, ops.sub(one, z)))
    hidden = ops.mul(dn, r)
    outputs = (
        ops.concat([dr, dz, hidden], 1),
        ops.concat([dr, dz, dn], 1),
        ops.mul(dh, z),
        ops.reduce_sum(hidden, (0,)),
    )
    return Graph(tuple(names), outputs)


@pytest.mark.parametrize("shape", [(8, 32), (1, 6), (5, 7)])
def test_parts_of_a_value_are_stored_by_the_loop_that_computes_them(shape: tuple[int, int]) -> None:
    """One loop over the cells, which stores an element of every gate; the sum has loops of its own."""
    graph = gates_backward(*shape)
    parts = partition(graph, WIDE)
    verify(parts)
    check(graph, parts)
    check(graph, partition(graph, NARROW), NARROW)
    sums = [g for g in parts.groups if any(n.kind is Kind.REDUCE for n in g.nodes)]
    loops = [g for g in parts.groups if g not in sums]
    assert (len(loops), len(sums)) == (1, 1)
    assert set(graph.outputs[:3]) <= set(loops[0].outputs)
    (call,) = calls_of(Partition(graph, tuple(loops)))
    stores = [s for s, _ in statements(call.kernel.body) if isinstance(s, Store)]
    assert len(stores) == 3 + 3 + len(loops[0].outputs) - 2
    assert not any(isinstance(e, Select) for s in stores for e in walk(s.value))


def test_a_concat_of_unequal_parts_or_of_inputs_is_right_too() -> None:
    a, b = (ops.input_(n, TensorType((4, 6), float32)) for n in "ab")
    wide = ops.input_("wide", TensorType((4, 9), float32))
    outputs = (ops.concat([ops.tanh(a), wide], 1), ops.concat([a, b], 0), ops.concat([ops.exp(b), a], 1))
    graph = Graph((a, b, wide), outputs)
    parts = partition(graph, WIDE)
    verify(parts)
    check(graph, parts)


def test_independent_loops_over_a_value_that_no_cache_holds_are_one() -> None:
    """A rectifier and its gradient, given another's: x is read once, if reading it is what takes time."""
    x, g = m.leaf("x", 40, 50), m.leaf("g", 40, 50)
    zero = ops.zeros(x.type)
    outputs = [ops.maximum(x, zero), ops.select(ops.gt(x, zero), g, zero)]
    graph = m.graph([x, g], outputs)
    assert len(partition(graph, WIDE).groups) == 2
    small = replace(WIDE, l2_bytes=4096)
    parts = partition(graph, small)
    (group,) = parts.groups
    assert set(group.outputs) == set(outputs)
    check(graph, parts, small)


def test_an_output_that_is_a_reshape_is_another_name() -> None:
    """Its readers read what it renames, so it does not stand between them and what computes that."""
    x = m.leaf("x", 40, 150)
    e = ops.exp(x)
    seen = ops.reshape(e, (40, 3, 50))
    total = ops.reduce_sum(seen, (1, 2))
    back = ops.sub(seen, ops.broadcast(total, seen.shape, (0,)))
    graph = m.graph([x], [seen, total, back, ops.reshape(x, (150, 40))])
    parts = partition(graph, WIDE)
    renames = [g for g in parts.groups if all(n.op.name == "reshape" for n in g.nodes)]
    assert [g.outputs for g in renames] == [(seen,), (graph.outputs[3],)]
    assert len(parts.groups) == 3
    check(graph, parts)


def test_outputs_that_are_inputs_in_other_shapes() -> None:
    """Several reshapes in a row, as graphs may have that were not simplified."""
    x = m.leaf("x", 2, 3)
    graph = m.graph([x], [ops.reshape(ops.reshape(x, (1, 2, 3)), (6,)), ops.reshape(x, (3, 2))])
    parts = partition(graph, WIDE)
    verify(parts)
    assert [len(g.nodes) for g in parts.groups] == [2, 1]


def test_epilogues_do_not_read_without_limit() -> None:
    """The weight gradient of a network written out in Python is a sum of a product for each step."""
    inputs = [ops.input_(f"x{i}", TensorType((16, 16), float32)) for i in range(160)]
    products = [ops.dot_general(a, b, ((1,), (0,))) for a, b in zip(inputs[::2], inputs[1::2], strict=True)]
    total = reduce(ops.add, products)
    parts = partition(Graph(tuple(inputs), (total,)), WIDE)
    verify(parts)
    assert len(parts.groups) == len(products)  # every sum is in the epilogue of some product
    assert max(len(group.inputs) for group in parts.groups) == READ


def test_values_read_at_two_places_each_are_not_computed_for_each_of_them() -> None:
    """The gradient of running products by doubling: in one kernel, it would compute thousands of values."""
    x, ct = m.leaf("x", 4, 64), m.leaf("ct", 4, 64)
    product, step = m.scale(x, 1.1), 1
    while step < 64:
        moved = ops.pad(ops.slice_axis(product, 1, 0, 64 - step), (0, step), (0, 0), 1)
        product, step = ops.mul(product, moved), 2 * step
    graph = m.graph([x, ct], m.with_gradients(product, [x], ct))
    parts = partition(graph, WIDE)
    verify(parts)
    assert max(len(list(statements(call.kernel.body))) for call in calls_of(parts)) < 2000
    check(graph, parts)


def test_parts_that_do_not_overlap_are_computed_where_they_are_read() -> None:
    """Gates cut from one sum: each of its elements is computed once."""
    x, y = m.leaf("x", 6, 32), m.leaf("y", 6, 32)
    total = ops.exp(ops.tanh(ops.add(x, y)))  # dear
    gated = ops.mul(ops.slice_axis(total, 1, 0, 16), ops.slice_axis(total, 1, 16, 32))
    parts = partition(m.graph([x, y], [gated]), WIDE)
    verify(parts)
    assert len(parts.groups) == 1
