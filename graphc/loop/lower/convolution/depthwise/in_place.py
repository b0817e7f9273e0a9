"""Depthwise convolutions that read their sources where they are.

Nothing is copied: what comes from memory meets its multiply-adds at once, so that the processor fetches while
it multiplies (with a copy it does first the one, then the other). Rows whose windows are inside go several at
a time, the others one by one, without the taps that are outside; along rows, what is outside is masked off.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, binary, cast, identity_of, load
from graphc.loop.lower.contraction.fused import Fused, place
from graphc.loop.lower.contraction.operand import symbols
from graphc.loop.lower.contraction.problem import Access, Index
from graphc.loop.lower.convolution.depthwise.kernel import (
    ROWS,
    ChannelKernel,
    is_direct,
    planes_of,
    row_lanes,
    shares,
    where,
)
from graphc.loop.lower.convolution.planes import Layout
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

STRIDE = 2  # largest along rows: neighbours that lie further apart are not picked out of whole vectors
LOADED, PICKED = 1.5, 3.5  # cycles to load a vector, and one of every other element
BORDER = 0.25  # part of the rows of results that may go one by one: they share nothing
STORED = 1.0  # cycles to store one into a plane


def reads_in_place(group: Group, anchor: Node, layout: Layout, machine: Machine) -> bool:
    """Whether the sources of a convolution lie in rows that its taps can read, at no more cost than copies
    of them."""
    if not machine.masked or len(layout.axes) != 2 or len(layout.parts) != 1 or layout.axes[-1].spread > 1:
        return False
    stride, taps = layout.axes[-1].stride, anchor.attrs.kernel[-1]
    if stride > STRIDE or not is_direct(layout.parts[0], machine.lanes(anchor.dtype.itemsize)):
        return False
    if stride > 1 and taps * PICKED > len(layout.axes[-1].phases) * (PICKED + STORED) + taps * LOADED:
        return False
    rows, (_, inner) = layout.parts[0].count[0], inner_rows(layout)
    if not inner or (anchor.op.name != "conv_weight_grad" and rows - inner > BORDER * rows):
        return False
    fused = Fused(group, anchor)
    return all(_lies_in_rows(fused, source) for source in planes_of(anchor))


def inner_rows(layout: Layout) -> tuple[int, int]:
    """(first, number) of the rows of results whose windows are inside, in whole blocks."""
    (part,), down = layout.parts, layout.axes[0]
    rows = [layout.offset(tap)[0] for tap in part.taps]
    first = -(-max(0, -min(rows)) // down.stride)
    last = (down.extent - 1 - max(rows)) // down.stride
    together = rows_together(layout)
    return first, max(0, min(part.count[0], last + 1) - first) // together * together


def rows_together(layout: Layout) -> int:
    """Rows computed at once: under a stride they share less, and what they read takes more registers."""
    return max(1, ROWS // layout.axes[0].stride)


def _lies_in_rows(fused: Fused, source: Node) -> bool:
    """Whether the elements of a row are neighbours in memory."""
    at = symbols("i", source.shape)
    found = place(fused.group, fused.buffer, Access(source, at))
    return found is not None and found.mask is None and ix.linear(found.index[-1], at[-1]) == 1


class InPlace(ChannelKernel):
    """Writes the kernel; a unit of work is a plane (for a weight gradient, a channel). The windows of `inner`
    rows (there are some) from `first` on are inside."""

    def __init__(self, group: Group, anchor: Node, layout: Layout, machine: Machine) -> None:
        super().__init__(group, anchor, layout, machine)
        (self.part,), (self.down, self.along) = layout.parts, layout.axes
        self.height, self.row = self.part.count
        self.offsets = [layout.offset(tap) for tap in self.part.taps]
        self.first, self.inner = inner_rows(layout)
        self.together = rows_together(layout)

    def results(self) -> KernelCall:
        """The kernel of a convolution or of an input gradient at unit stride."""
        with self._units(1) as (channel, image):
            plane = image, channel
            with self._inner_rows() as y, self._row(self.row) as x:
                for i, value in enumerate(self._sums(plane, y, x)):
                    self.fused.finish((*plane, *where(self.part, (ix.add(y, i), x))), value)
            with self._border_rows() as y, self._row(self.row) as x:
                self.fused.finish((*plane, *where(self.part, (y, x))), self._border_sum(plane, y, x))
        return self._made()

    def weight_grad(self) -> KernelCall:
        """The kernel of a weight gradient: a task adds up all images of its channels."""
        taps, lanes = len(self.part.taps), row_lanes(self.row, self.width)
        with self._summed(lanes, 1) as (channel, image, sums, row):
            for some in shares(taps):
                with self._kept(some, sums, row, lanes) as (lane, kept):
                    self._gather(kept, (image, channel), lane, lanes)
        return self._made()

    def _gather(self, sums: Mapping[int, Buffer], plane: Index, lane: Expr, lanes: int) -> None:
        """Add the products of a plane to the sums of some taps; with those of the first one, the plane behind
        it is asked for."""
        w, vectors = self.w, -(-self.row // lanes)
        with self._inner_rows(plane if 0 in sums else ()) as y, w.loop("j", vectors) as j:
            self._products(sums, plane, y, ix.add(ix.mul(j, lanes), lane))
        with self._border_rows() as y, w.loop("j", vectors) as j:
            self._border_products(sums, plane, y, ix.add(ix.mul(j, lanes), lane))

    @contextmanager
    def _inner_rows(self, plane: Index = ()) -> Iterator[Expr]:
        """The first of each block of rows whose windows are inside. Meanwhile, what lies behind `plane` is
        asked for."""
        blocks = self.inner // self.together
        with self.w.loop("y", blocks) as block:
            if plane and self.waits:
                self._ask(self.anchor.inputs, plane, (block,), (blocks,))
            yield ix.add(ix.mul(block, self.together), self.first)

    @contextmanager
    def _border_rows(self) -> Iterator[Expr]:
        """The other rows."""
        with self.w.loop("y", self.height - self.inner) as i:
            below = cast(ix.compare("ge", i, self.first), int64)
            yield ix.add(i, ix.mul(below, self.inner))

    def _sums(self, plane: Index, y: Expr, x: Expr) -> list[Expr]:
        """The results at (y, x) and in the rows below, so many in all. They share what they read."""
        read, totals = self._reader(plane, y, x), []
        for row in range(self.together):
            total: Expr | None = None
            for number, tap in enumerate(self.part.taps):
                term = binary("mul", read(row, number), self._weight(plane[1], tap))
                total = term if total is None else binary("add", total, term)
            assert total is not None
            totals.append(self.w.let(total, "t"))
        return totals

    def _border_sum(self, plane: Index, y: Expr, x: Expr) -> Expr:
        """The result at (y, x)."""
        total = self.w.alloc("total", self.dtype, (), "local")
        self.w.store(total, (), identity_of("add", self.dtype))
        read = self._reader(plane, y, x)
        for taps in self._taps_inside(y, range(len(self.offsets))):
            for t in taps:
                term = binary("mul", read(0, t), self._weight(plane[1], self.part.taps[t]))
                self.w.put(Accumulate(total, (), "add", term))
        return load(total, ())

    def _products(self, sums: Mapping[int, Buffer], plane: Index, y: Expr, x: Expr) -> None:
        """Add the products of the elements of dy at (y, x) and in the rows below to the sums of taps."""
        read = self._reader(plane, y, x, (x, self.row))
        for row in range(self.together):
            grad = self._grad(plane, ix.add(y, row), x)
            for t, buffer in sums.items():
                self.w.put(Accumulate(buffer, (), "add", binary("mul", grad, read(row, t))))

    def _border_products(self, sums: Mapping[int, Buffer], plane: Index, y: Expr, x: Expr) -> None:
        """The same for the element of dy at (y, x)."""
        read, grad = self._reader(plane, y, x, (x, self.row)), self._grad(plane, y, x)
        for taps in self._taps_inside(y, sums):
            for t in taps:
                self.w.put(Accumulate(sums[t], (), "add", binary("mul", grad, read(0, t))))

    def _grad(self, plane: Index, y: Expr, x: Expr) -> Expr:
        there = Access(self.anchor.inputs[1], (*plane, y, x), ((x, self.row),))
        return self.w.let(self.fused.read(there), "g")

    def _taps_inside(self, y: Expr, taps: Iterable[int]) -> Iterator[list[int]]:
        """Those of some taps that meet the same row for results in row y; what is written for them is run if
        that row is inside."""
        for first, some in itertools.groupby(taps, key=lambda t: self.offsets[t][0]):
            with self.w.when(ix.inside(ix.add(ix.mul(y, self.down.stride), first), self.down.extent)):
                yield list(some)

    def _reader(
        self, plane: Index, y: Expr, x: Expr, *bounds: tuple[Expr, int]
    ) -> Callable[[int, int], Expr]:
        """What gives the element of the source that a tap (by number) meets for the result `row` rows below
        (y, x), in a row that is inside. Elements are zero outside `bounds`, and read once."""
        known: dict[tuple[int, int], Expr] = {}

        def read(row: int, tap: int) -> Expr:
            first, left = self.offsets[tap]
            below = row * self.down.stride + first
            if (below, left) not in known:
                v, u = ix.add(ix.mul(y, self.down.stride), below), ix.add(ix.mul(x, self.along.stride), left)
                there = Access(self.anchor.inputs[0], (*plane, v, u), (*bounds, (u, self.along.extent)))
                known[below, left] = self.w.let(self.fused.read(there), "x")
            return known[below, left]

        return read
