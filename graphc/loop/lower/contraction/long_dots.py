"""Dot products so long that the rows of A do not stay in the first-level cache (a small batch times the
weights of a wide layer, stored as [out, in]).

K is cut into parts for which they do. A task first copies A part by part: rows a power of two apart would
compete for the same cache sets. The sums of a unit of columns, a vector for each product, wait in scratch
memory between parts. B is read once and asked for a part ahead: at eight rows there is as much arithmetic
as a core's memory can feed, so neither may wait for the other.
"""

from __future__ import annotations

from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, Prefetch, Var, binary, cast, identity_of, load
from graphc.loop.lower.contraction.cells import Cells
from graphc.loop.lower.contraction.dots import TASK_FLOPS, DotPlan, Dots
from graphc.loop.lower.contraction.fused import Fused, place
from graphc.loop.lower.contraction.problem import Contraction, Index
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

MOST_TASKS = 16  # each copies A


def long_dots_call(
    problem: Contraction, plan: DotPlan, fused: Fused, machine: Machine, name: str, cells: Cells | None
) -> KernelCall:
    """The kernel of a plan that cuts K into parts."""
    return _LongDots(problem, plan, fused, machine.lanes(problem.anchor.dtype.itemsize), cells).call(name)


class _LongDots(Dots):
    def call(self, name: str) -> KernelCall:
        units = -(-self.inner // self.plan.unit)
        wanted = max(1, min(MOST_TASKS, int(self.p.flops // TASK_FLOPS)))
        shares = min(units, -(-wanted // self.flat))
        task = Var(int64, "task", self.flat * shares)
        batch, share = ix.unflatten(task, (self.flat, shares))
        first = ix.floordiv(ix.mul(share, units), shares)
        count = ix.sub(ix.floordiv(ix.mul(ix.add(share, 1), units), shares), first)
        self.rows = self._copy(self._batch(batch))
        with self.w.loop("i", count, -(-units // shares)) as i:
            self._any_unit(batch, ix.add(first, i))
        return self.fused.call(name, task, task.extent, self.p.flops)

    @property
    def parts(self) -> int:
        return -(-self.k // self.plan.part)

    def _copy(self, batch: Index) -> Buffer:
        """A as [step][row][lane], where a step is a vector of k."""
        w, width = self.w, self.width
        steps, rest = divmod(self.k, width)
        rows = w.alloc("rows", self.dtype, (steps + bool(rest), self.m, width))
        for first, count, lanes in ((0, steps, width), (steps, 1, rest)):
            if lanes:
                with (
                    w.loop("s", count) as s,
                    w.loop("r", self.m) as r,
                    w.loop("l", lanes, None, "vector", width) as lane,
                ):
                    step = ix.add(s, first)
                    k = ix.add(ix.mul(step, width), lane)
                    w.store(rows, (step, r, lane), self.fused.read(self.p.a(batch, self._row(r), (k,))))
        return rows

    def _products(self, sums: Buffer, batch: Expr, start: Expr, count: int) -> None:
        w, width = self.w, self.width
        lanes = w.alloc("lanes", self.dtype, (self.gates, self.m, self.plan.unit, width))
        every = (self.gates, self.m, count)
        with w.nest("i", every) as i, w.loop("l", width, None, "vector", width) as lane:
            w.store(lanes, (*i, lane), identity_of("add", self.dtype))
        with w.loop("d", self.parts) as part:
            self._part(lanes, batch, part, start, count)
        if self.k % width:
            self._rest(lanes, batch, start, count)
        with w.nest("i", every) as i:
            total = w.alloc("total", self.dtype, (), "local")
            w.store(total, (), identity_of("add", self.dtype))
            with w.loop("l", width, None, "vector", width) as lane:
                w.put(Accumulate(total, (), "add", load(lanes, (*i, lane))))
            w.store(sums, i, load(total, ()))

    def _part(self, lanes: Buffer, batch: Expr, part: Expr, start: Expr, count: int) -> None:
        """Add a part of K to lanes[gate, row, col, :] of every column of the unit."""
        groups, rest = divmod(count, self.plan.cols)
        for gate in range(self.gates):
            for first, many, cols in ((0, groups, self.plan.cols), (count - rest, 1, rest)):
                if cols and many:
                    with self.w.loop("s", many) as s:
                        col = ix.add(ix.mul(s, cols), first)
                        for block in range(len(self.plan.rows)):
                            self._add(lanes, self._batch(batch), part, (gate, block, col), cols, start)

    def _add(
        self, lanes: Buffer, batch: Index, part: Expr, at: tuple[int, int, Expr], cols: int, start: Expr
    ) -> None:
        """Add a part of K to the sums of a block of rows and `cols` columns, which stay in registers."""
        w, width, (gate, block, col) = self.w, self.width, at
        row, height = sum(self.plan.rows[:block]), self.plan.rows[block]
        column = ix.add(ix.add(start, col), gate * self.inner)
        before = ix.mul(part, self.plan.part // width)
        steps = ix.minimum(self.plan.part // width, ix.sub(self.k // width, before))
        cells = [(i, j) for i in range(height) for j in range(cols)]
        with w.loop("l", width, None, "vector", width) as lane:
            places = {(i, j): (ix.const(gate), ix.const(row + i), ix.add(col, j), lane) for i, j in cells}
            totals = {cell: w.alloc("sum", self.dtype, (), "local") for cell in cells}
            for cell in cells:
                w.store(totals[cell], (), load(lanes, places[cell]))
            with w.loop("k", steps, self.plan.part // width) as s:
                step = ix.add(before, s)
                k = ix.add(ix.mul(step, width), lane)
                if self.plan.ahead:
                    share = len(self.plan.rows)
                    ours = range(block * cols // share, (block + 1) * cols // share)
                    self._ask(batch, part, k, [ix.add(column, j) for j in ours])
                b = [w.let(self._b(batch, k, ix.add(column, j)), "b") for j in range(cols)]
                for i in range(height):
                    a = w.let(load(self.rows, (step, ix.const(row + i), lane)), "a")
                    for j in range(cols):
                        w.put(Accumulate(totals[i, j], (), "add", binary("mul", a, b[j])))
            for cell in cells:
                w.store(lanes, places[cell], load(totals[cell], ()))

    def _b(self, batch: Index, k: Expr, column: Expr) -> Expr:
        return self.fused.read(self.p.b(batch, (k,), (column,)))

    def _ask(self, batch: Index, part: Expr, k: Expr, columns: list[Expr]) -> None:
        """Ask for elements of B ahead of time: those of the next part, or of the next unit's first part."""
        last = cast(ix.compare("eq", part, self.parts - 1), int64)
        later = ix.add(k, ix.sub(self.plan.part, ix.mul(last, self.parts * self.plan.part)))
        for column in columns:
            there = self.p.b(batch, (later,), (ix.add(column, ix.mul(last, self.plan.unit)),))
            at = place(self.fused.group, self.fused.buffer, there)
            assert at is not None, "only operands that lie as they are read make a plan"
            self.w.put(Prefetch(at.buffer, at.index, near=False))

    def _rest(self, lanes: Buffer, batch: Expr, start: Expr, count: int) -> None:
        """Add the k beyond the last whole vector."""
        w, step = self.w, self.k // self.width
        for gate in range(self.gates):
            with (
                w.loop("c", count) as col,
                w.loop("l", self.k % self.width, None, "vector", self.width) as lane,
            ):
                k = ix.add(lane, step * self.width)
                b = w.let(self._b(self._batch(batch), k, ix.add(ix.add(start, col), gate * self.inner)), "b")
                for row in range(self.m):
                    place = (ix.const(gate), ix.const(row), col, lane)
                    a = load(self.rows, (ix.const(step), ix.const(row), lane))
                    w.store(lanes, place, binary("add", binary("mul", a, b), load(lanes, place)))
