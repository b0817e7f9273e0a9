"""Values without memory of their own: reshapes of others, and results that lie inside others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.loop.lowered import Part, Value


def is_alias(group: Group) -> bool:
    """Whether the group only renames a value: reshapes of one dense value."""
    return len(group.inputs) == 1 and all(node.op.name == "reshape" for node in group.nodes)


class Aliases:
    """Where values without memory of their own lie. What they stand for is entered before them."""

    def __init__(self, parts: Mapping[Node, Part] | None = None) -> None:
        self._place: dict[Value, Value | Part] = dict((parts or {}).items())

    def enter(self, parts: Mapping[Node, Part]) -> None:
        """Nodes that lie inside other values."""
        self._place.update(parts.items())

    def rename(self, group: Group) -> None:
        """The nodes of a group that `is_alias`."""
        root = self.root(group.inputs[0])
        for node in group.outputs:
            self._place[node] = replace(root, type=node.type) if isinstance(root, Part) else root

    def root(self, value: Value) -> Value | Part:
        """The value whose memory `value` is, or the part of one."""
        return self._place.get(value, value)
