"""Fusion: a partition of an untouched graph into groups that become one kernel each (or a few)."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.partition import Group, Partition
from graphc.passes.roles import Roles, assign, sources_of
from graphc.program import Machine


def partition(graph: Graph, machine: Machine) -> Partition:
    """Ordered groups that together compute the graph's outputs."""
    roles = assign(graph)
    clusters = [[n] for n in graph.nodes if roles.is_member(n)]
    return Partition(graph, tuple(build_groups(graph, roles, clusters)))


def build_groups(graph: Graph, roles: Roles, clusters: Sequence[Sequence[Node]]) -> list[Group]:
    """Groups of clusters of members, each with the free nodes that it evaluates."""
    home = {n: i for i, members in enumerate(clusters) for n in members}
    outside = {n for n in graph.outputs if n in home}
    for i, members in enumerate(clusters):
        for n in members:
            outside.update(s for s in sources_of(n, roles) if home.get(s, i) != i)
    groups = []
    for members in clusters:
        nodes, inputs = _closure(members, roles, graph)
        groups.append(Group(nodes, inputs, tuple(n for n in members if n in outside)))
    return groups


def _closure(
    members: Sequence[Node], roles: Roles, graph: Graph
) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """(the members and the free nodes they read, in topological order; the values read from memory)."""
    inside = set(members)
    inputs: dict[Node, None] = {}
    stack = [x for n in reversed(members) for x in reversed(n.inputs)]
    while stack:
        n = stack.pop()
        if n in inside or n in inputs:
            continue
        if n in roles.free:
            inside.add(n)
            stack.extend(reversed(n.inputs))
        else:
            inputs[n] = None
    nodes = tuple(sorted(inside, key=graph.index.__getitem__))
    return nodes, tuple(inputs)
