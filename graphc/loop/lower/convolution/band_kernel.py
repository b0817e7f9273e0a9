"""The kernels of a plan for bands of rows (bands.py): weights packed for each phase, then the bands."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Buffer, Expr, Tile, Var, Walk, address, identity_of, load
from graphc.loop.lower.contraction.ahead import fetch_ahead
from graphc.loop.lower.contraction.blocking import Rows, panel_lanes
from graphc.loop.lower.contraction.fused import Fused, flat_buffer, place
from graphc.loop.lower.contraction.operand import columns_layout
from graphc.loop.lower.contraction.pack import Line, clip, maximum
from graphc.loop.lower.contraction.prepack import prepack_call
from graphc.loop.lower.contraction.problem import Access, Contraction, Index
from graphc.loop.lower.convolution.band_copy import BandCopy
from graphc.loop.lower.convolution.bands import AxisPart, Part, Plan
from graphc.loop.lowered import KernelCall, Temp


def band_calls(
    group: Group, anchor: Node, problems: Sequence[Contraction], plan: Plan, width: int, name: str
) -> tuple[list[KernelCall], KernelCall]:
    """(kernels that pack the weights of each problem, the one that multiplies). `problems` are those of the
    anchor, a phase each, in the order of the products of the axes' parts."""
    packed: list[Temp | None] = []
    calls = []
    for problem in problems:
        if not math.prod(problem.depth):
            packed.append(None)  # a phase that no tap reaches
            continue
        problem = _weights_first(problem)
        layout = columns_layout(partial(place, group, flat_buffer), problem)
        temp, call = prepack_call(problem, layout, Fused(group, anchor), plan.lanes, width, f"{name}_panels")
        packed.append(temp)
        calls.append(call)
    kernel = _Bands(Fused(group, anchor), problems, packed, plan, width)
    return calls, kernel.call(name)


def _weights_first(problem: Contraction) -> Contraction:
    """The weights as B: columns are the channels of the result, K goes (first tap axis, channel, others)."""
    channels, first, *others = problem.depth

    return replace(
        problem,
        rows=(),
        cols=problem.rows,
        depth=(first, channels, *others),
        b=lambda batch, k, col: problem.a(batch, col, (k[1], k[0], *k[2:])),
        window=None,
    )


