"""What can be computed ahead: the part of a graph that depends on fixed inputs alone.

An input is fixed if its value stays the same from call to call, as the parameters of a network do that is not
being trained. What follows from fixed inputs (the scale and shift of a batch norm, say) is computed once
and kept; views and constants are left where they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from graphc.ir.graph import Graph, rebuild, substitute
from graphc.ir.node import Kind, Node
from graphc.ops.constant import input_

GROWTH = 4  # a value larger than its largest input by more than this is not worth the memory
_STAY = frozenset({Kind.VIEW, Kind.INPUT, Kind.CONSTANT, Kind.BARRIER, Kind.CHECK})


@dataclass(frozen=True, eq=False)
class Split:
    """A graph in two parts.

    main  the graph, with inputs of its own in the place of what is kept
    kept  those inputs, with the nodes of the whole graph that compute them
    """

    main: Graph
    kept: dict[Node, Node]


def split(graph: Graph, fixed: AbstractSet[Node]) -> Split:
    """Take out of `graph` all that follows from `fixed` inputs."""
    worth = _worth_keeping(graph.nodes, fixed)
    kept: dict[Node, Node] = {}
    needed = _needed(graph.outputs, worth)

    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node not in needed:
            return node
        if node not in worth:
            return rebuild(node, inputs)
        stand_in = input_(f"kept.{len(kept)}", node.type)
        kept[stand_in] = node
        return stand_in

    new = substitute(graph.nodes, replace)
    main = graph.with_outputs([new[n] for n in graph.outputs])
    return Split(Graph((*graph.inputs, *kept), main.outputs, name=graph.name), kept)


def _worth_keeping(nodes: Sequence[Node], fixed: AbstractSet[Node]) -> set[Node]:
    """The nodes that depend on fixed inputs alone, compute something, and are not much larger than these."""
    size: dict[Node, int] = {}  # of steady nodes: bytes of the largest fixed input below, 0 without one
    worth: set[Node] = set()
    for node in nodes:
        if node in fixed:
            size[node] = node.type.nbytes
        elif node.kind is not Kind.INPUT and all(x in size for x in node.inputs):
            size[node] = max([size[x] for x in node.inputs], default=0)
            if node.kind not in _STAY and 0 < node.type.nbytes <= GROWTH * size[node]:
                worth.add(node)
    return worth


def _needed(outputs: Sequence[Node], worth: AbstractSet[Node]) -> set[Node]:
    """The nodes that are left when what lies behind those `worth` keeping is gone."""
    found: set[Node] = set()
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            if node not in worth:
                stack.extend(node.inputs)
    return found
