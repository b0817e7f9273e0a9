"""Packing all of B once, by a kernel of its own: for contractions that run many times with the same B (the
recurrent weights of a loop), whose tiles then read the panels in place."""

from __future__ import annotations

from collections.abc import Set

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Var
from graphc.loop.lower.contraction.depth import DepthCut
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.operand import Layout
from graphc.loop.lower.contraction.panels import Panels, Room
from graphc.loop.lower.contraction.problem import Contraction
from graphc.loop.lowered import KernelCall, Temp

TASK_ELEMENTS = 1 << 14
MOST_TASKS = 32


def prepack_call(
    problem: Contraction, layout: Layout, fused: Fused, lanes: int, width: int, name: str
) -> tuple[Temp, KernelCall]:
    """(temp, call): temp[batch * panels + panel, k, lane] = B[batch, k, panel * lanes + lane].

    Lanes beyond the last column are left as they are.
    """
    batch, _, n, k = problem.sizes
    panels = -(-n // lanes)
    temp = Temp("panels", TensorType((batch * panels, k, lanes), problem.anchor.dtype))
    wanted = max(1, min(MOST_TASKS, batch * panels * k * lanes // TASK_ELEMENTS))
    shares = max(1, min(panels, -(-wanted // batch)))
    most = -(-panels // shares)
    shares = -(-panels // most)
    task = Var(int64, "task", batch * shares)
    flat_batch, share = ix.unflatten(task, (batch, shares))
    first = ix.mul(share, most)
    count = ix.minimum(most, ix.sub(panels, first))
    block = DepthCut(problem.depth, 0, problem.depth[0]).block(ix.ZERO)
    at = ix.unflatten(flat_batch, problem.batch)
    room = Room(fused.buffer(temp), most, ix.add(ix.mul(flat_batch, panels), first))
    Panels(problem, layout, fused, lanes, width).pack(room, at, block, first, count)
    fused.written.add(temp)
    return temp, fused.call(name, task, task.extent, 0.0)


def depends_only_on(node: Node, group: Group, known: Set[Node]) -> bool:
    """Whether a value that a group computes or reads follows from `known` group inputs alone."""
    return known >= set(Group.between(group.inputs, (node,)).inputs)
