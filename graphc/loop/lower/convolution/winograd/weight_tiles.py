"""What the schedules of Winograd weight gradients share: tiles, the products of a point, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.ir.node import Node
from graphc.loop import index as ix
from graphc.loop.ir import Address, Expr, Tile, load
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.convolution.winograd.strips import Tiles
from graphc.loop.lower.convolution.winograd.transforms import apply, transposed
from graphc.loop.lower.convolution.winograd.weight_images import images_of
from graphc.loop.lower.convolution.winograd.weight_plan import Plan

Operand = tuple[
    Callable[[Expr], Address], int
]  # where the first tile's channel is; elements to the next tile


def operands_of(node: Node, plan: Plan) -> tuple[Tiles, Tiles]:
    """The tiles of x and of dy."""
    images, (first, second) = images_of(node), plan.filterings
    assert images is not None
    gradients = transposed(first.at), transposed(second.at)
    xs = Tiles(images.of_x, images.extents, (first.bt, second.bt), plan.outputs, images.low, plan.tiles)
    return xs, Tiles(images.of_dy, images.space, gradients, plan.outputs, (0, 0), plan.tiles)


def put_product(
    fused: Fused,
    plan: Plan,
    depth: Expr,
    m: Operand,
    v: Operand,
    into: Callable[[Expr, Expr], Address],
    pitch: int,
    accumulate: bool,
) -> None:
    """A block of dU at a point, into(row, column) with rows `pitch` elements apart: panels of columns (input
    channels), each down its tiles of rows (output channels)."""
    w = fused.scope
    for columns in plan.column_spans():
        with w.loop("j", columns.count) as j:
            col = ix.add(ix.mul(j, columns.size), columns.start)
            for rows in plan.row_spans():
                with w.loop("i", rows.count) as i:
                    row = ix.add(ix.mul(i, rows.size), rows.start)
                    a, b, c = m[0](row), v[0](col), into(row, col)
                    w.put(
                        Tile(rows.size, columns.size, depth, a, ix.const(1), ix.const(m[1]),
                             b, ix.const(v[1]), c, ix.const(pitch), accumulate)
                    )  # fmt: skip


class Back:
    """Writes weights: G^T dU G from `ins` input channels to an output channel, and the epilogue."""

    def __init__(self, fused: Fused, plan: Plan, ins: int) -> None:
        images = images_of(fused.anchor)
        assert images is not None
        self.fused, self.w, self.plan, self.ins, self.images = fused, fused.scope, plan, ins, images
        dtype, pitch = fused.anchor.dtype, plan.pitch(ins)
        self.back = [transposed(form.g) for form in plan.filterings]
        self.taps = math.prod(plan.taps)
        self.halves = self.w.alloc("halves", dtype, (plan.taps[0], plan.size[1], pitch))
        self.planes = self.w.alloc("planes", dtype, (self.taps, pitch))
        self.row = self.w.alloc("row", dtype, (ins * self.taps,))

    def finish(self, out: Expr, first: Expr, sums: Callable[[int, Expr, Expr], Expr]) -> None:
        """The weights of an output channel (of all groups), from input channel `first` of its group on;
        sums(place of a row of points, column, channel) is an element of dU."""
        w, taps, lanes = self.w, self.taps, self.plan.width
        self._transform(sums)
        with w.loop("c", self.ins, None, "vector", lanes) as c, w.loop("t", taps) as t:
            w.store(self.row, (ix.add(ix.mul(c, taps), t),), load(self.planes, (t, c)))
        with w.loop("j", self.ins * taps, None, "vector", lanes) as j:
            c, *tap = ix.unflatten(j, (self.ins, *self.plan.taps))
            self.fused.finish(self.images.weight(out, ix.add(first, c), tap), load(self.row, (j,)))

    def _transform(self, sums: Callable[[int, Expr, Expr], Expr]) -> None:
        """planes[tap, c] = G^T dU G."""
        w, plan, lanes = self.w, self.plan, self.plan.width
        with w.loop("j", plan.size[1]) as j, w.loop("c", self.ins, None, "vector", lanes) as c:
            column = [w.let(sums(place, j, c), "u") for place in plan.order]
            for a, value in enumerate(apply(w, self.back[0], column)):
                assert value is not None
                w.store(self.halves, (ix.const(a), j, c), value)
        with w.loop("a", plan.taps[0]) as tap, w.loop("c", self.ins, None, "vector", lanes) as c:
            line = [w.let(load(self.halves, (tap, ix.const(j), c)), "h") for j in range(plan.size[1])]
            for b, value in enumerate(apply(w, self.back[1], line)):
                assert value is not None
                w.store(self.planes, (ix.add(ix.mul(tap, plan.taps[1]), b), c), value)
