"""Reductions of few rows, or of wide columns: tasks reduce parts, a second kernel combines them.

How a reduction is cut depends on shapes only, so the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, Store, identity_of, load
from graphc.loop.lower import cost
from graphc.loop.lower.box import Box, enter, make_box
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import lanes_for
from graphc.loop.lower.reductions.crossing import finishing
from graphc.loop.lower.reductions.keep import dear_values
from graphc.loop.lower.reductions.rows import Rows, Sweep, analyse, of_row
from graphc.loop.lower.reductions.sweeps import Nest, Plan
from graphc.loop.lower.scope import Scope
from graphc.loop.lowered import KernelCall, Temp
from graphc.program import Machine

Parts = Mapping[Node, Temp]


def _temps(rows: Rows, count: int) -> dict[Node, Temp]:
    """Room for `count` parts of every reduction: part-major, one value per row."""
    (sweep,) = rows.sweeps
    return {n: Temp("part", TensorType((count * rows.count,), n.dtype)) for n in sweep.reductions}


def in_two_stages(frame: Frame, rows: Rows, plan: Plan, machine: Machine) -> tuple[KernelCall, ...]:
    """Few rows: tasks reduce parts of each, another kernel combines the parts."""
    (sweep,) = rows.sweeps
    parts = _temps(rows, plan.splits)
    frame.set_tasks(plan.rows.tasks * plan.splits)
    part = ix.mod(frame.task(), plan.splits)
    scope = Scope()
    nest = Nest(scope, frame, rows, plan)
    with enter(scope, plan.rows, ix.floordiv(frame.task(), plan.splits)) as row:
        totals = nest.totals(sweep, row, part)
        for node, total in zip(sweep.reductions, totals, strict=True):
            place = ix.add(ix.mul(part, rows.count), row)
            frame.store(scope, parts[node], place, load(total, ()))
    first = frame.call(scope, f"{plan.name}_parts", cost.flops(frame.group))
    return (first, combine(frame.group, rows, parts, plan.splits, machine))


def in_stream(frame: Frame, rows: Rows, plan: Plan, machine: Machine) -> tuple[KernelCall, ...]:
    """Wide columns (of one matrix or of several, in turn), or short runs far apart: memory is read in its
    order, the sums of all rows of a matrix are in cache."""
    (sweep,) = rows.sweeps
    box = plan.rows
    parts = _temps(rows, plan.splits) if plan.splits > 1 else {}
    frame.set_tasks(box.tasks * plan.splits)
    part = ix.mod(frame.task(), plan.splits)
    share = ix.floordiv(frame.task(), plan.splits)
    scope = Scope()
    nest = Nest(scope, frame, rows, plan)
    width = box.inner.block
    sums = [scope.alloc("sums", n.dtype, (width,)) for n in sweep.reductions]
    with enter(scope, box.around(), share) as matrix:
        start = ix.mul(matrix, width)

        def columns() -> AbstractContextManager[Expr]:
            return scope.loop("v", width, width, "vector", box.lanes)

        with columns() as v:
            for node, buffer in zip(sweep.reductions, sums, strict=True):
                scope.put(Store(buffer, (v,), identity_of(rows.rules[node].combine, node.dtype)))
        if plan.name == "runs":
            _add_runs(nest, sweep, part, sums)
        else:
            with enter(scope, plan.elements[sweep.size], part) as place, columns() as v:
                nest.body(sweep, ix.add(start, v), place, sums, (v,))
        with columns() as v:
            row = ix.add(start, v)
            for node, buffer in zip(sweep.reductions, sums, strict=True):
                value = scope.let(load(buffer, (v,)), "sum")
                if parts:
                    frame.store(scope, parts[node], ix.add(ix.mul(part, rows.count), row), value)
                else:
                    nest.evaluator.bind(node, ix.unflatten(row, node.shape), value)
            if not parts:
                nest.scalars(row)
    call = frame.call(scope, plan.name, cost.flops(frame.group))
    return (call, combine(frame.group, rows, parts, plan.splits, machine)) if parts else (call,)


def _add_runs(nest: Nest, sweep: Sweep, part: Expr, sums: Sequence[Buffer]) -> None:
    """Add a task's part of every row to the sums, a run of each row in turn."""
    scope, rows, box = nest.scope, nest.rows, nest.plan.elements[sweep.size]
    with enter(scope, box.around(), part) as outer, scope.loop("r", rows.count) as row:
        totals = [nest.accumulator(n) for n in sweep.reductions]
        with scope.loop("v", box.dims[-1], mode="vector", lanes=box.lanes) as v:
            nest.body(sweep, row, ix.add(ix.mul(outer, box.dims[-1]), v), totals)
        for node, total, buffer in zip(sweep.reductions, totals, sums, strict=True):
            scope.put(Accumulate(buffer, (row,), rows.rules[node].combine, load(total, ())))


