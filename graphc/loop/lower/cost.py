"""How much work a group is, and so how many tasks: from shapes only, never from the machine's threads."""

from __future__ import annotations

from graphc.ir.node import Node
from graphc.ir.partition import Group

GRAIN = 16384.0  # least work of a task, in bytes moved plus scalar operations
MOST = 64  # most tasks of a kernel
DEAR = 6.0  # an op that costs this much an element is rather kept than computed twice


def flops(group: Group) -> float:
    """Scalar operations of a group, each node computed once."""
    total = 0.0
    for node in group.nodes:
        points = max([node.type.size, *[x.type.size for x in node.inputs]])
        total += node.op.cost * points
    return total


def traffic(group: Group) -> float:
    """Bytes that a group must read and write."""
    return float(sum(n.type.nbytes for n in (*group.inputs, *group.outputs)))


def tasks_wanted(work: float) -> int:
    """Tasks for this much work (flops + bytes)."""
    return int(max(1.0, min(float(MOST), work // GRAIN)))


def vectors_wanted(lets: int) -> int:
    """Machine vectors per iteration: several give independent work, but long bodies need the registers."""
    return 4 if lets <= 10 else 2 if lets <= 32 else 1


def widest(nodes: tuple[Node, ...]) -> int:
    """Item size, in bytes, that sets the number of lanes: that of most of the memory traffic, at least 4."""
    total: dict[int, int] = {}
    for node in nodes:
        size = node.dtype.itemsize
        total[size] = total.get(size, 0) + node.type.size
    heaviest = max(total, key=lambda size: (total[size] * size, size)) if total else 4
    return max(4, heaviest)
