"""Convolutions at unit stride without packing: tiles read zero-padded planes of the source in place.

A task copies the planes of one image after another into scratch, between borders that stay zero. Outputs
are numbered along rows of the padded width, so that under every window tap the elements of neighbouring
outputs are neighbours: B of one tap is the plane itself, shifted. A tile therefore runs once per tap over
the channels, adding up; results that fall between the rows are computed and dropped.

Copying a plane once instead of once per tap pays where few output channels share a packed panel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from graphc.ir.partition import Group
from graphc.ir.types import Shape, int64
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Address, Buffer, Expr, Tile, Var, address, identity_of, load
from graphc.loop.lower.blocking import (
    CALL,
    LATENCY,
    SMALL,
    TASK,
    THREADS,
    choose_tile,
    idle,
    narrow_tile,
)
from graphc.loop.lower.fused import Fused, flat_buffer, place
from graphc.loop.lower.operand import Layout, probe
from graphc.loop.lower.pack import COPY, RUN
from graphc.loop.lower.problem import Contraction, Index
from graphc.loop.lower.stage import stage_call
from graphc.loop.lowered import KernelCall, Temp
from graphc.program import Machine

TASKS = 8  # tasks that images are shared out among; rows are only cut if there are fewer images
NEAR = 1 << 14  # bytes of A below which the order of its elements does not matter


@dataclass(frozen=True)
class Plan:
    """rows x lanes  the register tile
    plane            padded extents of a channel's plane, in elements
    wide             outputs of an image, those between the rows included
    axis             the axis of K that a tile runs over
    row_blocks       blocks of rows, each of `row_count` rows, that are tasks of their own
    images           images of a task
    """

    rows: int
    lanes: int
    plane: Shape
    wide: int
    axis: int
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
    axis = max(range(len(problem.depth)), key=lambda d: problem.depth[d])
    tiles = -(-m // rows)
    blocks = max(1, min(tiles, TASKS // (groups * images))) if groups * images < TASKS else 1
    count = min(m, -(-tiles // blocks) * rows)
    shared = -(-images // max(1, min(images, TASKS // groups)))
    plan = Plan(rows, lanes, plane, wide, axis, count, -(-m // count), shared)
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
    calls = k // problem.depth[plan.axis]
    tile = k * wide * max(plan.rows, LATENCY / vectors)
    tile += calls * plan.panels * (CALL + 2 * plan.rows * vectors)
    run = RUN + COPY * -(-space[-1] // width)
    lines = math.prod(space[:-1])
    each = -(-plan.row_count // plan.rows) * tile + problem.depth[0] * math.prod(plan.plane[:-1]) * run
    work = groups * images * (plan.row_blocks * each + m * lines * run)
    tasks = groups * plan.row_blocks * -(-images // plan.images)
    worth = min(THREADS[-1], max(1, int(problem.flops / SMALL)))
    return work * idle(tasks, worth) + TASK * tasks


def windows_calls(
    problem: Contraction, plan: Plan, group: Group, machine: Machine, name: str
) -> list[KernelCall]:
    """The kernels: one that brings A's elements in order, if need be, and the convolution."""
    find, width = (lambda a: place(group, flat_buffer, a)), machine.lanes(problem.anchor.dtype.itemsize)
    a = probe(find, problem.a, (problem.batch, problem.rows, problem.depth))
    strides = (*a.side, *a.depth)
    _, m, _, k = problem.sizes
    close = strides[1:][plan.axis] == math.prod(problem.depth[plan.axis + 1 :])
    in_place = a.direct and None not in strides
    calls = []
    staged = None
    if not (in_place and (close or m * k * problem.anchor.dtype.itemsize <= NEAR)):
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
        self.batch = ix.unflatten(self.flat_batch, self.p.batch) if self.p.batch else ()
        last = self.p.rows[0] - plan.row_count
        # blocks do not overlap, or two tasks would finish the same rows
        self.row0 = ix.mul(block, plan.row_count)
        self.first = ix.minimum(self.row0, last)
        channels, slack = self.p.depth[0], plan.lanes
        size = channels * math.prod(plan.plane)
        planes = w.alloc("planes", self.dtype, (-(-(size + slack) // slack) * slack,))
        sums = w.alloc("sums", self.dtype, (plan.row_count, plan.panels * plan.lanes))
        with w.loop("z", planes.shape[0], None, "vector", plan.lanes) as i:
            w.store(planes, (i,), identity_of("add", self.dtype))
        count = ix.minimum(plan.images, ix.sub(self.images, ix.mul(share, plan.images)))
        with w.loop("image", count, plan.images) as i:
            image = ix.add(ix.mul(share, plan.images), i)
            self._fill(planes, image)
            self._multiply(planes, sums)
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

    def _multiply(self, planes: Buffer, sums: Buffer) -> None:
        """sums[row, j] for the task's rows and all outputs j of the image."""
        plan, w = self.plan, self.w
        outer = [1 if d == plan.axis else extent for d, extent in enumerate(self.p.depth)]
        tiles = -(-plan.row_count // plan.rows)
        with w.loop("p", plan.panels) as panel, w.loop("t", tiles) as t:
            row = ix.minimum(ix.mul(t, plan.rows), plan.row_count - plan.rows)
            self._clear(sums, row, panel)
            with w.nest("k", tuple(outer)) as k:
                self._tiles(planes, sums, panel, row, k)

    def _clear(self, sums: Buffer, row: Expr, panel: Expr) -> None:
        w, lanes = self.w, self.plan.lanes
        with w.loop("r", self.plan.rows) as r, w.loop("j", lanes, None, "vector", lanes) as j:
            place = (ix.add(row, r), ix.add(ix.mul(panel, lanes), j))
            w.store(sums, place, identity_of("add", self.dtype))

    def _tiles(self, planes: Buffer, sums: Buffer, panel: Expr, row: Expr, k: Index) -> None:
        """Add one tap to a tile; the last panel may have a narrower one."""
        plan = self.plan
        last = narrow_tile(plan.wide, plan.lanes, self.width) or plan.lanes
        if last == plan.lanes or plan.panels == 1:
            self._tile(planes, sums, panel, row, k, last)
            return
        for lanes, op in ((plan.lanes, "lt"), (last, "eq")):
            with self.w.when(ix.compare(op, panel, plan.panels - 1)):
                self._tile(planes, sums, panel, row, k, lanes)

    def _tile(self, planes: Buffer, sums: Buffer, panel: Expr, row: Expr, k: Index, lanes: int) -> None:
        plan, window = self.plan, self.window
        shape = (self.p.depth[0], *plan.plane)
        back = [max(0, -(t - 1) * s) for t, s in zip(self.p.depth[1:], window.step, strict=True)]
        tap = [ix.add(ix.mul(t, s), b) for t, s, b in zip(k[1:], window.step, back, strict=True)]
        column = ix.mul(panel, plan.lanes)
        b = address(planes, (ix.add(ix.flatten((k[0], *tap), shape), column),))
        step = math.prod(plan.plane[plan.axis :]) * (1 if plan.axis == 0 else window.step[plan.axis - 1])
        a, a_row, a_step = self._rows_of_a(ix.add(self.first, row), k)
        pitch = sums.shape[1]
        extent = self.p.depth[plan.axis]
        self.w.put(
            Tile(plan.rows, lanes, ix.const(extent), a, ix.const(a_row), ix.const(a_step), b, ix.const(step),
                 address(sums, (row, column)), ix.const(pitch), accumulate=True)
        )  # fmt: skip

    def _rows_of_a(self, row: Expr, k: Index) -> tuple[Address, int, int]:
        """Where A has the element (row, k), and the strides to the next row and along the tile's axis."""
        axis = self.plan.axis
        if self.staged is not None:
            buffer = self.fused.buffer(self.staged)
            at = address(buffer, (self.flat_batch, row, ix.flatten(k, self.p.depth)))
            return at, buffer.shape[-1], math.prod(self.p.depth[axis + 1 :])
        where = place(self.fused.group, self.fused.buffer, self.p.a(self.batch, (row,), k))
        (a_row,), a_step = self.a.side, self.a.depth[axis]
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
