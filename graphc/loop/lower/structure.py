"""What two groups that become the same kernels have in common."""

from __future__ import annotations

from graphc.ir.node import Node
from graphc.ir.partition import Group


def structure(group: Group) -> tuple[tuple, tuple[Node, ...]]:
    """(a key that equal-structured groups share, the group's values in the key's order)."""
    values = (*group.inputs, *group.nodes)
    number = {n: i for i, n in enumerate(values)}
    leaves = tuple([(n.shape, n.dtype.short) for n in group.inputs])
    body = tuple(
        [(n.op.name, n.attrs.key, n.shape, tuple([number[x] for x in n.inputs])) for n in group.nodes]
    )
    return (leaves, body, tuple([number[o] for o in group.outputs])), values
