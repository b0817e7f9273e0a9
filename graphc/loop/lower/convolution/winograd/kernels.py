"""The kernels of Winograd's algorithm: transforms of weights and data, products point by point, results.

Under each of the points (36 for F(4x4, 3x3)) of transformed tiles and weights there is a matrix product:
tiles of the image by result channels, over channels. A task has some rows of tiles, whose transformed data
it makes or reads, and takes one panel of result channels after the other through all points; the results of
a panel are finished while its products are in the second-level cache.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from graphc.ir.partition import Group
from graphc.ir.types import TensorType, float32, int64
from graphc.loop import index as ix
from graphc.loop.ir import FETCH_STEPS, Address, Buffer, Expr, Fetch, Tile, Var, address, identity_of
from graphc.loop.lower.contraction.fetch import LINE, fetched_lines
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.problem import Contraction
from graphc.loop.lower.convolution.winograd.cases import cases
from graphc.loop.lower.convolution.winograd.data import Data
from graphc.loop.lower.convolution.winograd.plan import Plan, pitch_of, plane
from graphc.loop.lower.convolution.winograd.results import Results
from graphc.loop.lower.convolution.winograd.weights import CHUNK, Weights, weights_call
from graphc.loop.lowered import KernelCall, Temp
from graphc.program import Machine

FEWEST_ROWS = 8  # of a tile that fetches: with fewer, bandwidth decides, and the hardware streams best
MOST_TILES = 4  # of a point that fetch: with more, the hardware has time enough


def winograd_calls(
    problem: Contraction, plan: Plan, group: Group, machine: Machine, name: str
) -> tuple[list[KernelCall], list[KernelCall]]:
    """(calls that depend on the weights alone, the other calls)."""
    dtype = problem.anchor.dtype
    width = machine.lanes(dtype.itemsize)
    weights = data = None
    once: list[KernelCall] = []
    each: list[KernelCall] = []
    if plan.weights_ahead:
        fused = Fused(group, problem.anchor)
        weights, call = weights_call(problem, plan, fused, width, f"{name}_winograd_weights")
        once.append(call)
    if plan.data_ahead:
        data, call = _data_call(problem, plan, Fused(group, problem.anchor), width, f"{name}_winograd_data")
        each.append(call)
    kernel = _Products(problem, plan, Fused(group, problem.anchor), machine, weights, data)
    each.append(kernel.call(f"{name}_winograd"))
    return once, each


class _Block:
    """The part of the source that a task has: images `image` and on, tile rows `top` and on."""

    def __init__(self, plan: Plan, share: Expr, band: Expr) -> None:
        g = plan.geometry
        self.image = ix.mul(share, plan.images)
        self.images = ix.minimum(plan.images, ix.sub(g.images, self.image))
        self.top = ix.mul(band, plan.band)
        self.rows = ix.minimum(plan.band, ix.sub(g.grid[0], self.top))
        self.plan = plan

    def first(self) -> Expr:
        """The number of the first tile among all."""
        g = self.plan.geometry
        return ix.mul(ix.add(ix.mul(self.image, g.grid[0]), self.top), g.grid[1])

    def tiles(self) -> Expr:
        """The number of tiles; a task with several images has all their rows."""
        g = self.plan.geometry
        lines = self.rows if self.plan.images == 1 else ix.mul(self.images, g.grid[0])
        return ix.mul(lines, g.grid[1])

    def tile(self, image: Expr) -> Expr:
        """The number, in the block, of the first tile of an image of the block."""
        return ix.mul(image, self.plan.geometry.grid[1] * self.plan.band)


def _data_call(
    problem: Contraction, plan: Plan, fused: Fused, width: int, name: str
) -> tuple[Temp, KernelCall]:
    """(temp, call): temp[group, point, (tile, channel)] has the transformed data of all tiles."""
    g = plan.geometry
    dtype = problem.anchor.dtype
    pitch = pitch_of(g.channels, dtype.itemsize)
    temp = Temp("data", TensorType((g.groups, g.points, plane(g.tiles, pitch)), dtype))
    blocks = -(-g.channels // width)
    shares, bands, _ = plan.cut
    task = Var(int64, "task", g.groups * shares * bands * blocks)
    group, share, band, number = ix.unflatten(task, (g.groups, shares, bands, blocks))
    batch = ix.unflatten(group, problem.batch)
    block = _Block(plan, share, band)
    source = Data(problem, g, fused, width, plan.band)
    source.room()

    def put(point: Expr, tile: Expr, channel: Expr, value: Expr) -> None:
        place = ix.add(ix.mul(ix.add(block.first(), tile), pitch), channel)
        fused.store_temp(temp, (group, point, place), value)

    with fused.scope.loop("i", block.images, plan.images) as i:
        for count in cases(fused.scope, number, g.channels, width):
            image = ix.add(block.image, i)
            source.transform(
                batch, image, block.top, block.rows, ix.mul(number, width), put, block.tile(i), count
            )
    return temp, fused.call(name, task, task.extent, 0.0)


class _Products:
    """Writes the kernel that multiplies and finishes."""

    def __init__(
        self,
        problem: Contraction,
        plan: Plan,
        fused: Fused,
        machine: Machine,
        weights: Temp | None,
        data: Temp | None,
    ) -> None:
        self.p, self.plan, self.fused = problem, plan, fused
        self.width, self.l2_bytes = machine.lanes(problem.anchor.dtype.itemsize), machine.l2_bytes
        self.g, self.w, self.dtype = plan.geometry, fused.scope, problem.anchor.dtype
        self.weights, self.data = weights, data
        self.pitch = pitch_of(self.g.channels, self.dtype.itemsize)
        self.rows = plan.rows

    def call(self, name: str) -> KernelCall:
        """The kernel and its arguments."""
        plan, g, w = self.plan, self.g, self.w
        cut = plan.cut
        task = Var(int64, "task", plan.tasks)
        # neighbouring tasks, which one worker runs, share what is larger and was made before
        order = (g.groups, cut[2], *cut[:2])
        self.group, share_of_panels, share, band = ix.unflatten(task, order)
        self.batch = ix.unflatten(self.group, self.p.batch)
        self.block = _Block(plan, share, band)
        self.results = Results(self.p, g, self.fused, self.width, plan.band)
        source = self._source()
        self.products = w.alloc("products", self.dtype, (g.points, plane(plan.tiles, plan.lanes)))
        self.results.room()
        panel0 = ix.mul(share_of_panels, plan.panels)
        count = ix.minimum(plan.panels, ix.sub(plan.all_panels, panel0))
        multiply = self._with_weights() if self.weights is None else self._with_panels(self.weights)
        with w.loop("panel", count, plan.panels) as i:
            panel = ix.add(panel0, i)
            multiply(source, panel)
            self._finish(panel)
        return self.fused.call(name, task, task.extent, self.p.flops)

    # ------------------------------------------------------------------ operands

    def _source(self) -> Callable[[Expr, Expr], Address]:
        """Where the transformed data of (point, tile of the block) is."""
        g, w, block = self.g, self.w, self.block
        if self.data is not None:
            buffer = self.fused.buffer(self.data)
            first = block.first()
            return lambda point, tile: address(
                buffer, (self.group, point, ix.mul(ix.add(first, tile), self.pitch))
            )
        made = w.alloc("data", self.dtype, (g.points, plane(self.plan.tiles, self.pitch)))
        source = Data(self.p, g, self.fused, self.width, self.plan.band)
        source.room()

        def put(point: Expr, tile: Expr, channel: Expr, value: Expr) -> None:
            w.store(made, (point, ix.add(ix.mul(tile, self.pitch), channel)), value)

        with (
            w.loop("i", block.images, self.plan.images) as i,
            w.loop("b", -(-g.channels // self.width)) as number,
        ):
            for count in cases(w, number, g.channels, self.width):
                image, first = ix.add(block.image, i), ix.mul(number, self.width)
                source.transform(self.batch, image, block.top, block.rows, first, put, block.tile(i), count)
        return lambda point, tile: address(made, (point, ix.mul(tile, self.pitch)))

    # ------------------------------------------------------------------ products

    def _with_panels(self, temp: Temp) -> Callable[[Callable[[Expr, Expr], Address], Expr], None]:
        """Products with weights that were transformed before."""
        weights, lanes, channels = self.fused.buffer(temp), self.plan.lanes, self.g.channels
        far = self.dtype is float32 and temp.type.nbytes > self.l2_bytes
        far = far and self.rows.most >= FEWEST_ROWS and self.rows.tiles <= MOST_TILES

        def multiply(source: Callable[[Expr, Expr], Address], panel: Expr) -> None:
            with self.w.loop("point", self.g.points) as point, self._row_tiles() as t:
                first = ix.mul(panel, channels * lanes)
                b = address(weights, (self.group, point, first))
                fetch = self._fetch(weights, ix.add(point, 1), first, t) if far else None
                self._tile(source, point, t, b, ix.const(channels), accumulate=False, fetch=fetch)

        return multiply

    def _fetch(self, weights: Buffer, point: Expr, first: Expr, t: Expr) -> Fetch | None:
        """What a tile asks for: its share of the panel of the next point."""
        lines = fetched_lines(self.plan.lanes * self.dtype.itemsize, self.rows.tiles)
        step = lines * LINE // self.dtype.itemsize
        share = self.g.channels // FETCH_STEPS * step
        at = address(weights, (self.group, point, ix.add(first, ix.mul(t, share))))
        return Fetch(at, ix.const(step), lines) if share else None

    def _with_weights(self) -> Callable[[Callable[[Expr, Expr], Address], Expr], None]:
        """Products with weights that are transformed here, some channels at a time."""
        w, g, plan = self.w, self.g, self.plan
        lanes, depth = plan.lanes, plan.depth
        made = w.alloc("weights", self.dtype, (g.points, plane(depth, lanes)))
        weights = Weights(self.p, g, self.fused, self.width)
        weights.room()
        blocks = -(-g.channels // depth)
        chunks, most = -(-g.channels // CHUNK), depth // CHUNK

        def put(point: Expr, channel: Expr, lane: Expr, value: Expr) -> None:
            w.store(made, (point, ix.add(ix.mul(channel, lanes), lane)), value)

        def multiply(source: Callable[[Expr, Expr], Address], panel: Expr) -> None:
            if blocks > 1:
                self._clear()
            with w.loop("block", blocks) as block:
                first = ix.mul(block, most)
                count = ix.minimum(most, ix.sub(chunks, first))
                weights.transform(self.batch, panel, lanes, first, count, most, put)
                here = ix.minimum(depth, ix.sub(g.channels, ix.mul(block, depth)))
                with w.loop("point", g.points) as point, self._row_tiles() as t:
                    self._tile(
                        lambda p, tile: _moved(source(p, tile), ix.mul(block, depth)),
                        point, t, address(made, (point, ix.ZERO)), here, accumulate=blocks > 1,
                    )  # fmt: skip

        return multiply

    def _clear(self) -> None:
        w, (points, size) = self.w, self.products.shape
        lanes = 4 * self.width
        with w.loop("p", points) as p, w.loop("z", size // lanes * lanes, None, "vector", lanes) as z:
            w.store(self.products, (p, z), identity_of("add", self.dtype))

    def _row_tiles(self) -> AbstractContextManager[Expr]:
        """Register tiles of the block, by number."""
        here, rows = self.block.tiles(), self.rows
        # the tiles before the first that starts behind the block
        tall = ix.floordiv(ix.add(here, rows.most - 1), rows.most)
        if rows.tall == rows.tiles:
            return self.w.loop("t", tall, rows.tiles)
        short = ix.floordiv(ix.add(ix.sub(here, rows.tall), rows.most - 2), rows.most - 1)
        return self.w.loop("t", ix.minimum(rows.tiles, _maximum(tall, short)), rows.tiles)

    def _tile(
        self,
        source: Callable[[Expr, Expr], Address],
        point: Expr,
        t: Expr,
        b: Address,
        depth: Expr,
        accumulate: bool,
        fetch: Fetch | None = None,
    ) -> None:
        """Multiply a point of some tiles: of `most` of them, or of one less."""
        lanes, rows = ix.const(self.plan.lanes), self.rows
        first = ix.add(ix.mul(t, rows.most), ix.minimum(ix.ZERO, ix.sub(rows.tall, t)))
        c = address(self.products, (point, ix.mul(first, self.plan.lanes)))
        tall = ix.compare("lt", t, rows.tall)
        for height, condition in ((rows.most, tall), (rows.most - 1, ix.negate(tall))):
            if not ix.is_false(condition):
                tile = Tile(
                    height, self.plan.lanes, depth, source(point, first), ix.const(self.pitch), ix.ONE,
                    b, lanes, c, lanes, accumulate, fetch,
                )  # fmt: skip
                with self.w.when(condition):
                    self.w.put(tile)

    # ------------------------------------------------------------------ results

    def _finish(self, panel: Expr) -> None:
        """All results of a panel."""
        w, lanes, block = self.w, self.plan.lanes, self.block
        for results in cases(w, panel, self.g.results, lanes):
            with (
                w.loop("part", -(-results // self.width)) as part,
                w.loop("i", block.images, self.plan.images) as i,
            ):
                for count in cases(w, part, results, self.width):
                    lane = ix.mul(part, self.width)
                    self.results.finish(
                        self.products,
                        (lane, block.tile(i), lanes),
                        self.batch,
                        ix.add(block.image, i),
                        block.top,
                        block.rows,
                        (ix.add(ix.mul(panel, lanes), lane), count),
                    )


def _moved(at: Address, by: Expr) -> Address:
    """An address some elements further on."""
    return address(at.buffer, (*at.index[:-1], ix.add(at.index[-1], by)))


def _maximum(a: Expr, b: Expr) -> Expr:
    return ix.mul(ix.minimum(ix.mul(a, -1), ix.mul(b, -1)), -1)
