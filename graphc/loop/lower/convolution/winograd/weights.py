"""Transformed weights: G w G^T of every filter w, with result channels along vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Buffer, Expr, Var, load
from graphc.loop.lower.contraction.fused import Fused, flat_buffer, place
from graphc.loop.lower.contraction.operand import flat_stride, probe
from graphc.loop.lower.contraction.problem import Contraction, Index
from graphc.loop.lower.convolution.winograd.cases import cases
from graphc.loop.lower.convolution.winograd.geometry import Geometry
from graphc.loop.lower.convolution.winograd.plan import Plan, plane
from graphc.loop.lower.convolution.winograd.transforms import nested
from graphc.loop.lowered import KernelCall, Temp

CHUNK = 16  # channels turned round at a time
MOST_TASKS = 64

Put = Callable[[Expr, Expr, Expr, Expr], None]  # point, channel, result within the panel, value


class Weights:
    """Writes the transform of a panel of result channels."""

    def __init__(self, problem: Contraction, geometry: Geometry, fused: Fused, width: int) -> None:
        self.p, self.g, self.fused, self.width = problem, geometry, fused, width
        self.w = fused.scope
        shapes = problem.batch, problem.rows, problem.depth
        depth = probe(lambda a: place(fused.group, flat_buffer, a), problem.a, shapes).depth
        self.close = flat_stride(depth, problem.depth) == 1  # filters of neighbouring channels are neighbours
        self.taps = math.prod(geometry.taps)
        self.stage: Buffer | None = None
        self.half: Buffer | None = None

    def room(self) -> None:
        """Scratch for some filters, and for one that is transformed along columns only."""
        self.half = self.w.alloc("half", self.p.anchor.dtype, (self.g.size[0], self.g.taps[1], self.width))
        self.stage = self.w.alloc("filters", self.p.anchor.dtype, (CHUNK * self.taps, self.width))

    def transform(
        self, batch: Index, panel: Expr, lanes: int, first: Expr, count: Expr, most: int, put: Put
    ) -> None:
        """put(point, channel, lane, value) for a panel of `lanes` results, and `count` (at most `most`)
        chunks of channels from chunk `first` on, where channel numbers start."""
        with self.w.loop("chunk", count, most) as chunk:
            for results in cases(self.w, panel, self.g.results, lanes):
                for channels in cases(self.w, ix.add(first, chunk), self.g.channels, CHUNK):
                    self._chunk(
                        batch, ix.mul(panel, lanes), results, ix.add(first, chunk), chunk, channels, put
                    )

    def _chunk(
        self, batch: Index, row0: Expr, results: int, number: Expr, chunk: Expr, channels: int, put: Put
    ) -> None:
        with self.w.loop("part", -(-results // self.width)) as part:
            for some in cases(self.w, part, results, self.width):
                lane = ix.mul(part, self.width)
                self._fill(batch, ix.add(row0, lane), some, ix.mul(number, CHUNK), channels)
                self._transform(lane, some, ix.mul(chunk, CHUNK), channels, put)

    def _fill(self, batch: Index, row0: Expr, lanes: int, first: Expr, count: int) -> None:
        """stage[c * taps + t, lane] = the weight of tap t of channel first + c for result row0 + lane."""
        w, stage = self.w, self.stage
        assert stage is not None
        runs = (1, count * self.taps) if self.close else (count, self.taps)
        with (
            w.loop("c", runs[0]) as c,
            w.loop("k", lanes, None, "vector", self.width) as k,
            w.loop("t", runs[1]) as t,
        ):
            at = ix.unflatten(ix.add(ix.mul(c, runs[1]), t), (count, *self.g.taps))
            access = self.p.a(batch, (ix.add(row0, k),), (ix.add(first, at[0]), *at[1:]))
            w.store(stage, (ix.add(ix.mul(c, runs[1]), t), k), self.fused.read(access))

    def _transform(self, part: Expr, lanes: int, before: Expr, count: int, put: Put) -> None:
        w, g, stage, half = self.w, self.g, self.stage, self.half
        assert stage is not None
        assert half is not None
        with w.loop("c", count) as c:

            def across() -> AbstractContextManager[Expr]:
                return w.loop("k", lanes, None, "vector", self.width)

            def tap(i: int, j: Expr, k: Expr) -> Expr:
                place = ix.flatten((c, *g.tap((ix.const(i), j))), (count, *self.g.taps))
                return load(stage, (place, k))

            def write(i: Expr, j: int, k: Expr, value: Expr) -> None:
                put(ix.add(ix.mul(i, g.size[1]), j), ix.add(before, c), ix.add(k, part), value)

            nested(w, g.matrices("g"), half, across, tap, write)


def weights_call(
    problem: Contraction, plan: Plan, fused: Fused, width: int, name: str
) -> tuple[Temp, KernelCall]:
    """(temp, call): temp[group, point, (panel, channel, lane)] has the transformed weights.

    Lanes beyond the last result channel are left as they are.
    """
    g, lanes = plan.geometry, plan.lanes
    shape = (g.groups, g.points, plane(plan.all_panels * g.channels, lanes))
    temp = Temp("weights", TensorType(shape, problem.anchor.dtype))
    chunks = -(-g.channels // CHUNK)
    each = -(-chunks // max(1, min(chunks, MOST_TASKS // (g.groups * plan.all_panels))))
    shares = -(-chunks // each)
    task = Var(int64, "task", g.groups * plan.all_panels * shares)
    group, panel, share = ix.unflatten(task, (g.groups, plan.all_panels, shares))
    batch = ix.unflatten(group, problem.batch)
    first = ix.mul(share, each)

    def put(point: Expr, channel: Expr, lane: Expr, value: Expr) -> None:
        number = ix.add(ix.mul(first, CHUNK), channel)
        at = ix.flatten((panel, number, lane), (plan.all_panels, g.channels, lanes))
        fused.store_temp(temp, (group, point, at), value)

    weights = Weights(problem, g, fused, width)
    weights.room()
    weights.transform(batch, panel, lanes, first, ix.minimum(each, ix.sub(chunks, first)), each, put)
    return temp, fused.call(name, task, task.extent, 0.0)
