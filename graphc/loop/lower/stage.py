"""A copy of the row operand in the order tiles read it, made once by a kernel of its own.

Rows stay rows, or become columns where they are neighbours in memory. Used where A cannot be read in
place and several tasks would otherwise each pack it (the weights of an input gradient).
"""

from __future__ import annotations

import math
from dataclasses import replace

from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Expr, Var, identity_of
from graphc.loop.lower.fused import Fused, flat_buffer, place
from graphc.loop.lower.merge import merged_axes
from graphc.loop.lower.operand import symbols
from graphc.loop.lower.pack import Line, clip, copy_line, padded
from graphc.loop.lower.problem import Access, Contraction
from graphc.loop.lowered import KernelCall, Temp

TASK_ELEMENTS = 1 << 14
MOST_TASKS = 32


def stage_call(problem: Contraction, fused: Fused, width: int, name: str) -> tuple[Temp, KernelCall]:
    """(temp, call): temp[b, m, k] = A[b, m, k], rows padded to a length that spreads over the cache's
    sets."""
    batch, m, _, k = problem.sizes
    dtype = problem.anchor.dtype
    temp = Temp("rows", TensorType((batch, m, padded(k, dtype.itemsize)), dtype))
    depth, expand = _depth_of_a(problem, fused)
    tasks = max(1, min(MOST_TASKS, batch * m, batch * m * k // TASK_ELEMENTS))
    chunk = -(-batch * m // tasks)
    task = Var(int64, "task", -(-batch * m // chunk))
    w = fused.scope
    first = ix.mul(task, chunk)
    with w.loop("i", ix.minimum(chunk, ix.sub(batch * m, first)), chunk) as i:
        flat_batch, row = ix.unflatten(ix.add(first, i), (batch, m))
        at = ix.unflatten(flat_batch, problem.batch) if problem.batch else ()
        rows = ix.unflatten(row, problem.rows) if problem.rows else ()
        with w.nest("k", depth[:-1]) as outer:

            def access(j: Expr) -> Access:
                return problem.a(at, rows, expand((*outer, j)))

            def put(j: Expr, value: Expr | None) -> None:
                where = (flat_batch, row, ix.flatten((*outer, j), depth))
                fused.store_temp(temp, where, identity_of("add", dtype) if value is None else value)

            line = Line(ix.const(depth[-1]), depth[-1], access)
            copy_line(w, line, clip(line), lambda a: fused.read(replace(a, bounds=())), put, width)
    return temp, fused.call(name, task, task.extent, 0.0)


def stage_across_call(problem: Contraction, fused: Fused, width: int, name: str) -> tuple[Temp, KernelCall]:
    """(temp, call): temp[b, k, m] = A[b, m, k], for an A whose rows are neighbours in memory."""
    batch, m, _, k = problem.sizes
    dtype = problem.anchor.dtype
    temp = Temp("rows", TensorType((batch, k, padded(m, dtype.itemsize)), dtype))
    tasks = max(1, min(MOST_TASKS, batch * k, batch * m * k // TASK_ELEMENTS))
    chunk = -(-batch * k // tasks)
    task = Var(int64, "task", -(-batch * k // chunk))
    w = fused.scope
    first = ix.mul(task, chunk)
    with w.loop("i", ix.minimum(chunk, ix.sub(batch * k, first)), chunk) as i:
        flat_batch, step = ix.unflatten(ix.add(first, i), (batch, k))
        at = ix.unflatten(flat_batch, problem.batch) if problem.batch else ()
        depth = ix.unflatten(step, problem.depth)
        with w.nest("m", problem.rows[:-1]) as outer:

            def access(j: Expr) -> Access:
                return problem.a(at, (*outer, j), depth)

            def put(j: Expr, value: Expr | None) -> None:
                where = (flat_batch, step, ix.flatten((*outer, j), problem.rows))
                fused.store_temp(temp, where, identity_of("add", dtype) if value is None else value)

            line = Line(ix.const(problem.rows[-1]), problem.rows[-1], access)
            copy_line(w, line, clip(line), lambda a: fused.read(replace(a, bounds=())), put, width)
    return temp, fused.call(name, task, task.extent, 0.0)


def _depth_of_a(problem: Contraction, fused: Fused):
    """K's axes, merged as far as A alone allows, and the map back to the problem's axes."""
    at = symbols("b", problem.batch), symbols("m", problem.rows), symbols("k", problem.depth)
    access = problem.a(*at)
    load = place(fused.group, flat_buffer, access)
    offset = None if load is None else ix.flatten(load.index, load.buffer.shape)
    fixed = frozenset().union(*(ix.variables(c) for c, _ in access.bounds))
    extents, expand = merged_axes(at[2], [offset], fixed)
    if not extents:
        return (math.prod(problem.depth),), lambda index: (ix.ZERO,) * len(problem.depth)
    return extents, expand
