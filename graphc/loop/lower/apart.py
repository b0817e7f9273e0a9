"""The way out when the reductions of a group do not share loops: a kernel for each reduction and each output.

Fusion does not form such groups knowingly; whatever it forms is still computed, only slower.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.loop.lowered import KernelCall, Temp, with_args
from graphc.program import Machine

Lower = Callable[[Group, Machine], tuple[KernelCall, ...]]


def lower_apart(group: Group, machine: Machine, lower: Lower) -> tuple[KernelCall, ...]:
    """Lower every reduction and every output of `group` by itself; values in between are temporaries."""
    stored: dict[Node, Node | Temp] = {x: x for x in group.inputs}
    calls: list[KernelCall] = []
    for node in group.nodes:
        if node.kind is not Kind.REDUCE and node not in group.outputs:
            continue
        part = Group.between(stored, (node,))
        stored[node] = node if node in group.outputs else Temp("value", node.type)
        calls += with_args(lower(part, machine), lambda v: v if isinstance(v, Temp) else stored[v])
    return tuple(calls)
