"""The cheapest plan for a convolution by Winograd's algorithm, by a cost model in cycles of one core that is
comparable with those of the direct kernels (blocking.py, windows.py).

Candidates differ in the size of tiles, the register tile, how many tiles a task has, and in whether data and
weights are transformed by tasks or ahead of them. Large images have many tiles: weights are transformed
ahead and stay in some cache, tasks transform their part of the data. Small images under many channels have
few tiles and large weights: tasks have all tiles and a panel of weights, transformed and used at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from graphc.loop.lower.contraction.blocking import (
    BEYOND,
    CALL,
    FAR,
    KERNEL,
    SMALL,
    TASK,
    THREADS,
    Rows,
    idle,
)
from graphc.loop.lower.contraction.problem import Contraction
from graphc.loop.lower.convolution.winograd.geometry import Geometry, geometry
from graphc.loop.lower.convolution.winograd.plan import Plan, pitch_of
from graphc.loop.lower.convolution.winograd.weights import CHUNK
from graphc.program import Machine

SIZES = (6, 4)  # elements of a tile of the source along an axis
DATA = 10.0  # cycles for each vector of transformed data: turning the source round, the transform, storing it
WEIGHTS = 6.5  # cycles for each vector of transformed weights
PRODUCT = 6.0  # cycles to read a vector of products and transform it
RESULT = 14.0  # cycles to finish a vector of results
REMOTE = 1.1  # cycles to write an element to memory beyond all caches and fetch it again
AGAIN = 0.03  # cycles to fetch an element of transformed weights from outside the second-level cache
APART = 5.0  # how much longer that takes for data, whose rows lie apart, where others use the cache too
COLD = 0.25  # cycles to fetch an element of weights that were transformed in an earlier run, from memory
ROOM = 1.25  # second-level caches that the scratch of a task may take
CLOSE = 0.7  # second-level caches from which on the operands of a task are fetched from outside


def plan_winograd(problem: Contraction, machine: Machine, fixed: bool) -> tuple[Plan, float] | None:
    """The cheapest plan and its cost; None if the problem is no convolution of planes at unit stride under
    windows of at most five elements a side, or the machine's options exclude Winograd's algorithm. `fixed`:
    the weights are the same each time."""
    if not machine.winograd:
        return None
    found = [g for g in (geometry(problem, size) for size in SIZES) if g is not None]
    return _cheapest(tuple(found), machine, problem.anchor.dtype.itemsize, fixed) if found else None


@lru_cache(maxsize=1024)
def _cheapest(
    found: tuple[Geometry, ...], machine: Machine, itemsize: int, fixed: bool
) -> tuple[Plan, float] | None:
    best: tuple[Plan, float] | None = None
    for g in found:
        for base in _bases(g, machine, itemsize):
            if best is not None and _least(base, machine.lanes(itemsize)) >= best[1]:
                continue
            for plan in _schedules(base):
                if _scratch(plan, itemsize) > ROOM * machine.l2_bytes:
                    continue
                cost = _cost(plan, machine, itemsize, fixed)
                if best is None or cost < best[1]:
                    best = plan, cost
    return best


def _bases(g: Geometry, machine: Machine, itemsize: int) -> Iterator[Plan]:
    """Register tiles and blocks of tiles to try."""
    width = machine.lanes(itemsize)
    rows, columns = g.grid
    blocks = [(1, band) for band in _shares(rows)] + [(images, rows) for images in _shares(g.images)]
    vectors = -(-g.results // width)
    for most, wide in machine.tiles:
        lanes = min(wide, vectors) * width
        for images, band in dict.fromkeys(blocks):
            tiles = images * band * columns
            height = -(-tiles // -(-tiles // most))
            yield Plan(g, lanes, height, images, band, 1, CHUNK, True, True)


def _shares(count: int) -> list[int]:
    """Sizes of blocks to try for `count` things."""
    return sorted({-(-count // parts) for parts in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 64)})


def _schedules(base: Plan) -> Iterator[Plan]:
    """Where data and weights are transformed, and how many panels or channels a task then has at once."""
    chunks = -(-base.geometry.channels // CHUNK)
    for panels in {base.all_panels, -(-base.all_panels // 2), -(-base.all_panels // 4), 1}:
        yield replace(base, panels=panels, data_ahead=False)
        yield replace(base, panels=panels)
    for depth in {chunks, -(-chunks // 2), -(-chunks // 4), -(-chunks // 8)}:
        yield replace(base, depth=depth * CHUNK, weights_ahead=False)
        yield replace(base, depth=depth * CHUNK, data_ahead=False, weights_ahead=False)


def _scratch(plan: Plan, itemsize: int) -> int:
    """Bytes of what a task keeps."""
    g, tiles = plan.geometry, plan.tiles
    elements = tiles * plan.lanes
    if not plan.data_ahead:
        elements += tiles * pitch_of(g.channels, itemsize)
    if not plan.weights_ahead:
        elements += plan.depth * plan.lanes
    return g.points * elements * itemsize


def _least(base: Plan, width: int) -> float:
    """Cycles that every schedule of a plan takes: to transform the data, multiply, and transform products."""
    g = base.geometry
    data = DATA * g.groups * g.tiles * -(-g.channels // width) * g.points
    return data + g.groups * base.all_panels * _products(base, width) + _results(g, width)


def _results(g: Geometry, width: int) -> float:
    """Cycles to make results of all products."""
    return g.groups * g.tiles * -(-g.results // width) * (PRODUCT * g.points + RESULT * math.prod(g.m))


def _cost(plan: Plan, machine: Machine, itemsize: int, fixed: bool) -> float:
    """Cycles of all kernels on one core, and what too few tasks lose."""
    g = plan.geometry
    width = machine.lanes(itemsize)
    shares, bands, panel_shares = plan.cut
    blocks = g.groups * shares * bands
    source, target = -(-g.channels // width), -(-g.results // width)
    data = DATA * g.groups * g.tiles * source * g.points
    weights = WEIGHTS * g.groups * g.channels * target * g.points
    work = g.groups * plan.all_panels * _products(plan, width)
    work += _results(g, width)
    before = 0.0
    if plan.data_ahead:
        before += KERNEL + data + _far(g.groups * g.tiles * g.channels * g.points, machine, itemsize)
    else:
        work += data * panel_shares
    if not plan.weights_ahead:
        work += weights * shares * bands
    elif fixed:
        work += COLD * _weights_of(g)
    else:
        before += KERNEL + weights + _far(_weights_of(g), machine, itemsize)
    work += AGAIN * _fetched(plan, machine, itemsize)
    tasks = plan.tasks
    worth = min(
        THREADS[-1], max(1, int(2.0 * g.groups * g.tiles * g.channels * g.results * g.points / SMALL))
    )
    return before + work * idle(tasks, worth) + TASK * (tasks + blocks)


def _products(plan: Plan, width: int) -> float:
    """Cycles to multiply all tiles of a group with one panel."""
    g, vectors = plan.geometry, plan.lanes // width
    calls = 1 if plan.weights_ahead else -(-g.channels // plan.depth)
    total = 0.0
    for count, tiles in _blocks(plan):
        rows = Rows(tiles, min(tiles, plan.height))
        steps = rows.steps(vectors) * g.channels
        total += count * g.points * (steps + calls * rows.tiles * (CALL + 2 * plan.height * vectors))
    return total


def _blocks(plan: Plan) -> list[tuple[int, int]]:
    """(how many, tiles of each) of the blocks of tiles that tasks have: full ones, and smaller last ones."""
    g = plan.geometry
    rows, columns = g.grid
    if plan.images > 1:
        full, rest = divmod(g.images, plan.images)
        found = [(full, plan.images * rows * columns), (1, rest * rows * columns)]
    else:
        full, rest = divmod(rows, plan.band)
        found = [(g.images * full, plan.band * columns), (g.images, rest * columns)]
    return [(count, tiles) for count, tiles in found if count and tiles]


def _weights_of(g: Geometry) -> int:
    return g.groups * g.channels * g.results * g.points


def _far(elements: int, machine: Machine, itemsize: int) -> float:
    """Cycles to write so many elements to memory that another kernel reads."""
    caches = elements * itemsize / machine.l2_bytes
    return elements * (REMOTE if caches > BEYOND else FAR / 2 if caches > 1 else 0.0)


def _fetched(plan: Plan, machine: Machine, itemsize: int) -> float:
    """Elements that tasks fetch from outside the second-level cache."""
    g = plan.geometry
    blocks = plan.cut[0] * plan.cut[1]
    room = CLOSE * machine.l2_bytes / itemsize
    block = plan.tiles * g.channels * g.points
    total = 0.0
    if plan.weights_ahead:
        share = min(plan.panels, plan.all_panels) * plan.lanes * g.channels * g.points
        scale = REMOTE / FAR if _weights_of(g) * itemsize > BEYOND * machine.l2_bytes else 1.0
        total += scale * blocks * _weights_of(g) if share > room else 0.0
    if block > room:
        total += APART * g.groups * g.tiles * g.channels * g.points * plan.all_panels
    return total
