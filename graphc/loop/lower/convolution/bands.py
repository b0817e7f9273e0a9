"""Convolutions on bands of rows: pixels are broadcast from where they are, vectors run over result channels.

A task owns a band of the result's rows of one image (all of its width and channels). It copies the rows of
the source that the band needs into scratch, with the padding around them, and multiplies from there: a tile
takes neighbouring pixels of a row, at whatever distance the stride puts them, times a vector or more of
channels, and a table says how far each (channel, tap) is from the one before. Nothing is packed per tap, any
stride and dilation cost the same, and taps that lie in the padding above and below are left out. Results of
a row are collected pixel by pixel, so that the positions of a strided input gradient, which its phases
compute in turns, meet in memory; the epilogue then takes whole rows.

Weights are packed once, by a kernel of their own for each phase, K in the order (first tap axis, channel,
other tap axes): under one tap row all taps of a channel read the same few cache lines.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

from graphc.ir.node import Node
from graphc.ir.types import Shape
from graphc.loop.lower.contraction.blocking import (
    CALL,
    KERNEL,
    SMALL,
    STREAM,
    TASK,
    THREADS,
    Rows,
    choose_tile,
    idle,
)
from graphc.loop.lower.contraction.pack import CLIPPED_RUN, COPY, GATHER
from graphc.loop.lower.convolution.as_contraction import axis_phases
from graphc.ops.conv import ConvAttrs
from graphc.program import LINE, Machine

TURNED = 1.0  # cycles to store a result that is transposed on its way
FEWEST_CHANNELS = 16  # of the result: fewer leave most lanes of a vector empty
ENTRY = 3.0  # cycles to write an entry of the table of steps
FETCHED = 0.1  # cycles to bring an element of a source that no cache of the core holds


@dataclass(frozen=True)
class AxisPart:
    """Results of one residue class along one axis: number j < count lies at first + j*step, and reads
    coordinate j*move + shift of the source under each of its `taps` (index in the window, shift), whose
    shifts are `dilation` apart."""

    first: int
    step: int
    count: int
    move: int
    taps: tuple[tuple[int, int], ...]
    dilation: int


Part = tuple[AxisPart, ...]


@dataclass(frozen=True)
class Axis:
    """All results along one axis, and the reach of their windows over a source of `extent` elements."""

    parts: tuple[AxisPart, ...]
    extent: int

    @property
    def count(self) -> int:
        """Results of the longest part."""
        return max(part.count for part in self.parts)

    @property
    def move(self) -> int:
        return self.parts[0].move

    @property
    def low(self) -> int:
        """The first coordinate that the first results read."""
        return min((shift for part in self.parts for _, shift in part.taps), default=0)

    def reach(self, results: int) -> int:
        """Elements of the source that so many results read."""
        high = max((shift for part in self.parts for _, shift in part.taps), default=0)
        return (results - 1) * self.move + high - self.low + 1


def forward_axes(at: ConvAttrs, outputs: Shape) -> tuple[Axis, ...]:
    """The axes of a convolution with these positions."""
    axes = []
    for q, e, s, d, p, k in zip(
        outputs, at.input_spatial, at.stride, at.dilation, at.low, at.kernel, strict=True
    ):
        taps = tuple((t, t * d - p) for t in range(k))
        axes.append(Axis((AxisPart(0, 1, q, s, taps, d),), e))
    return tuple(axes)


def axes_of(node: Node) -> tuple[Axis, ...]:
    """The axes of a `conv` or `conv_input_grad`."""
    at = node.attrs
    if node.op.name == "conv":
        return forward_axes(at, node.shape[2:])
    axes = []
    for q, e, s, d, p, k in zip(
        at.input_spatial, node.inputs[0].shape[2:], at.stride, at.dilation, at.low, at.kernel, strict=True
    ):
        parts = []
        for way in axis_phases(s, d, p, k, q):
            taps = tuple((way.tap + u * way.step, way.base - u * way.back) for u in range(way.taps))
            parts.append(AxisPart(way.first, s, way.count, 1, taps, -way.back))
        axes.append(Axis(tuple(parts), e))
    return tuple(axes)


@dataclass(frozen=True)
class Plan:
    """rows x lanes   the register tile
    axes             how results and source lie along each axis
    band             rows of a task along each axis but the last, of each phase
    source           extents of the part of a source plane that a task copies
    pitch            elements from one channel of the copy to the next
    """

    rows: int
    lanes: int
    axes: tuple[Axis, ...]
    band: Shape
    source: Shape
    pitch: int

    @property
    def bands(self) -> Shape:
        """How many bands there are along each axis but the last."""
        return tuple(-(-axis.count // b) for axis, b in zip(self.axes, self.band, strict=False))


@dataclass(frozen=True)
class _Sizes:
    """Of a convolution: groups, images, channels of the source and of the result in a group."""

    groups: int
    images: int
    ins: int
    outs: int
    itemsize: int


def _sizes(node: Node) -> _Sizes:
    groups = node.attrs.groups
    return _Sizes(
        groups,
        node.shape[0],
        node.inputs[0].shape[1] // groups,
        node.shape[1] // groups,
        node.dtype.itemsize,
    )


def plan_bands(node: Node, machine: Machine) -> tuple[Plan, float] | None:
    """How to compute `node` in bands, and its cost in cycles; None if it is neither a conv nor a
    conv_input_grad, or has too few channels or too long rows for it."""
    if node.op.name not in ("conv", "conv_input_grad") or not node.dtype.is_float or not node.type.size:
        return None
    if node.attrs.last:
        return None
    sizes, axes = _sizes(node), axes_of(node)
    taps = math.prod(max(len(part.taps) for part in axis.parts) for axis in axes)
    if not suits_lanes(sizes.outs, machine.lanes(sizes.itemsize)):
        return None
    if not sizes.ins or not all(axis.extent for axis in axes) or not taps:
        return None
    return _choose(sizes, axes, sizes.ins * taps, machine)


def suits_lanes(channels: int, width: int) -> bool:
    """Whether so many channels fill most lanes of their vectors, or all of half a vector."""
    return channels >= FEWEST_CHANNELS or channels in (width, width // 2)


@lru_cache(maxsize=256)
def _choose(sizes: _Sizes, axes: tuple[Axis, ...], depth: int, machine: Machine) -> tuple[Plan, float] | None:
    """The cheapest of all plans; `depth` is K of the largest phase."""
    rows, lanes = choose_tile(axes[-1].count, sizes.outs, depth, machine, sizes.itemsize)
    lanes = min(lanes, sizes.outs) if 2 * sizes.outs == machine.lanes(sizes.itemsize) else lanes
    best: tuple[Plan, float] | None = None
    for band in itertools.product(*(_cuts(axis.count) for axis in axes[:-1])):
        source = tuple(a.reach(b) for a, b in zip(axes, (*band, axes[-1].count), strict=True))
        plan = Plan(rows, lanes, axes, band, source, channel_pitch(math.prod(source), sizes.itemsize))
        room = (sizes.ins * plan.pitch + depth * lanes) * sizes.itemsize
        if room > machine.l2_bytes * 3 // 4:
            continue
        cost = _cost(plan, sizes, machine)
        if best is None or cost < best[1]:
            best = plan, cost
    return best


def _cuts(count: int) -> list[int]:
    return list(dict.fromkeys(-(-count // parts) for parts in range(1, count + 1)))


def channel_pitch(elements: int, itemsize: int) -> int:
    """Elements from channel to channel, such that neighbouring channels do not share cache sets."""
    line = LINE // itemsize
    lines = -(-elements // line)
    return (lines + 1 - lines % 2) * line


def copying(source: Shape, width: int) -> float:
    """Cycles to copy a part of a channel of the source."""
    run = CLIPPED_RUN + COPY * -(-source[-1] // width) + FETCHED * source[-1]
    return math.prod(source[:-1]) * run


def inside(axis: Axis) -> float:
    """Part of the taps of all results that lie inside the source."""
    real = total = 0
    for part in axis.parts:
        for j in range(part.count):
            total += len(part.taps)
            real += sum(0 <= j * part.move + shift < axis.extent for _, shift in part.taps)
    return real / total if total else 0.0


def _cost(plan: Plan, sizes: _Sizes, machine: Machine) -> float:
    """Cycles on one core, and what too few tasks lose."""
    width = machine.lanes(sizes.itemsize)
    vectors = plan.lanes / width
    wide = -(-sizes.outs // width) / max(1, vectors)  # panels, the last of which may be narrower
    panels = -(-sizes.outs // plan.lanes)
    rows, calls, flops, weights = 0.0, 0, 0.0, 0
    for parts in itertools.product(*(axis.parts for axis in plan.axes)):
        depth = sizes.ins * math.prod(len(part.taps) for part in parts)
        weights += depth * sizes.outs
        lines = math.prod(part.count for part in parts[:-1])
        cut = Rows.even(parts[-1].count, plan.rows)
        rows += lines * cut.steps(vectors) * depth
        calls += lines * cut.tiles
        flops += 2.0 * lines * parts[-1].count * depth * sizes.outs
    skipped = inside(plan.axes[0]) if len(plan.axes) > 1 else 1.0
    work = rows * wide * skipped + calls * panels * (CALL + 2 * plan.rows * vectors)
    work *= sizes.images
    bands = math.prod(plan.bands)
    work += sizes.images * bands * sizes.ins * copying(plan.source, width)
    work += sizes.images * bands * ENTRY * weights / sizes.outs
    results = (
        sizes.images * sizes.outs * math.prod(sum(part.count for part in axis.parts) for axis in plan.axes)
    )
    work += results * TURNED
    held = (weights + sizes.ins * plan.pitch) * sizes.itemsize
    if held > machine.l2_bytes:
        work += STREAM / 2 * weights * sizes.images * bands
    tasks = sizes.groups * sizes.images * bands
    worth = min(THREADS[-1], max(1, int(flops * sizes.images * sizes.groups / SMALL)))
    total = work * sizes.groups * idle(tasks, worth) + TASK * tasks
    packing = sizes.groups * weights * (GATHER + 1.0)
    return total + packing + KERNEL * math.prod(len(axis.parts) for axis in plan.axes)
