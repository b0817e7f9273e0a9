"""Loops of ops that are neither pointwise nor reductions: what runs along an axis, and scatters.

Their order of additions is that of the elements, whatever the number of tasks; operands may be any
injective nodes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from math import prod

from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import TRUE, Expr, Mode, cast
from graphc.loop.lower import cost
from graphc.loop.lower.box import enter, make_box
from graphc.loop.lower.evaluate import Evaluator, LoweringError
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import cut, lanes_for
from graphc.loop.lower.running import write_running
from graphc.loop.lower.scope import Scope
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

SPECIAL = frozenset({Kind.CUMULATIVE, Kind.SCATTER})
RANGES = 16  # most parts that a scatter cuts the scattered axis into


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
        _scatter(scope, frame, evaluator, node, wanted, width)
    elif node.op.name == "scatter_add_along":
        _scatter_along(scope, frame, evaluator, node, wanted, width)
    else:
        raise LoweringError(f"no loops for {node!r}")
    return (frame.call(scope, node.op.name, cost.flops(group)),)


def _around(node: Node, axis: int) -> tuple[int, int, int]:
    """(elements before the axis, its extent, elements after it)."""
    return prod(node.shape[:axis]), node.shape[axis], prod(node.shape[axis + 1 :])


def _scatter(scope: Scope, frame: Frame, evaluator: Evaluator, node: Node, wanted: int, width: int) -> None:
    """Whole rows are added; a task owns a range of the scattered axis and looks for its rows."""
    base, indices, updates = node.inputs
    outer, extent, inner = _around(node, node.attrs.axis)
    count = indices.type.size
    rows = cut(outer, wanted)
    ranges = cut(extent, min(RANGES, max(1, wanted // rows.tasks)))
    frame.set_tasks(rows.tasks * ranges.tasks)
    part = ix.mod(frame.task(), ranges.tasks)
    share = ix.floordiv(frame.task(), ranges.tasks)
    low = ix.mul(part, ranges.block)
    lanes = lanes_for(max(inner, 2), width, 4)

    def across() -> AbstractContextManager[Expr]:
        mode: Mode = "vector" if inner > 1 else "serial"
        return scope.loop("v", inner, None, mode, lanes)

    with scope.loop("o", rows.extent(share), rows.block) as row:
        before = ix.add(ix.mul(share, rows.block), row)
        with scope.loop("a", ranges.extent(part), ranges.block) as a, across() as after:
            place = ix.flatten((before, ix.add(low, a), after), (outer, extent, inner))
            frame.store(scope, node, place, evaluator.value(base, ix.unflatten(place, node.shape)))
        with scope.loop("j", count) as j:
            at = _position(scope, evaluator.value(indices, ix.unflatten(j, indices.shape)))
            mine = _within(at, low, ranges.extent(part), ranges.tasks)
            with scope.when(mine), across() as after:
                source = ix.flatten((before, j, after), (outer, count, inner))
                value = evaluator.value(updates, ix.unflatten(source, updates.shape))
                place = ix.flatten((before, at, after), (outer, extent, inner))
                frame.accumulate(scope, node, place, "add", value)


def _within(at: Expr, low: Expr, extent: Expr, ranges: int) -> Expr:
    """Whether a scattered position lies in this task's range."""
    if ranges == 1:
        return TRUE
    return ix.both(ix.compare("ge", at, low), ix.compare("lt", ix.sub(at, low), extent))


def _scatter_along(
    scope: Scope, frame: Frame, evaluator: Evaluator, node: Node, wanted: int, width: int
) -> None:
    """Lines along the axis are independent, with indices of their own; a line is added up in order."""
    base, indices, updates = node.inputs
    axis = node.attrs.axis
    outer, extent, inner = _around(node, axis)
    count = indices.shape[axis]
    box = make_box((outer, inner), None, 1, wanted)
    frame.set_tasks(box.tasks)
    with enter(scope, box, frame.task()) as line:
        before, after = ix.unflatten(line, (outer, inner))
        mode: Mode = "vector" if inner == 1 < extent else "serial"
        with scope.loop("a", extent, None, mode, lanes_for(max(extent, 2), width, 4)) as a:
            place = ix.flatten((before, a, after), (outer, extent, inner))
            frame.store(scope, node, place, evaluator.value(base, ix.unflatten(place, node.shape)))
        lead, tail = ix.unflatten(before, node.shape[:axis]), ix.unflatten(after, node.shape[axis + 1 :])
        smaller = zip((*lead, *tail), indices.shape[:axis] + indices.shape[axis + 1 :], strict=True)
        has_updates = ix.all_of(ix.compare("lt", i, n) for i, n in smaller)
        with scope.when(has_updates), scope.loop("j", count) as j:
            source = (*lead, j, *tail)
            at = _position(scope, evaluator.value(indices, source))
            value = evaluator.value(updates, source)
            place = ix.flatten((before, at, after), (outer, extent, inner))
            frame.accumulate(scope, node, place, "add", value)


def _position(scope: Scope, value: Expr) -> Expr:
    """A loaded index as an index expression."""
    return ix.canonical(scope.let(cast(value, int64), "at"))
