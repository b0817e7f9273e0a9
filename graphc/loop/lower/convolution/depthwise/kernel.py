"""What all kernels of depthwise convolutions share: tasks, rows, weights, the sums of weight gradients, and
asking for planes ahead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import Shape, int64
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, Prefetch, Var, binary, identity_of, load
from graphc.loop.lower.contraction.fused import Fused, place
from graphc.loop.lower.contraction.problem import Access
from graphc.loop.lower.convolution.planes import Layout, Part, Tap
from graphc.loop.lowered import KernelCall
from graphc.program import LINE, Machine

SHARES = 16  # tasks of a weight gradient: each should read long runs of every image
SUMS = 16  # vectors of sums of a weight gradient kept in registers
ROWS = 4  # rows computed at once
FULL = 0.6  # part of the lanes that a row must fill to be finished directly
ASKED = (
    16  # taps from which on asking for planes ahead pays at unit stride too: with 9, writing sets the pace
)
MOST_TASKS = 64
TASK_WORK = 1 << 16  # multiply-adds of a task, at least
MOVED = 8  # what loading and storing an element costs, in multiply-adds


class ChannelKernel:
    """Writes a kernel in which every channel is on its own; subclasses say how. Where planes come from beyond
    the second-level cache, it `waits` for one unless that is asked for while the one before is multiplied."""

    def __init__(self, group: Group, anchor: Node, layout: Layout, machine: Machine) -> None:
        self.anchor, self.layout, self.dtype = anchor, layout, anchor.dtype
        self.fused = Fused(group, anchor)
        self.w = self.fused.scope
        self.width = machine.lanes(anchor.dtype.itemsize)
        self.count, self.channels = anchor.inputs[0].shape[:2]
        strided = max(anchor.attrs.stride) > 1
        reads = anchor.op.name == "conv_weight_grad" or strided or math.prod(anchor.attrs.kernel) >= ASKED
        self.waits = reads and anchor.inputs[0].type.nbytes > machine.l2_bytes

    @contextmanager
    def _units(self, images: int) -> Iterator[tuple[Expr, Expr]]:
        """(channel, first image) of the units of a task: so many images of a channel."""
        batches, taps = self.count // images, self._products_of_plane()
        work = self.count * self.channels * taps + MOVED * self.anchor.type.size
        self.task, first, chunk, count = self._tasks(self.channels * batches, work, MOST_TASKS)
        with self.w.loop("u", count, chunk) as u:
            batch, channel = ix.unflatten(ix.add(first, u), (batches, self.channels))
            yield channel, ix.mul(batch, images)

    @contextmanager
    def _summed(self, lanes: int, images: int) -> Iterator[tuple[Expr, Expr, Buffer, Expr]]:
        """(channel, first of so many images, sums, row of them for tap 0): what is added to sums[row + tap,
        lane] for all images are the weights of the channel, which are finished then."""
        w, taps = self.w, math.prod(self.anchor.attrs.kernel)
        work = self.anchor.inputs[1].type.size * (taps + MOVED)
        self.task, first, chunk, count = self._tasks(self.channels, work, SHARES)
        sums = self._zeros("sums", chunk * taps * lanes)
        totals = w.alloc("totals", self.dtype, (taps,))
        with w.loop("b", self.count // images) as batch, w.loop("c", count, chunk) as c:
            yield ix.add(first, c), ix.mul(batch, images), sums, ix.mul(c, taps)
        with w.loop("c", count, chunk) as c:
            self._fold(sums, ix.mul(c, taps), totals, ix.add(first, c), lanes)

    def _made(self) -> KernelCall:
        """The kernel that has been written, and its arguments."""
        flops = 2.0 * self.count * self.channels * self._products_of_plane()
        return self.fused.call(self.anchor.op.name, self.task, self.task.extent, flops)

    def _products_of_plane(self) -> int:
        """Multiply-adds for one plane."""
        return sum(len(p.taps) * math.prod(p.count) for p in self.layout.parts)

    def _tasks(self, units: int, work: float, most: int) -> tuple[Var, Expr, int, Expr]:
        """(the task's variable, its first unit, most units of a task, how many it has)."""
        tasks = max(1, min(units, most, int(work // TASK_WORK)))
        chunk = -(-units // tasks)
        task = Var(int64, "task", -(-units // chunk))
        first = ix.mul(task, chunk) if task.extent > 1 else ix.ZERO
        return task, first, chunk, ix.minimum(chunk, ix.sub(units, first))

    def _zeros(self, name: str, size: int) -> Buffer:
        buffer = self.w.alloc(name, self.dtype, (size,))
        with self.w.loop("z", size, None, "vector", 4 * self.width) as z:
            self.w.store(buffer, (z,), identity_of("add", self.dtype))
        return buffer

    def _row(self, extent: int) -> AbstractContextManager[Expr]:
        """A loop over neighbouring elements."""
        if extent == 1:
            return self.w.loop("x", 1)
        lanes = 2 * self.width if extent % (2 * self.width) == 0 else row_lanes(extent, self.width)
        return self.w.loop("x", extent, None, "vector", lanes)

    def _weight(self, channel: Expr, tap: Tap) -> Expr:
        index = (channel, ix.ZERO, *[ix.const(t) for t in tap.weight])
        return self.fused.read(Access(self.anchor.inputs[1], index))

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

    @contextmanager
    def _kept(
        self, taps: Iterable[int], sums: Buffer, row: Expr, lanes: int
    ) -> Iterator[tuple[Expr, Mapping[int, Buffer]]]:
        """(the lane, a sum in registers for each of some taps): they are added to sums[row + tap, lane]."""
        w = self.w
        with w.loop("l", lanes, None, "vector", lanes) as lane:
            kept = {t: w.alloc("sum", self.dtype, (), "local") for t in taps}
            for buffer in kept.values():
                w.store(buffer, (), identity_of("add", self.dtype))
            yield lane, kept
            for t, buffer in kept.items():
                to = (ix.add(ix.mul(ix.add(row, t), lanes), lane),)
                w.store(sums, to, binary("add", load(sums, to), load(buffer, ())))

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


def planes_of(anchor: Node) -> tuple[Node, ...]:
    """The operands of a convolution or a gradient that are planes."""
    return anchor.inputs if anchor.op.name == "conv_weight_grad" else anchor.inputs[:1]


def shares(taps: int) -> list[range]:
    """The taps, as evenly as can be in shares whose sums stay in registers."""
    count = -(-taps // SUMS)
    return [range(taps * i // count, taps * (i + 1) // count) for i in range(count)]


def row_lanes(extent: int, width: int) -> int:
    """Lanes of a vector for rows of so many elements: short ones get one that just holds them."""
    return min(width, max(2, 1 << (extent - 1).bit_length()))


def is_direct(part: Part, width: int) -> bool:
    """Whether rows are finished as they are computed."""
    row = part.count[-1]
    lanes = row_lanes(row, width)
    return part.step[-1] == 1 and row >= FULL * lanes * -(-row // lanes)


def where(part: Part, place: tuple[Expr, ...]) -> list[Expr]:
    """Where result number `place` of a part is among all."""
    return [ix.add(ix.mul(i, s), f) for i, s, f in zip(place, part.step, part.first, strict=True)]
