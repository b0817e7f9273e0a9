"""Which nodes derivatives flow through."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from graphc.ir.node import Kind, Node


def differentiable_from(order: Iterable[Node], sources: AbstractSet[Node]) -> set[Node]:
    """The float nodes of a topological order with a differentiable path from `sources`."""
    active: set[Node] = set()
    for node in order:
        if not node.type.dtype.is_float:
            continue
        if node in sources or (node.kind is not Kind.BARRIER and not active.isdisjoint(node.inputs)):
            active.add(node)
    return active
