"""Contractions as plain loops: small and thin problems, integers, depthwise convolutions.

Two forms. `outer`: the vector axis is a column axis, K is a serial loop inside. `inner`: the vector axis
is the innermost axis of K, and each result is a dot product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.ir.types import Shape, int64
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, Mode, Var, binary, identity_of, load
from graphc.loop.lower.fused import Fused
from graphc.loop.lower.operand import Layout
from graphc.loop.lower.problem import Contraction, Index
from graphc.loop.lower.writer import Writer
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

TASK_FLOPS = 1 << 16
RESULT_FLOPS = 8  # what storing a result costs, in flops
MOST_TASKS = 64
LATENCY = 4.0  # cycles of a multiply-add that waits for the one before
SUMS = 4  # vectors of sums kept at once
UNROLLED = 8  # vectors along K from which a dot product keeps several sums


@dataclass(frozen=True)
class Form:
    """`swap`: columns are the problem's rows. `inner`: vectors along K. `cost`: cycles per multiply-add."""

    swap: bool
    inner: bool
    cost: float


def _step_cost(stride: int | None, width: int, plain: bool = True) -> float:
    """Cycles to load or store a vector whose lanes lie `stride` elements apart; more if it is not a
    `plain` load, but needs a mask."""
    if stride == 0:
        return 0.3 if plain else 2.0
    if stride == 1:
        return 1.0 if plain else 3.0
    return width * (1.0 if plain else 4.0)


def _useful_lanes(axes: Shape, width: int) -> float:
    """Lanes doing work, on average, in vectors along the last axis."""
    extent = axes[-1] if axes else 1
    return extent / -(-extent // width)


def choose_form(problem: Contraction, a: Layout, b: Layout, c_strides: tuple, machine: Machine) -> Form:
    """The form with the cheapest multiply-add. `c_strides` are those of the last row and column axis in C."""
    width = machine.lanes(problem.anchor.dtype.itemsize)
    k = problem.sizes[3]
    forms = []
    sides = ((problem.cols, a, b, c_strides[1], False), (problem.rows, b, a, c_strides[0], True))
    for axes, still, moving, out, swap in sides:
        loads = (0.5 if still.direct else 1.5) + _step_cost(
            moving.side[-1] if axes else 0, width, moving.direct
        )
        ends = (_step_cost(out, width) + LATENCY) / max(k, 1)
        chain = 1.0 if _last(axes) >= SUMS * width else LATENCY
        forms.append(Form(swap, False, (max(loads, chain) + ends) / _useful_lanes(axes, width)))
    if problem.depth and k > 1:
        loads = _step_cost(a.depth[-1], width, a.direct) + _step_cost(b.depth[-1], width, b.direct)
        chain = 1.0 if problem.depth[-1] >= UNROLLED * width else LATENCY
        ends = LATENCY * width / max(k, 1)
        forms.append(Form(False, True, (max(loads, chain) + ends) / _useful_lanes(problem.depth, width)))
    return min(forms, key=lambda f: f.cost)


def direct_call(problem: Contraction, form: Form, fused: Fused, machine: Machine, name: str) -> KernelCall:
    """The kernel of a direct contraction."""
    if form.swap:
        problem = problem.swapped()
    width = machine.lanes(problem.anchor.dtype.itemsize)
    block = _column_block(problem, form, width)
    cols = problem.cols if form.inner else (*problem.cols[:-1], -(-_last(problem.cols) // block))
    box = (*problem.batch, *problem.rows, *cols)
    count = math.prod(box)
    batch, m, n, _ = problem.sizes
    work = problem.flops + RESULT_FLOPS * batch * m * n
    tasks = max(1, min(count, MOST_TASKS, int(work // TASK_FLOPS)))
    chunk = -(-count // tasks)
    tasks = -(-count // chunk)
    task = Var(int64, "task", tasks)
    w = fused.scope
    first = ix.mul(task, chunk)
    with w.loop("i", ix.minimum(chunk, ix.sub(count, first)), chunk) as i:
        place = ix.unflatten(ix.add(first, i), box) if box else ()
        nb, nr = len(problem.batch), len(problem.rows)
        split = (place[:nb], place[nb : nb + nr], place[nb + nr :])
        if form.inner:
            _dot(w, problem, fused, split, width)
        else:
            _outer(w, problem, fused, split, width, block)
    return fused.call(name, task, tasks, problem.flops)


def _last(axes: Shape) -> int:
    return axes[-1] if axes else 1


def _column_block(problem: Contraction, form: Form, width: int) -> int:
    """Columns along the vector axis that one pass covers: all of them, unless only they can be shared out."""
    extent = _last(problem.cols)
    outer = math.prod((*problem.batch, *problem.rows, *problem.cols[:-1]))
    if form.inner or outer >= MOST_TASKS or extent <= SUMS * width:
        return extent
    return SUMS * width * max(1, extent * outer // (MOST_TASKS * SUMS * width))


def _accumulator(w: Writer, problem: Contraction) -> Buffer:
    sums = w.alloc("sum", problem.anchor.dtype, (), "local")
    w.store(sums, (), identity_of("add", problem.anchor.dtype))
    return sums


def _add(
    w: Writer, sums: Buffer, problem: Contraction, fused: Fused, at: tuple[Index, Index, Index], k: Index
) -> None:
    batch, row, col = at
    x, y = fused.read(problem.a(batch, row, k)), fused.read(problem.b(batch, k, col))
    w.put(Accumulate(sums, (), "add", binary("mul", x, y)))


def _outer(
    w: Writer, problem: Contraction, fused: Fused, at: tuple[Index, Index, Index], width: int, block: int
) -> None:
    batch, row, outer = at
    first = ix.mul(outer[-1], block)
    extent = ix.minimum(block, ix.sub(_last(problem.cols), first))
    lanes = SUMS * width if block >= SUMS * width else width
    mode: Mode = "vector" if block > 1 else "serial"
    with w.loop("j", extent, block, mode, lanes) as j:
        col: tuple[Expr, ...] = (*outer[:-1], ix.add(first, j)) if problem.cols else ()
        sums = _accumulator(w, problem)
        with w.nest("k", problem.depth) as k:
            _add(w, sums, problem, fused, (batch, row, col), k)
        fused.finish(problem.c(batch, row, col), load(sums, ()))


def _dot(w: Writer, problem: Contraction, fused: Fused, at: tuple[Index, Index, Index], width: int) -> None:
    sums = _accumulator(w, problem)
    last = problem.depth[-1]
    lanes = SUMS * width if last >= UNROLLED * width else width
    with w.nest("k", problem.depth[:-1]) as outer, w.loop("k", last, None, "vector", lanes) as k:
        _add(w, sums, problem, fused, at, (*outer, k))
    fused.finish(problem.c(*at), load(sums, ()))
