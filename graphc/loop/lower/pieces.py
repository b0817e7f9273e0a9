"""Slices that are places: dense pieces of what a group reads become values of their own.

The steps of a recurrent network that is written out in Python read x[0], x[1], ...; layers read their part
of one large array. With its offset in the index, each of them would be a kernel of its own, to be lowered and
compiled. A dense piece of a value lies in memory as it is, so the kernel gets it as an argument that begins
further on: all steps have one structure, and share one kernel.
"""

from __future__ import annotations

from collections.abc import Set
from math import prod

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.loop.lower.attention import is_attention
from graphc.loop.lowered import Part


def without_pieces(group: Group, fixed: Set[Node] = frozenset()) -> tuple[Group, dict[Node, Part]]:
    """(a group that reads dense pieces of its inputs as inputs, where each of them lies).

    The group itself if it has none. Pieces stay as they are of `fixed` inputs, since what is computed of
    those is computed once; of inputs whose memory a result may take over (x[0] = v, in place); in a group
    that writes a piece to memory, since its slice is what it computes; and in attention, known by its nodes.
    """
    sizes = {x.type.nbytes for x in group.outputs}
    free = [x for x in group.inputs if x not in fixed and x.type.nbytes not in sizes]
    known = dict.fromkeys(free, 0)  # where values begin, in elements of their input
    whole = {x: x for x in known}
    pieces: set[Node] = set()
    for node in group.nodes:
        source = node.inputs[0] if node.inputs else None
        offset = _offset(node) if source in known else None
        if source is None or offset is None:
            continue
        known[node], whole[node] = known[source] + offset, whole[source]
        if node.type.size < whole[node].type.size:
            pieces.add(node)
    if not pieces or not pieces.isdisjoint(group.outputs) or is_attention(group):
        return group, {}
    cut = Group.between({*group.inputs, *pieces}, group.outputs)
    taken = [x for x in cut.inputs if x in pieces]
    return cut, {x: Part(whole[x], x.type, known[x] * x.dtype.itemsize) for x in taken}


def _offset(node: Node) -> int | None:
    """Elements from the beginning of a node's operand to the node, if it is a dense piece of it."""
    if node.op.name == "reshape":
        return 0
    if node.op.name != "slice" or 0 in node.shape:
        return None
    attrs, outer = node.attrs, node.inputs[0].shape
    first = next((d for d, n in enumerate(node.shape) if n > 1), len(outer))
    if node.shape[first + 1 :] != outer[first + 1 :] or any(s > 1 for s in attrs.step[first : first + 1]):
        return None
    return sum([start * prod(outer[d + 1 :]) for d, start in enumerate(attrs.start)])
