"""Packing B: groups of panels [panel][k][lane] of consecutive columns, ready for the tile.

How the loops run depends on how B lies in memory:

- columns in one contiguous run (matrices, 1x1 convolutions): for k, for panel, a vector of lanes;
- columns in runs (rows of pixels): for each run and window tap the clipped part, as vectors of columns
each of which walks along the channels, so that masks and limits are worked out once;
- k contiguous (a transposed matrix): vectors of columns that walk along k, using up each cache line;
- k contiguous but clipped (windows with pixels along k): column by column.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.loop import index as ix
from graphc.loop.ir import Buffer, Expr, identity_of
from graphc.loop.lower.columns import Segment, one_run, segments
from graphc.loop.lower.depth import DepthBlock
from graphc.loop.lower.fused import Fused
from graphc.loop.lower.operand import Layout, symbols
from graphc.loop.lower.pack import GATHER, Line, clip, copy_line, parts, run_cost
from graphc.loop.lower.problem import Access, Contraction, Index


class Panels:
    """Packs groups of panels of `lanes` columns each."""

    def __init__(self, problem: Contraction, layout: Layout, fused: Fused, lanes: int, width: int) -> None:
        self.p, self.layout, self.fused, self.lanes, self.width = problem, layout, fused, lanes, width
        self.w = fused.scope
        self.n = problem.sizes[2]
        self.zero = identity_of("add", problem.anchor.dtype)
        batch, self.depth, cols = (symbols("q", s) for s in (problem.batch, problem.depth, problem.cols))
        self.bounds = problem.b(batch, self.depth, cols).bounds

    def pack(self, buffer: Buffer, batch: Index, block: DepthBlock, first: Expr, count: Expr) -> None:
        """buffer[p, k, j] = B[batch, block's k, column (first + p) * lanes + j] for p < count."""
        w = self.w
        most = buffer.shape[0]
        runs = self.p.cols[-1:] if self.layout.along_side else ()
        across = self.layout.along_depth and run_cost(runs, self.width) >= GATHER
        if not across and not self.bounds and one_run(self.p.cols, self.lanes):
            self._pack_runs(buffer, batch, block, first, count)
            return
        with w.loop("p", count, most) as p:
            start = ix.mul(ix.add(first, p), self.lanes)
            if not across:
                self._pack_taps(buffer, p, batch, block, start)
            elif self.bounds:
                self._pack_columns(buffer, p, batch, block, start)
            else:
                self._pack_transposed(buffer, p, batch, block, start)

    def _read(self, access: Access) -> Expr:
        """An element that is known to be inside."""
        return self.fused.read(replace(access, bounds=()))

    def _pack_runs(self, buffer: Buffer, batch: Index, block: DepthBlock, first: Expr, count: Expr) -> None:
        w = self.w
        with block.loops(w, range(block.rank)) as local, w.loop("p", count, buffer.shape[0]) as p:
            start = ix.mul(ix.add(first, p), self.lanes)
            with (
                segments(w, self.p.cols, start, self.lanes) as run,
                w.loop("j", run.length, run.most, "vector", self.lanes) as j,
            ):
                value = self._read(self.p.b(batch, block.at(local), run.at(j)))
                w.store(buffer, (p, block.flat(local), j), value)

    def _pack_taps(self, buffer: Buffer, p: Expr, batch: Index, block: DepthBlock, start: Expr) -> None:
        w = self.w
        taps = self._bounded_axes(block)
        rest = [d for d in range(block.rank) if d not in taps]
        with segments(w, self.p.cols, start, self.lanes) as run, block.loops(w, taps) as tap:
            for part in parts(w, run.length, clip(self._line(batch, block, tap, run))):
                with part.when(w), w.loop("j", part.count, run.most, "vector", self.width) as i:
                    j = ix.add(part.start, i)
                    with block.loops(w, rest, tap) as local:
                        value: Expr = self.zero
                        if part.inside:
                            value = self._read(self.p.b(batch, block.at(local), run.at(j)))
                        w.store(buffer, (p, block.flat(local), ix.add(run.offset, j)), value)

    def _line(self, batch: Index, block: DepthBlock, local: Index, run: Segment) -> Line:
        depth = block.at(local)
        return Line(run.length, run.most, lambda j: self.p.b(batch, depth, run.at(j)))

    def _bounded_axes(self, block: DepthBlock) -> list[int]:
        """The axes of the block on which B's bounds depend."""
        ahead = len(block.outer)
        return [
            d - ahead
            for d in range(ahead, len(self.depth))
            if any(ix.depends(c, self.depth[d]) for c, _ in self.bounds)
        ]

    def _pack_transposed(self, buffer: Buffer, p: Expr, batch: Index, block: DepthBlock, start: Expr) -> None:
        w = self.w
        with (
            segments(w, self.p.cols, start, self.lanes) as run,
            w.loop("j", run.length, run.most, "vector", self.width) as j,
            block.loops(w, range(block.rank)) as local,
        ):
            value = self._read(self.p.b(batch, block.at(local), run.at(j)))
            w.store(buffer, (p, block.flat(local), ix.add(run.offset, j)), value)

    def _pack_columns(self, buffer: Buffer, p: Expr, batch: Index, block: DepthBlock, start: Expr) -> None:
        w = self.w
        last = block.rank - 1
        length = ix.minimum(self.lanes, ix.sub(self.n, start))
        with w.loop("col", length, min(self.lanes, self.n)) as j, block.loops(w, range(last)) as local:
            col = ix.unflatten(ix.add(start, j), self.p.cols)
            line = Line(*block.extent(last), lambda i: self.p.b(batch, block.at((*local[:last], i)), col))

            def put(i: Expr, value: Expr | None) -> None:
                place = (p, block.flat((*local[:last], i)), j)
                w.store(buffer, place, self.zero if value is None else value)

            copy_line(w, line, clip(line), self._read, put, self.width)
