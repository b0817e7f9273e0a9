"""Few rows times many columns, with K contiguous in both operands (activations of a small batch, weights as
[out, in]): blocks of dot products, with vectors along K and nothing copied.

A task takes units of columns; the products of a unit are stored in scratch memory, so that the epilogue
runs along the columns as vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, Store, Var, binary, identity_of, load
from graphc.loop.lower.contraction.cells import Cells, finish_cell
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.operand import Layout
from graphc.loop.lower.contraction.problem import Contraction, Index
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

MOST_ROWS = 16
MOST_COLS = 8  # columns at once: each is a stream from memory
SPARE = 4  # vector registers that hold no sums
LATENCY = 4  # multiply-adds that must be under way at once
REDUCE = 8.0  # cycles to add up the lanes of a sum and store it
AGAIN = 0.1  # part of a multiply-add that it costs to load a vector of B once more
START = 40.0  # cycles to start a block of dot products
STALL = 1.15  # how much longer the multiply-adds of a long plan take: loads from beyond the first-level cache
UNITS = (2, 1, 3, 4)  # vectors of columns in a unit, the best first
LONG_UNIT = 3  # vectors of columns in a unit of a long plan: 2, 3, 4 and 6 columns at once divide it
TASK_FLOPS = 1 << 16
MOST_TASKS = 64


@dataclass(frozen=True)
class DotPlan:
    """rows  heights of the blocks of rows
    cols     columns at once
    unit     columns per epilogue
    part     so much of K at a time (0: all of it; else see long_dots.py)
    ahead    B is worth asking for ahead of its use
    cost     in cycles per multiply-add
    """

    rows: tuple[int, ...]
    cols: int
    unit: int
    part: int
    ahead: bool
    cost: float


def plan_dots(
    problem: Contraction, a: Layout, b: Layout, machine: Machine, cells: Cells | None = None
) -> DotPlan | None:
    """How to run a problem as dot products; None if its operands or its size do not suit that."""
    _, m, n, k = problem.sizes
    itemsize = problem.anchor.dtype.itemsize
    width = machine.lanes(itemsize)
    near = m * k * itemsize <= machine.l1_bytes // 2
    contiguous = b.direct and b.depth == (1,) and (not near or (a.direct and a.depth == (1,)))
    if not (contiguous and problem.anchor.dtype.is_float and m <= MOST_ROWS and len(problem.cols) == 1):
        return None
    inner = n if cells is None else cells.inner
    if inner < width or k < width:
        return None
    if near:
        unit = width * next((u for u in UNITS if inner % (u * width) == 0), UNITS[0])
        part = 0
    else:
        unit = width * LONG_UNIT
        part = -(-k // (-(-m * k * itemsize // (machine.l1_bytes // 2)) * width)) * width
    unit = min(unit, inner // width * width)
    ahead = n * k * itemsize > machine.l2_bytes
    most = max(rows * vectors for rows, vectors in machine.tiles) - SPARE
    plans = []
    for blocks in range(1, m + 1):
        tall = -(-m // blocks)
        heights = tuple(m // blocks + (i < m % blocks) for i in range(blocks))
        for cols in range(1, min(MOST_COLS, most // tall) + 1):
            cost = _cost(m, k, (blocks, cols), (unit, part), width)
            plans.append(DotPlan(heights, cols, unit, part, ahead, cost))
    return min(plans, key=lambda plan: plan.cost)


def _cost(m: int, k: int, cut: tuple[int, int], unit_part: tuple[int, int], width: int) -> float:
    """Cycles per multiply-add of blocks of rows times `cols` columns."""
    (blocks, cols), (unit, part) = cut, unit_part
    tall = -(-m // blocks)
    sums = tall * cols
    steps = max(sums, tall + cols, LATENCY) / sums + AGAIN * (blocks - 1) / tall
    if part:
        steps *= STALL
    padded = blocks * tall / m * -(-unit // cols) * cols / unit
    starts = START / sums * (-(-k // part) if part else 1)
    return padded * (steps * -(-k // width) / k + (REDUCE + starts) / k)


def dots_call(
    problem: Contraction, plan: DotPlan, fused: Fused, machine: Machine, name: str, cells: Cells | None
) -> KernelCall:
    """The kernel of a plan that takes all of K at once."""
    return Dots(problem, plan, fused, machine.lanes(problem.anchor.dtype.itemsize), cells).call(name)


class Dots:
    """Writes the kernel of a plan."""

    def __init__(
        self, problem: Contraction, plan: DotPlan, fused: Fused, width: int, cells: Cells | None
    ) -> None:
        self.p, self.plan, self.fused, self.width, self.cells = problem, plan, fused, width, cells
        self.w, self.dtype = fused.scope, problem.anchor.dtype
        self.flat, self.m, self.n, self.k = problem.sizes
        self.gates = 1 if cells is None else cells.gates(problem.anchor) or 1
        self.inner = self.n // self.gates

    def call(self, name: str) -> KernelCall:
        """The kernel and its arguments."""
        units = -(-self.inner // self.plan.unit)
        count = self.flat * units
        tasks = max(1, min(count, MOST_TASKS, int(self.p.flops // TASK_FLOPS)))
        chunk = -(-count // tasks)
        tasks = -(-count // chunk)
        task = Var(int64, "task", tasks)
        first = ix.mul(task, chunk) if tasks > 1 else ix.ZERO
        with self.w.loop("i", ix.minimum(chunk, ix.sub(count, first)), chunk) as i:
            self._any_unit(*ix.unflatten(ix.add(first, i), (self.flat, units)))
        return self.fused.call(name, task, tasks, self.p.flops)

    def _any_unit(self, batch: Expr, unit: Expr) -> None:
        """A unit by its number: the last one may have fewer columns."""
        full, rest = divmod(self.inner, self.plan.unit)
        if full:
            with self.w.when(ix.compare("lt", unit, full)):
                self._unit(batch, ix.minimum(unit, full - 1), self.plan.unit)
        if rest:
            with self.w.when(ix.compare("eq", unit, full)):
                self._unit(batch, ix.const(full), rest)

    def _unit(self, batch: Expr, unit: Expr, count: int) -> None:
        """All rows and gates of `count` columns."""
        w = self.w
        sums = w.alloc("sums", self.dtype, (self.gates, self.m, self.plan.unit))
        start = ix.mul(unit, self.plan.unit)
        self._products(sums, batch, start, count)
        with w.loop("j", count, None, "vector", self.width) as j, w.loop("r", self.m) as r:
            self._finish(sums, batch, r, start, j)

    def _products(self, sums: Buffer, batch: Expr, start: Expr, count: int) -> None:
        """sums[gate, row, j] = the products of column `start` + j, for j < count."""
        cols = min(self.plan.cols, count)
        for gate in range(self.gates):
            with self.w.loop("s", -(-count // cols)) as s:
                col = ix.minimum(ix.mul(s, cols), count - cols)
                row = 0
                for height in self.plan.rows:
                    self._block(sums, batch, (gate, row, col), height, cols, start)
                    row += height

    def _block(
        self, sums: Buffer, batch: Expr, at: tuple[int, int, Expr], height: int, cols: int, start: Expr
    ) -> None:
        """sums[gate, row + i, col + j] for i < height and j < cols."""
        w, (gate, row, col) = self.w, at
        index = self._batch(batch)
        cells = [(i, j) for i in range(height) for j in range(cols)]
        totals = {cell: w.alloc("sum", self.dtype, (), "local") for cell in cells}
        for buffer in totals.values():
            w.store(buffer, (), identity_of("add", self.dtype))
        column = ix.add(ix.add(start, col), gate * self.inner)
        with w.loop("k", self.k, None, "vector", self.width) as k:
            # B first, then A row by row: no more values are alive at once than there are registers
            places = [(ix.add(column, j),) for j in range(cols)]
            b = [w.let(self.fused.read(self.p.b(index, (k,), c)), "b") for c in places]
            for i in range(height):
                a = w.let(self.fused.read(self.p.a(index, self._row(ix.const(row + i)), (k,))), "a")
                for j in range(cols):
                    w.put(Accumulate(totals[i, j], (), "add", binary("mul", a, b[j])))
        for i, j in cells:
            place = (ix.const(gate), ix.const(row + i), ix.add(col, j))
            w.put(Store(sums, place, load(totals[i, j], ())))

    def _batch(self, batch: Expr) -> Index:
        return ix.unflatten(batch, self.p.batch)

    def _row(self, row: Expr) -> Index:
        return ix.unflatten(row, self.p.rows)

    def _finish(self, sums: Buffer, batch: Expr, row: Expr, start: Expr, j: Expr) -> None:
        inner = ix.add(start, j)
        values = [load(sums, (ix.const(g), row, j)) for g in range(self.gates)]
        if self.cells is not None:
            finish_cell(self.fused, self.cells, ix.add(ix.mul(batch, self.m), row), inner, values)
        else:
            self.fused.finish(self.p.c(self._batch(batch), self._row(row), (inner,)), values[0])
