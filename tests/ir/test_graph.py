"""Walks over nodes: orders that begin at given values, what depends on what, groups between values."""

from __future__ import annotations

from graphc import ops
from graphc.ir.graph import Graph, depending, toposort
from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType, float32
from tests.random_graphs import random_graph

TYPE = TensorType((2, 3), float32)
X, Y = (ops.input_(name, TYPE) for name in "xy")
SUM = ops.add(X, Y)
WAVE = ops.sin(SUM)
RESULT = ops.mul(WAVE, ops.exp(X))


def test_an_order_ends_at_what_is_given() -> None:
    assert toposort([RESULT]) == [X, Y, SUM, WAVE, RESULT.inputs[1], RESULT]
    assert toposort([RESULT], [SUM]) == [WAVE, X, RESULT.inputs[1], RESULT]
    assert toposort([RESULT, SUM], [SUM, X]) == [WAVE, RESULT.inputs[1], RESULT]
    assert toposort([SUM], [SUM]) == []


def test_depending_are_the_sources_and_their_descendants() -> None:
    order = toposort([RESULT])
    assert depending(order, [Y]) == {Y, SUM, WAVE, RESULT}
    assert depending(order, [RESULT.inputs[1]]) == {RESULT.inputs[1], RESULT}
    assert depending([WAVE, RESULT], [Y]) == {Y}  # what lies between is not listed


def test_a_group_between_values_reads_what_it_needs_of_them() -> None:
    group = Group.between([Y, SUM, X], (RESULT,))
    assert (group.nodes, group.inputs) == ((WAVE, RESULT.inputs[1], RESULT), (SUM, X))
    whole = Group.between([X, Y, SUM], (WAVE, SUM))
    assert (whole.nodes, whole.inputs, whole.outputs) == ((WAVE,), (SUM,), (WAVE, SUM))


def test_groups_between_are_closed() -> None:
    """On random graphs, cut in the middle: operands come first, and are inputs where they are given."""
    for seed in range(20):
        graph: Graph = random_graph(seed)
        given = set(graph.nodes[: len(graph.nodes) // 2])
        group = Group.between(given, graph.outputs)
        known: set[Node] = set(group.inputs)
        assert known <= given
        for node in group.nodes:
            assert node not in given
            assert known.issuperset(node.inputs)
            known.add(node)
        assert known.issuperset(graph.outputs)