def in_crossing(frame: Frame, rows: Rows, plan: Plan, machine: Machine) -> tuple[KernelCall, ...]:
    """Sweeps of rows that leave sums across them: those of a task are in cache, and are a part at its end."""
    last = finishing(frame.group, rows.across)
    frame.instead = _kept_between(frame.group, last)
    rows = replace(rows, scalars=[*rows.scalars, *[of_row(n, rows, frame) for n in frame.instead]])
    columns = analyse(Frame(last))
    tasks = plan.rows.tasks
    parts = _temps(columns, tasks)
    frame.set_tasks(tasks)
    scope = Scope()
    nest = Nest(scope, frame, rows, plan)
    nest.sums = {n: scope.alloc("sums", n.dtype, (columns.count,)) for n in parts}
    lanes = max(plan.elements[columns.count].lanes, 1)

    def elements() -> AbstractContextManager[Expr]:
        return scope.loop("v", columns.count, columns.count, "vector", lanes)

    with elements() as v:
        for node, buffer in nest.sums.items():
            scope.put(Store(buffer, (v,), identity_of(rows.rules[node].combine, node.dtype)))
    nest.keep(dear_values(rows, frame, machine.l2_bytes // 4))
    nest.write(frame.task())
    with elements() as v:
        for node, buffer in nest.sums.items():
            place = ix.add(ix.mul(frame.task(), columns.count), v)
            frame.store(scope, parts[node], place, scope.let(load(buffer, (v,)), "sum"))
    call = frame.call(scope, plan.name, cost.flops(frame.group))
    return (call, combine(last, columns, parts, tasks, machine, frame.instead))


def _kept_between(group: Group, last: Group) -> dict[Node, Temp]:
    """Reductions along the rows that the last part of a group reads, and nobody else: room for them."""
    given = {*group.inputs, *group.outputs}
    return {n: Temp("sum", TensorType((n.type.size,), n.dtype)) for n in last.inputs if n not in given}


def combine(
    group: Group,
    rows: Rows,
    parts: Parts,
    count: int,
    machine: Machine,
    instead: Mapping[Node, Temp] | None = None,
) -> KernelCall:
    """The kernel that combines `count` parts of each row, in order, and finishes the outputs of a row.

    `instead`: where inputs of the group are that are no values of the graph's partition."""
    frame, scope = Frame(group), Scope()
    frame.instead = dict(instead or {})
    (sweep,) = rows.sweeps
    width = machine.lanes(max(4, max(n.dtype.itemsize for n in sweep.reductions)))
    work = float(rows.count * count * 8 * len(parts))
    box = make_box((rows.count,), 0, lanes_for(max(rows.count, 2), width, 2), cost.tasks_wanted(work))
    frame.set_tasks(box.tasks)
    nest = Nest(scope, frame, rows, Plan("combine", box, {}))
    with enter(scope, box, frame.task()) as row:
        totals: list[Buffer] = [nest.accumulator(n) for n in sweep.reductions]
        parts_box = Box((count,)) if rows.count > 1 else make_box((count,), 0, lanes_for(count, width, 1))
        with enter(scope, parts_box) as part:
            place = ix.add(ix.mul(part, rows.count), row)
            values = [frame.read(parts[n], place) for n in sweep.reductions]
            for node, total, value in zip(sweep.reductions, totals, values, strict=True):
                scope.put(Accumulate(total, (), rows.rules[node].combine, value))
        for node, total in zip(sweep.reductions, totals, strict=True):
            value = scope.let(load(total, ()), "sum")
            nest.evaluator.bind(node, ix.unflatten(row, node.shape), value)
        nest.scalars(row)
    return frame.call(scope, "combine", work / 8)
