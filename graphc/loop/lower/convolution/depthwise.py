"""Depthwise convolutions (a channel is a group of its own) and their gradients, as plain loops.

There is nothing to contract: every result takes as many multiply-adds as the window has taps, so memory
decides. A task copies planes of a channel into scratch, padded and split into phases (planes.py), and adds up
all taps in registers. Results of long rows go straight to the epilogue. Short rows, and those that a stride
interleaves, are first computed for all rows and images at once, put into order in scratch, and finished
a whole plane at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.ir.types import Shape, int64
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, Prefetch, Var, binary, identity_of, load
from graphc.loop.lower.contraction.fused import Fused, place
from graphc.loop.lower.contraction.problem import Access
from graphc.loop.lower.convolution.planes import (
    Axis,
    Layout,
    Numbers,
    Part,
    Tap,
    forward_layout,
    gradient_layout,
)
from graphc.loop.lowered import KernelCall
from graphc.program import LINE, Machine

MOST_TAPS = 64  # taps that are written out
FEWEST = 8  # channels from which on tasks that are whole channels suffice
SUMS = 16  # vectors of sums of a weight gradient kept in registers
ROWS = 4  # rows computed at once
ASKED = (
    16  # taps from which on asking for planes ahead pays at unit stride too: with 9, writing sets the pace
)
FULL = 0.6  # part of the lanes that a row must fill to be finished directly
MOST_TASKS = 64
SHARES = 16  # tasks of a weight gradient: each should read long runs of every image
TASK_WORK = 1 << 16  # multiply-adds of a task, at least
FINISHED, FILLED = 8.0, 5.0  # cycles to store a vector in order, and to copy one to planes
MOVED = 8  # what loading and storing an element costs, in multiply-adds


def depthwise_calls(group: Group, anchor: Node, machine: Machine) -> tuple[KernelCall, ...] | None:
    """The kernel of a group around a depthwise convolution or one of its gradients; None if `anchor` is
    something else, or its windows or planes are too large."""
    if not _is_depthwise(anchor):
        return None
    if anchor.op.name == "conv_input_grad":
        layout = gradient_layout(anchor)
    elif anchor.op.name == "conv":
        layout = forward_layout(anchor.attrs, anchor.shape[2:])
    else:
        layout = forward_layout(anchor.attrs, anchor.inputs[1].shape[2:])
    room = 3 * layout.elements * anchor.dtype.itemsize
    if room > machine.l2_bytes // 2:
        return None
    kernel = Depthwise(group, anchor, layout, machine)
    return (kernel.weight_grad() if anchor.op.name == "conv_weight_grad" else kernel.results(),)


def depthwise_cost(anchor: Node, machine: Machine) -> float | None:
    """Cycles of the kernel of a forward convolution on one core (as long as the second-level cache keeps up);
    None if it is none that `depthwise_calls` runs."""
    if anchor.op.name != "conv" or not _is_depthwise(anchor):
        return None
    layout = forward_layout(anchor.attrs, anchor.shape[2:])
    if 3 * layout.elements * anchor.dtype.itemsize > machine.l2_bytes // 2:
        return None
    width = machine.lanes(anchor.dtype.itemsize)
    results = anchor.type.size // anchor.shape[-1] * -(-anchor.shape[-1] // width)
    sources = anchor.inputs[0].type.size / width * anchor.attrs.stride[-1]
    return results * (math.prod(anchor.attrs.kernel) + FINISHED) + sources * FILLED


def _is_depthwise(node: Node) -> bool:
    """Whether each channel has one filter, of several taps that can be written out."""
    if node.kind is not Kind.CONV or not node.dtype.is_float or not node.type.size:
        return False
    at, channels = node.attrs, node.inputs[0].shape[1]
    if at.last:
        return False
    weight = node.shape if node.op.name == "conv_weight_grad" else node.inputs[1].shape
    if weight[:2] != (channels, 1) or at.groups != channels or not all(x.type.size for x in node.inputs):
        return False
    if not 1 < math.prod(at.kernel) <= MOST_TAPS:
        return False
    return node.op.name != "conv_weight_grad" or channels >= FEWEST


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


class Depthwise:
    """Writes the kernel.

    `images` are copied at a time; a unit of work is such a batch of images of one channel (for a weight
    gradient, a channel). Where planes come from beyond the second-level cache, it `waits` for one unless that
    is asked for while the one before is multiplied.
    """

    def __init__(self, group: Group, anchor: Node, layout: Layout, machine: Machine) -> None:
        self.anchor, self.layout, self.dtype = anchor, layout, anchor.dtype
        self.fused = Fused(group, anchor)
        self.w = self.fused.scope
        self.width = machine.lanes(anchor.dtype.itemsize)
        self.count, self.channels = anchor.inputs[0].shape[:2]
        strided = max(anchor.attrs.stride) > 1
        reads = anchor.op.name == "conv_weight_grad" or strided or math.prod(anchor.attrs.kernel) >= ASKED
        self.waits = reads and anchor.inputs[0].type.nbytes > machine.l2_bytes
        room = machine.l1_bytes // 2 // (layout.elements * anchor.dtype.itemsize)
        self.images = max(n for n in range(1, max(1, room) + 1) if self.count % n == 0)

    # ------------------------------------------------------------ forward and input gradient

    def results(self) -> KernelCall:
        """The kernel of a convolution or an input gradient."""
        batches = self.count // self.images
        elements = self.anchor.type.size
        taps = sum(len(p.taps) * math.prod(p.count) for p in self.layout.parts)
        work = self.count * self.channels * taps + MOVED * elements
        task, first, chunk, count = self._tasks(self.channels * batches, work, MOST_TASKS)
        planes = self._planes(0)
        with self.w.loop("u", count, chunk) as u:
            batch, channel = ix.unflatten(ix.add(first, u), (batches, self.channels))
            image = ix.mul(batch, self.images)
            self._fill(planes, self.layout, self.anchor.inputs[0], channel, image)
            if all(self._is_direct(part) for part in self.layout.parts):
                self._direct(planes, channel, image)
            else:
                self._in_order(planes, channel, image)
        flops = 2.0 * self.count * self.channels * taps
        return self.fused.call(self.anchor.op.name, task, task.extent, flops)

    def _tasks(self, units: int, work: float, most: int) -> tuple[Var, Expr, int, Expr]:
        """(the task's variable, its first unit, most units of a task, how many it has)."""
        tasks = max(1, min(units, most, int(work // TASK_WORK)))
        chunk = -(-units // tasks)
        task = Var(int64, "task", -(-units // chunk))
        first = ix.mul(task, chunk) if task.extent > 1 else ix.ZERO
        return task, first, chunk, ix.minimum(chunk, ix.sub(units, first))

    def _planes(self, slack: int) -> Buffer:
        """Zeros for the planes of a batch of images, one phase after another, each with `slack` more."""
        return self._zeros("planes", len(self.layout.phases) * (self.images * self.layout.image + slack))

    def _zeros(self, name: str, size: int) -> Buffer:
        buffer = self.w.alloc(name, self.dtype, (size,))
        with self.w.loop("z", size, None, "vector", 4 * self.width) as z:
            self.w.store(buffer, (z,), identity_of("add", self.dtype))
        return buffer

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

    def _row(self, extent: int) -> AbstractContextManager[Expr]:
        """A loop over neighbouring elements."""
        if extent == 1:
            return self.w.loop("x", 1)
        lanes = 2 * self.width if extent % (2 * self.width) == 0 else self._lanes(extent)
        return self.w.loop("x", extent, None, "vector", lanes)

    def _lanes(self, extent: int) -> int:
        """Lanes of a vector for rows of so many elements: short ones get one that just holds them."""
        return min(self.width, max(2, 1 << (extent - 1).bit_length()))

    def _is_direct(self, part: Part) -> bool:
        """Whether rows are finished as they are computed."""
        row = part.count[-1]
        lanes = self._lanes(row)
        return part.step[-1] == 1 and row >= FULL * lanes * -(-row // lanes)

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

    def _weight(self, channel: Expr, tap: Tap) -> Expr:
        index = (channel, ix.ZERO, *[ix.const(t) for t in tap.weight])
        return self.fused.read(Access(self.anchor.inputs[1], index))

    def _direct(self, planes: Buffer, channel: Expr, image: Expr) -> None:
        """All rows of all parts, several at a time; parts whose rows alternate go together."""
        groups: dict[Numbers, list[Part]] = {}
        for part in self.layout.parts:
            groups.setdefault(part.first[:-2], []).append(part)
        for number, parts in enumerate(groups.values()):
            heights = [part.count[-2] if len(part.count) > 1 else 1 for part in parts]
            whole = min(heights) // ROWS * ROWS
            if whole:
                self._block_rows(parts, planes, channel, image, range(0, whole, ROWS), number == 0)
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
            for part in parts:
                with self._row(part.count[-1]) as x:
                    flat = ix.flatten((*outer, y, x)[-rank:], self.layout.plane)
                    place = ix.add(ix.mul(n, self.layout.image), flat)
                    for i, value in enumerate(self._sums(part, planes, channel, place, starts.step)):
                        at = (*outer, ix.add(y, i), x)[-rank:]
                        self.fused.finish((ix.add(image, n), channel, *_at(part, at)), value)

    def _ask(
        self, sources: Sequence[Node], plane: tuple[Expr, ...], block: tuple[Expr, ...], blocks: Shape
    ) -> None:
        """Fetch a share, that of a `block` of `blocks`, of the planes of some sources behind `plane` (image,
        channel), which are copied next."""
        line, number = LINE // self.dtype.itemsize, ix.flatten(block, blocks)
        for source in sources:
            first = Access(source, (*plane, *(ix.ZERO,) * len(self.layout.axes)))
            found = place(self.fused.group, self.fused.buffer, first)
            if found is None or len(found.index) != 1:
                continue
            size = math.prod(source.shape[2:])
            share = -(-size // (math.prod(blocks) * line))
            start = ix.add(ix.add(found.index[0], size), ix.mul(number, share * line))
            for i in range(share):
                self.w.put(Prefetch(found.buffer, (ix.add(start, i * line),), near=False))

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
            to = ix.add(ix.mul(n, math.prod(space)), ix.flatten(_at(part, (*outer, x)), space))
            w.store(ordered, (to,), load(sums, (place,)))

    # ------------------------------------------------------------ weight gradient

    def weight_grad(self) -> KernelCall:
        """The kernel of a weight gradient: a task adds up all images of its channels."""
        w = self.w
        x, dy = self.anchor.inputs
        (part,) = self.layout.parts
        taps = len(part.taps)
        work = dy.type.size * (taps + MOVED)
        task, first, chunk, count = self._tasks(self.channels, work, SHARES)
        walk = self._walk(part)
        lanes = walk.lanes
        planes = self._planes(lanes + self.layout.reach)
        grads = self._zeros("grads", max(math.prod(walk.grads), self.images * walk.layout.image))
        sums = self._zeros("sums", chunk * taps * lanes)
        totals = w.alloc("totals", self.dtype, (taps,))
        with w.loop("b", self.count // self.images) as batch, w.loop("c", count, chunk) as c:
            channel, image = ix.add(first, c), ix.mul(batch, self.images)
            self._fill(planes, self.layout, x, channel, image)
            self._fill(grads, walk.layout, dy, channel, image)
            for start in range(0, taps, SUMS):
                some = range(start, min(start + SUMS, taps))
                next_ = (image, channel) if self.waits and self.images == 1 and not start else ()
                self._gather(part, some, planes, grads, sums, ix.mul(c, taps), walk, next_)
        with w.loop("c", count, chunk) as c:
            self._fold(sums, ix.mul(c, taps), totals, ix.add(first, c), lanes)
        return self.fused.call(self.anchor.op.name, task, task.extent, 2.0 * dy.type.size * taps)

    def _walk(self, part: Part) -> Walk:
        """Long rows are walked several at a time; short ones as one, with the gaps between them.

        Behind a row of dy are zeros, which meet whatever x has there: a tap that should be infinite is NaN.
        """
        if self._is_direct(part):
            lanes = self._lanes(part.count[-1])
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
        with w.loop("l", lanes, None, "vector", lanes) as lane:
            kept = {t: w.alloc("sum", self.dtype, (), "local") for t in taps}
            for buffer in kept.values():
                w.store(buffer, (), identity_of("add", self.dtype))
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
            for t, buffer in kept.items():
                to = (ix.add(ix.mul(ix.add(row, t), lanes), lane),)
                w.store(sums, to, binary("add", load(sums, to), load(buffer, ())))

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

    def _fold(self, sums: Buffer, row: Expr, totals: Buffer, channel: Expr, lanes: int) -> None:
        """Add up the lanes, and finish the weights of a channel of the result."""
        w, (taps,) = self.w, totals.shape
        with w.loop("t", taps) as t:
            total = w.alloc("total", self.dtype, (), "local")
            w.store(total, (), identity_of("add", self.dtype))
            with w.loop("l", lanes, None, "vector", lanes) as lane:
                w.put(
                    Accumulate(total, (), "add", load(sums, (ix.add(ix.mul(ix.add(row, t), lanes), lane),)))
                )
            w.store(totals, (t,), load(total, ()))
        with self._row(taps) as t:
            index = (channel, *ix.unflatten(t, self.anchor.shape[1:]))
            self.fused.finish(index, load(totals, (t,)))


def _at(part: Part, place: tuple[Expr, ...]) -> list[Expr]:
    """Where result number `place` of a part is among all."""
    return [ix.add(ix.mul(i, s), f) for i, s, f in zip(place, part.step, part.first, strict=True)]


def _rows(part: Part, sizes: Shape) -> tuple[Axis, ...]:
    """Axes of planes of these extents that have the results of a part at the start of each row."""
    return tuple([Axis(1, 0, q, (0,), size) for q, size in zip(part.count, sizes, strict=True)])
