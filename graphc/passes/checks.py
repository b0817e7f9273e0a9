"""Take the run-time checks out of the graph.

A CHECK node is replaced by its operand; what it demands becomes a bool scalar, a `flag`. The plan
runs whatever the flags need before anything that changes state, and stops if a flag is false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc import ops
from graphc.analysis.evaluate import evaluate_nodes
from graphc.ir.graph import Graph, rebuild, rewrite, toposort
from graphc.ir.node import Kind, Node, site_of
from graphc.ops.control import CheckAttrs

_CHEAP = frozenset({Kind.ELEMENTWISE, Kind.VIEW, Kind.CONSTANT, Kind.REDUCE})
EARLY_ELEMENTS = 1 << 20  # elementwise and reduced elements of a check that is worth computing apart


@dataclass(frozen=True, eq=False)
class Checked:
    """A graph without CHECK nodes, its flags, and the text for each flag that is false."""

    graph: Graph
    flags: tuple[Node, ...]
    messages: tuple[str, ...]


def run(graph: Graph) -> Checked:
    """Needs: any graph. Leaves: no CHECK nodes in `graph` or under the flags."""
    found = checks_of(graph)
    if not found:
        return Checked(graph, (), ())
    tests = [_flag(node) for node in found]
    both = graph.with_outputs((*graph.outputs, *tests))
    early = _needed_by_others(graph, found)

    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.kind is not Kind.CHECK:
            return rebuild(node, inputs)
        return _clamp(inputs[0], node.attrs) if node in early else inputs[0]

    bare = rewrite(both, replace)
    n = len(graph.outputs)
    messages = tuple(describe(node) for node in found)
    return Checked(graph.with_outputs(bare.outputs[:n]), bare.outputs[n:], messages)


def split(checked: Checked) -> tuple[list[Node], list[Node]]:
    """(flags that follow from inputs by little work, flags that take a part of the program).

    The first kind is computed ahead on its own, so that the checks are over before the program starts.
    """
    early = []
    for flag in checked.flags:
        needed = [n for n in toposort([flag]) if n.kind is not Kind.INPUT]
        cheap = all(n.kind in _CHEAP for n in needed)
        if cheap and sum(n.type.size for n in needed if n.kind is not Kind.VIEW) <= EARLY_ELEMENTS:
            early.append(flag)
    return early, [flag for flag in checked.flags if flag not in set(early)]


def checks_of(graph: Graph) -> list[Node]:
    """The CHECK nodes, in an order that depends on the graph's structure alone."""
    return [node for node in graph.nodes if node.kind is Kind.CHECK]


def _needed_by_others(graph: Graph, found: Sequence[Node]) -> set[Node]:
    """Checks that other checks depend on. What they guard runs before anybody looks at the flags."""
    mask = sum(1 << graph.index[node] for node in found)
    early: set[Node] = set()
    for node in found:
        own = 1 << graph.index[node]
        bits = graph.ancestors[graph.index[node]] & mask & ~own
        early.update(other for other in found if bits >> graph.index[other] & 1)
    return early


def _clamp(x: Node, attrs: CheckAttrs) -> Node:
    """x, or the nearest allowed index: keeps memory accesses in bounds until the check is read."""
    return ops.minimum(ops.maximum(x, ops.like(x, attrs.low)), ops.like(x, attrs.high - 1))


def _flag(node: Node) -> Node:
    """Whether all elements of a CHECK's operand are in bounds."""
    x, attrs = node.inputs[0], node.attrs
    limits = np.iinfo(x.dtype.numpy)
    inside = None
    if attrs.low > limits.min:
        inside = ops.ge(x, ops.like(x, attrs.low))
    if attrs.high <= limits.max:
        below = ops.lt(x, ops.like(x, attrs.high))
        inside = below if inside is None else ops.bit_and(inside, below)
    if inside is None:
        return ops.constant(True, ops.eq(x, x).dtype)
    return ops.reduce_and(inside, range(x.type.rank))


def describe(node: Node) -> str:
    site = site_of(node)
    return f"{node.attrs.message} ({site})" if site else node.attrs.message


def failure(graph: Graph, inputs: Sequence[np.ndarray], status: int) -> IndexError:
    """The error for a failed run: the first check of `graph` that does not hold, with the culprit."""
    found = checks_of(graph)
    given = dict(zip(graph.inputs, inputs, strict=True))
    for node, value in zip(found, evaluate_nodes([n.inputs[0] for n in found], given), strict=True):
        if not node.attrs.holds(value):
            bad = (value < node.attrs.low) | (value >= node.attrs.high)
            place = tuple(int(i[0]) for i in np.nonzero(bad)) if value.ndim else ()
            details = [f"got {value[place]}" + (f" at {list(place)}" if place else "")]
            details += [str(site_of(node))] if site_of(node) else []
            return IndexError(f"{node.attrs.message} ({'; '.join(details)})")
    return IndexError(describe(found[status - 1]) if status <= len(found) else f"check {status} failed")
