"""Convolutions at unit stride without packing: tiles read zero-padded planes of the source in place.

A task copies the planes of one image after another into scratch, between borders that stay zero. Outputs
are numbered along rows of the padded width, so that under every window tap the elements of neighbouring
outputs are neighbours: B of one tap is the plane itself, shifted. A tile walks over all channels and taps
by a table of how far each is from the one before; results that fall between the rows are computed and
dropped.

Copying a plane once instead of once per tap pays where few output channels share a packed panel.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from graphc.ir.partition import Group
from graphc.ir.types import Shape, int64
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Address, Buffer, Expr, Tile, Var, Walk, address, identity_of, load
from graphc.loop.lower.contraction.blocking import (
    BEYOND,
    CALL,
    LATENCY,
    LOAD,
    SMALL,
    TASK,
    THREADS,
    choose_tile,
    idle,
    narrow_tile,
    panel_lanes,
)
from graphc.loop.lower.contraction.fused import Fused, flat_buffer, place
from graphc.loop.lower.contraction.operand import Layout, along_columns, flat_stride, probe
from graphc.loop.lower.contraction.pack import COPY, GATHER, RUN, SCATTER
from graphc.loop.lower.contraction.problem import Contraction, Index
from graphc.loop.lower.contraction.stage import stage_call
from graphc.loop.lowered import KernelCall, Temp
from graphc.program import Machine

TASKS = 8  # tasks that images are shared out among; rows are only cut if there are fewer images
UNALIGNED = 2.0  # loads that a load of a vector across two cache lines costs


@dataclass(frozen=True)
class Plan:
    """rows x lanes  the register tile
    plane            padded extents of a channel's plane, in elements
    wide             outputs of an image, those between the rows included
    row_blocks       blocks of rows, each of `row_count` rows, that are tasks of their own
    images           images of a task
    """

    rows: int
    lanes: int
    plane: Shape
    wide: int
    row_count: int
    row_blocks: int
    images: int

    @property
    def panels(self) -> int:
        return -(-self.wide // self.lanes)


def plan_windows(problem: Contraction, machine: Machine) -> tuple[Plan, float] | None:
    """How to run a convolution in place, and its cost in cycles; None if it is none at unit stride, or too
    large to keep planes and sums in the second-level cache."""
    window, dtype = problem.window, problem.anchor.dtype
    space, taps = problem.cols[1:], problem.depth[1:]
    if window is None or not dtype.is_float or not math.prod(problem.depth) or math.prod(taps) == 1:
        return None
    plane = tuple(q + (t - 1) * abs(s) for q, t, s in zip(space, taps, window.step, strict=True))
    wide = 1 + sum((q - 1) * math.prod(plane[d + 1 :]) for d, q in enumerate(space))
    images, (groups, m, _, k) = problem.cols[0], problem.sizes
    rows, lanes = choose_tile(m, wide, k, machine, dtype.itemsize)
    tiles = -(-m // rows)
    blocks = max(1, min(tiles, TASKS // (groups * images))) if groups * images < TASKS else 1
    count = min(m, -(-tiles // blocks) * rows)
    shared = -(-images // max(1, min(images, TASKS // groups)))
    plan = Plan(rows, lanes, plane, wide, count, -(-m // count), shared)
    room = problem.depth[0] * math.prod(plane) + count * plan.panels * lanes
    if room * dtype.itemsize > machine.l2_bytes * 5 // 8:
        return None
    return plan, _cost(plan, problem, machine)


def _cost(plan: Plan, problem: Contraction, machine: Machine) -> float:
    """Cycles on one core, and what too few tasks lose."""
    width = machine.lanes(problem.anchor.dtype.itemsize)
    groups, m, _, k = problem.sizes
    images, space = problem.cols[0], problem.cols[1:]
    vectors = plan.lanes // width
    narrow = narrow_tile(plan.wide, plan.lanes, width)
    wide = plan.panels * vectors - (vectors - narrow // width if narrow else 0)
    tile = k * wide * max(plan.rows, LOAD * (plan.rows / vectors + UNALIGNED), LATENCY / vectors)
    tile += plan.panels * (CALL + 2 * plan.rows * vectors)
    run = RUN + COPY * -(-space[-1] // width)
    lines = math.prod(space[:-1])
    each = -(-plan.row_count // plan.rows) * tile + problem.depth[0] * math.prod(plan.plane[:-1]) * run
    far = problem.anchor.type.nbytes > BEYOND * machine.l2_bytes  # each phase fetches all lines of the result
    finished = run if along_columns(problem) else (SCATTER if far else GATHER) * space[-1]
    work = groups * images * (plan.row_blocks * each + m * lines * finished)
    tasks = groups * plan.row_blocks * -(-images // plan.images)
    worth = min(THREADS[-1], max(1, int(problem.flops / SMALL)))
    return work * idle(tasks, worth) + TASK * tasks


def windows_calls(
    problem: Contraction, plan: Plan, group: Group, machine: Machine, name: str
) -> list[KernelCall]:
    """The kernels: one that brings A's elements in order, if need be, and the convolution."""
    find, width = (lambda a: place(group, flat_buffer, a)), machine.lanes(problem.anchor.dtype.itemsize)
    a = probe(find, problem.a, (problem.batch, problem.rows, problem.depth))
    calls = []
    staged = None
    if not a.direct or flat_stride(a.depth, problem.depth) is None or None in a.side:
        staged, call = stage_call(problem, Fused(group, problem.anchor), width, f"{name}_rows")
        calls.append(call)
    kernel = _Windows(problem, plan, a, staged, Fused(group, problem.anchor), width)
    return [*calls, kernel.call(name)]