class _Bands:
    """The kernel that multiplies. `group` and `image` number what a task works on, `start` the rows of each
    phase with which its band begins."""

    def __init__(
        self,
        fused: Fused,
        problems: Sequence[Contraction],
        packed: Sequence[Temp | None],
        plan: Plan,
        width: int,
    ) -> None:
        self.fused, self.plan, self.width = fused, plan, width
        self.w = fused.scope
        anchor = fused.anchor
        self.dtype = anchor.dtype
        self.groups, self.images = anchor.attrs.groups, anchor.shape[0]
        self.ins = anchor.inputs[0].shape[1] // self.groups
        self.outs = anchor.shape[1] // self.groups
        self.space = anchor.shape[2:]
        self.flops = sum(p.flops for p in problems)
        parts = itertools.product(*(axis.parts for axis in plan.axes))
        self.packed: dict[Part, Temp | None] = dict(zip(parts, packed, strict=True))
        self.walks: dict[Part, Buffer] = {}
        self.panels = -(-self.outs // plan.lanes)

    def call(self, name: str) -> KernelCall:
        """The kernel and its arguments."""
        w, plan = self.w, self.plan
        counts = (self.groups, self.images, *plan.bands)
        task = Var(int64, "task", math.prod(counts))
        self.group, self.image, *bands = ix.unflatten(task, counts)
        self.start = [ix.mul(b, size) for b, size in zip(bands, plan.band, strict=True)]
        self.walks = {part: self._walk(part) for part, packed in self.packed.items() if packed is not None}
        sums = w.alloc("sums", self.dtype, (self.space[-1], plan.lanes))
        band = self._fill()
        with w.loop("p", self.panels) as panel:
            for outer in itertools.product(*(axis.parts for axis in plan.axes[:-1])):
                with self._rows(outer) as rows:
                    start = len(w.block)
                    for last in plan.axes[-1].parts:
                        self._multiply(band, sums, panel, (*outer, last), rows)
                    finish = len(w.block)
                    self._finish(sums, panel, outer, rows)
                    cycles = self.space[-1] * plan.lanes // self.width * self._depth(outer)
                    w.block[start:start] = fetch_ahead(w.block[finish:], cycles)
        return self.fused.call(name, task, task.extent, self.flops)

    def _depth(self, outer: Part) -> int:
        """Least steps of K of the rows of a phase."""
        taps = math.prod(len(part.taps) for part in outer)
        return self.ins * taps * min(len(part.taps) for part in self.plan.axes[-1].parts)

    @contextmanager
    def _rows(self, outer: Part) -> Iterator[Index]:
        """Loops over the rows of a phase that the band has, numbered from the band's start."""
        with ExitStack() as stack:
            rows = []
            for part, size, start in zip(outer, self.plan.band, self.start, strict=True):
                count = maximum(ix.minimum(size, ix.sub(part.count, start)), 0)
                rows.append(stack.enter_context(self.w.loop("y", count, size)))
            yield tuple(rows)

    # ------------------------------------------------------------------ the source

    def _fill(self) -> Buffer:
        """The rows of the source that the band's windows reach."""
        plan, source = self.plan, self.fused.anchor.inputs[0]
        copy = BandCopy(self.fused, source, plan.source, plan.pitch, self.width)
        band = copy.room(self.ins)
        begin = [
            ix.add(ix.mul(start, axis.move), axis.low)
            for start, axis in zip((*self.start, ZERO), plan.axes, strict=True)
        ]
        copy.copy(band, self.image, ix.mul(self.group, self.ins), self.ins, begin)
        return band

    def _walk(self, part: Part) -> Buffer:
        """The table of steps of a phase, K in the order of its packed weights."""
        w, plan = self.w, self.plan
        first, *rest = [[shift - axis.taps[0][1] for _, shift in axis.taps] for axis in part]
        strides = [math.prod(plan.source[d + 1 :]) for d in range(len(plan.source))]
        inner = [
            sum(s * stride for s, stride in zip(shifts, strides[1:], strict=True))
            for shifts in itertools.product(*rest)
        ]
        last = len(inner) - 1
        table = w.alloc("walk", int64, (len(first) * self.ins * len(inner),))
        with w.loop("t", len(first)) as t, w.loop("c", self.ins) as c:
            at = ix.mul(ix.add(ix.mul(t, self.ins), c), len(inner))
            for i, (here, after) in enumerate(itertools.pairwise(inner)):
                w.store(table, (ix.add(at, i),), ix.const(after - here))
            w.store(table, (ix.add(at, last),), ix.const(plan.pitch - inner[last]))
        if len(first) > 1:
            down = (first[1] - first[0]) * strides[0]
            with w.loop("t", len(first)) as t:
                end = ix.sub(ix.mul(ix.add(t, 1), self.ins * len(inner)), 1)
                w.store(table, (end,), ix.const(down - (self.ins - 1) * plan.pitch - inner[last]))
        return table

    # ------------------------------------------------------------------ the tiles

    def _multiply(self, band: Buffer, sums: Buffer, panel: Expr, part: Part, rows: Index) -> None:
        """The results of one phase in a row, into their places among those of the other phases."""
        packed, last = self.packed[part], part[-1]
        if packed is None:
            self._clear(sums, last)
            return
        for lanes in panel_lanes(self.w, panel, self.outs, self.plan.lanes, self.width):
            self._tiles(band, sums, panel, part, rows, lanes, packed)

    def _clear(self, sums: Buffer, last: AxisPart) -> None:
        w, lanes = self.w, self.plan.lanes
        with w.loop("x", last.count) as x, w.loop("j", lanes, None, "vector", lanes) as j:
            where = (ix.add(ix.mul(x, last.step), last.first), j)
            w.store(sums, where, identity_of("add", self.dtype))

    def _tiles(
        self, band: Buffer, sums: Buffer, panel: Expr, part: Part, rows: Index, lanes: int, packed: Temp
    ) -> None:
        """Tiles of neighbouring pixels, of two heights."""
        w, plan, last = self.w, self.plan, part[-1]
        inner = self.ins * math.prod(len(p.taps) for p in part[1:])
        begin, depth = self._taps(part, rows)
        shifts = [p.taps[0][1] - axis.low for p, axis in zip(part, plan.axes, strict=True)]
        down = ix.mul(begin, (part[0].dilation * math.prod(plan.source[1:])) if len(part) > 1 else 0)
        moved = [
            ix.add(ix.mul(row, axis.move), shift)
            for row, axis, shift in zip(rows, plan.axes, shifts, strict=False)
        ]
        skipped = ix.mul(begin, inner)
        number = ix.add(ix.mul(self.group, self.panels), panel)
        walk = Walk(address(self.walks[part], (skipped,)), "a")
        b = address(self.fused.buffer(packed), (number, skipped, ZERO))
        for span in Rows.even(last.count, plan.rows).spans():
            with w.loop("x", span.count) as t:
                x = ix.add(ix.mul(t, span.size), span.start)
                source = (*moved, ix.add(ix.mul(x, last.move), shifts[-1]))
                a = address(band, (ix.add(ix.flatten(source, plan.source), down),))
                c = address(sums, (ix.add(ix.mul(x, last.step), last.first), ZERO))
                w.put(
                    Tile(span.size, lanes, ix.mul(depth, inner), a, ix.const(last.move), ZERO,
                         b, ix.const(plan.lanes), c, ix.const(last.step * plan.lanes), False, None, walk)
                )  # fmt: skip

    def _taps(self, part: Part, rows: Index) -> tuple[Expr, Expr]:
        """(first, number) of the taps along the first axis under which a row lies inside the source; any tap
        of the window is the first of none."""
        first, axis = part[0], self.plan.axes[0]
        if len(part) == 1:
            return ZERO, ix.const(len(first.taps))
        row = ix.mul(ix.add(self.start[0], rows[0]), first.move)

        def access(t: Expr) -> Access:
            coordinate = ix.add(ix.add(row, first.taps[0][1]), ix.mul(t, first.dilation))
            return Access(self.fused.anchor, (), ((coordinate, axis.extent),))

        low, high = clip(Line(ix.const(len(first.taps)), len(first.taps), access))
        low, high = self.w.let(low, "low"), self.w.let(high, "high")
        return ix.minimum(low, len(first.taps) - 1), ix.sub(high, low)

    # ------------------------------------------------------------------ the epilogue

    def _finish(self, sums: Buffer, panel: Expr, outer: Part, rows: Index) -> None:
        """A whole row of results: vectors of channels are transposed to vectors of pixels."""
        w, plan = self.w, self.plan
        start = ix.mul(panel, plan.lanes)
        count = ix.minimum(plan.lanes, ix.sub(self.outs, start))
        place_ = [
            ix.add(ix.mul(ix.add(s, row), part.step), part.first)
            for s, row, part in zip(self.start, rows, outer, strict=True)
        ]
        with (
            w.loop("j", count, min(plan.lanes, self.outs), "vector", min(plan.lanes, self.width)) as j,
            w.loop("x", self.space[-1]) as x,
        ):
            channel = ix.add(ix.mul(self.group, self.outs), ix.add(start, j))
            self.fused.finish((self.image, channel, *place_, x), load(sums, (x, j)))
