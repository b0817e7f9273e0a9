"""The weight gradient of convolutions of small windows at unit stride in the Winograd domain.

With V = B^T x B and M = A dy A^T of every tile (a tile of dy, and the patch of x that its outputs see)::

    dw[o, c] = G^T dU[o, c] G        dU[point, o, c] = sum over tiles of M[point, tile, o] * V[point, tile, c]

so that every point is a product of matrices, whose depth is the number of tiles, and F(4x4, 3x3) has a
quarter of the multiplications of the direct sum. The transform back follows once all tiles are added up.

Two schedules. With many tiles, a task owns a share of the strips (rows of tiles), some rows of points, and
a block of dU. It transforms so many tiles at a time that they fit into the second-level cache beside its part
of dU, and adds their products to that. A second kernel adds up the shares, in order, transforms back, and
runs the epilogue. With few tiles and many channels dU is larger than all else, and should not be stored:
then the tiles are all transformed ahead, and a task computes a block of dU at all points and finishes it.

Rounding errors stay below 2^-16 of the root of the sum of (x dy)^2, over all pixels, for data without much
correlation, and below 2^-20 of the sum of |x dy|. Largest on 4x24x24 pixels of normal data: 2^-17.2 and 2^-22
(3x3), 2^-16.3 and 2^-21 (5x5); direct sums by PyTorch have 2^-17.2 there.
"""

from __future__ import annotations

from functools import partial

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Address, Buffer, Expr, Var, address, binary, load
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.pack import padded
from graphc.loop.lower.contraction.problem import Index
from graphc.loop.lower.convolution.winograd.strips import Strip
from graphc.loop.lower.convolution.winograd.weight_blocks import weight_block_calls
from graphc.loop.lower.convolution.winograd.weight_plan import Plan
from graphc.loop.lower.convolution.winograd.weight_tiles import Back, operands_of, put_product
from graphc.loop.lowered import KernelCall, Temp

TASK_RESULTS = 1 << 11  # results that are worth a task of the second kernel
MOST_TASKS = 32


def weight_grad_calls(node: Node, plan: Plan, group: Group) -> list[KernelCall]:
    """The kernels of the group around a conv_weight_grad."""
    if plan.ahead:
        return weight_block_calls(node, plan, group)
    accumulation = _Accumulation(node, plan, group)
    sums = accumulation.call(f"{node.op.name}_winograd")
    return [sums, _combine_call(plan, accumulation.shares, Fused(group, node), f"{node.op.name}_combine")]


