"""Which values of the forward pass the backward pass computes again instead of keeping.

A minimum cut decides. Every forward value that backward reads must either be kept (its bytes cross
the cut) or follow from kept values by pointwise work alone. Contractions, reductions to less than a
quarter, random draws and gathers are never done twice; inputs are in memory anyway and cost nothing. What a
contraction of the backward pass reads is kept, since only loops can compute their operands as they go.

The answer is advice: fusion follows it where the reader's loops can evaluate the value.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.analysis.nxview import INFINITE, minimum_cut
from graphc.ir.graph import Graph, is_leaf, toposort
from graphc.ir.node import Kind, Node
from graphc.ops.scan import siblings

WORTH = 16 << 20  # bytes kept for backward by choice below which a cut is not worth its time
LARGEST = 4000  # nodes; a cut of a larger graph takes too long

_REPEATABLE = frozenset({Kind.ELEMENTWISE, Kind.VIEW, Kind.CHECK, Kind.BARRIER})
_ANCHORS = frozenset({Kind.CONTRACT, Kind.CONV})


def decide(graph: Graph, results: Sequence[Node]) -> frozenset[Node]:
    """Forward values to compute again in the backward pass.

    results  the outputs that the forward pass computes (the loss); what they do not depend on is backward
    """
    if len(graph.nodes) > LARGEST:
        return frozenset()
    forward = _forward(graph, results)
    backward = [node for node in graph.nodes if node not in forward]
    read = {x for node in backward for x in node.inputs if x in forward and not is_leaf(x)}
    if sum(node.type.nbytes for node in read if repeatable(node)) < WORTH:
        return frozenset()
    return _cut(_Problem(graph, forward, backward, read))


def _forward(graph: Graph, results: Sequence[Node]) -> set[Node]:
    """What the forward pass computes. A loop computes all its results, those that only backward reads too."""
    forward = set(toposort(results))
    for group in siblings(graph.nodes).values():
        if not forward.isdisjoint(group):
            forward.update(group)
    return forward


class _Problem:
    """The flow network: each value is an edge (2i, 2i+1) of as many units as it has bytes."""

    def __init__(self, graph: Graph, forward: set[Node], backward: Sequence[Node], read: set[Node]) -> None:
        self.read = read
        self.nodes = toposort(node for node in graph.nodes if node in read)
        self.number = {node: i for i, node in enumerate(self.nodes)}
        self.kept = {_dense(x) for node in backward if node.kind in _ANCHORS for x in node.inputs}
        self.kept.update(node for node in graph.outputs if node in forward)
        self.source, self.sink = 2 * len(self.nodes), 2 * len(self.nodes) + 1

    def edges(self) -> list[tuple[int, int, float]]:
        edges: list[tuple[int, int, float]] = []
        for i, node in enumerate(self.nodes):
            edges.append((2 * i, 2 * i + 1, float(0 if is_leaf(node) else node.type.nbytes)))
            if is_leaf(node) or node in self.kept or not repeatable(node):
                edges.append((self.source, 2 * i, INFINITE))
            edges += [(2 * self.number[x] + 1, 2 * i, INFINITE) for x in node.inputs]
            if node in self.read:
                edges.append((2 * i + 1, self.sink, INFINITE))
        return edges


def repeatable(node: Node) -> bool:
    """Whether a value may be computed twice, given its operands."""
    return node.kind in _REPEATABLE and node.op.cost < 8


def _dense(node: Node) -> Node:
    """The value that a chain of views looks at."""
    while node.kind is Kind.VIEW and len(node.inputs) == 1:
        node = node.inputs[0]
    return node


def _cut(problem: _Problem) -> frozenset[Node]:
    """Values behind the cut that backward reads, and what leads to them."""
    _, before = minimum_cut(problem.edges(), problem.source, problem.sink)
    return frozenset(
        node
        for i, node in enumerate(problem.nodes)
        if 2 * i not in before and node.kind is Kind.ELEMENTWISE and node not in problem.kept
    )
