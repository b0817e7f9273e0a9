"""Lowering of groups around a dot_general, a convolution or a convolution's gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from graphc.ir.node import Kind, Node
from graphc.ir.partition import Group
from graphc.loop import index as ix
from graphc.loop.lower.blocking import Blocking, Sizes, Source, choose_blocks
from graphc.loop.lower.columns import flat_columns
from graphc.loop.lower.conv import conv_problems
from graphc.loop.lower.direct import choose_form, direct_call
from graphc.loop.lower.fused import Fused, flat_buffer, place
from graphc.loop.lower.merge import merged
from graphc.loop.lower.operand import Layout, Strides, flat_stride, probe, run_length, symbols
from graphc.loop.lower.pack import CLIPPED_RUN, run_cost
from graphc.loop.lower.pad import pad_call, worth_padding
from graphc.loop.lower.panels import choose_way
from graphc.loop.lower.problem import Contraction, dot_problem
from graphc.loop.lower.split import combine_call
from graphc.loop.lower.stage import stage_call
from graphc.loop.lower.tiled import Tiled
from graphc.loop.lower.windows import plan_windows, windows_calls
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

SCATTER = 3.0  # cycles to store a result of a run that is not contiguous
LANES = 4  # vectors of a usual tile
THIN = 2  # with fewer rows or columns there is nothing to tile


def lower_contraction(group: Group, machine: Machine) -> tuple[KernelCall, ...]:
    """The kernels of a group with exactly one contraction or convolution; its other members are views
    and casts of operands, and elementwise users of the result (with the shape of the result)."""
    anchor = anchor_of(group)
    problems = (dot_problem(anchor),) if anchor.kind is Kind.CONTRACT else conv_problems(anchor)
    calls: list[KernelCall] = []
    for problem in problems:
        if worth_padding(problem):
            width = machine.lanes(anchor.dtype.itemsize)
            problem, call = pad_call(problem, Fused(group, anchor), width, f"{anchor.op.name}_pad")
            calls.append(call)
        calls += _lower(problem, group, machine)
    return tuple(calls)


def anchor_of(group: Group) -> Node:
    """The contraction of a group."""
    (anchor,) = (n for n in group.nodes if n.kind in (Kind.CONTRACT, Kind.CONV))
    return anchor


@dataclass(frozen=True, eq=False)
class _Way:
    """One orientation of a problem, with what is known about its memory."""

    problem: Contraction
    a: Layout
    b: Layout
    c: tuple[Strides, Strides]  # strides of the result along rows and columns


def _lower(problem: Contraction, group: Group, machine: Machine) -> list[KernelCall]:
    if not problem.anchor.type.size or not math.prod((*problem.batch, *problem.rows, *problem.cols)):
        return []
    name = problem.anchor.op.name
    windows = plan_windows(problem, machine)
    whole, problem = problem, merged(problem, partial(place, group, flat_buffer))
    ways = [_way(problem, group), _way(problem.swapped(), group)]
    form = choose_form(problem, ways[0].a, ways[0].b, _last(ways[0].c), machine)
    _, m, n, k = problem.sizes
    tileable = problem.anchor.dtype.is_float and k > 0
    if tileable and min(m, n) >= THIN:
        chosen = [(way, *choose_blocks(_sizes(way, machine), machine)) for way in ways]
        way, blocking, cost = min(chosen, key=lambda c: c[2])
        if windows is not None and windows[1] < min(cost, form.cost * math.prod(problem.sizes)):
            return windows_calls(whole, windows[0], group, machine, name)
        if cost < form.cost * math.prod(problem.sizes):
            return _tiled(way, blocking, group, machine, name)
    return [direct_call(problem, form, Fused(group, problem.anchor), machine, name)]


def _way(problem: Contraction, group: Group) -> _Way:
    find = partial(place, group, flat_buffer)
    shapes = (problem.batch, problem.rows, problem.depth)
    a = probe(find, problem.a, shapes)
    b = probe(
        find,
        lambda batch, col, depth: problem.b(batch, depth, col),
        (problem.batch, problem.cols, problem.depth),
    )
    batch, row, col = symbols("b", problem.batch), symbols("m", problem.rows), symbols("n", problem.cols)
    out = ix.flatten(problem.c(batch, row, col), problem.anchor.shape)
    c = tuple(ix.linear(out, v) for v in row), tuple(ix.linear(out, v) for v in col)
    return _Way(problem, a, b, c)


def _last(c: tuple[Strides, Strides]) -> tuple[int | None, int | None]:
    rows, cols = c
    return rows[-1] if rows else None, cols[-1] if cols else None


def _sizes(way: _Way, machine: Machine) -> Sizes:
    p = way.problem
    batch, m, n, _ = p.sizes
    in_place = (
        way.a.direct
        and flat_stride(way.a.side, p.rows) is not None
        and flat_stride(way.a.depth, p.depth) is not None
    )
    width = machine.lanes(p.anchor.dtype.itemsize)
    a_runs = list(zip(p.depth[-1:], way.a.depth[-1:], strict=True))
    a_runs += zip(p.rows, way.a.side, strict=True) if len(p.rows) == 1 else ()
    run = p.cols[-1] if p.cols and _last(way.c)[1] == 1 else 0
    run = n if flat_columns(p.cols, way.c[1]) else run
    if p.a(*(symbols("q", s) for s in (p.batch, p.rows, p.depth))).bounds:
        a_cost = stage_cost = run_cost(a_runs, width, CLIPPED_RUN, CLIPPED_RUN)
    else:
        a_cost = run_cost(a_runs, width)
        stage_cost = run_cost([(run_length(way.a.depth, p.depth), 1), *a_runs], width)
    return Sizes(
        batch,
        m,
        n,
        p.depth,
        p.anchor.dtype.itemsize,
        a_cost,
        stage_cost,
        in_place,
        choose_way(p, way.b, LANES * width, width)[1],
        run_cost([(run, 1)] if run else (), width, SCATTER),
    )


def _tiled(way: _Way, blocking: Blocking, group: Group, machine: Machine, name: str) -> list[KernelCall]:
    problem = way.problem
    width = machine.lanes(problem.anchor.dtype.itemsize)
    calls = []
    staged = None
    if blocking.source is Source.KERNEL:
        staged, call = stage_call(problem, Fused(group, problem.anchor), width, f"{name}_rows")
        calls.append(call)
    flat = flat_columns(problem.cols, way.c[1])
    tiled = Tiled(problem, blocking, way.a, way.b, Fused(group, problem.anchor), width, staged, flat)
    calls.append(tiled.call(name))
    if tiled.partial is not None:
        fused = Fused(group, problem.anchor)
        calls.append(combine_call(problem, tiled.partial, fused, width, f"{name}_combine", flat))
    return calls