class _Accumulation:
    """The first kernel: `shares` of dU, [group, share, point, out, in]."""

    def __init__(self, node: Node, plan: Plan, group: Group) -> None:
        self.plan, self.fused = plan, Fused(group, node)
        self.w = self.fused.scope
        self.x, self.dy = operands_of(node, plan)
        shape = (plan.groups, plan.shares, plan.points, plan.outs, plan.pitch(plan.ins))
        self.shares = Temp("shares", TensorType(shape, node.dtype))

    def call(self, name: str) -> KernelCall:
        """The kernel and its arguments."""
        plan, w = self.plan, self.w
        task = Var(int64, "task", plan.tasks)
        group, share, out, in_, rows = ix.unflatten(task, plan.task_space)
        self.place = group, share, ix.mul(out, plan.out_block), ix.mul(in_, plan.in_block), rows
        xs = Strip(self.x, self.fused, plan.in_block, plan.rows, plan.width)
        dys = Strip(self.dy, self.fused, plan.out_block, plan.rows, plan.width)
        sides = [
            (xs, self._points("v", plan.in_block), ix.add(ix.mul(group, plan.ins), self.place[3])),
            (dys, self._points("m", plan.out_block), ix.add(ix.mul(group, plan.outs), self.place[2])),
        ]
        first = ix.mul(share, plan.strips_of_share)
        here = ix.minimum(plan.strips_of_share, ix.sub(plan.strips, first))
        blocks = ix.floordiv(ix.add(here, plan.strips_at_once - 1), plan.strips_at_once)
        with w.loop("block", blocks, plan.blocks) as block:
            start = ix.mul(block, plan.strips_at_once)
            count = ix.minimum(plan.strips_at_once, ix.sub(here, start))
            with w.loop("s", count, plan.strips_at_once) as s:
                strip = ix.add(ix.add(first, start), s)
                for side, points, channel in sides:
                    self._transform(side, points, strip, s, channel)
            self._products(sides[1][1], sides[0][1], ix.mul(count, plan.tiles[1]), block)
        return self.fused.call(name, task, task.extent, plan.flops)

    def _points(self, name: str, channels: int) -> Buffer:
        """Room for the transformed tiles of a block of strips: [point][tile][channel]."""
        plan, dtype = self.plan, self.shares.type.dtype
        size = padded(plan.strips_at_once * plan.tiles[1] * plan.pitch(channels), dtype.itemsize)
        return self.w.alloc(name, dtype, (plan.points_at_once, size))

    def _transform(self, side: Strip, points: Buffer, strip: Expr, s: Expr, channel: Expr) -> None:
        """The s-th strip of the block, at the task's points."""
        plan, pitch = self.plan, self.plan.pitch(side.channels)
        image, row = ix.unflatten(strip, (plan.images, plan.tiles[0]))
        tile0 = ix.mul(s, plan.tiles[1])

        def put(point: Expr, tile: Expr, c: Expr, value: Expr) -> None:
            self.w.store(points, (point, ix.add(ix.mul(ix.add(tile0, tile), pitch), c)), value)

        side.transform(self.place[4], image, row, channel, put)

    def _products(self, m: Buffer, v: Buffer, depth: Expr, block: Expr) -> None:
        """Add a block of tiles to the task's part of dU; the first block overwrites what is there."""
        w, plan = self.w, self.plan
        group, share, out0, in0, number = self.place
        target = self.fused.buffer(self.shares)
        self.fused.written.add(self.shares)
        first = ix.compare("eq", block, 0)
        for accumulate, condition in ((False, first), (True, ix.negate(first))):
            if ix.is_false(condition):
                continue
            with w.when(condition), w.loop("p", plan.points_at_once) as point:
                place = group, share, ix.add(ix.mul(number, plan.points_at_once), point)

                def into(row: Expr, col: Expr, at: Index = place) -> Address:
                    return address(target, (*at, ix.add(out0, row), ix.add(in0, col)))

                a, b = partial(_at, m, point), partial(_at, v, point)
                put_product(
                    self.fused, plan, depth, (a, plan.pitch(plan.out_block)), (b, plan.pitch(plan.in_block)),
                    into, target.shape[-1], accumulate
                )  # fmt: skip


def _at(points: Buffer, point: Expr, channel: Expr) -> Address:
    """A channel of the first tile, at a point."""
    return address(points, (point, channel))


def _combine_call(plan: Plan, shares: Temp, fused: Fused, name: str) -> KernelCall:
    """The second kernel: adds up the shares of dU, and finishes rows of weights."""
    w = fused.scope
    count = plan.groups * plan.outs
    chunk = -(-count // max(1, min(count, MOST_TASKS, count * plan.ins // TASK_RESULTS)))
    task = Var(int64, "task", -(-count // chunk))
    first = ix.mul(task, chunk)
    back, source = Back(fused, plan, plan.ins), fused.buffer(shares)
    with w.loop("i", ix.minimum(chunk, ix.sub(count, first)), chunk) as i:
        out = ix.add(first, i)
        group, row = ix.unflatten(out, (plan.groups, plan.outs))

        def total(place: int, column: Expr, c: Expr) -> Expr:
            point = ix.add(column, place * plan.size[1])
            parts = [load(source, (group, ix.const(s), point, row, c)) for s in range(plan.shares)]
            result: Expr = parts[0]
            for part in parts[1:]:
                result = binary("add", result, part)
            return result

        back.finish(out, ix.ZERO, total)
    return fused.call(name, task, task.extent, float(shares.type.size))
