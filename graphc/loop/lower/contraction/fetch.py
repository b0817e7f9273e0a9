"""Fetching ahead: while tiles multiply, they ask for the elements of B that come after them.

A large B comes from memory once, when it is packed, and waiting for it costs up to a third of the time of a
1x1 convolution with few channels. So each tile of a panel asks for its share of the panel that will be
packed in that place next; packing then finds it in the second-level cache. Of panels that are packed
already, tiles ask for the one that is read next: with few rows nothing else hides how long that takes.
"""

from __future__ import annotations

import math

from graphc.ir.node import Kind
from graphc.ir.types import float32
from graphc.loop import index as ix
from graphc.loop.ir import FETCH_STEPS, Buffer, Expr, Fetch, address
from graphc.loop.lower.contraction.depth import DepthBlock
from graphc.loop.lower.contraction.fused import Fused, place
from graphc.loop.lower.contraction.operand import Layout, flat_stride
from graphc.loop.lower.contraction.problem import Contraction, Index
from graphc.program import LINE, Machine

FEWEST_ROWS = 4  # that use an element of B that is fetched
MOST_LINES = 4  # that a tile asks for in a round


def worth_fetching(problem: Contraction, machine: Machine) -> bool:
    """Whether B does not stay in the second-level cache, and its elements are used often enough that waiting
    for them is not all there is: with fewer rows the machine's own prefetchers stream it faster. (Of doubles,
    half as many are multiplied in the time of a fetch, and the registers of the tallest tile do not suffice.)
    """
    _, m, _, _ = problem.sizes
    single = problem.anchor.dtype is float32
    return single and m >= FEWEST_ROWS and between_uses(problem) * float32.itemsize > machine.l2_bytes


def between_uses(problem: Contraction) -> int:
    """Elements that pass through the caches from one use of an element of B to the next."""
    batch, m, n, k = problem.sizes
    if problem.anchor.kind is Kind.CONTRACT:  # all of the operands pass by
        return (n * k + m * k + m * n) * 2 // 3
    return batch * n * k


class Fetcher:
    """Shares out a panel of `lanes` columns among the tiles of a task, `tiles` of them below one another.

    A row of the panel is `parts` rounds of `lines` cache lines; the rounds of a tile go down a quarter
    (1 / FETCH_STEPS) of the rows, in one of the parts; with `each`, down all of them, the line in which a
    row may begin included.
    """

    def __init__(
        self,
        problem: Contraction,
        fused: Fused,
        lanes: int,
        tiles: int,
        wanted: int,
        step: int,
        each: bool = False,
    ) -> None:
        self.p, self.fused, self.lanes, self.tiles, self.step = problem, fused, lanes, tiles, step
        self.each = each
        whole = -(-lanes * problem.anchor.dtype.itemsize // LINE) + each
        self.lines = min(wanted, whole)
        self.parts = -(-whole // self.lines)

    def fetch(self, batch: Index, block: DepthBlock, panel: Expr, tile: Expr) -> Fetch:
        """What tile number `tile` of a task asks for, of panel number `panel` in a block of K."""
        most = block.most * math.prod(block.inner)
        quarter = most if self.each else -(-most // FETCH_STEPS)
        number, part = ix.unflatten(tile, (-(-self.tiles // self.parts), self.parts))
        k = ix.minimum(ix.mul(number, quarter), most - quarter)
        width = self.lines * LINE // self.p.anchor.dtype.itemsize
        column = ix.add(ix.mul(panel, self.lanes), ix.mul(part, width))
        if not self.each:
            # a line's last element: where lines begin elsewhere, a panel's first is the last of another's
            column = ix.add(column, LINE // self.p.anchor.dtype.itemsize - 1)
        column = ix.minimum(column, self.p.sizes[2] - 1)
        depth = block.at(ix.unflatten(k, (block.most, *block.inner)))
        where = place(
            self.fused.group,
            self.fused.buffer,
            self.p.b(batch, depth, ix.unflatten(column, self.p.cols)),
        )
        assert where is not None
        return Fetch(address(where.buffer, where.index), ix.const(self.step), self.lines, self.each)


class PanelFetcher:
    """The same for packed panels: the rounds of a tile go on where those of the tile above it end."""

    def __init__(self, problem: Contraction, panels: Buffer, tiles: int, wanted: int) -> None:
        self.p, self.panels = problem, panels
        self.lanes = panels.shape[-1]
        self.lines, self.tiles = wanted, tiles

    def fetch(self, batch: Index, block: DepthBlock, panel: Expr, tile: Expr) -> Fetch:
        """What tile number `tile` of a task asks for, of panel number `panel` in a block of K."""
        round_ = self.lines * LINE // self.panels.dtype.itemsize
        most = block.most * math.prod(block.inner)
        rows = min(most, -(-(most // FETCH_STEPS) * round_ // self.lanes))
        k = ix.minimum(ix.mul(tile, rows), most - rows)
        flat = ix.flatten(batch, self.p.batch) if self.p.batch else ix.const(0)
        number = ix.add(ix.mul(flat, self.panels.shape[0] // math.prod(self.p.batch)), panel)
        first = ix.flatten(block.first(), self.p.depth)
        at = address(
            self.panels, (number, ix.minimum(ix.add(first, k), self.panels.shape[1] - 1), ix.const(0))
        )
        return Fetch(at, ix.const(round_), self.lines)


def fetched_lines(row_bytes: int, tiles: int) -> int:
    """Lines of a round, for each of so many tiles to do its share of a panel with rows of `row_bytes`; a
    power of two, since there is a tile function for each number."""
    lines = -(-FETCH_STEPS * row_bytes // (LINE * tiles))
    return min(1 << (lines - 1).bit_length(), MOST_LINES)


def panel_fetcher(problem: Contraction, panels: Buffer, tiles: int) -> PanelFetcher:
    """For packed panels [batch * panel, k, lane], each read by `tiles` tiles."""
    row = panels.shape[-1] * problem.anchor.dtype.itemsize
    return PanelFetcher(problem, panels, tiles, fetched_lines(row, tiles))


def fetcher(
    problem: Contraction, b: Layout, fused: Fused, lanes: int, tiles: int, each: bool = False
) -> Fetcher | None:
    """For panels of `lanes` columns, each read by `tiles` tiles, which ask every now and then or at `each`
    step of K; None if columns are not neighbours, or the steps of K not equal."""
    step = flat_stride(b.depth, problem.depth)
    if not b.direct or not b.along_side or step is None:
        return None
    row = lanes * problem.anchor.dtype.itemsize
    wanted = -(-(row + LINE) // (LINE * tiles)) if each else fetched_lines(row, tiles)
    return Fetcher(problem, fused, lanes, tiles, wanted, step, each)
