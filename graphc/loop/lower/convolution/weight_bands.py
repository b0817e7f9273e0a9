"""Weight gradients on bands of rows: channels of the source are broadcast from where they are, vectors run
over result channels, and K are the pixels of a band.

The result gradient is packed once for all tasks, [panel of channels][pixel][lane]. A task owns some channels
of the source (and maybe a share of the images). Band after band it copies their rows into scratch, with the
padding around them, and then each tap is a tile: its rows are channels, and a table walks from pixel to
pixel, at whatever distance the stride puts them. Nothing is packed per tap. The sums of all taps stay in
scratch until the last band; the epilogue then takes whole filters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import Shape, TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Buffer, Expr, Tile, Var, Walk, address, identity_of, load
from graphc.loop.lower.contraction.blocking import (
    CALL,
    KERNEL,
    SMALL,
    STREAM,
    TASK,
    THREADS,
    Rows,
    choose_tile,
    combining,
    idle,
    panel_lanes,
)
from graphc.loop.lower.contraction.fused import Fused, flat_buffer, place
from graphc.loop.lower.contraction.operand import columns_layout
from graphc.loop.lower.contraction.pack import GATHER, Line, clip
from graphc.loop.lower.contraction.prepack import prepack_call
from graphc.loop.lower.contraction.problem import Access, Contraction, Index
from graphc.loop.lower.contraction.split import combine_call
from graphc.loop.lower.convolution.band_copy import BandCopy
from graphc.loop.lower.convolution.bands import (
    FEWEST_CHANNELS,
    TURNED,
    Axis,
    channel_pitch,
    copying,
    forward_axes,
    inside,
)
from graphc.loop.lowered import KernelCall, Temp
from graphc.program import Machine

SHORT = 48  # pixels of a band below which a tile is hardly longer than its sums take to load and store
FEWEST_ROWS = 4  # of a tile: fewer want vectors of B faster than the second-level cache gives them
ADDED = 6.0  # cycles to load, add to and store a vector of sums


@dataclass(frozen=True)
class Plan:
    """rows x lanes  the register tile
    axes            how positions and source lie along each axis
    channels        of the source, of a task
    panels          of result channels, of a task
    split           parts of the images, whose sums a second kernel adds up
    band            positions along the first axis that are in scratch at a time
    source          extents of the part of a source plane that this takes
    pitch           elements from one channel of the copy to the next
    """

    rows: int
    lanes: int
    axes: tuple[Axis, ...]
    channels: int
    panels: int
    split: int
    band: int
    source: Shape
    pitch: int


@dataclass(frozen=True)
class _Sizes:
    """Of a weight gradient: groups, images, channels of source and result in a group, and taps."""

    groups: int
    images: int
    ins: int
    outs: int
    taps: int
    itemsize: int


def plan_weight_bands(node: Node, machine: Machine) -> tuple[Plan, float] | None:
    """How to compute `node` in bands, and its cost in cycles; None if it is no conv_weight_grad, or has too
    few channels or too large planes for it."""
    if node.op.name != "conv_weight_grad" or not node.dtype.is_float or not node.type.size:
        return None
    if node.attrs.last:
        return None
    x, dy = node.inputs
    groups = node.attrs.groups
    sizes = _Sizes(
        groups, x.shape[0], node.shape[1], node.shape[0] // groups,
        math.prod(node.shape[2:]), node.dtype.itemsize,
    )  # fmt: skip
    space = dy.shape[2:]
    many = sizes.ins >= FEWEST_ROWS and sizes.outs >= FEWEST_CHANNELS
    if not many or sizes.taps == 1 or not x.type.size or not dy.type.size:
        return None
    return _choose(sizes, forward_axes(node.attrs, space), space, machine)


@lru_cache(maxsize=256)
def _choose(
    sizes: _Sizes, axes: tuple[Axis, ...], space: Shape, machine: Machine
) -> tuple[Plan, float] | None:
    """The cheapest of all plans."""
    best: tuple[Plan, float] | None = None
    for plan in _candidates(sizes, axes, space, machine):
        cost = _cost(plan, sizes, space, machine)
        if best is None or cost < best[1]:
            best = plan, cost
    return best


def _candidates(sizes: _Sizes, axes: tuple[Axis, ...], space: Shape, machine: Machine) -> Iterator[Plan]:
    """Plans whose scratch stays in the second-level cache."""
    inner = math.prod(space[1:])
    for parts in (p for p in range(1, sizes.ins + 1) if sizes.ins % p == 0):
        channels = sizes.ins // parts
        if channels < min(FEWEST_ROWS, sizes.ins):
            continue
        rows, lanes = choose_tile(channels, sizes.outs, inner, machine, sizes.itemsize)
        panels = -(-sizes.outs // lanes)
        for share in sorted({panels, -(-panels // 2), -(-panels // 4)}):
            sums = share * lanes * channels * sizes.taps
            for band in _bands(space[0]):
                source = tuple(a.reach(q) for a, q in zip(axes, (band, *space[1:]), strict=True))
                pitch = channel_pitch(math.prod(source), sizes.itemsize)
                held = sums + channels * pitch + share * lanes * band * inner
                if band * inner < min(SHORT, math.prod(space)) or (
                    held * sizes.itemsize > machine.l2_bytes * 3 // 4
                ):
                    continue
                for split in (1, 2, 4, 8):
                    if sizes.images % split == 0:
                        yield Plan(rows, lanes, axes, channels, share, split, band, source, pitch)


def _bands(count: int) -> list[int]:
    return list(dict.fromkeys(-(-count // parts) for parts in (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)))


def _cost(plan: Plan, sizes: _Sizes, space: Shape, machine: Machine) -> float:
    """Cycles on one core, and what too few tasks lose."""
    width = machine.lanes(sizes.itemsize)
    vectors = plan.lanes // width
    wide = -(-sizes.outs // width) / vectors
    panels, blocks = -(-sizes.outs // plan.lanes), sizes.ins // plan.channels
    shares, bands = -(-panels // plan.panels), -(-space[0] // plan.band)
    cut = _rows(plan)
    pixels = math.prod(space)
    tiles = blocks * cut.tiles * sizes.taps * bands
    work = blocks * cut.steps(vectors) * wide * pixels * sizes.taps * inside(plan.axes[0])
    work += tiles * panels * (CALL + ADDED * plan.rows * vectors)
    work += shares * bands * sizes.ins * copying(plan.source, width)
    work += STREAM / 2 * blocks * pixels * sizes.outs
    work *= sizes.images
    results = sizes.outs * sizes.ins * sizes.taps
    work += plan.split * results * 2 * TURNED
    tasks = sizes.groups * blocks * shares * plan.split
    worth = min(THREADS[-1], max(1, int(2.0 * results * pixels * sizes.images * sizes.groups / SMALL)))
    total = work * sizes.groups * idle(tasks, worth) + TASK * tasks
    packing = KERNEL + sizes.groups * sizes.images * pixels * sizes.outs * GATHER * 1.3
    return total + packing + combining(sizes.groups * results, plan.split)


def _rows(plan: Plan) -> Rows:
    """How the channels of a task are cut into tiles."""
    return Rows.even(plan.channels, plan.rows)


def weight_band_calls(
    group: Group, problem: Contraction, plan: Plan, width: int, name: str
) -> list[KernelCall]:
    """The kernels: one that packs the result gradient, the one that multiplies, one that adds up if split."""
    pixels = replace(
        problem, rows=(), cols=problem.rows, b=lambda batch, k, col: problem.a(batch, col, k), window=None
    )
    layout = columns_layout(partial(place, group, flat_buffer), pixels)
    anchor = problem.anchor
    packed, call = prepack_call(pixels, layout, Fused(group, anchor), plan.lanes, width, f"{name}_panels")
    kernel = _WeightBands(Fused(group, anchor), problem, packed, plan, width)
    calls = [call, kernel.call(name)]
    if kernel.partial is not None:
        whole = Fused(group, anchor)
        calls.append(combine_call(problem, kernel.partial, whole, width, f"{name}_combine", True))
    return calls


class _WeightBands:
    """The kernel that multiplies: `group`, `block`, `share` and `part` number a task's group, channels of the
    source, panels of result channels and images."""

    def __init__(self, fused: Fused, problem: Contraction, packed: Temp, plan: Plan, width: int) -> None:
        self.fused, self.p, self.packed, self.plan, self.width = fused, problem, packed, plan, width
        self.w = fused.scope
        node = fused.anchor
        x, dy = node.inputs
        self.dtype = node.dtype
        self.groups, self.images = node.attrs.groups, x.shape[0]
        self.ins, self.outs = node.shape[1], node.shape[0] // self.groups
        self.kernel, self.space = node.shape[2:], dy.shape[2:]
        self.inner = math.prod(self.space[1:])
        self.taps = math.prod(self.kernel)
        self.panels = -(-self.outs // plan.lanes)
        self.copy = BandCopy(fused, x, plan.source, plan.pitch, width)
        self.partial: Temp | None = None
        if plan.split > 1:
            shape = (plan.split, self.groups, self.outs, self.ins * self.taps)
            self.partial = Temp("partial", TensorType(shape, self.dtype))

    def call(self, name: str) -> KernelCall:
        """The kernel and its arguments."""
        w, plan = self.w, self.plan
        shares = -(-self.panels // plan.panels)
        counts = (self.groups, plan.split, shares, self.ins // plan.channels)
        task = Var(int64, "task", math.prod(counts))
        self.group, self.part, share, block = ix.unflatten(task, counts)
        self.channel = ix.mul(block, plan.channels)
        self.panel0 = ix.mul(share, plan.panels)
        self.here = ix.minimum(plan.panels, ix.sub(self.panels, self.panel0))
        band = self.copy.room(plan.channels)
        walk = self._walk()
        sums = w.alloc("sums", self.dtype, (plan.panels, plan.channels, self.taps, plan.lanes))
        self._clear(sums)
        images = self.images // plan.split
        with w.loop("n", images) as n, w.loop("b", -(-self.space[0] // plan.band)) as b:
            image, start = ix.add(ix.mul(self.part, images), n), ix.mul(b, plan.band)
            begin = [ix.add(ix.mul(start, plan.axes[0].move), plan.axes[0].low)]
            begin += [ix.const(axis.low) for axis in plan.axes[1:]]
            first = ix.add(ix.mul(self.group, self.ins), self.channel)
            self.copy.copy(band, image, first, plan.channels, begin)
            with w.loop("p", self.here, plan.panels) as panel, w.loop("t", self.kernel[0]) as t:
                low, rows = self._rows_inside(t, start)
                with w.nest("u", self.kernel[1:]) as rest:
                    self._tiles(band, sums, walk, panel, (t, *rest), (image, start, low, rows))
        self._finish(sums)
        return self.fused.call(name, task, task.extent, self.p.flops)

    def _walk(self) -> Buffer:
        """The table of steps from one pixel of a band to the next."""
        w, plan = self.w, self.plan
        shape = (plan.band, *self.space[1:])
        far = [axis.move * math.prod(plan.source[d + 1 :]) for d, axis in enumerate(plan.axes)]
        ends = [
            sum((q - 1) * f for q, f in zip(shape[d + 1 :], far[d + 1 :], strict=True))
            for d in range(len(far))
        ]
        table = w.alloc("walk", int64, (math.prod(shape),))
        with w.loop("i", math.prod(shape)) as i:
            w.store(table, (i,), ix.const(far[-1]))
        for d in reversed(range(len(shape) - 1)):  # where a row, a plane ends, the step goes to the next one
            count, size = math.prod(shape[: d + 1]), math.prod(shape[d + 1 :])
            with w.loop("i", count) as i:
                end = ix.add(ix.mul(i, size), size - 1)
                w.store(table, (end,), ix.const(far[d] - ends[d]))
        return table

    def _clear(self, sums: Buffer) -> None:
        w, lanes = self.w, self.plan.lanes
        with w.nest("i", sums.shape[:-1]) as outer, w.loop("j", lanes, None, "vector", lanes) as j:
            w.store(sums, (*outer, j), identity_of("add", self.dtype))

    def _rows_inside(self, t: Expr, start: Expr) -> tuple[Expr, Expr]:
        """(first, number) of the band's positions along the first axis that a tap does not take out of the
        source; any is the first of none."""
        axis, count = self.plan.axes[0], ix.minimum(self.plan.band, ix.sub(self.space[0], start))
        part = axis.parts[0]

        def access(row: Expr) -> Access:
            coordinate = ix.add(
                ix.mul(ix.add(start, row), axis.move), ix.add(ix.mul(t, part.dilation), part.taps[0][1])
            )
            return Access(self.fused.anchor, (), ((coordinate, axis.extent),))

        low, high = clip(Line(count, self.plan.band, access))
        low, high = self.w.let(low, "low"), self.w.let(high, "high")
        return ix.minimum(low, self.plan.band - 1), ix.sub(high, low)

    def _tiles(
        self, band: Buffer, sums: Buffer, walk: Buffer, panel: Expr, tap: Index, rows: tuple[Expr, ...]
    ) -> None:
        """Add what some rows of an image give one tap, for all channels of the task."""
        number = ix.add(self.panel0, panel)
        for lanes in panel_lanes(self.w, number, self.outs, self.plan.lanes, self.width):
            self._row_tiles(band, sums, walk, panel, tap, rows, lanes)

    def _row_tiles(
        self,
        band: Buffer,
        sums: Buffer,
        walk: Buffer,
        panel: Expr,
        tap: Index,
        rows: tuple[Expr, ...],
        lanes: int,
    ) -> None:
        w, plan = self.w, self.plan
        image, start, low, count = rows
        place_ = [ix.mul(t, axis.parts[0].dilation) for t, axis in zip(tap, plan.axes, strict=True)]
        place_[0] = ix.add(place_[0], ix.mul(low, plan.axes[0].move))
        source = ix.flatten(place_, plan.source)
        skipped = ix.mul(low, self.inner)
        pixel = ix.add(ix.flatten((image, start), (self.images, self.space[0])), low)
        number = ix.add(ix.add(ix.mul(self.group, self.panels), self.panel0), panel)
        b = address(self.fused.buffer(self.packed), (number, ix.mul(pixel, self.inner), ZERO))
        for span in _rows(plan).spans():
            with w.loop("x", span.count) as i:
                channel = ix.add(ix.mul(i, span.size), span.start)
                a = address(band, (ix.add(ix.mul(channel, plan.pitch), source),))
                c = address(sums, (panel, channel, ix.flatten(tap, self.kernel), ZERO))
                w.put(
                    Tile(span.size, lanes, ix.mul(count, self.inner), a, ix.const(plan.pitch), ZERO,
                         b, ix.const(plan.lanes), c, ix.const(self.taps * plan.lanes), True,
                         walk=Walk(address(walk, (skipped,)), "a"))
                )  # fmt: skip

    def _finish(self, sums: Buffer) -> None:
        """All filters of the task, or their partial sums: vectors of result channels are transposed."""
        w, plan = self.w, self.plan
        with w.loop("p", self.here, plan.panels) as panel:
            start = ix.mul(ix.add(self.panel0, panel), plan.lanes)
            count = ix.minimum(plan.lanes, ix.sub(self.outs, start))
            with (
                w.loop("j", count, min(plan.lanes, self.outs), "vector", self.width) as j,
                w.loop("i", plan.channels * self.taps) as i,
            ):
                channel, tap = ix.unflatten(i, (plan.channels, self.taps))
                value = load(sums, (panel, channel, tap, j))
                out = ix.add(start, j)
                if self.partial is not None:
                    place_ = ix.add(ix.mul(self.channel, self.taps), i)
                    self.fused.store_temp(self.partial, (self.part, self.group, out, place_), value)
                else:
                    row = ix.add(ix.mul(self.group, self.outs), out)
                    index = (ix.add(self.channel, channel), *ix.unflatten(tap, self.kernel))
                    self.fused.finish((row, *index), value)
