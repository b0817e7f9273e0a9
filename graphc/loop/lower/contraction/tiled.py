"""Packed contractions: panels of the operands in cache, a register tile, and the fused epilogue on
finished tiles.

A task owns `row_tiles` x `col_panels` tiles of one batch element, and a share of K. Per block of K it
packs A (if A cannot be read in place) once, then B panel by panel; the tiles of a panel run while it is
in cache. If one block is all of K, the epilogue follows each tile while that is in the first-level
cache. With K split, tasks store partial sums, which a second kernel (split.py) adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import (
    ZERO,
    Address,
    Below,
    Buffer,
    Const,
    Expr,
    Fetch,
    For,
    Tile,
    Var,
    address,
    cast,
    identity_of,
    load,
)
from graphc.loop.lower.chains import link_by_link
from graphc.loop.lower.contraction.ahead import fetch_ahead, lines_of
from graphc.loop.lower.contraction.blocking import Rows, panel_lanes
from graphc.loop.lower.contraction.cells import Cells, finish_cell
from graphc.loop.lower.contraction.columns import segments
from graphc.loop.lower.contraction.depth import DepthBlock, DepthCut
from graphc.loop.lower.contraction.fetch import Fetcher, PanelFetcher, fetcher, panel_fetcher
from graphc.loop.lower.contraction.fused import Fused, place
from graphc.loop.lower.contraction.listed import asking, shares
from graphc.loop.lower.contraction.operand import Layout, along_rows, flat_stride
from graphc.loop.lower.contraction.pack import Line, clip, copy_line, padded
from graphc.loop.lower.contraction.panels import Panels
from graphc.loop.lower.contraction.problem import Access, Contraction, Index
from graphc.loop.lower.contraction.sizes import Blocking, Source
from graphc.loop.lower.contraction.supply import supply
from graphc.loop.lowered import KernelCall, Temp

SHARING = 4  # tiles below one another that wait for a panel once: their epilogues go through more than it has


@dataclass(frozen=True, eq=False)
class PackedA:
    """Rows of A for the tile: the address of (row, first k), and the strides between rows and between k."""

    at: Callable[[Expr], Address]
    row: int
    step: int

    @property
    def neighbours(self) -> Below:
        """What a tile that asks for the rows below must ask for."""
        return "rows" if self.step == 1 else "line" if self.row == 1 else ""


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
        flat: bool = False,
        packed: Temp | None = None,
        cells: Cells | None = None,
        fetching: bool = False,
        plain: int | None = None,
    ) -> None:
        self.p, self.cut, self.a, self.fused, self.width = problem, blocking, a, fused, width
        self.staged, self.flat, self.packed, self.cells = staged, flat, packed, cells
        self.together, self.plain = blocking.together, plain
        self.dtype = problem.anchor.dtype
        self.batch, self.m, self.n, self.k = problem.sizes
        self.rows, self.lanes = Rows(self.m, blocking.rows), blocking.lanes
        self.panels = -(-self.n // self.lanes)
        self.row_blocks = -(-self.rows.tiles // blocking.row_tiles)
        self.col_blocks = -(-self.panels // blocking.col_panels)
        self.depth = DepthCut(problem.depth, blocking.axis, blocking.units)
        self.split = blocking.split
        self.deep = self.depth.count > 1
        self.group = min(blocking.group, blocking.col_panels)
        self.fetcher: Fetcher | PanelFetcher | None = None
        busy = cells is not None and blocking.row_tiles >= SHARING
        if fetching and packed is not None and not busy:
            self.fetcher = panel_fetcher(problem, fused.buffer(packed), blocking.row_tiles)
        elif fetching and packed is None:
            self.fetcher = fetcher(problem, b, fused, self.lanes, blocking.row_tiles, blocking.stream)
        if self.fetcher is not None and not self.cut.stream:  # that takes as much room as what is packed
            self.group = max(1, self.group // self.together // 2) * self.together
        self.down = along_rows(problem)
        panels = Panels(problem, b, fused, self.lanes, width)
        self.b = supply(problem, b, fused, panels, packed, blocking.b_place, self.group, self.depth.most)
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
        self.part, self.flat_batch, rows, cols = self._place_of(task)
        batch = self.flat_batch
        self.batch_index = ix.unflatten(batch, self.p.batch)
        self.tile0 = ix.mul(rows, self.cut.row_tiles)
        self.panel0 = ix.mul(cols, self.cut.col_panels)
        self.tiles_here = ix.minimum(self.cut.row_tiles, ix.sub(self.rows.tiles, self.tile0))
        self.panels_here = ix.minimum(self.cut.col_panels, ix.sub(self.panels, self.panel0))
        if self.deep:
            self._deep()
        else:
            self._shallow()
        return self.fused.call(name, task, tasks, self.p.flops)

    def _place_of(self, task: Expr) -> tuple[Expr, Expr, Expr, Expr]:
        """(part of K, batch, block of rows, block of columns) of a task.

        Neighbouring tasks, which one worker runs, share columns if these are not copied by it: the worker's
        part of B then stays in its cache from one run to the next.
        """
        lead = self.split, self.batch
        if self.packed is not None or self.cut.b_place:
            part, batch, cols, rows = ix.unflatten(task, (*lead, self.col_blocks, self.row_blocks))
        else:
            part, batch, rows, cols = ix.unflatten(task, (*lead, self.row_blocks, self.col_blocks))
        return part, batch, rows, cols

    def _shallow(self) -> None:
        """All of K in one block: pack, multiply, finish, tile by tile."""
        w = self.w
        self.b.open(self.batch_index, self.flat_batch, self.panel0)
        sums = None
        if self.plain is None:
            sums = w.alloc("sums", self.dtype, (self.together, self.rows.most, self.lanes))
        block = self.depth.block(ZERO)
        with self._bundles_of(block) as (a, t, first, p):
            start = len(w.block)
            with w.loop("q", self.together) as q:
                panel = ix.add(p, q)
                number = ix.add(first, panel)
                fetch = self._fetch(block, ix.add(number, self.group), t)
                c = self._result(t, number) if sums is None else address(sums, (q, ZERO, ZERO))
                self._tile(a, t, panel, c, block, number, fetch)
            if sums is not None:
                finish = len(w.block)
                self._finish(lambda q, r, c: load(sums, (q, r, c)), t, ix.add(first, p))
                self._ask_ahead(start, finish)

    def _deep(self) -> None:
        """Block after block of K, summed in scratch memory."""
        w = self.w
        self.b.open(self.batch_index, self.flat_batch, self.panel0)
        shape = (self.cut.col_panels, self.cut.row_tiles, self.rows.most, self.lanes)
        sums = w.alloc("sums", self.dtype, shape)
        self._clear(sums)
        per_part = -(-self.depth.count // self.split)
        before = ix.mul(self.part, per_part)
        blocks = ix.minimum(per_part, ix.sub(self.depth.count, before))
        if per_part > 1:
            with w.loop("block", ix.sub(blocks, 1), per_part - 1) as i:
                self._add_block(sums, before, i, blocks, last=False)
        self._add_block(sums, before, ix.sub(blocks, 1), blocks, last=True)

    def _add_block(self, sums: Buffer, before: Expr, i: Expr, blocks: Expr, last: bool) -> None:
        """Block number `before` + i of K, the i-th of the task's `blocks`. After the last one of them the
        epilogue follows each tile, while that is in the first-level cache."""
        w = self.w
        block = self.depth.block(ix.add(before, i))
        after, further = self._block_after(before, i, blocks)
        with self._bundles_of(block) as (a, t, first, p):
            start = len(w.block)
            with w.loop("q", self.together) as q:
                panel = ix.add(p, q)
                at = ix.add(first, panel)
                fetch = self._fetch(block, ix.add(at, self.group), t)
                if self.group == self.cut.col_panels:
                    fetch = self._fetch(after, ix.add(at, further), t)
                c = address(sums, (at, t, ZERO, ZERO))
                self._tile(a, t, panel, c, block, at, fetch)
            if last:
                finish, number = len(w.block), ix.add(first, p)
                self._finish(lambda q, r, c: load(sums, (ix.add(number, q), t, r, c)), t, number)
                self._ask_ahead(start, finish)

    @contextmanager
    def _bundles_of(self, block: DepthBlock) -> Iterator[tuple[PackedA, Expr, Expr, Expr]]:
        """Panels of B over a block of K, group by group: rows of A, the tile of them, the first panel of the
        group, and the first of those that are finished together, from there."""
        a = self._rows_of_a(block)
        with self._groups() as (first, count):
            self.b.prepare(block, first, count)
            with self._row_tiles() as t, self._bundles(count) as p:
                yield a, t, first, p

    def _block_after(self, before: Expr, i: Expr, blocks: Expr) -> tuple[DepthBlock, Expr]:
        """The block of K that comes after number `before` + i, and how many panels further on. Where B
        streams by, the last of the task's `blocks` is followed by the first one of the next task."""
        number = ix.add(i, 1)
        if not self.cut.stream:
            return self.depth.block(ix.minimum(ix.add(before, number), self.depth.count - 1)), ZERO
        last = cast(ix.compare("eq", number, blocks), int64)
        number = ix.add(before, ix.sub(number, ix.mul(last, blocks)))
        return self.depth.block(number), ix.mul(last, self.cut.col_panels)

    def _result(self, t: Expr, panel: Expr) -> Address:
        """Where a tile stores its sums, if these are the result."""
        (output,) = self.fused.group.outputs
        column = ix.mul(ix.add(self.panel0, panel), self.lanes)
        cols = ix.unflatten(column, self.p.cols)
        index = self.p.c(self.batch_index, self._row_index(self._row_of(t)), cols)
        self.fused.written.add(output)
        return address(self.fused.buffer(output), (ix.flatten(index, output.shape),))

    def _ask_ahead(self, start: int, finish: int) -> None:
        """Fetch what the epilogue of a bundle of tiles goes through: the tiles are the statements from
        `start` on, the epilogue those from `finish` on. Where many tiles share a panel, they ask for these
        lines instead of the next panel's: all at once they would hold up the tile's own loads."""
        block = self.w.block
        tiles, epilogue = block[start:finish], block[finish:]
        block[finish:] = link_by_link(epilogue, self.w.name)
        cycles = self.rows.most * self.together * self.lanes // self.width * self.depth.most
        reads, found = fetch_ahead(epilogue, cycles), None
        if reads and (self.fetcher is None or self.cut.row_tiles >= SHARING):
            everything = fetch_ahead(epilogue, cycles, stores=True) or reads
            found = shares(everything, lines_of(reads), self.together, self.depth.most)
        if found is None:
            block[start:start] = reads
            return
        places = Buffer(self.w.name("places"), int64, (found.length,), "scratch")
        number = next((s.var for s in tiles if isinstance(s, For)), ZERO) if self.together > 1 else ZERO
        block[start:finish] = [*found.first, found.notes(places), *asking(tiles, found.fetch(places, number))]
        self.w.open[0][:0] = found.blank(places)

    @contextmanager
    def _groups(self) -> Iterator[tuple[Expr, Expr]]:
        """(first panel in the task, number of panels) of groups that are packed together."""
        most = -(-self.cut.col_panels // self.group)
        here = ix.floordiv(ix.add(self.panels_here, self.group - 1), self.group)
        with self.w.loop("g", here, most) as g:
            first = ix.mul(g, self.group)
            yield first, ix.minimum(self.group, ix.sub(self.panels_here, first))

    @contextmanager
    def _bundles(self, count: Expr) -> Iterator[Expr]:
        """The first of the panels of a group that are finished together."""
        bundles = ix.floordiv(count, self.together)
        with self.w.loop("p", bundles, self.group // self.together) as p:
            yield ix.mul(p, self.together)

    @contextmanager
    def _row_tiles(self) -> Iterator[Expr]:
        """The numbers of the tiles in the task."""
        with self.w.loop("t", self.tiles_here, self.cut.row_tiles) as t:
            yield t

    def _is_tall(self, tile: Expr) -> Expr:
        return ix.compare("lt", ix.add(self.tile0, tile), self.rows.tall)

    def _row_of(self, tile: Expr) -> Expr:
        """The first row of a tile of the task."""
        number = ix.add(self.tile0, tile)
        return ix.add(ix.mul(number, self.rows.most), ix.minimum(ZERO, ix.sub(self.rows.tall, number)))

    def _height(self, tile: Expr) -> Expr:
        """The rows of a tile of the task."""
        tall = self._is_tall(tile)
        return ix.const(self.rows.most) if ix.is_true(tall) else ix.add(self.rows.most - 1, cast(tall, int64))

    # ------------------------------------------------------------------ operands

    def _rows_of_a(self, block: DepthBlock) -> PackedA:
        """A in place if its rows and its k lie at constant strides, else copied."""
        if self.staged is not None:
            buffer = self.fused.buffer(self.staged)
            first = ix.flatten(block.first(), self.p.depth)
            number = ix.floordiv(self.flat_batch, self.batch // buffer.shape[0])
            if self.a.across:
                return PackedA(lambda r: address(buffer, (number, first, r)), 1, buffer.shape[-1])
            return PackedA(lambda r: address(buffer, (number, r, first)), buffer.shape[-1], 1)
        if self.cut.source is Source.PLACE:
            row = flat_stride(self.a.side, self.p.rows)
            step = flat_stride(self.a.depth[self.cut.axis :], self.p.depth[self.cut.axis :])
            assert row is not None
            assert step is not None
            return PackedA(lambda r: self._place_of_a(r, block), row, step)
        most = self.depth.most
        count = min(self.cut.row_tiles * self.rows.most, self.m)
        first = ix.minimum(self._row_of(ZERO), self.m - count)
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
        return ix.unflatten(row, self.p.rows)

    def _pack_along_rows(self, buffer: Buffer, block: DepthBlock, first: Expr, count: int) -> None:
        """buffer[k, row]: rows are contiguous in memory."""
        w = self.w
        with block.loops(w, range(block.rank)) as local:
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
        last = block.rank - 1
        with block.loops(self.w, range(last)) as local:
            line = Line(*block.extent(last), lambda j: access(block.at((*local[:last], j))))
            self._copy(line, clip(line), lambda j, value: put(block.flat((*local[:last], j)), value))

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
        self,
        a: PackedA,
        t: Expr,
        p: Expr,
        c: Address,
        block: DepthBlock,
        panel: Expr,
        fetch: Fetch | None,
    ) -> None:
        """The tile of one panel; the last panel of all, if it is part empty, has a narrower one."""
        where, number = self.b.at(p, panel, block), ix.add(self.panel0, panel)
        for lanes in panel_lanes(self.w, number, self.n, self.lanes, self.width, self.cut.b_place):
            self._put_tile(lanes, a, t, where, c, block, fetch)

    def _fetch(self, block: DepthBlock, panel: Expr, t: Expr) -> Fetch | None:
        """What a tile asks for: its part of a panel, counted from the task's first. After the last panel of
        a batch element comes the first of the next, which the next task of the same worker will want."""
        if self.fetcher is None:
            return None
        number = ix.add(ix.mul(self.flat_batch, self.panels), ix.add(self.panel0, panel))
        number = ix.minimum(number, self.batch * self.panels - 1)
        *batch, number = ix.unflatten(number, (*self.p.batch, self.panels))
        return self.fetcher.fetch(tuple(batch), block, number, t)

    def _put_tile(
        self,
        lanes: int,
        a: PackedA,
        t: Expr,
        b: Address,
        c: Address,
        block: DepthBlock,
        fetch: Fetch | None,
    ) -> None:
        """A tile of the full height or of one row less."""
        pitch = ix.const(self.b.pitch)
        c_row = ix.const(self.lanes if self.plain is None else self.plain)
        steps = ix.const(a.row), ix.const(a.step)
        at = a.at(self._row_of(t))
        below = a.neighbours if self.cut.below else ""
        for rows in self._heights(t):
            self.w.put(
                Tile(
                    rows,
                    lanes,
                    block.size,
                    at,
                    *steps,
                    b,
                    pitch,
                    c,
                    c_row,
                    self.deep,
                    fetch,
                    below=below,
                )
            )

    def _heights(self, t: Expr) -> Iterator[int]:
        """The heights that a tile can have; what follows each is done if it has."""
        tall = self._is_tall(t)
        for rows, condition in ((self.rows.most, tall), (self.rows.most - 1, ix.negate(tall))):
            if not ix.is_false(condition):
                with self.w.when(condition):
                    yield rows

    def _clear(self, sums: Buffer) -> None:
        w = self.w
        with (
            w.nest("i", sums.shape[:-1]) as outer,
            w.loop("j", sums.shape[-1], None, "vector", sums.shape[-1]) as j,
        ):
            w.store(sums, (*outer, j), identity_of("add", self.dtype))

    def _finish(self, tile: Callable[[Expr, Expr, Expr], Expr], t: Expr, panel: Expr) -> None:
        """The epilogue of finished tiles, or their partial sums: vectors of columns, each down the rows.
        tile(q, r, j) is an element of the q-th panel from `panel` on."""
        w = self.w
        start = ix.mul(ix.add(self.panel0, panel), self.lanes)
        first, count = self._row_of(t), self._height(t)
        if self.cells is not None:
            self._finish_cells(self.cells, tile, t, panel)
            return
        if self.partial is not None:
            length = ix.minimum(self.lanes, ix.sub(self.n, start))
            with (
                w.loop("j", length, min(self.lanes, self.n), "vector", self.width) as j,
                w.loop("r", count, self.rows.most) as r,
            ):
                place = (self.part, self.flat_batch, ix.add(first, r), ix.add(start, j))
                self.fused.store_temp(self.partial, place, tile(ZERO, r, j))
            return
        if not self.down:
            self._finish_rows(tile, first, count, start)
            return
        for rows in self._heights(t):  # constants: vectors of columns are transposed to vectors of rows
            self._finish_rows(tile, first, ix.const(rows), start)

    def _finish_rows(
        self, tile: Callable[[Expr, Expr, Expr], Expr], first: Expr, count: Expr, start: Expr
    ) -> None:
        """The epilogue of `count` rows of a tile from `first` on, and of its columns from `start` on."""
        w = self.w
        with (
            segments(w, self.p.cols, start, self.lanes, self.flat) as run,
            w.loop("j", run.length, run.most, "vector", self.width) as j,
            w.loop("r", count, self.rows.most) as r,
        ):
            index = self.p.c(self.batch_index, self._row_index(ix.add(first, r)), run.at(j))
            self.fused.finish(index, tile(ZERO, r, ix.add(run.offset, j)))

    def _finish_cells(
        self, cells: Cells, tile: Callable[[Expr, Expr, Expr], Expr], t: Expr, panel: Expr
    ) -> None:
        """The epilogue of a block of cells, whose gates lie side by side in the panels of a bundle.

        The last block, if it is not full, has a loop of its own: every index has an exact range then, which
        decides at once which slice it falls into.
        """
        gates = cells.gates(self.p.anchor)
        assert gates is not None
        unit = self.together * self.lanes // gates
        full, rest = divmod(cells.inner, unit)
        number = ix.floordiv(ix.add(self.panel0, panel), self.together)
        if full:
            with self.w.when(ix.compare("lt", number, full)):
                self._finish_block(cells, tile, t, ix.minimum(number, full - 1), unit, unit)
        if rest:
            with self.w.when(ix.compare("eq", number, full)):
                self._finish_block(cells, tile, t, ix.const(full), unit, rest)

    def _finish_block(
        self,
        cells: Cells,
        tile: Callable[[Expr, Expr, Expr], Expr],
        t: Expr,
        block: Expr,
        unit: int,
        count: int,
    ) -> None:
        """The first `count` cells of a block."""
        w = self.w
        with (
            w.loop("j", count, None, "vector", self.width) as j,
            w.loop("r", self._height(t), self.rows.most) as r,
        ):
            lanes = [ix.add(j, gate * unit) for gate in range(self.together * self.lanes // unit)]
            values = [tile(ix.floordiv(x, self.lanes), r, ix.mod(x, self.lanes)) for x in lanes]
            row = ix.add(ix.mul(self.flat_batch, self.m), ix.add(self._row_of(t), r))
            finish_cell(self.fused, cells, row, ix.add(ix.mul(block, unit), j), values)
