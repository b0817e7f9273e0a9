"""A Graph is a view of the node DAG: named inputs, named outputs, and cached analyses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from graphc.ir.node import Kind, Node, make, set_site, site_of


def toposort(outputs: Iterable[Node], given: Iterable[Node] = ()) -> list[Node]:
    """All nodes that it takes to compute `outputs`, from nothing or from `given` nodes, which are not among
    them: operands before users; deterministic; no recursion."""
    order: list[Node] = []
    done: set[Node] = set(given)
    stack: list[Node] = list(outputs)[::-1]
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        waiting = [n for n in node.inputs if n not in done]
        if waiting:
            stack.extend(reversed(waiting))
        else:
            done.add(node)
            order.append(node)
            stack.pop()
    return order


def depending(order: Iterable[Node], sources: Iterable[Node]) -> set[Node]:
    """The sources, and the nodes of a topological order that are computed from them."""
    found = set(sources)
    for node in order:
        if not found.isdisjoint(node.inputs):
            found.add(node)
    return found


@dataclass(frozen=True, eq=False)
class Graph:
    """A pure function from `inputs` (nodes of kind INPUT) to `outputs`.

    `input_names` and `output_names` are for people; positions are what counts.
    Inputs that no output uses are allowed.
    """

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    name: str = "main"

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every reachable node, in topological order (unused inputs are not included)."""
        return tuple(toposort(self.outputs))

    @cached_property
    def index(self) -> dict[Node, int]:
        """Position of each node in `nodes`."""
        return {n: i for i, n in enumerate(self.nodes)}

    @cached_property
    def users(self) -> dict[Node, list[Node]]:
        """The nodes that read each node; a user reading it twice is listed once."""
        users: dict[Node, list[Node]] = {n: [] for n in self.nodes}
        for node in self.nodes:
            for operand in dict.fromkeys(node.inputs):
                users[operand].append(node)
        return users

    @cached_property
    def ancestors(self) -> list[int]:
        """For the node at each position, the set of positions it depends on, as bits of an int."""
        bits: list[int] = []
        index = self.index
        for i, node in enumerate(self.nodes):
            mask = 1 << i
            for operand in node.inputs:
                mask |= bits[index[operand]]
            bits.append(mask)
        return bits

    def reaches(self, source: Node, target: Node) -> bool:
        """Whether `target` depends (directly or not, or trivially) on `source`."""
        return bool(self.ancestors[self.index[target]] >> self.index[source] & 1)

    def with_outputs(self, outputs: Sequence[Node], names: Sequence[str] | None = None) -> Graph:
        names = self.output_names if names is None else tuple(names)
        return Graph(self.inputs, tuple(outputs), self.input_names, names, self.name)


def rewrite(graph: Graph, rule: Callable[[Node, tuple[Node, ...]], Node]) -> Graph:
    """Rebuild a graph bottom-up: `rule(node, new_inputs)` gives each node's replacement.

    Returns the same Graph object when nothing changed.
    """
    new = substitute(graph.nodes, rule)
    outputs = tuple(new[n] for n in graph.outputs)
    if outputs == graph.outputs:
        return graph
    return graph.with_outputs(outputs)


def substitute(nodes: Sequence[Node], rule: Callable[[Node, tuple[Node, ...]], Node]) -> dict[Node, Node]:
    """Map every node of a topological order through `rule`; sites carry over to replacements."""
    new: dict[Node, Node] = {}
    for node in nodes:
        inputs = tuple([new[n] for n in node.inputs])
        replacement = rule(node, inputs)
        if replacement is not node:
            set_site(replacement, site_of(node))
        new[node] = replacement
    return new


def rebuild(node: Node, inputs: tuple[Node, ...]) -> Node:
    """`node` with other inputs; itself if they are the same."""
    if inputs == node.inputs:
        return node
    return make(node.op, inputs, node.attrs)


def is_leaf(node: Node) -> bool:
    return node.kind in (Kind.INPUT, Kind.CONSTANT)
