"""Cheap functions of what is in memory anyway: computed again by their readers, not written.

After clusters are known, an elementwise value that other clusters read may turn out to be a few operations
away from values that are written or given (normalised activations from the activations and two numbers a
channel). Then its readers evaluate it inside their own loops, and it is never stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node
from graphc.passes.roles import CHEAP, Roles, is_leaf


@dataclass(eq=False)
class Shed:
    """again: members that other clusters may compute for themselves; written: members that are stored."""

    again: set[Node] = field(default_factory=set)
    written: set[Node] = field(default_factory=set)


def shed(
    graph: Graph,
    roles: Roles,
    home: Mapping[Node, int],
    sources: Mapping[Node, tuple[Node, ...]],
    recompute: AbstractSet[Node] = frozenset(),
) -> Shed:
    """Decide which values are stored. `home` gives the cluster, `sources` the operands of each member.

    Values in `recompute` (`remat.py`) are not stored if there is a cheap way back to memory at all.
    """
    result = Shed()
    readers: dict[Node, set[int]] = {}
    reads: dict[int, set[Node]] = {}
    for node, found in sources.items():
        for s in found:
            reads.setdefault(home[node], set()).add(s)
            if home.get(s, home[node]) != home[node]:
                readers.setdefault(s, set()).add(home[node])
    result.written.update(n for n in roles.results if n in home)
    result.written.update(readers)
    for node in graph.nodes:
        if node not in readers or node.kind is not Kind.ELEMENTWISE or node in roles.stored:
            continue
        cone = _cone(node, roles, result)
        if cone is not None and (node in recompute or _worth(cone.big, readers[node], reads)):
            result.written.discard(node)
            result.written.update(cone.small)
            result.again.add(node)
            result.again.update(cone.inner)
            for cluster in readers[node]:
                reads[cluster].update(cone.big)
    return result


@dataclass(eq=False)
class _Cone:
    """What it takes to compute a value again: members on the way, large and small values in memory."""

    inner: set[Node]
    big: set[Node]
    small: set[Node]


def _cone(node: Node, roles: Roles, state: Shed) -> _Cone | None:
    """The cheap way back from `node` to memory; None if there is none."""
    cone = _Cone(set(), set(), set())
    cost, seen, stack = node.op.cost, set(), list(node.inputs)
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        in_memory = is_leaf(n) or n in state.written
        if n in roles.free:
            cost += n.op.cost
            stack.extend(n.inputs)
        elif n.type.size * 4 <= node.type.size:
            if not in_memory:
                cone.small.add(n)
        elif in_memory:
            cone.big.add(n)
        elif n.kind is Kind.ELEMENTWISE:
            cone.inner.add(n)
            cost += n.op.cost
            stack.extend(n.inputs)
        else:
            return None
        if cost > CHEAP:
            return None
    return cone


def _worth(big: set[Node], readers: set[int], reads: Mapping[int, set[Node]]) -> bool:
    """Whether the readers load hardly more than before."""
    most = 2 if len(readers) == 1 else 1
    return all(len(big - reads[r]) <= most for r in readers)
