"""The weight gradient of 3x3 convolutions at unit stride in the Winograd domain.

With V = B^T x B and M = A dy A^T of every tile (a tile of dy, and the patch of x that its outputs see)::

    dw[o, c] = G^T dU[o, c] G        dU[point, o, c] = sum over tiles of M[point, tile, o] * V[point, tile, c]

so that every point is a product of matrices, whose depth is the number of tiles, and F(4x4, 3x3) has a
quarter of the multiplications of the direct sum. The transform back follows once all tiles are added up.

A task owns a share of the strips (rows of tiles), some rows of points, and a block of dU. It transforms so
many tiles at a time that they fit into the second-level cache beside its part of dU, and adds their products
to that. A second kernel adds up the shares, in order, transforms back, and runs the epilogue.
"""

from __future__ import annotations

from contextlib import nullcontext

from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Buffer, Expr, Tile, Var, address, binary, load
from graphc.loop.lower.fused import Fused
from graphc.loop.lower.pack import padded
from graphc.loop.lower.problem import Index
from graphc.loop.lower.winograd.strips import Strip, Tiles
from graphc.loop.lower.winograd.transforms import apply, filtering, transposed
from graphc.loop.lower.winograd.weight_plan import Plan
from graphc.loop.lowered import KernelCall, Temp

TASK_RESULTS = 1 << 11  # results that are worth a task of the second kernel
MOST_TASKS = 32


def weight_grad_calls(node: Node, plan: Plan, group: Group, width: int) -> list[KernelCall]:
    """The kernels of the group around a conv_weight_grad."""
    accumulation = _Accumulation(node, plan, group, width)
    sums = accumulation.call(f"{node.op.name}_winograd")
    back = _Back(plan, accumulation.shares, Fused(group, node), width)
    return [sums, back.call(f"{node.op.name}_combine")]


class _Accumulation:
    """The first kernel: `shares` of dU, [group, share, point, out, in]."""

    def __init__(self, node: Node, plan: Plan, group: Group, width: int) -> None:
        self.plan, self.width = plan, width
        self.fused = Fused(group, node)
        self.w = self.fused.scope
        x, dy = node.inputs
        form, low = filtering(plan.outputs, plan.taps), node.attrs.low
        self.x = Tiles(x, form.bt, plan.outputs, (low[0], low[1]), plan.tiles)
        self.dy = Tiles(dy, transposed(form.at), plan.outputs, (0, 0), plan.tiles)
        shape = (plan.groups, plan.shares, plan.points, plan.outs, plan.pitch(plan.ins, width))
        self.shares = Temp("shares", TensorType(shape, node.dtype))

    def call(self, name: str) -> KernelCall:
        """The kernel and its arguments."""
        plan, w = self.plan, self.w
        task = Var(int64, "task", plan.tasks)
        group, share, out, in_, rows = ix.unflatten(task, plan.task_space)
        self.place = group, share, ix.mul(out, plan.out_block), ix.mul(in_, plan.in_block), rows
        xs = Strip(self.x, self.fused, plan.in_block, plan.rows, self.width)
        dys = Strip(self.dy, self.fused, plan.out_block, plan.rows, self.width)
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
        tiles = self.plan.strips_at_once * self.plan.tiles[1]
        size = padded(tiles * self.plan.pitch(channels, self.width), self.shares.type.dtype.itemsize)
        return self.w.alloc(name, self.shares.type.dtype, (self.plan.points_at_once, size))

    def _transform(self, side: Strip, points: Buffer, strip: Expr, s: Expr, channel: Expr) -> None:
        """The s-th strip of the block, at the task's points."""
        w, plan = self.w, self.plan
        image, row = ix.unflatten(strip, (plan.images, plan.tiles[0]))
        pitch = plan.pitch(side.channels, self.width)
        tile0 = ix.mul(s, plan.tiles[1])

        def put(point: Expr, tile: Expr, c: Expr, value: Expr) -> None:
            w.store(points, (point, ix.add(ix.mul(ix.add(tile0, tile), pitch), c)), value)

        side.transform(self.place[4], image, row, channel, put)

    def _products(self, m: Buffer, v: Buffer, depth: Expr, block: Expr) -> None:
        """Add a block of tiles to the task's part of dU; the first block overwrites what is there."""
        w, plan = self.w, self.plan
        first = ix.compare("eq", block, 0)
        for accumulate, condition in ((False, first), (True, ix.negate(first))):
            if not ix.is_false(condition):
                guard = nullcontext() if ix.is_true(condition) else w.when(condition)
                with guard, w.loop("p", plan.points_at_once) as point:
                    self._product(m, v, depth, point, accumulate)

    def _product(self, m: Buffer, v: Buffer, depth: Expr, point: Expr, accumulate: bool) -> None:
        """One point: panels of columns (input channels), each down its tiles of rows (output channels)."""
        w, plan = self.w, self.plan
        group, share, out0, in0, number = self.place
        into = self.fused.buffer(self.shares)
        self.fused.written.add(self.shares)
        m_pitch, v_pitch = (plan.pitch(c, self.width) for c in (plan.out_block, plan.in_block))
        place = group, share, ix.add(ix.mul(number, plan.points_at_once), point)
        for columns in plan.column_spans(self.width):
            with w.loop("j", columns.count) as j:
                col = ix.add(ix.mul(j, columns.size), columns.start)
                for rows in plan.row_spans():
                    with w.loop("i", rows.count) as i:
                        row = ix.add(ix.mul(i, rows.size), rows.start)
                        c = address(into, (*place, ix.add(out0, row), ix.add(in0, col)))
                        w.put(
                            Tile(rows.size, columns.size, depth, address(m, (point, row)), ix.const(1),
                                 ix.const(m_pitch), address(v, (point, col)), ix.const(v_pitch), c,
                                 ix.const(into.shape[-1]), accumulate)
                        )  # fmt: skip


