"""Groups around a dot_general, a convolution or a convolution's gradient: which way to compute it.

A problem in canonical form (`contraction.problem`) has many: plain loops, tiles on packed panels, dot
products or scaled rows where operands lie, planes or bands of an image, Winograd's algorithm. Each `_as_...`
plans one and says what it costs in cycles of one core, or None where it does not apply; the cheapest writes
its kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial

from graphc.ir.graph import toposort
from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.loop import index as ix
from graphc.loop.lower.contraction.blocking import choose_blocks, choose_gate_tile, combining, packing
from graphc.loop.lower.contraction.cells import Cells, cells_of, interleaved
from graphc.loop.lower.contraction.columns import flat_columns
from graphc.loop.lower.contraction.direct import choose_form, direct_call
from graphc.loop.lower.contraction.dots import dots_call, plan_dots
from graphc.loop.lower.contraction.fetch import between_uses, worth_fetching
from graphc.loop.lower.contraction.fused import Fused, flat_buffer, place
from graphc.loop.lower.contraction.long_dots import long_dots_call
from graphc.loop.lower.contraction.merge import images_apart, merged
from graphc.loop.lower.contraction.operand import (
    Layout,
    Strides,
    along_rows,
    columns_layout,
    flat_from,
    flat_stride,
    probe,
    run_length,
    symbols,
)
from graphc.loop.lower.contraction.pack import CLIPPED_RUN, SCATTER, run_cost
from graphc.loop.lower.contraction.panels import choose_way
from graphc.loop.lower.contraction.plain import plain_pitch
from graphc.loop.lower.contraction.prepack import depends_only_on, prepack_call
from graphc.loop.lower.contraction.problem import Contraction, dot_problem
from graphc.loop.lower.contraction.scaled import Scaled, plan_scaled
from graphc.loop.lower.contraction.sizes import Blocking, Sizes, Source
from graphc.loop.lower.contraction.split import combine_call
from graphc.loop.lower.contraction.stage import stage_across_call, stage_call
from graphc.loop.lower.contraction.streamed import choose_streamed
from graphc.loop.lower.contraction.supply import even_pitch, pitch_in_place
from graphc.loop.lower.contraction.tiled import Tiled
from graphc.loop.lower.convolution import channels
from graphc.loop.lower.convolution.as_contraction import conv_problems
from graphc.loop.lower.convolution.band_kernel import band_calls
from graphc.loop.lower.convolution.bands import plan_bands
from graphc.loop.lower.convolution.depthwise.choose import depthwise_calls, depthwise_cost
from graphc.loop.lower.convolution.grouped import grouped_weight_calls
from graphc.loop.lower.convolution.pad import pad_call, worth_padding
from graphc.loop.lower.convolution.phases import phases_as_channels, split_call, worth_splitting
from graphc.loop.lower.convolution.spread import close_group, spread_call
from graphc.loop.lower.convolution.weight_bands import plan_weight_bands, weight_band_calls
from graphc.loop.lower.convolution.windows import plan_windows, windows_calls
from graphc.loop.lower.convolution.winograd.choose import plan_winograd
from graphc.loop.lower.convolution.winograd.kernels import winograd_calls
from graphc.loop.lower.convolution.winograd.planes import on_planes
from graphc.loop.lower.convolution.winograd.volumes import is_volume, slice_call, sliced, slicing
from graphc.loop.lower.convolution.winograd.weight_grad import weight_grad_calls
from graphc.loop.lower.convolution.winograd.weight_plan import plan_weight_grad
from graphc.loop.lowered import KernelCall, Temp, Value, with_args
from graphc.program import Machine

TRANSPOSED = 1.0  # the same if it is along the rows: blocks are transposed in registers
FAR = 0.25  # cycles more to pack an element from beyond the second-level cache
WORTH = 0.93  # part of the cost at which a kernel more is worth it
SEVERAL = 0.8  # part of the cost of one kernel at which one for each phase is worth compiling them
CLEARLY = 0.85  # part of the cost at which less exact results are worth it
LITTLE = 3e7  # flops below which Winograd's kernels do not make up for the time it takes to compile them
LANES = 4  # vectors of a usual tile
THIN = 2  # with fewer rows or columns there is nothing to tile


@dataclass(frozen=True, eq=False)
class Repeated:
    """Kernels of a group that runs many times: `once` go before the first time, `each` are run every time."""

    once: tuple[KernelCall, ...]
    each: tuple[KernelCall, ...]


def lower_contraction(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    """The kernels of a group with exactly one contraction or convolution; its other members are views
    and casts of operands, and elementwise users of the result (with the shape of the result)."""
    repeated = repeated_contraction(group, machine, frozenset())
    return (*repeated.once, *repeated.each)


def repeated_contraction(group: Group, machine: Machine, fixed: Set[Node]) -> Repeated:
    """`lower_contraction` for a group that runs many times, always with the same values of its `fixed`
    inputs: copies of operands that follow from them are made once."""
    anchor = anchor_of(group)
    if (calls := depthwise_calls(group, anchor, machine)) is not None:
        return Repeated((), calls)
    if (calls := grouped_weight_calls(group, anchor, machine)) is not None:
        return Repeated((), calls)
    if anchor.kind is Kind.CONV and channels.is_direct(anchor):
        before, call = channels.direct_calls(group, anchor, machine)
        ahead = depends_only_on(anchor.inputs[1], group, fixed)
        return Repeated((before,), (call,)) if ahead else Repeated((), (before, call))
    if (close := close_group(group, anchor)) is not None:
        return _spread(group, anchor, close, machine, fixed)
    problems = (dot_problem(anchor),) if anchor.kind is Kind.CONTRACT else conv_problems(anchor)
    lowering = _Lowering(group, anchor, machine, fixed)
    lowering.lower(problems)
    return Repeated(tuple(lowering.once), tuple(lowering.each))


def forward_cost(anchor: Node, machine: Machine, fixed: bool) -> float:
    """Cycles on one core that a forward convolution takes by itself; `fixed`: its weight is the same each
    time."""
    if channels.is_direct(anchor):
        return channels.direct_cost(anchor, machine)
    if (planes := depthwise_cost(anchor, machine)) is not None:
        return planes
    x, w = anchor.inputs
    lowering = _Lowering(Group((anchor,), (x, w), (anchor,)), anchor, machine, {w} if fixed else set())
    problems = conv_problems(anchor)
    return lowering._cheapest(lowering._as_contraction(problems[0]), lowering._as_bands(problems))[0]


def _spread(group: Group, anchor: Node, close: Group, machine: Machine, fixed: Set[Node]) -> Repeated:
    """The kernels of a gradient that is mostly zeros: those of its other elements, then the whole of it."""
    before = repeated_contraction(close, machine, fixed)
    temp, call = spread_call(group, anchor, machine)
    (made,) = close.outputs

    def value(x: Value) -> Value:
        return temp if x is made else x

    return Repeated(with_args(before.once, value), (*with_args(before.each, value), call))


def anchor_of(group: Group) -> Node:
    """The contraction of a group."""
    (anchor,) = (n for n in group.nodes if n.kind in (Kind.CONTRACT, Kind.CONV))
    return anchor


_Option = tuple[float, Callable[[], object]]  # its cost in cycles, and what adds its kernels


@dataclass(frozen=True, eq=False)
class _Way:
    """One orientation of a problem, with what is known about its memory."""

    problem: Contraction
    a: Layout
    b: Layout
    c: tuple[Strides, Strides]  # strides of the result along rows and columns
    a_fixed: bool  # A, B are the same each time
    b_fixed: bool


class _Lowering:
    """Lowers the problems of one group; `once` and `each` are the kernels so far."""

    def __init__(self, group: Group, anchor: Node, machine: Machine, fixed: Set[Node]) -> None:
        self.group, self.anchor, self.machine, self.fixed = group, anchor, machine, fixed
        self.name = anchor.op.name
        self.width = machine.lanes(anchor.dtype.itemsize)
        self.find = partial(place, group, flat_buffer)
        self.cells = cells_of(group, anchor)
        self.beside = _beside(group, anchor) if anchor.kind is Kind.CONTRACT else 0
        self.once: list[KernelCall] = []
        self.each: list[KernelCall] = []

    def lower(self, problems: Sequence[Contraction]) -> None:
        """Add the kernels of the problems that together make the anchor: of all ways the cheapest."""
        some = [p for p in problems if math.prod((*p.batch, *p.rows, *p.cols))]
        if not self.anchor.type.size or not some:
            return
        each = [self._cheapest(self._as_contraction(p), self._as_winograd_weights(p)) for p in some]
        clearly = SEVERAL if len(each) > 1 else 1.0
        apart = sum(cost for cost, _ in each) / clearly, lambda: [put() for _, put in each]
        _, put = self._cheapest(apart, self._as_bands(problems), self._as_weight_bands(problems[0]))
        put()

    def _cheapest(self, *options: _Option | None) -> _Option:
        return min((o for o in options if o is not None), key=lambda option: option[0])

    def _as_bands(self, problems: Sequence[Contraction]) -> _Option | None:
        """A convolution or its input gradient, all phases of it, on bands of rows."""
        found = plan_bands(self.anchor, self.machine) if self.anchor.kind is Kind.CONV else None
        if found is None:
            return None

        def put() -> None:
            before, call = band_calls(self.group, self.anchor, problems, found[0], self.width, self.name)
            (self.once if self._is_fixed(self.anchor.inputs[1]) else self.each).extend(before)
            self.each.append(call)

        return found[1], put

    def _as_contraction(self, problem: Contraction) -> _Option:
        """The cheapest way to compute the results one by one or in tiles."""
        ahead: list[KernelCall] = []
        filtered: Contraction | None = problem
        if worth_splitting(problem):
            problem, call = split_call(problem, self._fused(), self.width, f"{self.name}_phases")
            ahead.append(call)
            filtered = phases_as_channels(problem)
        elif worth_padding(problem):
            problem, call = pad_call(problem, self._fused(), self.width, f"{self.name}_pad")
            ahead.append(call)
        whole, problem = problem, merged(problem, self.find)
        ways = [self._way(problem), self._way(problem.swapped())]
        if self.cells is not None:
            del ways[1]
        options = [self._as_loops(ways), self._as_windows(whole), self._as_winograd(filtered)]
        for way in ways:
            options += [self._as_tiles(way), self._as_dots(way), self._as_scaled(way)]
        options.append(self._as_tiles_apart(problem))
        cost, put = self._cheapest(*options)

        def put_all() -> None:
            self.each.extend(ahead)
            put()

        return cost, put_all

    def _as_weight_bands(self, problem: Contraction) -> _Option | None:
        """A weight gradient on bands of rows."""
        found = plan_weight_bands(self.anchor, self.machine) if self.anchor.kind is Kind.CONV else None
        if found is None:
            return None

        def put() -> None:
            self.each.extend(weight_band_calls(self.group, problem, found[0], self.width, self.name))

        return found[1], put

    def _as_loops(self, ways: Sequence[_Way]) -> _Option:
        """Plain loops; with one way only, columns stay columns."""
        problem, swap = ways[0].problem, len(ways) > 1
        form = choose_form(problem, ways[0].a, ways[0].b, _last(ways[0].c), self.machine, swap)

        def put() -> None:
            call = direct_call(problem, form, self._fused(), self.machine, self.name, self.cells)
            self.each.append(call)

        return form.cost * math.prod(problem.sizes), put

    def _as_tiles(self, way: _Way) -> _Option | None:
        """The register tile on packed operands."""
        _, m, n, k = way.problem.sizes
        thin = min(m, n) < THIN and not way.b_fixed and self.cells is None
        if not self.anchor.dtype.is_float or not k or thin:
            return None
        sizes = self._sizes(way)
        if self.cells is not None:
            way, sizes = self._gated(way, sizes, self.cells)
        blocking, cost = choose_blocks(sizes, self.machine)
        if way.b_fixed:
            return cost, partial(self._tiled, way, blocking, True)
        if sizes.b_pitch is not None:
            there, total = choose_blocks(replace(sizes, b_place=True), self.machine)
            if total < cost:
                blocking, cost = there, total
        streamed = None
        if self.cells is None and worth_fetching(way.problem, self.machine):
            streamed = choose_streamed(sizes, self.machine)
        if streamed is not None and streamed[1] < cost:
            return streamed[1], partial(self._tiled, way, streamed[0], False)
        if blocking.row_tiles * blocking.rows < sizes.rows:  # several tasks would pack the same
            ahead, after = choose_blocks(replace(sizes, b_fixed=True), self.machine)
            total = packing(sizes, ahead, self.machine) + after
            if total < WORTH * cost:
                return total, partial(self._tiled, way, ahead, True)
        return cost, partial(self._tiled, way, blocking, False)

    def _as_tiles_apart(self, problem: Contraction) -> _Option | None:
        """The tile image by image, where each image's pixels are one run in B and in the result: B is read,
        and results are stored, where they are."""
        if (
            self.cells is not None
            or len(problem.cols) < 2
            or not problem.flops
            or not self.anchor.dtype.is_float
        ):
            return None
        way = self._way(images_apart(problem))
        sizes = self._sizes(way)
        if sizes.b_pitch is None or way.b_fixed:
            return None
        blocking, cost = choose_blocks(replace(sizes, b_place=True), self.machine)
        return cost, partial(self._tiled, way, blocking, False)

    def _gated(self, way: _Way, sizes: Sizes, cells: Cells) -> tuple[_Way, Sizes]:
        """The way with all gates of a cell in the panels of one task."""
        gates = cells.gates(self.anchor)
        assert gates is not None
        if gates == 1:
            return way, replace(sizes, together=1)
        tile, together = choose_gate_tile(
            sizes.rows, cells.inner, gates, sizes.k, self.machine, sizes.itemsize, sizes.a_pitch
        )
        way = self._way(interleaved(way.problem, cells, tile[1] * together // gates))
        return way, replace(self._sizes(way), tile=tile, together=together)

    def _as_dots(self, way: _Way) -> _Option | None:
        """Dot products of operands where they are."""
        plan = plan_dots(way.problem, way.a, way.b, self.machine, self.cells)
        if plan is None:
            return None

        def put() -> None:
            write = long_dots_call if plan.part else dots_call
            self.each.append(write(way.problem, plan, self._fused(), self.machine, self.name, self.cells))

        return plan.cost * math.prod(way.problem.sizes), put

    def _as_scaled(self, way: _Way) -> _Option | None:
        """Sums of scaled rows of B where it is."""
        plan = plan_scaled(way.problem, way.a, way.b, self.machine, self.cells)
        if plan is None:
            return None

        def put() -> None:
            kernel = Scaled(way.problem, plan, self._fused(), self.machine, self.cells)
            self.each.append(kernel.call(self.name))
            if kernel.partial is not None:
                self._combine(way.problem, kernel.partial)

        cost = plan.cost * math.prod(way.problem.sizes)
        return cost + (combining(math.prod(way.problem.sizes[:3]), plan.splits)), put

    def _combine(self, problem: Contraction, partial: Temp, flat: bool = False) -> None:
        """The kernel that adds up the parts of a problem whose K is shared out."""
        name = f"{self.name}_combine"
        self.each.append(combine_call(problem, partial, self._fused(), self.width, name, flat))

    def _as_windows(self, problem: Contraction) -> _Option | None:
        """A convolution on padded planes."""
        found = plan_windows(problem, self.machine)
        if found is None:
            return None

        def put() -> None:
            self.each.extend(windows_calls(problem, found[0], self.group, self.machine, self.name))

        return found[1], put

    def _as_winograd_weights(self, problem: Contraction) -> _Option | None:
        """A weight gradient by Winograd's algorithm."""
        if problem.flops < LITTLE:
            return None
        found = plan_weight_grad(self.anchor, self.machine)
        if found is None:
            return None
        plan, cost = found
        return cost / CLEARLY, lambda: self.each.extend(weight_grad_calls(self.anchor, plan, self.group))

    def _as_winograd(self, problem: Contraction | None) -> _Option | None:
        """A convolution with fewer multiplications. Its rounding errors are larger: it must pay clearly."""
        if problem is None or problem.window is None or problem.flops < LITTLE:
            return None
        weights = problem.a(*(symbols("q", s) for s in (problem.batch, problem.rows, problem.depth))).node
        fixed = self._is_fixed(weights)
        problem, around = on_planes(problem, self.machine)
        volume = is_volume(problem, self.width)
        around += slicing(problem, self.width) if volume else 0.0
        found = plan_winograd(sliced(problem) if volume else problem, self.machine, fixed)
        if found is None:
            return None

        def put() -> None:
            used = problem
            if volume:
                used, call = slice_call(problem, self._fused(), self.width, f"{self.name}_slices")
                self.each.append(call)
            once, each = winograd_calls(used, found[0], self.group, self.machine, self.name)
            (self.once if fixed else self.each).extend(once)
            self.each.extend(each)

        return (found[1] + around) / CLEARLY, put

    def _fused(self) -> Fused:
        return Fused(self.group, self.anchor)

    def _way(self, problem: Contraction) -> _Way:
        at = symbols("b", problem.batch), symbols("m", problem.rows), symbols("n", problem.cols)
        depth = symbols("k", problem.depth)
        a = probe(self.find, problem.a, (problem.batch, problem.rows, problem.depth))
        b = columns_layout(self.find, problem)
        out = ix.flatten(problem.c(*at), self.anchor.shape)
        c = tuple(ix.linear(out, v) for v in at[1]), tuple(ix.linear(out, v) for v in at[2])
        operands = problem.a(at[0], at[1], depth).node, problem.b(at[0], depth, at[2]).node
        return _Way(problem, a, b, c, *[self._is_fixed(x) for x in operands])

    def _is_fixed(self, operand: Node | Temp) -> bool:
        if not self.fixed or not isinstance(operand, Node):
            return False
        return depends_only_on(operand, self.group, self.fixed)

    def _sizes(self, way: _Way) -> Sizes:
        p, width = way.problem, self.width
        batch, m, n, _ = p.sizes
        pitch = flat_stride(way.a.side, p.rows) if way.a.direct else None
        itemsize = p.anchor.dtype.itemsize
        first = flat_from(way.a.depth, p.depth)
        step = flat_stride(way.a.depth[first:], p.depth[first:])
        pitch = None if pitch is None or step is None else pitch * itemsize
        a_runs = list(zip(p.depth[-1:], way.a.depth[-1:], strict=True))
        a_runs += zip(p.rows, way.a.side, strict=True) if len(p.rows) == 1 else ()
        run = p.cols[-1] if p.cols and _last(way.c)[1] == 1 else 0
        run = n if flat_columns(p.cols, way.c[1]) else run
        if p.a(*(symbols("q", s) for s in (p.batch, p.rows, p.depth))).bounds:
            a_cost = stage_cost = run_cost(a_runs, width, CLIPPED_RUN, CLIPPED_RUN)
        else:
            a_cost = run_cost(a_runs, width)
            stage_cost = run_cost([(run_length(way.a.depth, p.depth), 1), *a_runs], width)
        if way.a.across:
            stage_cost = run_cost([(p.rows[-1], 1)], width, CLIPPED_RUN, CLIPPED_RUN)
        far = FAR if between_uses(p) * itemsize > self.machine.l2_bytes else 0.0
        b_pitch = pitch_in_place(p, way.b, width)
        return Sizes(
            batch,
            m,
            n,
            p.depth,
            itemsize,
            a_cost,
            stage_cost,
            pitch,
            first,
            abs(step or 0) * itemsize,
            choose_way(p, way.b, LANES * width, width)[1] + far,
            run_cost([(run, 1)] if run else (), width, TRANSPOSED if along_rows(p) else SCATTER),
            way.a_fixed,
            way.b_fixed,
            beside=self.beside,
            added_cost=run_cost([(run, 1)] if run else (), width, SCATTER),
            b_pitch=None if b_pitch is None else b_pitch * itemsize,
            b_once=even_pitch(p, way.b) is not None,
            b_far=far,
            alike=math.prod(p.batch[len(p.a_batch) :]),
        )

    def _tiled(self, way: _Way, blocking: Blocking, ahead: bool) -> None:
        """Add the kernels of a blocking; `ahead`: B is packed by a kernel of its own."""
        problem, width, name = way.problem, self.width, self.name
        staged = packed = None
        if blocking.source is Source.KERNEL:
            stage = stage_across_call if way.a.across else stage_call
            staged, call = stage(problem, self._fused(), width, f"{name}_rows")
            (self.once if way.a_fixed else self.each).append(call)
        if ahead:
            packed, call = prepack_call(
                problem, way.b, self._fused(), blocking.lanes, width, f"{name}_panels"
            )
            (self.once if way.b_fixed else self.each).append(call)
        flat = flat_columns(problem.cols, way.c[1])
        fetching = worth_fetching(problem, self.machine)
        plain = None if self.cells else plain_pitch(self.group, problem, blocking, way.c, width)
        tiled = Tiled(
            problem,
            blocking,
            way.a,
            way.b,
            self._fused(),
            width,
            staged,
            flat,
            packed,
            self.cells,
            fetching,
            plain,
        )
        self.each.append(tiled.call(name))
        if tiled.partial is not None:
            self._combine(problem, tiled.partial, flat)


def _beside(group: Group, anchor: Node) -> int:
    """How many arrays of the result's size the epilogue reads or writes, the result itself not counted."""
    before = set(toposort([anchor], group.inputs))
    read = {x for node in group.nodes if node not in before for x in node.inputs if x in group.inputs}
    return sum(x.type.size == anchor.type.size for x in (*read, *group.outputs)) - 1


def _last(c: tuple[Strides, Strides]) -> tuple[int | None, int | None]:
    rows, cols = c
    return rows[-1] if rows else None, cols[-1] if cols else None
