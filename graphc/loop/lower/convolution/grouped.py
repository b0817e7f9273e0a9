"""Weight gradients of grouped convolutions with few channels in a group, as dot products along pixels.

Vectors of channels would be mostly empty there. So planes lie in scratch as for a depthwise gradient
(depthwise/on_planes.py), those of all channels of a group; for each tap some channels of the source meet some
of the result, vector of pixels by vector of pixels, and every product is a sum of its own. Rows are taken as
many at a time as the first-level cache holds, for all taps.
"""

from __future__ import annotations

import itertools
import math

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Buffer, Expr, binary, identity_of, load
from graphc.loop.lower.contraction.dots import SPARE
from graphc.loop.lower.contraction.problem import Index
from graphc.loop.lower.convolution.bands import FEWEST_CHANNELS
from graphc.loop.lower.convolution.depthwise.choose import MOST_TAPS
from graphc.loop.lower.convolution.depthwise.kernel import SHARES
from graphc.loop.lower.convolution.depthwise.on_planes import OnPlanes, Walk
from graphc.loop.lower.convolution.planes import Layout, Tap, forward_layout
from graphc.loop.lowered import KernelCall
from graphc.program import Machine


def grouped_weight_calls(group: Group, anchor: Node, machine: Machine) -> tuple[KernelCall, ...] | None:
    """The kernel of a group around the weight gradient of a grouped convolution; None if `anchor` is none, or
    vectors of channels suit it, or its planes are too large, or channels come last."""
    if anchor.op.name != "conv_weight_grad" or not anchor.dtype.is_float or not anchor.type.size:
        return None
    if anchor.attrs.last:
        return None
    at, (x, dy) = anchor.attrs, anchor.inputs
    ins, outs = anchor.shape[1], anchor.shape[0] // at.groups
    few = at.groups > 1 and ins < FEWEST_CHANNELS and 1 < outs < FEWEST_CHANNELS
    if not few or not 1 < math.prod(at.kernel) <= MOST_TAPS or not x.type.size or not dy.type.size:
        return None
    layout = forward_layout(at, dy.shape[2:])
    room = (ins * layout.elements + 2 * outs * layout.image) * anchor.dtype.itemsize
    if room > machine.l2_bytes // 2:
        return None
    return (_Grouped(group, anchor, layout, machine).call(),)


