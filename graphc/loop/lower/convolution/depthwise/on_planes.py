"""Depthwise convolutions whose planes are copied into scratch first, padded and split into phases (see
planes.py).

A task copies planes of a channel and adds up all taps in registers. Results of long rows go straight to the
epilogue. Short rows, and those that a stride interleaves, are first computed for all rows and images at once,
put into order in scratch, and finished a whole plane at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, binary, identity_of, load
from graphc.loop.lower.contraction.problem import Access
from graphc.loop.lower.convolution.depthwise.kernel import (
    ROWS,
    ChannelKernel,
    is_direct,
    row_lanes,
    shares,
    where,
)
from graphc.loop.lower.convolution.planes import Axis, Layout, Numbers, Part
from graphc.loop.lowered import KernelCall
from graphc.program import Machine


@dataclass(frozen=True)
class Walk:
    """How a weight gradient goes over its planes: by rows of these extents.

    lanes          of a vector
    layout         planes of dy
    planes, grads  extents of planes of x and dy, of several images, the last of them along rows
    """

    lanes: int
    layout: Layout
    planes: Shape
    grads: Shape


class OnPlanes(ChannelKernel):
    """Writes the kernel.

    `images` are copied at a time; a unit of work is such a batch of images of one channel (for a weight
    gradient, a channel).
    """

    def __init__(self, group: Group, anchor: Node, layout: Layout, machine: Machine) -> None:
        super().__init__(group, anchor, layout, machine)
        room = machine.l1_bytes // 2 // (layout.elements * anchor.dtype.itemsize)
        self.images = max(n for n in range(1, max(1, room) + 1) if self.count % n == 0)

    # ------------------------------------------------------------ forward and input gradient

    def results(self) -> KernelCall:
        """The kernel of a convolution or an input gradient."""
        planes = self._planes(0)
        with self._units(self.images) as (channel, image):
            self._fill(planes, self.layout, self.anchor.inputs[0], channel, image)
            if all(is_direct(part, self.width) for part in self.layout.parts):
                self._direct(planes, channel, image)
            else:
                self._in_order(planes, channel, image)
        return self._made()

    def _planes(self, slack: int) -> Buffer:
        """Zeros for the planes of a batch of images, one phase after another, each with `slack` more."""
        return self._zeros("planes", len(self.layout.phases) * (self.images * self.layout.image + slack))

    def _fill(
        self,
        planes: Buffer,
        layout: Layout,
        source: Node,
        channel: Expr,
        image: Expr,
        base: Expr = ix.ZERO,
        size: int | None = None,
    ) -> None:
        """The inside of the planes of a batch of images, in `size` elements (None: all) from `base` on."""
        w = self.w
        pitch = (planes.shape[0] if size is None else size) // len(layout.phases)
        for k, phases in enumerate(layout.phases):
            runs = [axis.filled(f) for axis, f in zip(layout.axes, phases, strict=True)]
            if not math.prod([run.count for run in runs]):
                continue
            with (
                w.loop("n", self.images) as n,
                w.nest("y", tuple([run.count for run in runs[:-1]])) as outer,
                self._row(runs[-1].count) as x,
            ):
                place = [run.coordinate(i) for run, i in zip(runs, (*outer, x), strict=True)]
                value = self.fused.read(Access(source, (ix.add(image, n), channel, *place)))
                at = [run.element(i) for run, i in zip(runs, (*outer, x), strict=True)]
                to = ix.add(ix.add(ix.mul(n, layout.image), ix.flatten(at, layout.plane)), k * pitch)
                w.store(planes, (ix.add(base, to),), value)

    def _sums(self, part: Part, planes: Buffer, channel: Expr, place: Expr, rows: int) -> list[Expr]:
        """The results at a place of the planes and below it, in so many rows. They share what they read."""
        pitch = planes.shape[0] // len(self.layout.phases)
        down = self.layout.plane[-1]
        known: dict[int, Expr] = {}
        totals = []
        for row in range(rows):
            total: Expr = identity_of("add", self.dtype)
            for i, tap in enumerate(part.taps):
                at = tap.phase * pitch + tap.shift + row * down
                if at not in known:
                    known[at] = self.w.let(load(planes, (ix.add(place, at),)), "x")
                term = binary("mul", known[at], self._weight(channel, tap))
                total = binary("add", total, term) if i else term
            totals.append(self.w.let(total, "t"))
        return totals

    def _direct(self, planes: Buffer, channel: Expr, image: Expr) -> None:
        """All rows of all parts, several at a time; parts whose rows alternate go together."""
        groups: dict[Numbers, list[Part]] = {}
        for part in self.layout.parts:
            groups.setdefault(part.first[:-2], []).append(part)
        for number, parts in enumerate(groups.values()):
            heights = [part.count[-2] if len(part.count) > 1 else 1 for part in parts]
            step = max(1, ROWS // len(parts))
            whole = min(heights) // step * step
            if whole:
                self._block_rows(parts, planes, channel, image, range(0, whole, step), number == 0)
            for part, height in zip(parts, heights, strict=True):
                if height > whole:
                    rest = range(whole, height, height - whole)
                    self._block_rows([part], planes, channel, image, rest)

    def _block_rows(
        self,
        parts: Sequence[Part],
        planes: Buffer,
        channel: Expr,
        image: Expr,
        starts: range,
        ahead: bool = False,
    ) -> None:
        """Blocks of rows, which begin at `starts`, of each of the parts; with `ahead` they share the lines of
        the plane that is copied next, and each asks for its part."""
        w, rank = self.w, len(self.layout.axes)
        with (
            w.loop("n", self.images) as n,
            w.nest("z", parts[0].count[:-2]) as outer,
            w.loop("y", len(starts)) as block,
        ):
            y = ix.add(ix.mul(block, starts.step), starts.start)
            if ahead and self.waits:
                blocks = (*parts[0].count[:-2], len(starts))
                self._ask(self.anchor.inputs[:1], (ix.add(image, n), channel), (*outer, block), blocks)
            with self._row(parts[0].count[-1]) as x:
                flat = ix.flatten((*outer, y, x)[-rank:], self.layout.plane)
                place = ix.add(ix.mul(n, self.layout.image), flat)
                rows = [self._sums(part, planes, channel, place, starts.step) for part in parts]
                for i, values in enumerate(zip(*rows, strict=True)):
                    at = (*outer, ix.add(y, i), x)[-rank:]
                    for part, value in zip(parts, values, strict=True):
                        self.fused.finish((ix.add(image, n), channel, *where(part, at)), value)

    def _in_order(self, planes: Buffer, channel: Expr, image: Expr) -> None:
        """All parts into one array in the order of the results, which is then finished."""
        w, space = self.w, self.anchor.shape[2:]
        size = math.prod(space)
        wide = max(self.layout.wide(part, self.images) for part in self.layout.parts)
        sums = w.alloc("sums", self.dtype, (wide,))
        ordered = w.alloc("ordered", self.dtype, (self.images * size,))
        for part in self.layout.parts:
            lanes = 2 * self.width
            with w.loop("j", self.layout.wide(part, self.images), None, "vector", lanes) as j:
                w.store(sums, (j,), self._sums(part, planes, channel, j, 1)[0])
            self._put(part, sums, ordered)
        with w.loop("n", self.images) as n, self._row(size) as x:
            value = load(ordered, (ix.add(ix.mul(n, size), x),))
            self.fused.finish((ix.add(image, n), channel, *ix.unflatten(x, space)), value)

    def _put(self, part: Part, sums: Buffer, ordered: Buffer) -> None:
        """The results of a part to where they belong."""
        w, space, row = self.w, self.anchor.shape[2:], part.count[-1]
        with (
            w.loop("n", self.images) as n,
            w.nest("y", part.count[:-1]) as outer,
            self._row(row) as x,
        ):
            place = ix.add(ix.mul(n, self.layout.image), ix.flatten((*outer, x), self.layout.plane))
            to = ix.add(ix.mul(n, math.prod(space)), ix.flatten(where(part, (*outer, x)), space))
            w.store(ordered, (to,), load(sums, (place,)))

    # ------------------------------------------------------------ weight gradient

    def weight_grad(self) -> KernelCall:
        """The kernel of a weight gradient: a task adds up all images of its channels."""
        x, dy = self.anchor.inputs
        (part,) = self.layout.parts
        taps = len(part.taps)
        walk = self._walk(part)
        planes = self._planes(walk.lanes + self.layout.reach)
        grads = self._zeros("grads", max(math.prod(walk.grads), self.images * walk.layout.image))
        with self._summed(walk.lanes, self.images) as (channel, image, sums, row):
            self._fill(planes, self.layout, x, channel, image)
            self._fill(grads, walk.layout, dy, channel, image)
            for some in shares(taps):
                next_ = (image, channel) if self.waits and self.images == 1 and not some.start else ()
                self._gather(part, some, planes, grads, sums, row, walk, next_)
        return self._made()

    def _walk(self, part: Part) -> Walk:
        """Long rows are walked several at a time; short ones as one, with the gaps between them.

        Behind a row of dy are zeros, which meet whatever x has there: a tap that should be infinite is NaN.
        """
        if is_direct(part, self.width):
            lanes = row_lanes(part.count[-1], self.width)
            wide = -(-part.count[-1] // lanes) * lanes
            grads = (*part.count[:-1], wide)
            layout = Layout(_rows(part, grads), ())
            return Walk(lanes, layout, (self.images, *self.layout.plane), (self.images, *grads))
        chunks = -(-self.layout.wide(part, self.images) // self.width)
        layout = Layout(_rows(part, self.layout.plane), ())
        return Walk(self.width, layout, (1, self.images * self.layout.image), (1, chunks * self.width))

    def _gather(
        self,
        part: Part,
        taps: range,
        planes: Buffer,
        grads: Buffer,
        sums: Buffer,
        row: Expr,
        walk: Walk,
        plane: tuple[Expr, ...],
    ) -> None:
        """sums[row + tap, lane] += the products of a batch of images, for some of the taps; those behind
        `plane` (image, channel) of both sources are asked for meanwhile."""
        w, lanes, height = self.w, walk.lanes, walk.grads[-2]
        whole = height // ROWS * ROWS
        with self._kept(taps, sums, row, lanes) as (lane, kept):
            blocks = [(0, whole // ROWS, ROWS), (whole, int(whole < height), height - whole)]
            for start, count, rows in blocks:
                if not count:
                    continue
                with w.nest("z", walk.grads[:-2]) as outer, w.loop("y", count) as block:
                    if plane and rows == ROWS:
                        self._ask(self.anchor.inputs, plane, (*outer, block), (*walk.grads[:-2], count))
                    with w.loop("j", walk.grads[-1] // lanes) as j:
                        y, x = ix.add(ix.mul(block, rows), start), ix.add(ix.mul(j, lanes), lane)
                        at, place = (ix.flatten((*outer, y, x), shape) for shape in (walk.grads, walk.planes))
                        self._products(part, kept, (planes, place), (grads, at), walk, rows)

    def _products(
        self,
        part: Part,
        sums: Mapping[int, Buffer],
        planes: tuple[Buffer, Expr],
        grads: tuple[Buffer, Expr],
        walk: Walk,
        rows: int,
    ) -> None:
        """Add a vector of products, in each of so many rows from given places on, to the sums of taps."""
        pitch = planes[0].shape[0] // len(self.layout.phases)
        known: dict[int, Expr] = {}
        for row in range(rows):
            grad = self.w.let(load(grads[0], (ix.add(grads[1], row * walk.grads[-1]),)), "g")
            for t, buffer in sums.items():
                tap = part.taps[t]
                at = tap.phase * pitch + tap.shift + row * walk.planes[-1]
                if at not in known:
                    known[at] = self.w.let(load(planes[0], (ix.add(planes[1], at),)), "x")
                self.w.put(Accumulate(buffer, (), "add", binary("mul", grad, known[at])))


def _rows(part: Part, sizes: Shape) -> tuple[Axis, ...]:
    """Axes of planes of these extents that have the results of a part at the start of each row."""
    return tuple([Axis(1, 0, q, (0,), size) for q, size in zip(part.count, sizes, strict=True)])
