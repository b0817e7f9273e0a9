"""A partition of a graph's nodes into groups; each group becomes one kernel (or a few)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphc.ir.graph import Graph, toposort
from graphc.ir.node import Node


@dataclass(frozen=True, eq=False)
class Group:
    """Nodes computed together, over the untouched graph.

    nodes    in topological order; cheap nodes may also belong to other groups (recomputed there)
    inputs   values read from memory: nodes outside the group
    outputs  the members written to memory, because another group or the program reads them
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]

    @classmethod
    def between(cls, given: Iterable[Node], outputs: Sequence[Node]) -> Group:
        """The group that computes `outputs` from `given` values, of which its inputs are those it reads, in
        order of first use."""
        given = frozenset(given)
        nodes = toposort(outputs, given)
        read = dict.fromkeys([x for node in nodes for x in node.inputs])
        read.update(dict.fromkeys(outputs))
        return cls(tuple(nodes), tuple([x for x in read if x in given]), tuple(outputs))


@dataclass(frozen=True, eq=False)
class Partition:
    """Ordered groups: every value read outside its group is written by exactly one earlier group."""

    graph: Graph
    groups: tuple[Group, ...]
