"""Attention backward: contractions of squares that are computed again from their row statistics.

Every square of a backward pass is an elementwise function of products (scores; upstream gradient by values)
and of values of a row (the softmax's maximum and sum, the sum of gradient by output), all of which are known
before. So one walk over the blocks gives all results: sums over rows stay with their block of columns, sums
over columns are kept for all rows of the task.
"""

from __future__ import annotations

import math

from graphc.analysis.product import behind_reshapes
from graphc.ir.partition import Group
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Buffer, Const, Expr, Store, address, binary, load
from graphc.loop.lower.attention.blocks import Blocks, Packs, Plan, Tiling, pitch
from graphc.loop.lower.attention.forward import CHUNK, TASKS
from graphc.loop.lower.attention.hidden import Hidden, hidden_in, vanishes
from graphc.loop.lower.attention.squares import Consumer
from graphc.loop.lowered import KernelCall
from graphc.program import Machine


def lower_backward(group: Group, plan: Plan, machine: Machine) -> KernelCall:
    """The kernel of a backward group: the results of its consumers."""
    return _Backward(group, plan, machine).call()


class _Backward(Blocks):
    def __init__(self, group: Group, plan: Plan, machine: Machine) -> None:
        squares = dict.fromkeys(behind_reshapes(c.square) for c in plan.consumers)
        self.outputs = list(squares)  # the distinct squares that consumers read
        super().__init__(group, plan, self._hidden(group, plan), machine)
        self.down = [c for c in plan.consumers if not c.over_cols]  # sums over rows
        self.along = [c for c in plan.consumers if c.over_cols]
        self.row_chunk, self.col_chunk = self._chunks()

    def _hidden(self, group: Group, plan: Plan) -> Hidden:
        """What hides elements, if hidden ones add nothing to the results."""
        inside = frozenset(group.nodes)
        found = hidden_in(plan.softmax.score, plan.dependent)
        weight = plan.softmax.weight
        return found if all(vanishes(n, weight, inside) for n in self.outputs) else Hidden()

    def matters(self, index: ix.Index) -> Expr:
        """Also in a row whose scores are all minus infinity: its weights are no numbers, unless 0 was
        subtracted in place of the maximum."""
        top = self.plan.softmax.weight.inputs[0].inputs[1]
        without = binary("eq", self.evaluator.value(top, index), Const(top.dtype, -math.inf))
        return binary("or", super().matters(index), without)

    def _chunks(self) -> tuple[int, int]:
        """Blocks of rows and of columns of a task: only what no sum runs over is cut."""
        chunks = [self.rows.count, self.cols.count]
        axis = 0 if not self.down else 1 if not self.along else None
        if axis is not None:
            per = min(CHUNK, chunks[axis])
            while per > 1 and self.space.batch * -(-chunks[axis] // per) < TASKS:
                per = -(-per // 2)
            chunks[axis] = per
        return chunks[0], chunks[1]

    def call(self) -> KernelCall:
        row_chunks = -(-self.rows.count // self.row_chunk)
        col_chunks = -(-self.cols.count // self.col_chunk)
        task = self.tasks(self.space.batch * row_chunks * col_chunks)
        self.batch, part_r, part_c = ix.unflatten(task, (self.space.batch, row_chunks, col_chunks))
        if self.space.batch == 1 and row_chunks * col_chunks == 1:
            self.batch = ZERO
        first_row, first_col = ix.mul(part_r, self.row_chunk), ix.mul(part_c, self.col_chunk)
        row_blocks = ix.minimum(self.row_chunk, ix.sub(self.rows.count, first_row))
        col_blocks = ix.minimum(self.col_chunk, ix.sub(self.cols.count, first_col))
        self._allocate()
        w = self.w
        with w.loop("cols", col_blocks, self.col_chunk) as c:
            number = ix.add(first_col, c)
            j, cols = self.cols.start(number), self.cols.length(number)
            self._enter_columns(j, cols)
            with w.loop("rows", row_blocks, self.row_chunk) as n:
                block = ix.add(first_row, n)
                self._block(n, self.rows.start(block), self.rows.length(block), j, cols)
            for consumer, sums in zip(self.down, self.down_sums, strict=True):
                self._store(consumer, sums, (), j, cols, self.cols.block)
        with w.loop("rows", row_blocks, self.row_chunk) as n:
            block = ix.add(first_row, n)
            i, rows = self.rows.start(block), self.rows.length(block)
            for consumer, sums in zip(self.along, self.along_sums, strict=True):
                self._store(consumer, sums, (n,), i, rows, self.rows.block)
        depths = [p.rows.features for p in self.plan.producers]
        depths += [c.other.features for c in self.plan.consumers]
        cells = 2.0 * self.space.batch * self.space.rows * self.space.cols
        return self.frame.call(w, "attention_grad", cells * sum(depths))

    # ------------------------------------------------------------------ memory

    def _allocate(self) -> None:
        block, wide = self.rows.block, self.cols.block
        producers = self.plan.producers
        self.made = [self.tile(block, wide, p.rows.features) for p in producers]
        self.down_tiles = [self.tile(wide, c.other.features, block) for c in self.down]
        self.along_tiles = [self.tile(block, c.other.features, wide) for c in self.along]
        tall = max(s.height for s in (*self.made, *self.along_tiles))
        across = max([s.width for s in self.made] + [s.height for s in self.down_tiles])
        count = max(len(producers), len(self.outputs))
        self.squares = [self.alloc("square", tall, pitch(across)) for _ in range(count)]
        self.panels = [
            self.alloc("panels", tile.across, p.cols.features, tile.lanes)
            for p, tile in zip(producers, self.made, strict=True)
        ]
        rows, cols = Packs(self), Packs(self)
        for p, tile in zip(producers, self.made, strict=True):
            rows.want(p.rows, p.lead, tile.height, p.rows.features)
        for c, tile in zip(self.down, self.down_tiles, strict=True):
            rows.want(c.other, c.lead, block, tile.width)
        for c, tile in zip(self.along, self.along_tiles, strict=True):
            cols.want(c.other, c.lead, wide, tile.width)
        rows.alloc("rows")
        cols.alloc("cols")
        self.row_packs, self.col_packs = rows, cols
        self.down_sums = [self.alloc("sums", t.height, t.width) for t in self.down_tiles]
        self.along_sums = [self.alloc("sums", self.row_chunk, t.height, t.width) for t in self.along_tiles]
        for sums in self.along_sums:
            self.fill(sums, self.zero)

    def _enter_columns(self, j: Expr, cols: Expr) -> None:
        for producer, panels in zip(self.plan.producers, self.panels, strict=True):
            self.pack_panels(panels, producer.cols, self.lead(producer.lead), j, cols)
        self.col_packs.fill(j, cols, self.cols.block)
        for sums in self.down_sums:
            self.fill(sums, self.zero)

    # ------------------------------------------------------------------ blocks

    def _block(self, n: Expr, i: Expr, rows: Expr, j: Expr, cols: Expr) -> None:
        with self.unless_hidden(i, rows, j, cols):
            self.row_packs.fill(i, rows, self.rows.block)
            for p, tile, square, panels in zip(
                self.plan.producers, self.made, self.squares, self.panels, strict=False
            ):
                packed = self.row_packs.buffer(p.rows, p.lead)
                self.produce(p, tile, square, packed, (), panels, rows, cols)
            with self.elements(rows, cols) as (r, c):
                self._functions(r, c, ix.add(i, r), ix.add(j, c))
            for consumer, tile, sums in zip(self.down, self.down_tiles, self.down_sums, strict=True):
                self._sum_rows(consumer, tile, sums, rows, cols)
            for consumer, tile, sums in zip(self.along, self.along_tiles, self.along_sums, strict=True):
                self._sum_cols(consumer, tile, sums, n, rows, cols)

    def _functions(self, r: Expr, c: Expr, i: Expr, j: Expr) -> None:
        """The squares that consumers read, at one element, in place of the products."""
        for producer, square in zip(self.plan.producers, self.squares, strict=False):
            self.evaluator.given[producer.node] = self.w.let(load(square, (r, c)), "raw")
        values = []
        for node in self.outputs:
            index = self.space.index(node.shape, self.batch, i, j)
            values.append(self.w.let(self.evaluator.value(node, index), "square"))
        for square, value in zip(self.squares, values, strict=False):
            self.w.put(Store(square, (r, c), value))

    def _square(self, consumer: Consumer) -> Buffer:
        return self.squares[self.outputs.index(behind_reshapes(consumer.square))]

    def _sum_rows(self, consumer: Consumer, tile: Tiling, sums: Buffer, rows: Expr, cols: Expr) -> None:
        """sums[column, e] += sum over rows of square[row, column] * other[row, e]."""
        square, other = self._square(consumer), self.row_packs.buffer(consumer.other, consumer.lead)
        self.multiply(
            tile,
            lambda col: address(square, (ZERO, col)),
            (1, square.shape[-1]),
            lambda panel: address(other, (ZERO, ix.mul(panel, tile.lanes))),
            other.shape[-1],
            lambda col, panel: address(sums, (col, ix.mul(panel, tile.lanes))),
            tile.width,
            rows,
            cols,
            ix.const(consumer.other.features),
            True,
        )

    def _sum_cols(
        self, consumer: Consumer, tile: Tiling, sums: Buffer, n: Expr, rows: Expr, cols: Expr
    ) -> None:
        """sums[row, e] += sum over columns of square[row, column] * other[column, e]."""
        square, other = self._square(consumer), self.col_packs.buffer(consumer.other, consumer.lead)
        self.multiply(
            tile,
            lambda row: address(square, (row, ZERO)),
            (square.shape[-1], 1),
            lambda panel: address(other, (ZERO, ix.mul(panel, tile.lanes))),
            other.shape[-1],
            lambda row, panel: address(sums, (n, row, ix.mul(panel, tile.lanes))),
            tile.width,
            cols,
            rows,
            ix.const(consumer.other.features),
            True,
        )

    # ------------------------------------------------------------------ results

    def _store(
        self, consumer: Consumer, sums: Buffer, at: ix.Index, start: Expr, count: Expr, most: int
    ) -> None:
        w = self.w
        with (
            w.loop("p", count, most) as p,
            w.loop("e", consumer.other.features, None, "vector", self.lanes) as e,
        ):
            index = consumer.result.at(self.lead(consumer.lead), ix.add(start, p), e)
            place = ix.flatten(index, consumer.node.shape)
            self.frame.store(w, consumer.node, place, load(sums, (*at, p, e)))
