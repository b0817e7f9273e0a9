"""Loops of ops that are neither pointwise nor reductions: what runs along an axis (`running.py`) and scatters
(`scatter.py`).

Their order of additions is that of the elements, whatever the number of tasks; operands may be any
injective nodes.
"""

from __future__ import annotations

from graphc.ir.node import Kind
from graphc.ir.partition import Group
from graphc.loop.lower import cost
from graphc.loop.lower.evaluate import LoweringError
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.running import write_running
from graphc.loop.lower.scatter import scatter_along, scatter_rows
from graphc.loop.lower.scope import Scope
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

SPECIAL = frozenset({Kind.CUMULATIVE, Kind.SCATTER})


def lower_special(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    """The kernel of a group whose only output is a running sum or a scatter."""
    (node,) = group.outputs
    if not node.type.size:
        return ()
    frame = Frame(group)
    scope = Scope()
    evaluator = frame.evaluator(scope)
    work = cost.flops(group) + cost.traffic(group)
    wanted = cost.tasks_wanted(work)
    width = machine.lanes(max(4, node.dtype.itemsize))
    if node.kind is Kind.CUMULATIVE:
        write_running(scope, frame, evaluator, node, wanted, width)
    elif node.op.name == "scatter_add":
        scatter_rows(scope, frame, evaluator, node, wanted, width)
    elif node.op.name == "scatter_add_along":
        scatter_along(scope, frame, evaluator, node, wanted, width)
    else:
        raise LoweringError(f"no loops for {node!r}")
    return (frame.call(scope, node.op.name, cost.flops(group)),)