class _Windows:
    """Writes the kernel of a plan."""

    def __init__(
        self, problem: Contraction, plan: Plan, a: Layout, staged: Temp | None, fused: Fused, width: int
    ) -> None:
        assert problem.window is not None
        self.p, self.plan, self.a, self.staged, self.fused, self.width = (
            problem,
            plan,
            a,
            staged,
            fused,
            width,
        )
        self.window, self.w, self.dtype = problem.window, fused.scope, problem.anchor.dtype
        self.images, self.space = problem.cols[0], problem.cols[1:]
        # coordinate of the source at the start of a plane
        self.origin = tuple(
            base + min(0, (t - 1) * s)
            for base, t, s in zip(self.window.base, problem.depth[1:], self.window.step, strict=True)
        )

    def call(self, name: str) -> KernelCall:
        """The kernel and its arguments."""
        plan, w = self.plan, self.w
        groups = self.p.sizes[0]
        shares = -(-self.images // plan.images)
        task = Var(int64, "task", groups * shares * plan.row_blocks)
        self.flat_batch, share, block = ix.unflatten(task, (groups, shares, plan.row_blocks))
        self.batch = ix.unflatten(self.flat_batch, self.p.batch)
        last = self.p.rows[0] - plan.row_count
        # blocks do not overlap, or two tasks would finish the same rows
        self.row0 = ix.mul(block, plan.row_count)
        self.first = ix.minimum(self.row0, last)
        channels, slack = self.p.depth[0], plan.lanes
        size = channels * math.prod(plan.plane)
        planes = w.alloc("planes", self.dtype, (-(-(size + slack) // slack) * slack,))
        sums = w.alloc("sums", self.dtype, (plan.row_count, plan.panels * plan.lanes))
        walk = self._walk()
        with w.loop("z", planes.shape[0], None, "vector", plan.lanes) as i:
            w.store(planes, (i,), identity_of("add", self.dtype))
        count = ix.minimum(plan.images, ix.sub(self.images, ix.mul(share, plan.images)))
        with w.loop("image", count, plan.images) as i:
            image = ix.add(ix.mul(share, plan.images), i)
            self._fill(planes, image)
            self._multiply(planes, sums, walk)
            self._finish(sums, image)
        return self.fused.call(name, task, task.extent, self.p.flops)

    def _lanes(self, extent: int) -> int:
        """Lanes for rows of so many elements: short rows that are a vector of their own need no mask."""
        return extent if extent in (2, 4, 8) and extent < self.width else self.width

    def _fill(self, planes: Buffer, image: Expr) -> None:
        """The inside of every plane."""
        w, shape = self.w, (self.p.depth[0], *self.plan.plane)
        low = [max(0, -o) for o in self.origin]
        high = [
            min(p, e - o) for p, e, o in zip(self.plan.plane, self.window.extents, self.origin, strict=True)
        ]
        extents = [max(0, b - a) for a, b in zip(low, high, strict=True)]
        if not math.prod(extents):
            return
        with (
            w.nest("c", (shape[0], *extents[:-1])) as (channel, *outer),
            w.loop("x", extents[-1], None, "vector", self._lanes(extents[-1])) as x,
        ):
            at = [ix.add(i, a) for i, a in zip((*outer, x), low, strict=True)]
            # the tap and the output that meet at this place of the plane do not matter: the access is linear
            access = self.p.b(self.batch, (channel, *self._taps()), (image, *self._output(at)))
            value = self.fused.read(replace(access, bounds=()))
            w.store(planes, (ix.flatten((channel, *at), shape),), value)

    def _taps(self) -> Index:
        return (ZERO,) * len(self.space)

    def _output(self, at: list[Expr]) -> Index:
        """The (imaginary) output whose first tap lies at a place of the plane."""
        return tuple(
            ix.sub(i, max(0, -(t - 1) * s))
            for i, t, s in zip(at, self.p.depth[1:], self.window.step, strict=True)
        )

    def _walk(self) -> Buffer:
        """The table of steps from one (channel, tap) to the next."""
        w, plan, window = self.w, self.plan, self.window
        channels, *taps = self.p.depth
        far = [s * math.prod(plan.plane[d + 1 :]) for d, s in enumerate(window.step)]
        places = [
            sum(t * f for t, f in zip(tap, far, strict=True)) for tap in itertools.product(*map(range, taps))
        ]
        table = w.alloc("walk", int64, (channels * len(places),))
        with w.loop("c", channels) as c:
            first = ix.mul(c, len(places))
            for i, (here, after) in enumerate(itertools.pairwise(places)):
                w.store(table, (ix.add(first, i),), ix.const(after - here))
            end = ix.add(first, len(places) - 1)
            w.store(table, (end,), ix.const(math.prod(plan.plane) - places[-1]))
        return table

    def _multiply(self, planes: Buffer, sums: Buffer, walk: Buffer) -> None:
        """sums[row, j] for the task's rows and all outputs j of the image."""
        plan, w = self.plan, self.w
        tiles = -(-plan.row_count // plan.rows)
        with w.loop("p", plan.panels) as panel, w.loop("t", tiles) as t:
            row = ix.minimum(ix.mul(t, plan.rows), plan.row_count - plan.rows)
            for lanes in panel_lanes(w, panel, plan.wide, plan.lanes, self.width):
                self._tile(planes, sums, walk, panel, row, lanes)

    def _tile(self, planes: Buffer, sums: Buffer, walk: Buffer, panel: Expr, row: Expr, lanes: int) -> None:
        """The results of some rows in a panel, over all of K."""
        plan, window = self.plan, self.window
        back = [max(0, -(t - 1) * s) for t, s in zip(self.p.depth[1:], window.step, strict=True)]
        column = ix.mul(panel, plan.lanes)
        b = address(planes, (ix.add(ix.flatten([ix.const(x) for x in back], plan.plane), column),))
        a, a_row, a_step = self._rows_of_a(ix.add(self.first, row))
        self.w.put(
            Tile(plan.rows, lanes, ix.const(self.p.sizes[3]), a, ix.const(a_row), ix.const(a_step), b, ZERO,
                 address(sums, (row, column)), ix.const(sums.shape[1]), False,
                 walk=Walk(address(walk, (ZERO,)), "b"))
        )  # fmt: skip

    def _rows_of_a(self, row: Expr) -> tuple[Address, int, int]:
        """Where A has a row, and the strides to the next row and from one step of K to the next."""
        if self.staged is not None:
            buffer = self.fused.buffer(self.staged)
            return address(buffer, (self.flat_batch, row, ZERO)), buffer.shape[-1], 1
        first = (ZERO,) * len(self.p.depth)
        where = place(self.fused.group, self.fused.buffer, self.p.a(self.batch, (row,), first))
        (a_row,), a_step = self.a.side, flat_stride(self.a.depth, self.p.depth)
        assert where is not None
        assert a_row is not None
        assert a_step is not None
        return address(where.buffer, where.index), a_row, a_step

    def _finish(self, sums: Buffer, image: Expr) -> None:
        """The epilogue: rows of outputs, without the elements between them."""
        w, plan = self.w, self.plan
        again = ix.sub(self.row0, self.first)  # rows that are another task's to finish
        with (
            w.loop("r", ix.sub(plan.row_count, again), plan.row_count) as i,
            w.nest("y", self.space[:-1]) as outer,
            w.loop("x", self.space[-1], None, "vector", self._lanes(self.space[-1])) as x,
        ):
            r = ix.add(again, i)
            value = load(sums, (r, ix.flatten((*outer, x), plan.plane)))
            self.fused.finish(self.p.c(self.batch, (ix.add(self.first, r),), (image, *outer, x)), value)
