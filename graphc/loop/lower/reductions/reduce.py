"""Loops for groups with reductions. Shapes of nest, chosen by where memory is contiguous:

rows      for each row: vectors run along the row's elements (softmax over the last axis, batch statistics
          of NCHW)
columns   vectors run across neighbouring rows, the elements of all of them are walked together (pooling
          windows, narrow bias gradients)
pieces    the same from memory, with several sweeps or results for every element: a piece of many columns is
          swept in the order of memory, what its rows carry along in cache (interchange.py)
stream    the same for wide columns: sums in cache while memory is read row by row (stages.py)
runs      rows that are short runs far apart, of arrays that come from memory: read in its order, the sums of
          all rows in cache (stages.py)
crossing  rows that are also added up across them: `rows`, with such sums on the way (stages.py)
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.partition import Group
from graphc.loop.lower import cost
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.reductions.choose import choose, settle_rows
from graphc.loop.lower.reductions.interchange import columns_inside
from graphc.loop.lower.reductions.keep import Kept, dear_values, keep_columns
from graphc.loop.lower.reductions.rows import Rows, rows_of
from graphc.loop.lower.reductions.stages import in_crossing, in_stream, in_two_stages
from graphc.loop.lower.reductions.sweeps import Nest, Plan
from graphc.loop.lower.scope import Scope
from graphc.loop.lowered import KernelCall
from graphc.program import Machine


def lower_reduce(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    """Kernels for a group whose reductions share their rows."""
    frame, rows = rows_of(group)
    if not rows.count:
        return ()
    found = settle_rows(rows, frame)
    plan = choose(rows, found, group, machine)
    if plan.name in ("stream", "runs"):
        return in_stream(frame, rows, plan, machine)
    if plan.name == "crossing":
        return in_crossing(frame, rows, plan, machine)
    if plan.splits > 1:
        return in_two_stages(frame, rows, plan, machine)
    room = machine.l2_bytes // 4
    if plan.name == "rows":
        kept = dear_values(rows, frame, room)
    else:
        plan, kept = _across(plan, rows, frame, room)
    frame.set_tasks(plan.rows.tasks)
    scope = Scope()
    nest = Nest(scope, frame, rows, plan)
    nest.keep(kept)
    nest.write(frame.task())
    if plan.name == "pieces":
        scope.block[:] = columns_inside(scope.block, scope.name)
    return (frame.call(scope, plan.name, cost.flops(group)),)


def _across(plan: Plan, rows: Rows, frame: Frame, room: int) -> tuple[Plan, list[Kept]]:
    """What to keep where vectors run across rows, and the loops in which it takes `room` bytes: pieces of
    columns only if these have room for all that single vectors have room for."""
    whole = replace(plan.rows, piece=0)
    box, kept = keep_columns(whole, plan.elements.values(), rows, frame, room)
    if plan.name == "pieces":
        beside = dear_values(rows, frame, room // plan.rows.width)
        if len(beside) == len(kept):
            return plan, beside
    return replace(plan, name="columns", rows=box), kept
