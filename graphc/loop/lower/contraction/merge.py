"""Fewer, longer axes: axes of one element are dropped, and neighbours that lie one after the other in
every operand (the pixels of a 1x1 convolution, the leading axes of a batch of rows) become one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import replace

from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Expr, Load, Var
from graphc.loop.lower.contraction.operand import symbols
from graphc.loop.lower.contraction.problem import Access, Contraction, Index

Find = Callable[[Access], Load | None]


def merged(problem: Contraction, find: Find) -> Contraction:
    """The same problem with as few axes as its memory allows; `find` reads an operand element."""
    at = {side: symbols(side, getattr(problem, side)) for side in ("batch", "rows", "cols", "depth")}
    a = problem.a(at["batch"], at["rows"], at["depth"])
    b = problem.b(at["batch"], at["depth"], at["cols"])
    c = ix.flatten(problem.c(at["batch"], at["rows"], at["cols"]), problem.anchor.shape)
    offsets: list[Expr | None] = [c]
    fixed: set[Expr] = set()  # axes that bounds depend on
    for access in (a, b):
        load = find(access)
        offsets.append(None if load is None else ix.flatten(load.index, load.buffer.shape))
        for coordinate, _ in access.bounds:
            fixed |= ix.variables(coordinate)
    ways = {side: merged_axes(axes, offsets, fixed) for side, axes in at.items()}
    old_a, old_b, old_c = problem.a, problem.b, problem.c
    batch, rows, cols, depth = (ways[side][1] for side in ("batch", "rows", "cols", "depth"))
    steps = ways["depth"][0]
    if not steps:  # K has an axis, if only of one step
        steps, depth = (1,), lambda index: (ZERO,) * len(problem.depth)
    return replace(
        problem,
        batch=ways["batch"][0],
        rows=ways["rows"][0],
        cols=ways["cols"][0],
        depth=steps,
        a=lambda b, m, k: old_a(batch(b), rows(m), depth(k)),
        b=lambda b, k, n: old_b(batch(b), depth(k), cols(n)),
        c=lambda b, m, n: old_c(batch(b), rows(m), cols(n)),
        window=None,
    )


def merged_axes(
    axes: Sequence[Var], offsets: Sequence[Expr | None], fixed: Set[Expr]
) -> tuple[Shape, Callable[[Index], Index]]:
    """(extents, expand): the merged axes, and the map from an index of them to one of `axes`.

    offsets  the places of the operands' elements, None if unknown
    fixed    axes to keep apart
    """
    runs: list[list[Var]] = []
    for axis in axes:
        if axis.extent == 1:
            continue
        if runs and _follows(runs[-1][-1], axis, offsets, fixed):
            runs[-1].append(axis)
        else:
            runs.append([axis])

    def expand(index: Index) -> Index:
        full: dict[Expr, Expr] = {}
        for position, run in zip(index, runs, strict=True):
            full.update(zip(run, ix.unflatten(position, [v.extent for v in run]), strict=True))
        return tuple([full.get(v, ZERO) for v in axes])

    return tuple([math.prod(v.extent for v in run) for run in runs]), expand


def _follows(outer: Var, inner: Var, offsets: Sequence[Expr | None], fixed: Set[Expr]) -> bool:
    if outer in fixed or inner in fixed or not inner.extent:  # nothing lies in an axis of no steps
        return False
    for offset in offsets:
        if offset is None:
            return False
        step, small = ix.linear(offset, outer), ix.linear(offset, inner)
        if step is None or small is None or step != small * inner.extent:
            return False
    return True


def images_apart(problem: Contraction) -> Contraction:
    """The same problem with all column axes but the last among the batch axes: columns are one run then."""
    lead, outer = len(problem.batch), len(problem.cols) - 1
    old_a, old_b, old_c = problem.a, problem.b, problem.c
    return replace(
        problem,
        batch=(*problem.batch, *problem.cols[:outer]),
        cols=problem.cols[outer:],
        a=lambda b, m, k: old_a(b[:lead], m, k),
        b=lambda b, k, n: old_b(b[:lead], k, (*b[lead:], *n)),
        c=lambda b, m, n: old_c(b[:lead], m, (*b[lead:], *n)),
        window=None,
        alike=outer,
    )
