"""Contractions as plain loops: small and thin problems, integers, depthwise convolutions.

Two forms. `outer`: the vector axis is a column axis, K is a serial loop inside. `inner`: the vector axis
is the innermost axis of K, and each result is a dot product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.types import Shape, int64
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, Mode, Var, binary, identity_of, load
from graphc.loop.lower.contraction.blocking import from_memory
from graphc.loop.lower.contraction.cells import Cells, finish_cell, interleaved
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.operand import Layout
from graphc.loop.lower.contraction.problem import Contraction, Index
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

TASK_FLOPS = 1 << 16
RESULT_FLOPS = 8  # what storing a result costs, in flops
MOST_TASKS = 64
LATENCY = 4.0  # cycles of a multiply-add that waits for the one before
WALK = 6.0  # cycles more to load a vector of a large operand that is walked across its rows
FAR_WALK = 30.0  # the same if it comes from memory
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


def choose_form(
    problem: Contraction, a: Layout, b: Layout, c_strides: tuple, machine: Machine, swap: bool = True
) -> Form:
    """The form with the cheapest multiply-add. `c_strides` are those of the last row and column axis in C;
    `swap`: rows may become columns."""
    width = machine.lanes(problem.anchor.dtype.itemsize)
    k = problem.sizes[3]
    forms = []
    sides = ((problem.cols, a, b, c_strides[1], False), (problem.rows, b, a, c_strides[0], True))
    for axes, still, moving, out, swapped in sides[: 1 + swap]:
        loads = (0.5 if still.direct else 1.5) + _step_cost(
            moving.side[-1] if axes else 0, width, moving.direct
        )
        if moving.depth and moving.depth[-1] not in (0, 1):
            size = math.prod((*axes, *problem.depth)) * problem.anchor.dtype.itemsize
            far = WALK if size > machine.l2_bytes // 2 else 0.0
            loads += FAR_WALK if from_memory(size, machine) else far
        ends = (_step_cost(out, width) + LATENCY) / max(k, 1)
        chain = 1.0 if _last(axes) >= SUMS * width else LATENCY
        forms.append(Form(swapped, False, (max(loads, chain) + ends) / _useful_lanes(axes, width)))
    if problem.depth and k > 1:
        loads = _step_cost(a.depth[-1], width, a.direct) + _step_cost(b.depth[-1], width, b.direct)
        chain = 1.0 if problem.depth[-1] >= UNROLLED * width else LATENCY
        ends = LATENCY * width / max(k, 1)
        forms.append(Form(False, True, (max(loads, chain) + ends) / _useful_lanes(problem.depth, width)))
    return min(forms, key=lambda f: f.cost)


def direct_call(
    problem: Contraction, form: Form, fused: Fused, machine: Machine, name: str, cells: Cells | None = None
) -> KernelCall:
    """The kernel of a direct contraction; with `cells`, all gates of a cell are computed together."""
    if form.swap:
        problem = problem.swapped()
    if cells is not None:
        problem = interleaved(problem, cells, cells.inner)
    kernel = _Direct(problem, form, fused, machine.lanes(problem.anchor.dtype.itemsize), cells)
    count = math.prod(kernel.box)
    batch, m, n, _ = problem.sizes
    work = problem.flops + RESULT_FLOPS * batch * m * n
    tasks = max(1, min(count, MOST_TASKS, int(work // TASK_FLOPS)))
    chunk = -(-count // tasks)
    tasks = -(-count // chunk)
    task = Var(int64, "task", tasks)
    first = ix.mul(task, chunk) if tasks > 1 else ix.ZERO
    with fused.scope.loop("i", ix.minimum(chunk, ix.sub(count, first)), chunk) as i:
        place = ix.unflatten(ix.add(first, i), kernel.box) if kernel.box else ()
        kernel.element(place)
    return fused.call(name, task, tasks, problem.flops)


def _last(axes: Shape) -> int:
    return axes[-1] if axes else 1


class _Direct:
    """Writes the loops of a direct contraction. `box` are the loops that tasks share: batch, rows, columns
    (blocks of them, if they are the vector axis)."""

    def __init__(
        self, problem: Contraction, form: Form, fused: Fused, width: int, cells: Cells | None
    ) -> None:
        self.p, self.form, self.fused, self.width, self.cells = problem, form, fused, width, cells
        self.w = fused.scope
        self.gates = 1 if cells is None else problem.cols[1]
        self.lead = problem.cols[:-1] if cells is None else ()
        self.block = self._column_block()
        cols = () if not problem.cols else (*self.lead, -(-_last(problem.cols) // self.block))
        self.box = (*problem.batch, *problem.rows, *cols)

    def _column_block(self) -> int:
        """Columns along the vector axis that one pass covers: all of them, unless only they can be shared
        out. With vectors along K, one."""
        if self.form.inner:
            return 1
        extent = _last(self.p.cols)
        outer = math.prod((*self.p.batch, *self.p.rows, *self.lead))
        lanes = self._sums() * self.width
        if outer >= MOST_TASKS or extent <= lanes:
            return extent
        block = lanes * max(1, extent * outer // (MOST_TASKS * lanes))
        # cells need indices of an exact range, which a last block of another size would not have
        return extent if self.cells is not None and extent % block else block

    def _sums(self) -> int:
        """Vectors of sums kept for each gate."""
        return max(1, SUMS // self.gates)

    def element(self, place: Index) -> None:
        """Compute the results at a place in the box."""
        nb, nr = len(self.p.batch), len(self.p.rows)
        split = place[:nb], place[nb : nb + nr], place[nb + nr :]
        if self.form.inner:
            self._dot(*split)
        else:
            self._outer(*split)

    def _columns(self, lead: Index, last: Expr) -> list[Index]:
        """The columns, one for each gate, at a place along the last axis."""
        if self.cells is not None:
            return [(ix.ZERO, ix.const(g), last) for g in range(self.gates)]
        return [(*lead, last) if self.p.cols else ()]

    def _start(self) -> list[Buffer]:
        """An accumulator for each gate."""
        dtype = self.p.anchor.dtype
        sums = [self.w.alloc("sum", dtype, (), "local") for _ in range(self.gates)]
        for buffer in sums:
            self.w.store(buffer, (), identity_of("add", dtype))
        return sums

    def _add(self, sums: Sequence[Buffer], batch: Index, row: Index, cols: Sequence[Index], k: Index) -> None:
        for buffer, col in zip(sums, cols, strict=True):
            x, y = self.fused.read(self.p.a(batch, row, k)), self.fused.read(self.p.b(batch, k, col))
            self.w.put(Accumulate(buffer, (), "add", binary("mul", x, y)))

    def _finish(self, sums: Sequence[Buffer], batch: Index, row: Index, cols: Sequence[Index]) -> None:
        values = [load(buffer, ()) for buffer in sums]
        if self.cells is None:
            self.fused.finish(self.p.c(batch, row, cols[0]), values[0])
            return
        outer = ix.flatten((*batch, *row), (*self.p.batch, *self.p.rows)) if batch or row else ix.ZERO
        finish_cell(self.fused, self.cells, outer, cols[0][-1], values)

    def _outer(self, batch: Index, row: Index, blocks: Index) -> None:
        """Vectors of columns; K is a serial loop inside."""
        first = ix.mul(blocks[-1], self.block) if blocks else ix.ZERO
        extent = ix.minimum(self.block, ix.sub(_last(self.p.cols), first))
        lanes = self._sums() * self.width
        mode: Mode = "vector" if self.block > 1 else "serial"
        with self.w.loop("j", extent, self.block, mode, lanes if self.block >= lanes else self.width) as j:
            cols = self._columns(blocks[:-1], ix.add(first, j))
            sums = self._start()
            with self.w.nest("k", self.p.depth) as k:
                self._add(sums, batch, row, cols, k)
            self._finish(sums, batch, row, cols)

    def _dot(self, batch: Index, row: Index, col: Index) -> None:
        """Vectors along K: each result is a dot product."""
        cols = self._columns(col[:-1], col[-1] if col else ix.ZERO)
        sums = self._start()
        last = self.p.depth[-1]
        lanes = SUMS * self.width if last >= UNROLLED * self.width else self.width
        with self.w.nest("k", self.p.depth[:-1]) as outer, self.w.loop("k", last, None, "vector", lanes) as k:
            self._add(sums, batch, row, cols, (*outer, k))
        self._finish(sums, batch, row, cols)
