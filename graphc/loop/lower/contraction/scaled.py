"""Few rows times many columns, with the columns of B contiguous (a vector times a matrix as stored): results
as sums of scaled rows of B, which is read once, in long runs, and not copied.

A task takes a chunk of columns and a share of K. It reads a few rows of B at a time and adds them, scaled, to
the sums of the chunk, which stay in cache; with K shared out, a second kernel adds up the parts (split.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Buffer, Expr, Prefetch, Var, binary, identity_of, load
from graphc.loop.lower.contraction.blocking import MEMORY, from_memory
from graphc.loop.lower.contraction.cells import Cells, finish_cell
from graphc.loop.lower.contraction.fused import Fused, place
from graphc.loop.lower.contraction.operand import Layout
from graphc.loop.lower.contraction.problem import Contraction, Index
from graphc.loop.lowered import KernelCall, Temp
from graphc.program import Machine

MOST_ROWS = 16
TOGETHER = 4  # rows of the result at once, unless more steps of K fit
MOST_STEPS = 8  # rows of B at once: each is a stream from memory
FEW_STEPS = 4  # the same where rows are used twice: more, a power of two apart, would lose their cache sets
AHEAD = 2  # times so many rows ahead of their use B is asked for
STREAMED = 4  # second-level caches of B that few rows stream as fast without asking
SPARE = 4  # vector registers of a tile that hold no elements of A
CHUNK = 1 << 14  # most bytes of a run of B; the sums stay in the first-level cache
TASK_FLOPS = 1 << 17
MOST_TASKS = 16
START = 2.0  # cycles to start a run, for each element of A


@dataclass(frozen=True)
class ScaledPlan:
    """rows     heights of the blocks of rows
    steps       rows of B at once
    chunk       columns of a task
    splits      parts of K, each a multiple of `steps` long (`part` steps of K)
    ahead       B is worth asking for ahead of its use
    cost        in cycles per multiply-add
    """

    rows: tuple[int, ...]
    steps: int
    chunk: int
    splits: int
    part: int
    ahead: bool
    cost: float


def plan_scaled(
    problem: Contraction, a: Layout, b: Layout, machine: Machine, cells: Cells | None = None
) -> ScaledPlan | None:
    """How to run a problem as sums of scaled rows; None if B's columns or the sizes do not suit that."""
    _, m, n, k = problem.sizes
    plain = a.direct and b.direct and b.side == (1,) and len(problem.depth) == 1 and None not in a.depth
    itemsize = problem.anchor.dtype.itemsize
    width = machine.lanes(itemsize)
    inner = n if cells is None else cells.inner
    if not (plain and problem.anchor.dtype.is_float and m <= MOST_ROWS and inner >= width and k):
        return None
    blocks = -(-m // TOGETHER)
    tall = -(-m // blocks)
    factors = max(r * v for r, v in machine.tiles) - SPARE
    steps = max(1, min(MOST_STEPS if blocks == 1 else FEW_STEPS, factors // tall, k))
    chunk = min(CHUNK, machine.l1_bytes // 2 // m) // (itemsize * width) * width
    chunk = min(inner, max(chunk, width))
    wanted = max(1, min(MOST_TASKS, int(problem.flops // TASK_FLOPS)))
    splits = 1 if cells is not None else max(1, min(wanted // -(-inner // chunk), k // (8 * steps)))
    part = -(-k // (splits * steps)) * steps
    cycles = max(steps * tall, steps + 3 * tall) * -(-chunk // width) + START * steps * tall
    cost = cycles * blocks / (steps * m * chunk)
    heights = tuple(m // blocks + (i < m % blocks) for i in range(blocks))
    if from_memory(
        n * k * itemsize, machine
    ):  # the few rows that are asked for at a time do not arrive in time
        cost += MEMORY * itemsize / m
    ahead = n * k * itemsize > machine.l2_bytes * (1 if m >= TOGETHER else STREAMED)
    return ScaledPlan(heights, steps, chunk, -(-k // part), part, ahead, cost)


class Scaled:
    """Writes the kernel of a plan: `call()`; `partial` is the temporary of its parts, if K is shared out."""

    def __init__(
        self,
        problem: Contraction,
        plan: ScaledPlan,
        fused: Fused,
        machine: Machine,
        cells: Cells | None = None,
    ) -> None:
        self.p, self.plan, self.fused, self.cells = problem, plan, fused, cells
        self.w, self.dtype = fused.scope, problem.anchor.dtype
        self.width = machine.lanes(self.dtype.itemsize)
        self.flat, self.m, self.n, self.k = problem.sizes
        self.gates = 1 if cells is None else cells.gates(problem.anchor) or 1
        self.inner = self.n // self.gates
        self.partial: Temp | None = None
        if plan.splits > 1:
            self.partial = Temp("partial", TensorType((plan.splits, self.flat, self.m, self.n), self.dtype))

    def call(self, name: str) -> KernelCall:
        """The kernel and its arguments."""
        chunks = -(-self.inner // self.plan.chunk)
        box = (self.plan.splits, self.flat, chunks)
        task = Var(int64, "task", box[0] * box[1] * box[2])
        share, batch, chunk = ix.unflatten(task, box)
        full, rest = divmod(self.inner, self.plan.chunk)
        if full:
            with self.w.when(ix.compare("lt", chunk, full)):
                self._chunk(share, batch, ix.minimum(chunk, full - 1), self.plan.chunk)
        if rest:
            with self.w.when(ix.compare("eq", chunk, full)):
                self._chunk(share, batch, ix.const(full), rest)
        return self.fused.call(name, task, task.extent, self.p.flops)

    def _chunk(self, share: Expr, batch: Expr, chunk: Expr, count: int) -> None:
        """All rows and gates of `count` columns, over one share of K."""
        w, steps = self.w, self.plan.steps
        sums = w.alloc("sums", self.dtype, (self.gates, self.m, self.plan.chunk))
        with w.nest("i", (self.gates, self.m)) as (g, r), w.loop("j", count, None, "vector", self.width) as j:
            w.store(sums, (g, r, j), identity_of("add", self.dtype))
        start, first = ix.mul(chunk, self.plan.chunk), ix.mul(share, self.plan.part)
        length = ix.minimum(self.plan.part, ix.sub(self.k, first))
        at = self._batch(batch), start, count
        with w.loop("s", ix.floordiv(length, steps), -(-self.plan.part // steps)) as s:
            self._add(sums, at, ix.add(first, ix.mul(s, steps)), steps)
        rest = self.k % steps  # of the last share
        if rest:
            with self.w.when(ix.compare("eq", share, self.plan.splits - 1)):
                self._add(sums, at, ix.const(self.k - rest), rest)
        with w.loop("j", count, None, "vector", self.width) as j, w.loop("r", self.m) as r:
            self._finish(sums, share, batch, r, start, j)

    def _add(self, sums: Buffer, at: tuple[Index, Expr, int], depth: Expr, steps: int) -> None:
        """Add `steps` rows of B, from row `depth` on, scaled for each row of the result."""
        blocks = len(self.plan.rows)
        for number in range(blocks):
            with self.w.loop("g", self.gates) as gate:
                ours = range(number * steps // blocks, (number + 1) * steps // blocks)
                ahead = [ix.add(depth, AHEAD * self.plan.steps + i) for i in ours if self.plan.ahead]
                self._add_rows(sums, at, (gate, number), [ix.add(depth, i) for i in range(steps)], ahead)

    def _add_rows(
        self,
        sums: Buffer,
        at: tuple[Index, Expr, int],
        gate_block: tuple[Expr, int],
        depth: list[Expr],
        ahead: list[Expr],
    ) -> None:
        """A block of rows of the result; rows `ahead` of B are asked for meanwhile."""
        w, (batch, start, count), (gate, number) = self.w, at, gate_block
        row = sum(self.plan.rows[:number])
        rows = range(row, row + self.plan.rows[number])
        factors = [
            [w.let(self.fused.read(self.p.a(batch, self._row(ix.const(r)), (k,))), "a") for k in depth]
            for r in rows
        ]
        with w.loop("j", count, None, "vector", self.width) as j:
            column = ix.add(ix.add(ix.mul(gate, self.inner), start), j)
            for k in ahead:
                found = place(self.fused.group, self.fused.buffer, self.p.b(batch, (k,), (column,)))
                assert found is not None, "only operands that lie as they are read make a plan"
                w.put(Prefetch(found.buffer, found.index, near=False))
            b = [w.let(self.fused.read(self.p.b(batch, (k,), (column,))), "b") for k in depth]
            for r, scales in zip(rows, factors, strict=True):
                spot = (gate, ix.const(r), j)
                total: Expr = load(sums, spot)
                for scale, value in zip(scales, b, strict=True):
                    total = binary("add", binary("mul", scale, value), total)
                w.store(sums, spot, total)

    def _batch(self, batch: Expr) -> Index:
        return ix.unflatten(batch, self.p.batch)

    def _row(self, row: Expr) -> Index:
        return ix.unflatten(row, self.p.rows)

    def _finish(self, sums: Buffer, share: Expr, batch: Expr, row: Expr, start: Expr, j: Expr) -> None:
        inner = ix.add(start, j)
        values = [load(sums, (ix.const(g), row, j)) for g in range(self.gates)]
        if self.partial is not None:
            self.fused.store_temp(self.partial, (share, batch, row, inner), values[0])
        elif self.cells is not None:
            finish_cell(self.fused, self.cells, ix.add(ix.mul(batch, self.m), row), inner, values)
        else:
            self.fused.finish(self.p.c(self._batch(batch), self._row(row), (inner,)), values[0])