class _Back:
    """The second kernel: adds up the shares of dU, transforms back, and finishes rows of weights."""

    def __init__(self, plan: Plan, shares: Temp, fused: Fused, width: int) -> None:
        self.plan, self.shares, self.fused, self.w, self.width = plan, shares, fused, fused.scope, width
        self.g = filtering(plan.outputs, plan.taps).g

    def call(self, name: str) -> KernelCall:
        """The kernel and its arguments."""
        plan, w = self.plan, self.w
        count = plan.groups * plan.outs
        chunk = -(-count // max(1, min(count, MOST_TASKS, count * plan.ins // TASK_RESULTS)))
        task = Var(int64, "task", -(-count // chunk))
        first = ix.mul(task, chunk)
        dtype, taps = self.shares.type.dtype, plan.taps**2
        pitch = plan.pitch(plan.ins, self.width)
        halves = w.alloc("halves", dtype, (plan.taps, plan.size, pitch))
        planes = w.alloc("planes", dtype, (taps, pitch))
        row = w.alloc("row", dtype, (plan.ins * taps,))
        with w.loop("i", ix.minimum(chunk, ix.sub(count, first)), chunk) as i:
            at = ix.unflatten(ix.add(first, i), (plan.groups, plan.outs))
            self._transform(at, halves, planes)
            with w.loop("c", plan.ins, None, "vector", self.width) as c, w.loop("t", taps) as t:
                w.store(row, (ix.add(ix.mul(c, taps), t),), load(planes, (t, c)))
            with w.loop("j", plan.ins * taps, None, "vector", self.width) as j:
                place = ix.unflatten(j, (plan.ins, plan.taps, plan.taps))
                self.fused.finish((ix.add(first, i), *place), load(row, (j,)))
        return self.fused.call(name, task, task.extent, float(self.shares.type.size))

    def _transform(self, at: Index, halves: Buffer, planes: Buffer) -> None:
        """planes[tap, c] = the weights from all input channels to an output channel (a group, and one of its
        channels)."""
        w, plan, back = self.w, self.plan, transposed(self.g)
        with w.loop("j", plan.size) as j, w.loop("c", plan.ins, None, "vector", self.width) as c:
            sums = [self._sum(at, c, slot * plan.size, j) for slot in plan.order]
            for a, value in enumerate(apply(w, back, sums)):
                assert value is not None
                w.store(halves, (ix.const(a), j, c), value)
        with w.loop("a", plan.taps) as tap, w.loop("c", plan.ins, None, "vector", self.width) as c:
            line = [w.let(load(halves, (tap, ix.const(j), c)), "h") for j in range(plan.size)]
            for b, value in enumerate(apply(w, back, line)):
                assert value is not None
                w.store(planes, (ix.add(ix.mul(tap, plan.taps), b), c), value)

    def _sum(self, at: Index, c: Expr, row: int, column: Expr) -> Expr:
        """An element of dU, its shares added in order."""
        source, (group, out) = self.fused.buffer(self.shares), at
        total: Expr | None = None
        for share in range(self.plan.shares):
            part = load(source, (group, ix.const(share), ix.add(column, row), out, c))
            total = part if total is None else binary("add", total, part)
        assert total is not None
        return self.w.let(total, "u")
