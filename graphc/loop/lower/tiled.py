"""Packed contractions: panels of the operands in cache, a register tile, and the fused epilogue on
finished tiles.

A task owns `row_tiles` x `col_panels` tiles of one batch element, and a share of K. Per block of K it
packs A (if A cannot be read in place) once, then B panel by panel; the tiles of a panel run while it is
in cache. If one block is all of K, the epilogue follows each tile while that is in the first-level
cache. With K split, tasks store partial sums, which a second kernel (split.py) adds up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from graphc.ir.types import Shape, TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Address, Buffer, Const, Expr, Tile, Var, address, identity_of, load
from graphc.loop.lower.blocking import Blocking, Source
from graphc.loop.lower.columns import Segment, segments
from graphc.loop.lower.fused import Fused, place
from graphc.loop.lower.operand import Layout, flat_stride, symbols
from graphc.loop.lower.pack import GATHER, Line, clip, copy_line, padded, run_cost
from graphc.loop.lower.problem import Access, Contraction, Index
from graphc.loop.lowered import KernelCall, Temp


@dataclass(frozen=True, eq=False)
class DepthBlock:
    """A block of K: `outer` fixes the leading axes; the next axis runs over [start, start + count),
    count <= most; the rest (`inner`) are whole."""

    outer: Index
    start: Expr
    count: Expr
    most: int
    inner: Shape

    @property
    def size(self) -> Expr:
        return ix.mul(self.count, math.prod(self.inner))

    def at(self, local: Index) -> Index:
        """The depth index of a position in the block."""
        return (*self.outer, ix.add(self.start, local[0]), *local[1:])

    def first(self) -> Index:
        return self.at((ZERO,) * (1 + len(self.inner)))

    def flat(self, local: Index) -> Expr:
        return ix.flatten(local, (self.most, *self.inner))


@dataclass(frozen=True, eq=False)
class PackedA:
    """Rows of A for the tile: the address of (row, first k), and the strides between rows and between k."""

    at: Callable[[Expr], Address]
    row: int
    step: int


class Tiled:
    """One packed contraction; `call()` gives the kernel, `partial` the temporary of its partial sums, if
    split."""

    def __init__(
        self,
        problem: Contraction,
        blocking: Blocking,
        a: Layout,
        b: Layout,
        fused: Fused,
        width: int,
        staged: Temp | None,
    ) -> None:
        self.p, self.cut, self.a, self.b, self.fused, self.width = problem, blocking, a, b, fused, width
        self.staged = staged
        self.dtype = problem.anchor.dtype
        self.batch, self.m, self.n, self.k = problem.sizes
        self.rows, self.lanes = blocking.rows, blocking.lanes
        self.tiles = -(-self.m // self.rows)
        self.panels = -(-self.n // self.lanes)
        self.row_blocks = -(-self.tiles // blocking.row_tiles)
        self.col_blocks = -(-self.panels // blocking.col_panels)
        self.axis = blocking.axis
        depth = problem.depth
        self.inner = depth[self.axis + 1 :]
        self.units = blocking.depth // math.prod(self.inner)
        self.parts = -(-depth[self.axis] // self.units)
        self.blocks = math.prod(depth[: self.axis]) * self.parts
        self.split = blocking.split
        self.deep = self.blocks > 1
        self.partial: Temp | None = None
        if self.split > 1:
            shape = (self.split, self.batch, self.m, self.n)
            self.partial = Temp("partial", TensorType(shape, self.dtype))
        self.w = fused.scope

    # ------------------------------------------------------------------ the kernel

    def call(self, name: str) -> KernelCall:
        """The kernel and its arguments."""
        tasks = self.split * self.batch * self.row_blocks * self.col_blocks
        task = Var(int64, "task", tasks)
        part, batch, rows, cols = ix.unflatten(
            task, (self.split, self.batch, self.row_blocks, self.col_blocks)
        )
        self.part, self.flat_batch = part, batch
        self.batch_index = ix.unflatten(batch, self.p.batch) if self.p.batch else ()
        self.row0 = ix.mul(rows, self.cut.row_tiles * self.rows)
        self.panel0 = ix.mul(cols, self.cut.col_panels)
        self.tiles_here = ix.minimum(self.cut.row_tiles, ix.sub(self.tiles, ix.mul(rows, self.cut.row_tiles)))
        self.panels_here = ix.minimum(self.cut.col_panels, ix.sub(self.panels, self.panel0))
        if self.deep:
            self._deep()
        else:
            self._shallow()
        return self.fused.call(name, task, tasks, self.p.flops)

    def _shallow(self) -> None:
        """All of K in one block: pack, multiply, finish, tile by tile."""
        w = self.w
        panel = w.alloc("panel", self.dtype, (self.units * math.prod(self.inner), self.lanes))
        sums = w.alloc("sums", self.dtype, (self.rows, self.lanes))
        block = DepthBlock((), ZERO, ix.const(self.units), self.units, self.inner)
        a = self._rows_of_a(block)
        with self._panels() as p, self._columns(p) as start:
            self._pack_b(panel, block, start)
            with self._row_tiles() as (i, row):
                self._tile(a, row, panel, address(sums, (ZERO, ZERO)), block, accumulate=False)
                self._finish(lambda r, c: load(sums, (r, c)), i, row, start)

    def _deep(self) -> None:
        """Block after block of K, summed in scratch memory."""
        w = self.w
        panel = w.alloc("panel", self.dtype, (self.units * math.prod(self.inner), self.lanes))
        shape = (self.cut.col_panels, self.cut.row_tiles, self.rows, self.lanes)
        sums = w.alloc("sums", self.dtype, shape)
        self._clear(sums)
        per_part = -(-self.blocks // self.split)
        first = ix.mul(self.part, per_part)
        count = ix.minimum(per_part, ix.sub(self.blocks, first))
        with w.loop("block", count, per_part) as i:
            block = self._block(ix.add(first, i))
            a = self._rows_of_a(block)
            with self._panels() as p, self._columns(p) as start:
                self._pack_b(panel, block, start)
                with self._row_tiles() as (i, row):
                    self._tile(a, row, panel, address(sums, (p, i, ZERO, ZERO)), block, accumulate=True)
        with self._panels() as p, self._columns(p) as start, self._row_tiles() as (i, row):
            self._finish(lambda r, c: load(sums, (p, i, r, c)), i, row, start)

    def _block(self, number: Expr) -> DepthBlock:
        depth = self.p.depth
        outer = ix.unflatten(ix.floordiv(number, self.parts), depth[: self.axis]) if self.axis else ()
        start = ix.mul(ix.mod(number, self.parts), self.units)
        count = ix.minimum(self.units, ix.sub(depth[self.axis], start))
        return DepthBlock(outer, start, count, self.units, self.inner)

    @contextmanager
    def _panels(self) -> Iterator[Expr]:
        with self.w.loop("p", self.panels_here, self.cut.col_panels) as p:
            yield p

    @contextmanager
    def _columns(self, p: Expr) -> Iterator[Expr]:
        """The first flat column of a panel."""
        yield ix.mul(ix.add(self.panel0, p), self.lanes)

    @contextmanager
    def _row_tiles(self) -> Iterator[tuple[Expr, Expr]]:
        """(tile number in the task, its first row). The last tile of all is moved up to end at the last
        row."""
        with self.w.loop("t", self.tiles_here, self.cut.row_tiles) as i:
            yield i, self._row_of(i)

    def _row_of(self, tile: Expr) -> Expr:
        return ix.minimum(ix.add(self.row0, ix.mul(tile, self.rows)), self.m - self.rows)

    # ------------------------------------------------------------------ operands

    def _rows_of_a(self, block: DepthBlock) -> PackedA:
        """A in place if its rows and its k lie at constant strides, else copied."""
        if self.staged is not None:
            buffer = self.fused.buffer(self.staged)
            first = ix.flatten(block.first(), self.p.depth)
            return PackedA(lambda r: address(buffer, (self.flat_batch, r, first)), buffer.shape[-1], 1)
        if self.cut.source is Source.PLACE:
            row = flat_stride(self.a.side, self.p.rows)
            step = flat_stride(self.a.depth, self.p.depth)
            assert row is not None
            assert step is not None
            return PackedA(lambda r: self._place_of_a(r, block), row, step)
        most = block.most * math.prod(self.inner)
        rows = self.cut.row_tiles * self.rows
        first = ix.minimum(self.row0, self.m - rows) if rows <= self.m else ZERO
        count = min(rows, self.m)
        if self.a.along_side and not self.a.along_depth and len(self.p.rows) == 1:
            pitch = padded(count, self.dtype.itemsize)
            buffer = self.w.alloc("rows", self.dtype, (most, pitch))
            self._pack_along_rows(buffer, block, first, count)
            return PackedA(lambda r: address(buffer, (ZERO, ix.sub(r, first))), 1, pitch)
        pitch = padded(most, self.dtype.itemsize)
        buffer = self.w.alloc("rows", self.dtype, (count, pitch))
        self._pack_along_depth(buffer, block, first, count)
        return PackedA(lambda r: address(buffer, (ix.sub(r, first), ZERO)), pitch, 1)

    def _place_of_a(self, row: Expr, block: DepthBlock) -> Address:
        access = self.p.a(self.batch_index, self._row_index(row), block.first())
        load = place(self.fused.group, self.fused.buffer, access)
        assert load is not None
        return address(load.buffer, load.index)

    def _row_index(self, row: Expr) -> Index:
        return ix.unflatten(row, self.p.rows) if self.p.rows else ()

    def _pack_along_rows(self, buffer: Buffer, block: DepthBlock, first: Expr, count: int) -> None:
        """buffer[k, row]: rows are contiguous in memory."""
        w = self.w
        with self._depth_loops(block, range(1 + len(self.inner))) as local:
            line = Line(
                ix.const(count),
                count,
                lambda j: self.p.a(self.batch_index, (ix.add(first, j),), block.at(local)),
            )
            self._copy(line, clip(line), lambda j, value: w.store(buffer, (block.flat(local), j), value))

    def _pack_along_depth(self, buffer: Buffer, block: DepthBlock, first: Expr, count: int) -> None:
        """buffer[row, k]: the innermost axis of k is the vector axis."""
        w = self.w
        with w.loop("r", count) as r:
            row = self._row_index(ix.add(first, r))
            self._copy_depth(
                block,
                lambda depth: self.p.a(self.batch_index, row, depth),
                lambda k, value: w.store(buffer, (r, k), value),
            )

    def _copy_depth(
        self, block: DepthBlock, access: Callable[[Index], Access], put: Callable[[Expr, Expr], None]
    ) -> None:
        """put(k, element) for every k of the block, vectors along its innermost axis."""
        last = len(self.inner)
        with self._depth_loops(block, range(last)) as local:
            length, most = (
                (block.count, block.most) if last == 0 else (ix.const(self.inner[-1]), self.inner[-1])
            )
            line = Line(length, most, lambda j: access(block.at((*local[:last], j))))
            self._copy(line, clip(line), lambda j, value: put(block.flat((*local[:last], j)), value))

    def _pack_b(self, panel: Buffer, block: DepthBlock, start: Expr) -> None:
        """panel[k, column]; vectors along the columns if these are contiguous, else along k."""
        w = self.w
        bounded = bool(self.p.b(*self._symbols()).bounds)
        runs = self.p.cols[-1:] if self.b.along_side else ()
        if self.b.along_depth and run_cost(runs, self.width) >= GATHER:
            if bounded:
                self._pack_columns_one_by_one(panel, block, start)
            else:
                self._pack_transposed(panel, block, start)
            return
        with segments(w, self.p.cols, start, self.lanes) as segment:
            moving = self._bounded_axes()
            free = [d for d in range(1 + len(self.inner)) if d not in moving]
            with self._depth_loops(block, moving) as taps:
                span = clip(self._line_of_b(block, taps, segment))
                if not isinstance(span[0], Const):
                    span = (w.let(span[0], "low"), w.let(span[1], "high"))
                with self._depth_loops(block, free) as rest:
                    local = tuple(rest[d] if d in free else taps[d] for d in range(len(taps)))
                    self._copy(
                        self._line_of_b(block, local, segment),
                        span,
                        lambda j, value: w.store(
                            panel, (block.flat(local), ix.add(segment.offset, j)), value
                        ),
                    )

    def _line_of_b(self, block: DepthBlock, local: Index, segment: Segment) -> Line:
        depth = block.at(local)
        return Line(segment.length, segment.most, lambda j: self.p.b(self.batch_index, depth, segment.at(j)))

    def _pack_transposed(self, panel: Buffer, block: DepthBlock, start: Expr) -> None:
        """k is contiguous in memory: each vector of columns walks along k, so that every cache line is
        used up."""
        w = self.w
        with (
            segments(w, self.p.cols, start, self.lanes) as segment,
            w.loop("j", segment.length, segment.most, "vector", self.width) as j,
            self._depth_loops(block, range(1 + len(self.inner))) as local,
        ):
            value = self.fused.read(self.p.b(self.batch_index, block.at(local), segment.at(j)))
            w.store(panel, (block.flat(local), ix.add(segment.offset, j)), value)

    def _pack_columns_one_by_one(self, panel: Buffer, block: DepthBlock, start: Expr) -> None:
        """Each column is a window's worth of runs along k, clipped at the padding."""
        w = self.w
        length = ix.minimum(self.lanes, ix.sub(self.n, start))
        with w.loop("col", length, min(self.lanes, self.n)) as j:
            col = ix.unflatten(ix.add(start, j), self.p.cols)
            self._copy_depth(
                block,
                lambda depth: self.p.b(self.batch_index, depth, col),
                lambda k, value: w.store(panel, (k, j), value),
            )

    def _symbols(self) -> tuple[Index, Index, Index]:
        """Symbolic batch, depth and column indices, for questions about B's index map."""
        return symbols("b", self.p.batch), symbols("k", self.p.depth), symbols("n", self.p.cols)

    def _bounded_axes(self) -> list[int]:
        """The axes of a block of K on which B's bounds depend."""
        batch, depth, col = self._symbols()
        bounds = self.p.b(batch, depth, col).bounds
        local = range(self.axis, len(depth))
        return [d - self.axis for d in local if any(ix.depends(c, depth[d]) for c, _ in bounds)]

    @contextmanager
    def _depth_loops(self, block: DepthBlock, axes: range | list[int]) -> Iterator[Index]:
        """Loops over some axes of a block of K, the others at 0; yields the position in the block."""
        w = self.w
        with ExitStack() as stack:
            local: list[Expr] = [ZERO] * (1 + len(self.inner))
            for d in axes:
                extent, most = (block.count, block.most) if d == 0 else (self.inner[d - 1], self.inner[d - 1])
                local[d] = stack.enter_context(w.loop("k", extent, most))
            yield tuple(local)

    def _copy(self, line: Line, span: tuple[Expr, Expr], put: Callable[[Expr, Expr], None]) -> None:
        zero = identity_of("add", self.dtype)

        def read(access: Access) -> Expr:
            return self.fused.read(replace(access, bounds=()))

        lanes = self.width
        if isinstance(line.length, Const) and int(line.length.value) % (2 * lanes) == 0:
            lanes *= 4 if int(line.length.value) % (4 * lanes) == 0 else 2
        copy_line(self.w, line, span, read, lambda j, value: put(j, zero if value is None else value), lanes)

    # ------------------------------------------------------------------ tiles

    def _tile(
        self, a: PackedA, row: Expr, panel: Buffer, c: Address, block: DepthBlock, accumulate: bool
    ) -> None:
        self.w.put(
            Tile(
                self.rows,
                self.lanes,
                block.size,
                a.at(row),
                ix.const(a.row),
                ix.const(a.step),
                address(panel, (ZERO, ZERO)),
                ix.const(self.lanes),
                c,
                ix.const(self.lanes),
                accumulate,
            )
        )

    def _clear(self, sums: Buffer) -> None:
        w = self.w
        with (
            w.nest("i", sums.shape[:-1]) as outer,
            w.loop("j", sums.shape[-1], None, "vector", sums.shape[-1]) as j,
        ):
            w.store(sums, (*outer, j), identity_of("add", self.dtype))

    def _finish(self, tile: Callable[[Expr, Expr], Expr], number: Expr, row: Expr, start: Expr) -> None:
        """The epilogue of a finished tile, or its partial sums."""
        w = self.w
        again = ix.sub(ix.add(self.row0, ix.mul(number, self.rows)), row)  # rows the tile before has done
        if self.partial is not None:
            with w.loop("r", ix.sub(self.rows, again), self.rows) as i:
                r = ix.add(again, i)
                length = ix.minimum(self.lanes, ix.sub(self.n, start))
                with w.loop("j", length, min(self.lanes, self.n), "vector", self.width) as j:
                    place = (self.part, self.flat_batch, ix.add(row, r), ix.add(start, j))
                    self.fused.store_temp(self.partial, place, tile(r, j))
            return
        with (
            segments(w, self.p.cols, start, self.lanes) as segment,
            w.loop("r", ix.sub(self.rows, again), self.rows) as i,
        ):
            r = ix.add(again, i)
            with w.loop("j", segment.length, segment.most, "vector", self.width) as j:
                index = self.p.c(self.batch_index, self._row_index(ix.add(row, r)), segment.at(j))
                self.fused.finish(index, tile(r, ix.add(segment.offset, j)))
