"""What each node is to fusion: computed in one group, or free to be computed again wherever it is read.

Free nodes (views, constants, cheap functions of values that are in memory anyway) have no home: every
group that reads one evaluates it inside its own loops. All others are *members* of exactly one group.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from graphc.analysis.product import behind_reshapes
from graphc.ir.graph import Graph
from graphc.ir.node import Kind, Node

IDENTITY = frozenset({Kind.CHECK, Kind.BARRIER})
ANCHORS = frozenset({Kind.CONTRACT, Kind.CONV})
OWN = frozenset({Kind.SCATTER, Kind.CUMULATIVE, Kind.SORT, Kind.SCAN})
OPERAND_VIEWS = frozenset({"reshape", "transpose", "broadcast", "slice", "pad", "cast"})
CHEAP = 8.0  # most scalar operations that are rather done twice than stored
EXPANDS = 1.5  # a cheap value this much larger than what it is made of is never stored


def is_leaf(node: Node) -> bool:
    """A value in memory from the start: an input, or a constant array."""
    return node.kind is Kind.INPUT or (node.kind is Kind.CONSTANT and bool(node.shape))


@dataclass(eq=False)
class Roles:
    """free: nodes without a home; stored: nodes that are in memory whatever the partition is; aliases:
    outputs that only rename a stored value, which is what their readers read."""

    graph: Graph
    free: set[Node] = field(default_factory=set)
    stored: set[Node] = field(default_factory=set)
    cost: dict[Node, float] = field(default_factory=dict)  # of a free node, its free operands included
    aliases: dict[Node, Node] = field(default_factory=dict)

    @property
    def results(self) -> tuple[Node, ...]:
        """What has to be in memory at the end."""
        return (*self.graph.outputs, *self.aliases.values())

    def is_member(self, node: Node) -> bool:
        return node not in self.free and not is_leaf(node)


def assign(
    graph: Graph, inner: AbstractSet[Node] = frozenset(), copying: AbstractSet[Node] = frozenset()
) -> Roles:
    """Decide the role of every node of a graph.

    `inner` values are free: their readers compute them. `copying` contractions need no operands in memory.
    """
    roles = Roles(graph, free=set(inner))
    for node in graph.outputs:
        base = behind_reshapes(node)
        if base is not node and base not in inner and (is_leaf(base) or base.kind is not Kind.CONSTANT):
            roles.aliases[node] = base
    roles.stored.update(n for n in roles.results if n not in roles.aliases)
    for node in graph.nodes:
        if node.kind is Kind.SCAN:
            roles.stored.update(behind_identity(x) for x in node.inputs)
        elif (node.kind in ANCHORS or node.kind in OWN) and node not in copying:
            roles.stored.update(_operand_base(x) for x in node.inputs)
    for node in graph.nodes:
        if node in inner:
            continue
        if is_leaf(node):
            roles.stored.add(node)
        elif node.kind is Kind.CONSTANT or (node not in roles.stored and _is_free(node, roles)):
            roles.free.add(node)
    return roles


def _operand_base(node: Node) -> Node:
    """The value that a contraction reads through views and casts."""
    while node.op.name in OPERAND_VIEWS or node.kind in IDENTITY:
        node = node.inputs[0]
    return node


def behind_identity(node: Node) -> Node:
    """The value that a node passes on; itself if it computes one."""
    while node.kind in IDENTITY:
        node = node.inputs[0]
    return node


def _is_free(node: Node, roles: Roles) -> bool:
    if node.kind is Kind.VIEW or node.kind in IDENTITY:
        roles.cost[node] = sum(roles.cost.get(x, 0.0) for x in node.inputs)
        return True
    if node.kind is Kind.GENERATE and not node.inputs and node.op.cost <= CHEAP:
        roles.cost[node] = node.op.cost
        return True
    if node.kind is Kind.ELEMENTWISE:
        return _is_cheap(node, roles)
    return False


def _is_cheap(node: Node, roles: Roles) -> bool:
    """Whether an elementwise value is rather computed again than stored."""
    cost = node.op.cost + sum(roles.cost.get(x, 0.0) for x in dict.fromkeys(node.inputs))
    if cost > CHEAP:
        return False
    sources = sources_of(node, roles)
    size = node.type.size
    expands = size > EXPANDS * sum(s.type.size for s in sources)
    big = [s for s in sources if s.type.size * 4 > size]
    if expands or (len(big) <= 1 and all(s in roles.stored for s in big)):
        roles.cost[node] = cost
        return True
    return False


def sources_of(node: Node, roles: Roles) -> tuple[Node, ...]:
    """The members and leaves that a node reads directly or through free nodes, in order of first use."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    stack = list(reversed(node.inputs))
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        if n in roles.free:
            stack.extend(reversed(n.inputs))
        else:
            found[n] = None
    return tuple(found)