class _Grouped(OnPlanes):
    """Writes the kernel; a unit of work is a group."""

    def __init__(self, group: Group, anchor: Node, layout: Layout, machine: Machine) -> None:
        super().__init__(group, anchor, layout, machine)
        self.groups = anchor.attrs.groups
        self.ins, self.outs = anchor.shape[1], anchor.shape[0] // self.groups
        self.in_side, self.out_side = _sides(self.ins, self.outs, machine)
        self.taps = math.prod(anchor.attrs.kernel)
        self.l1_bytes = machine.l1_bytes

    def call(self) -> KernelCall:
        """The kernel and its arguments."""
        w, (x, dy) = self.w, self.anchor.inputs
        (part,) = self.layout.parts
        results = self.outs * self.ins * len(part.taps)
        work = dy.type.size * len(part.taps) * self.ins
        task, first, chunk, count = self._tasks(self.groups, work, SHARES)
        walk = self._walk(part)
        size = len(self.layout.phases) * (self.images * self.layout.image + walk.lanes + self.layout.reach)
        grad = max(math.prod(walk.grads), self.images * walk.layout.image)
        planes, grads = self._zeros("planes", self.ins * size), self._zeros("grads", self.outs * grad)
        sums = self._zeros("sums", chunk * results * walk.lanes)
        totals = w.alloc("totals", self.dtype, (results // self.outs,))
        with w.loop("b", self.count // self.images) as batch, w.loop("c", count, chunk) as c:
            number, image = ix.add(first, c), ix.mul(batch, self.images)
            with w.loop("i", self.ins) as i:
                channel = ix.add(ix.mul(number, self.ins), i)
                self._fill(planes, self.layout, x, channel, image, ix.mul(i, size), size)
            with w.loop("o", self.outs) as o:
                channel = ix.add(ix.mul(number, self.outs), o)
                self._fill(grads, walk.layout, dy, channel, image, ix.mul(o, grad), grad)
            self._blocks(part.taps, (planes, size), (grads, grad), (sums, ix.mul(c, results)), walk)
        with w.loop("c", count, chunk) as c, w.loop("o", self.outs) as o:
            row = ix.mul(ix.add(ix.mul(c, self.outs), o), results // self.outs)
            channel = ix.add(ix.mul(ix.add(first, c), self.outs), o)
            self._fold(sums, row, totals, channel, walk.lanes)
        return self.fused.call(
            self.anchor.op.name, task, task.extent, 2.0 * dy.type.size * self.ins * len(part.taps)
        )

    def _blocks(
        self,
        taps: tuple[Tap, ...],
        planes: tuple[Buffer, int],
        grads: tuple[Buffer, int],
        sums: tuple[Buffer, Expr],
        walk: Walk,
    ) -> None:
        """All products of the planes, block of rows by block of rows."""
        w, height = self.w, walk.grads[-2]
        row = (self.ins * walk.planes[-1] + self.outs * walk.grads[-1]) * self.dtype.itemsize
        most = min(height, max(1, self.l1_bytes // 2 // row))
        with w.nest("z", walk.grads[:-2]) as outer, w.loop("b", -(-height // most)) as block:
            start = ix.mul(block, most)
            rows = ix.minimum(most, ix.sub(height, start))
            for number, tap in enumerate(taps):
                with w.loop("o", self.outs // self.out_side) as o, w.loop("i", self.ins // self.in_side) as i:
                    first = ix.mul(o, self.out_side), ix.mul(i, self.in_side)
                    self._tap((number, tap), planes, grads, sums, walk, (outer, start, rows, most), first)

    def _tap(
        self,
        tap: tuple[int, Tap],
        planes: tuple[Buffer, int],
        grads: tuple[Buffer, int],
        sums: tuple[Buffer, Expr],
        walk: Walk,
        block: tuple[Index, Expr, Expr, int],
        first: tuple[Expr, Expr],
    ) -> None:
        """The products of one tap in a block of rows, for the channels of both sides from `first` on."""
        w, lanes, (number, where) = self.w, walk.lanes, tap
        outer, start, rows, most = block
        pairs = list(itertools.product(range(self.out_side), range(self.in_side)))
        offset = where.phase * (planes[1] // len(self.layout.phases)) + where.shift
        with w.loop("l", lanes, None, "vector", lanes) as lane:
            kept = {pair: w.alloc("sum", self.dtype, (), "local") for pair in pairs}
            for buffer in kept.values():
                w.store(buffer, (), identity_of("add", self.dtype))
            with w.loop("y", rows, most) as y, w.loop("j", walk.grads[-1] // lanes) as j:
                at = (*outer, ix.add(start, y), ix.add(ix.mul(j, lanes), lane))
                near, far = ix.flatten(at, walk.grads), ix.add(ix.flatten(at, walk.planes), offset)
                g = [self._load(grads, ix.add(first[0], a), near) for a in range(self.out_side)]
                x = [self._load(planes, ix.add(first[1], b), far) for b in range(self.in_side)]
                for (a, b), buffer in kept.items():
                    w.put(Accumulate(buffer, (), "add", binary("mul", g[a], x[b])))
            for (a, b), buffer in kept.items():
                channels = ix.flatten((ix.add(first[0], a), ix.add(first[1], b)), (self.outs, self.ins))
                row = ix.add(ix.add(sums[1], ix.mul(channels, self.taps)), number)
                to = (ix.add(ix.mul(row, lanes), lane),)
                w.store(sums[0], to, binary("add", load(sums[0], to), load(buffer, ())))

    def _load(self, planes: tuple[Buffer, int], channel: Expr, place: Expr) -> Expr:
        """An element of a channel's planes."""
        return self.w.let(load(planes[0], (ix.add(ix.mul(channel, planes[1]), place),)), "v")


def _sides(ins: int, outs: int, machine: Machine) -> tuple[int, int]:
    """How many channels of the source and of the result meet at once: divisors of all, as many products as
    there are registers for sums, from as few loads as possible."""
    most = max(rows * vectors for rows, vectors in machine.tiles) - SPARE
    pairs = itertools.product(_divisors(ins), _divisors(outs))
    return max((p for p in pairs if math.prod(p) <= most), key=lambda p: (math.prod(p), -sum(p)))


def _divisors(count: int) -> list[int]:
    return [n for n in range(1, count + 1) if count % n == 0]
