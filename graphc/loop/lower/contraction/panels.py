"""Packing B: groups of panels [panel][k][lane] of consecutive columns, ready for the tile."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Buffer, Expr, Var, identity_of
from graphc.loop.lower.contraction.columns import Segment, one_run, segments
from graphc.loop.lower.contraction.depth import DepthBlock
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.operand import Layout, run_length, symbols
from graphc.loop.lower.contraction.pack import (
    CLIPPED_RUN,
    COPY,
    GATHER,
    RUN,
    SHUFFLED,
    STRIDED,
    Line,
    clip,
    copy_line,
    parts,
)
from graphc.loop.lower.contraction.problem import Access, Contraction, Index

CLIP = 25.0  # cycles to work out the limits of a run for one tap
SCATTER = 1.3  # cycles to store an element of a run along k into its column
BLOCK = 1024  # k in a usual panel
CONFLICT = 12.0  # cycles more to load a vector whose cache line has been evicted by others of its set
PAGE = 4096  # bytes after which addresses fall into the same cache set
WAYS = 8  # cache lines that a set holds
LINE = 4.0  # cycles to start a run along k in one of many columns


class Way(enum.Enum):
    """How the packing loops run, by how B lies in memory."""

    RUNS = "columns in one contiguous run (matrices, 1x1 convolutions): for k, for panel, a vector of lanes"
    TAPS = (
        "columns in runs (rows of pixels): for each run and window tap the clipped part, as vectors of "
        "columns that walk along the channels, so that masks and limits are worked out once"
    )
    TRANSPOSED = "k contiguous: vectors of columns that walk along k, using up each cache line"
    COLUMNS = "k contiguous but clipped (windows with pixels along k): column by column"


def choose_way(problem: Contraction, layout: Layout, lanes: int, width: int) -> tuple[Way, float]:
    """The way to pack B, and what it costs, in cycles per element."""
    depth = symbols("k", problem.depth)
    bounds = problem.b(symbols("b", problem.batch), depth, symbols("n", problem.cols)).bounds
    bounded = bool(bounds)
    if layout.along_side and not bounded and one_run(problem.cols, lanes):
        return Way.RUNS, COPY / width
    run = min(problem.cols[-1], lanes) if problem.cols else 1
    step = layout.side[-1] if layout.side else 1
    copy = COPY if layout.along_side else STRIDED if step in SHUFFLED else width * GATHER
    free = [v for v in depth if not any(ix.depends(c, v) for c, _ in bounds)]
    walk = min(math.prod(v.extent for v in free), max(1, BLOCK // math.prod(problem.depth[1:])))
    copy += CONFLICT if _conflicting(problem, layout, free) else 0.0
    start = RUN + (CLIP / walk if bounded else 0.0)
    ways = [(Way.TAPS, (start + copy * -(-run // width)) / run)]
    if layout.along_depth and not bounded:
        run = run_length(layout.depth, problem.depth)
        ways.append((Way.TRANSPOSED, GATHER + LINE / max(run, 1)))
    if layout.along_depth and bounded:
        ways.append((Way.COLUMNS, CLIPPED_RUN / problem.depth[-1] + SCATTER))
    return min(ways, key=lambda w: w[1])


def _conflicting(problem: Contraction, layout: Layout, walk: Sequence[Var]) -> bool:
    """Whether a walk along some axes of K meets more cache lines of one set than it holds, so that the next
    tap, which wants the same lines, finds none of them."""
    steps = dict(zip((v.name for v in symbols("k", problem.depth)), layout.depth, strict=True))
    for axis in walk:
        step = steps[axis.name]
        if step and axis.extent * math.gcd(step * problem.anchor.dtype.itemsize, PAGE) > WAYS * PAGE:
            return math.prod(problem.depth) > axis.extent
    return False


@dataclass(frozen=True, eq=False)
class Room:
    """Up to `most` panels in buffer[panel][k][lane], from panel `base` on."""

    buffer: Buffer
    most: int
    base: Expr = ZERO


class Panels:
    """Packs groups of panels of `lanes` columns each."""

    def __init__(self, problem: Contraction, layout: Layout, fused: Fused, lanes: int, width: int) -> None:
        self.p, self.layout, self.fused, self.lanes, self.width = problem, layout, fused, lanes, width
        self.w = fused.scope
        self.n = problem.sizes[2]
        self.zero = identity_of("add", problem.anchor.dtype)
        self.way, _ = choose_way(problem, layout, lanes, width)
        self.depth = symbols("k", problem.depth)
        self.bounds = problem.b(symbols("b", problem.batch), self.depth, symbols("n", problem.cols)).bounds

    def pack(self, room: Room, batch: Index, block: DepthBlock, first: Expr, count: Expr) -> None:
        """room[p, k, j] = B[batch, block's k, column (first + p) * lanes + j] for p < count."""
        if self.way is Way.RUNS:
            self._pack_runs(room, batch, block, first, count)
            return
        pack = {
            Way.TAPS: self._pack_taps,
            Way.TRANSPOSED: self._pack_transposed,
            Way.COLUMNS: self._pack_columns,
        }[self.way]
        with self.w.loop("p", count, room.most) as p:
            pack(room.buffer, ix.add(room.base, p), batch, block, ix.mul(ix.add(first, p), self.lanes))

    def _read(self, access: Access) -> Expr:
        """An element that is known to be inside."""
        return self.fused.read(replace(access, bounds=()))

    def _pack_runs(self, room: Room, batch: Index, block: DepthBlock, first: Expr, count: Expr) -> None:
        w = self.w
        with block.loops(w, range(block.rank)) as local, w.loop("p", count, room.most) as p:
            start = ix.mul(ix.add(first, p), self.lanes)
            with (
                segments(w, self.p.cols, start, self.lanes) as run,
                w.loop("j", run.length, run.most, "vector", self.lanes) as j,
            ):
                value = self._read(self.p.b(batch, block.at(local), run.at(j)))
                w.store(room.buffer, (ix.add(room.base, p), block.flat(local), j), value)

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
        flat = bool(self.p.cols) and self.p.cols[-1] < self.width  # lanes may cross runs: they are gathered
        with (
            segments(w, self.p.cols, start, self.lanes, flat) as run,
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
