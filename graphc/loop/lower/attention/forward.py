"""Attention forward: softmax(scores) @ values, block by block, with running maxima and sums.

A task owns one batch element and a chunk of rows. Blocks of columns pass by: scores of a block are one
product, their weights exp(score - top) use the largest score seen so far, and what was summed before is
scaled down when that grows. The weights are normalised at the end, so squares are never in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.analysis.product import Product, behind_reshapes, factors, is_uniform
from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.loop import index as ix
from graphc.loop.ir import (
    ZERO,
    Accumulate,
    Const,
    Expr,
    Store,
    address,
    binary,
    load,
    select,
    unary,
)
from graphc.loop.lower.attention.blocks import Blocks, Plan, Tiling, pitch
from graphc.loop.lower.attention.hidden import hidden_in
from graphc.loop.lower.attention.squares import Softmax, is_total
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

CHUNK = 8  # most blocks of rows that a task works on
TASKS = 16  # tasks that a big problem should have


@dataclass(frozen=True, eq=False)
class Weights:
    """A consumer's square as weight * kept / row: `kept` are factors of each element (dropout), `row` the
    factors that a row shares (the softmax's denominator)."""

    kept: Product
    row: Product


def weights_of(square: Node, softmax: Softmax) -> Weights | None:
    """How a consumer's square follows from the softmax's weights; None if not as a plain product."""
    whole = factors(behind_reshapes(square))
    if whole.over[softmax.weight] != 1 or whole.under[softmax.weight]:
        return None
    over, under = whole.over.copy(), whole.under.copy()
    del over[softmax.weight]
    row, kept = Product(whole.negative, over.copy(), under.copy()), Product(False, over, under)
    for counter, other in ((row.over, kept.over), (row.under, kept.under)):
        for node in list(counter):
            del (other if is_uniform(node) else counter)[node]
    return Weights(kept, row)


def lower_forward(group: Group, plan: Plan, machine: Machine) -> KernelCall:
    """The kernel of a forward group: its consumers' results, and the row statistics others need."""
    return _Forward(group, plan, machine).call()


class _Forward(Blocks):
    def __init__(self, group: Group, plan: Plan, machine: Machine) -> None:
        super().__init__(group, plan, hidden_in(plan.softmax.score, plan.dependent), machine)
        found = [weights_of(c.square, plan.softmax) for c in plan.consumers]
        self.weights = [w for w in found if w is not None]
        self.per_task = self._chunk()

    def _chunk(self) -> int:
        """Blocks of rows of a task: many share the packing of columns, few make more tasks."""
        per = min(CHUNK, self.rows.count)
        while per > 1 and self.space.batch * -(-self.rows.count // per) < TASKS:
            per = -(-per // 2)
        return per

    def call(self) -> KernelCall:
        chunks = -(-self.rows.count // self.per_task)
        task = self.tasks(self.space.batch * chunks)
        self.batch, chunk = ix.unflatten(task, (self.space.batch, chunks)) if chunks > 1 else (task, ZERO)
        first = ix.mul(chunk, self.per_task)
        blocks = ix.minimum(self.per_task, ix.sub(self.rows.count, first))
        self._allocate()
        w = self.w
        with w.loop("block", blocks, self.per_task) as n:
            i = self.rows.start(ix.add(first, n))
            for producer, buffer in zip(self.plan.producers, self.row_packs, strict=True):
                self.pack_rows(buffer, (n,), producer.rows, self.lead(producer.lead), i,
                               self.rows.length(ix.add(first, n)), self.rows.block)  # fmt: skip
        with w.loop("cols", self.cols.count) as c:
            j, cols = self.cols.start(c), self.cols.length(c)
            self._pack_columns(j, cols)
            with w.loop("block", blocks, self.per_task) as n:
                number = ix.add(first, n)
                self._block(n, self.rows.start(number), self.rows.length(number), j, cols)
        with w.loop("block", blocks, self.per_task) as n:
            number = ix.add(first, n)
            self._finish(n, self.rows.start(number), self.rows.length(number))
        flops = sum(2.0 * self.space.rows * self.space.cols * self.space.batch * d for d in self._depths())
        return self.frame.call(w, "attention", flops)

    def _depths(self) -> list[int]:
        return [p.rows.features for p in self.plan.producers] + [
            c.other.features for c in self.plan.consumers
        ]

    # ------------------------------------------------------------------ memory

    def _allocate(self) -> None:
        block, wide, per = self.rows.block, self.cols.block, self.per_task
        producers, consumers = self.plan.producers, self.plan.consumers
        self.score_tiles = [self.tile(block, wide, p.rows.features) for p in producers]
        self.sum_tiles = [self.tile(block, c.other.features, wide) for c in consumers]
        tall = max(s.height for s in (*self.score_tiles, *self.sum_tiles))
        width = pitch(max(s.width for s in self.score_tiles))
        self.squares = [self.alloc("square", tall, width) for _ in producers]
        self.row_packs = [
            self.alloc("rows", per, tile.height, pitch(p.rows.features))
            for p, tile in zip(producers, self.score_tiles, strict=True)
        ]
        self.panels = [
            self.alloc("panels", tile.across, p.cols.features, tile.lanes)
            for p, tile in zip(producers, self.score_tiles, strict=True)
        ]
        self.values = [self.alloc("values", wide, tile.width) for tile in self.sum_tiles]
        self.sums = [self.alloc("sums", per, tile.height, tile.width) for tile in self.sum_tiles]
        self.top = self.alloc("top", per, block)
        self.total = self.alloc("total", per, block)
        self.shift, self.scale = self.alloc("shift", block), self.alloc("scale", block)
        self.fill(self.top, Const(self.dtype, -math.inf))
        for buffer in (self.total, *self.sums):
            self.fill(buffer, self.zero)

    def _pack_columns(self, j: Expr, cols: Expr) -> None:
        for producer, panels in zip(self.plan.producers, self.panels, strict=True):
            self.pack_panels(panels, producer.cols, self.lead(producer.lead), j, cols)
        for consumer, values in zip(self.plan.consumers, self.values, strict=True):
            lead = self.lead(consumer.lead)
            self.pack_rows(values, (), consumer.other, lead, j, cols, self.cols.block)

    # ------------------------------------------------------------------ blocks

    def _block(self, n: Expr, i: Expr, rows: Expr, j: Expr, cols: Expr) -> None:
        with self.unless_hidden(i, rows, j, cols):
            parts = zip(self.plan.producers, self.score_tiles, self.squares, self.row_packs, self.panels,
                        strict=True)  # fmt: skip
            for producer, tile, square, packed, panels in parts:
                self.produce(producer, tile, square, packed, (n,), panels, rows, cols)
            self._scores(i, rows, j, cols)
            self._update_tops(n, rows)
            self._weigh(n, i, rows, j, cols)
            if self.cols.count > 1:
                self._rescale(n, rows)
            for k, tile in enumerate(self.sum_tiles):
                self._sum(k, tile, n, rows, cols)

    def _scores(self, i: Expr, rows: Expr, j: Expr, cols: Expr) -> None:
        """Products to scores, and the largest of each row."""
        w = self.w
        with w.loop("r", rows, self.rows.block) as r:
            best = w.alloc("best", self.dtype, (), "local")
            w.put(Store(best, (), Const(self.dtype, -math.inf)))
            with w.loop("j", cols, self.cols.block, "vector", self.lanes) as c:
                value = self._score(r, c, ix.add(i, r), ix.add(j, c))
                w.put(Store(self.squares[0], (r, c), value))
                w.put(Accumulate(best, (), "max", value))
            w.put(Store(self.shift, (r,), load(best, ())))

    def _update_tops(self, n: Expr, rows: Expr) -> None:
        """The largest scores so far, and by how much what was summed with the old ones must shrink.

        A row without finite scores so far counts from zero; what is infinite or not a number stays so.
        """
        w, lowest = self.w, Const(self.dtype, -math.inf)
        with w.loop("r", rows, self.rows.block, "vector", self.vector) as r:
            before = w.let(load(self.top, (n, r)), "before")
            now = w.let(binary("max", before, load(self.shift, (r,))), "now")
            shift = w.let(select(binary("eq", now, lowest), self.zero, now), "shift")
            scale = unary("exp", binary("sub", before, shift))
            w.put(Store(self.top, (n, r), now))
            w.put(Store(self.shift, (r,), shift))
            w.put(Store(self.scale, (r,), scale))

    def _weigh(self, n: Expr, i: Expr, rows: Expr, j: Expr, cols: Expr) -> None:
        """Scores to weights, and their sums."""
        w, square = self.w, self.squares[0]
        with w.loop("r", rows, self.rows.block) as r:
            shift = w.let(load(self.shift, (r,)), "shift")
            total = w.alloc("total", self.dtype, (), "local")
            w.put(Store(total, (), self.zero))
            with w.loop("j", cols, self.cols.block, "vector", self.lanes) as c:
                weight = w.let(unary("exp", binary("sub", load(square, (r, c)), shift)), "weight")
                w.put(Accumulate(total, (), "add", weight))
                w.put(Store(square, (r, c), self._kept(weight, ix.add(i, r), ix.add(j, c))))
            before = binary("mul", load(self.total, (n, r)), load(self.scale, (r,)))
            w.put(Store(self.total, (n, r), binary("add", before, load(total, ()))))

    def _rescale(self, n: Expr, rows: Expr) -> None:
        """What was summed before, where the largest score has grown."""
        w = self.w
        with w.loop("r", rows, self.rows.block) as r:
            scale = w.let(load(self.scale, (r,)), "scale")
            with w.when(binary("ne", scale, Const(self.dtype, 1.0))):
                for sums in self.sums:
                    with w.loop("e", sums.shape[-1], None, "vector", sums.shape[-1]) as e:
                        w.put(Store(sums, (n, r, e), binary("mul", load(sums, (n, r, e)), scale)))

    def _score(self, r: Expr, c: Expr, i: Expr, j: Expr) -> Expr:
        score = self.plan.softmax.score
        for producer, square in zip(self.plan.producers, self.squares, strict=True):
            self.evaluator.given[producer.node] = self.w.let(load(square, (r, c)), "raw")
        value = self.evaluator.value(score, self.space.index(score.shape, self.batch, i, j))
        return self.w.let(value, "score")

    def _kept(self, weight: Expr, i: Expr, j: Expr) -> Expr:
        """The weight of an element times its own factors. All consumers have the same."""
        kept = self.weights[0].kept
        for node in kept.over.elements():
            weight = binary("mul", weight, self._value(node, i, j))
        for node in kept.under.elements():
            weight = binary("div", weight, self._value(node, i, j))
        return weight

    def _value(self, node: Node, i: Expr, j: Expr) -> Expr:
        return self.evaluator.value(node, self.space.index(node.shape, self.batch, i, j))

    def _sum(self, k: int, tile: Tiling, n: Expr, rows: Expr, cols: Expr) -> None:
        """sums += weights @ values."""
        weights, values, sums = self.squares[0], self.values[k], self.sums[k]
        self.multiply(
            tile,
            lambda row: address(weights, (row, ZERO)),
            (weights.shape[-1], 1),
            lambda panel: address(values, (ZERO, ix.mul(panel, tile.lanes))),
            tile.width,
            lambda row, panel: address(sums, (n, row, ix.mul(panel, tile.lanes))),
            tile.width,
            cols,
            rows,
            ix.const(self.plan.consumers[k].other.features),
            True,
        )

    # ------------------------------------------------------------------ results

    def _finish(self, n: Expr, i: Expr, rows: Expr) -> None:
        """Normalised sums and the row statistics, to memory."""
        w, softmax = self.w, self.plan.softmax
        with w.loop("r", rows, self.rows.block) as r:
            row = ix.add(i, r)
            total, top = w.let(load(self.total, (n, r)), "total"), w.let(load(self.top, (n, r)), "top")
            place = ix.add(ix.mul(self.batch, self.space.rows), row)
            for node in self.group.nodes:
                if node is softmax.top or is_total(node, softmax):
                    value = self.evaluator.given[node] = top if node is softmax.top else total
                    if node in self.group.outputs:
                        self.frame.store(w, node, place, value)
            for consumer, weights, sums in zip(self.plan.consumers, self.weights, self.sums, strict=True):
                scale = w.let(self._row_factor(weights.row, row), "scale")
                with w.loop("e", consumer.other.features, None, "vector", self.lanes) as e:
                    value = binary("mul", load(sums, (n, r, e)), scale)
                    index = consumer.result.at(self.lead(consumer.lead), row, e)
                    self.frame.store(w, consumer.node, ix.flatten(index, consumer.node.shape), value)

    def _row_factor(self, product: Product, row: Expr) -> Expr:
        """The factor that all elements of a row share."""
        over: Expr = Const(self.dtype, -1.0 if product.negative else 1.0)
        under: Expr | None = None
        for node in product.over.elements():
            over = binary("mul", over, self._value(node, row, ZERO))
        for node in product.under.elements():
            value = self._value(node, row, ZERO)
            under = value if under is None else binary("mul", under, value)
        return over if under is None else binary("div", over, under)
