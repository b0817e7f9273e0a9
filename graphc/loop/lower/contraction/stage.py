"""A copy of the row operand in the order tiles read it, made once by a kernel of its own.

Rows stay rows, or become columns where they are neighbours in memory. Used where A cannot be read in
place and several tasks would otherwise each pack it (the weights of an input gradient).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from graphc.ir.types import Shape, TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Expr, Var, identity_of
from graphc.loop.lower.contraction.fused import Fused, flat_buffer, place
from graphc.loop.lower.contraction.merge import merged_axes
from graphc.loop.lower.contraction.operand import symbols
from graphc.loop.lower.contraction.pack import Line, clip, copy_line, padded
from graphc.loop.lower.contraction.problem import Access, Contraction, Index
from graphc.loop.lowered import KernelCall, Temp

TASK_ELEMENTS = 1 << 14
MOST_TASKS = 32


def stage_call(problem: Contraction, fused: Fused, width: int, name: str) -> tuple[Temp, KernelCall]:
    """(temp, call): temp[b, m, k] = A[b, m, k], b of the batch axes that A depends on."""
    depth, expand = _depth_of_a(problem, fused)

    def read(batch: Index, row: Expr, at: Index) -> Access:
        return problem.a(batch, ix.unflatten(row, problem.rows), expand(at))

    return _staged(problem, fused, width, name, problem.sizes[1], depth, read)


def stage_across_call(problem: Contraction, fused: Fused, width: int, name: str) -> tuple[Temp, KernelCall]:
    """(temp, call): temp[b, k, m] = A[b, m, k], for an A whose rows are neighbours in memory."""

    def read(batch: Index, step: Expr, at: Index) -> Access:
        return problem.a(batch, at, ix.unflatten(step, problem.depth))

    return _staged(problem, fused, width, name, problem.sizes[3], problem.rows, read)


def _staged(
    problem: Contraction,
    fused: Fused,
    width: int,
    name: str,
    lines: int,
    axes: Shape,
    read: Callable[[Index, Expr, Index], Access],
) -> tuple[Temp, KernelCall]:
    """(temp, call): temp[b, line, i] = read(b, line, i), for `lines` lines in each batch, of as many elements
    as a box `axes` has, padded to a length that spreads over the cache's sets."""
    batch, dtype, length = math.prod(problem.a_batch), problem.anchor.dtype, math.prod(axes)
    temp = Temp("rows", TensorType((batch, lines, padded(length, dtype.itemsize)), dtype))
    tasks = max(1, min(MOST_TASKS, batch * lines, batch * lines * length // TASK_ELEMENTS))
    chunk = -(-batch * lines // tasks)
    task = Var(int64, "task", -(-batch * lines // chunk))
    w = fused.scope
    first = ix.mul(task, chunk)
    with w.loop("i", ix.minimum(chunk, ix.sub(batch * lines, first)), chunk) as i:
        flat_batch, number = ix.unflatten(ix.add(first, i), (batch, lines))
        at = (*ix.unflatten(flat_batch, problem.a_batch), *[ZERO] * problem.alike)
        with w.nest("k", axes[:-1]) as outer:

            def access(j: Expr) -> Access:
                return read(at, number, (*outer, j))

            def put(j: Expr, value: Expr | None) -> None:
                where = (flat_batch, number, ix.flatten((*outer, j), axes))
                fused.store_temp(temp, where, identity_of("add", dtype) if value is None else value)

            line = Line(ix.const(axes[-1]), axes[-1], access)
            copy_line(w, line, clip(line), lambda a: fused.read(replace(a, bounds=())), put, width)
    return temp, fused.call(name, task, task.extent, 0.0)


def _depth_of_a(problem: Contraction, fused: Fused) -> tuple[Shape, Callable[[Index], Index]]:
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
