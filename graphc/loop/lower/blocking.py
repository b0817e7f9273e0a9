"""How a contraction is cut: register tile, cache blocks, tasks. Decided by shapes and the machine alone,
never by the number of threads, so results do not depend on it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from graphc.program import Machine

SMALL = 1 << 16  # below this many flops one task does it all
TASKS = 16  # tasks wanted of a big problem
LATENCY = 5  # cycles a multiply-add takes: fewer accumulators than this leave the pipe idle
CALL = 40  # cycles of a tile call besides its multiply-adds, roughly
TASK = 300  # cycles to start a task
MIN_DEPTH = 64  # least K of a partial sum


@dataclass(frozen=True)
class Sizes:
    """A flattened problem; `depth` are the axes of K. Costs are cycles per element: to copy one of A or
    of B (None where it can be read in place), to store one of C."""

    batch: int
    rows: int
    cols: int
    depth: tuple[int, ...]
    itemsize: int
    a_cost: float
    a_in_place: bool
    b_cost: float
    c_cost: float

    @property
    def k(self) -> int:
        return math.prod(self.depth)


@dataclass(frozen=True)
class Blocking:
    """rows x lanes  the register tile
    row_tiles, col_panels  tiles of a task along each side
    axis, depth      a panel runs over part of this axis of K and all axes after it: so many k in all
    split            number of partial sums
    pack_a           A is copied (else read in place)
    """

    rows: int
    lanes: int
    row_tiles: int
    col_panels: int
    axis: int
    depth: int
    split: int
    pack_a: bool


def choose_tile(rows: int, cols: int, depth: int, machine: Machine, itemsize: int) -> tuple[int, int]:
    """The (rows, lanes) of the register tile that covers rows x cols in the fewest cycles."""
    width = machine.lanes(itemsize)
    best, best_cost = (1, width), math.inf
    for most, vectors in machine.tiles:
        passes = -(-rows // most)
        for tall in dict.fromkeys((min(most, rows), -(-rows // passes))):
            cycles = max(tall * vectors, LATENCY) * depth + CALL + 2 * tall * vectors
            cost = -(-rows // tall) * -(-cols // (vectors * width)) * cycles
            cost *= 1.0 if tall == most else 1.03  # few distinct tiles: each is compiled once
            if cost < best_cost:
                best, best_cost = (tall, vectors * width), cost
    return best


def choose_blocks(sizes: Sizes, machine: Machine) -> tuple[Blocking, float]:
    """Cut the problem so that packed panels stay in the second-level cache, packing is shared as widely
    as balance allows, and a big problem has enough tasks. Returns the blocking and its cost in cycles."""
    rows, lanes = choose_tile(sizes.rows, sizes.cols, sizes.k, machine, sizes.itemsize)
    row_tiles, col_panels = -(-sizes.rows // rows), -(-sizes.cols // lanes)
    flops = 2.0 * sizes.batch * sizes.rows * sizes.cols * sizes.k
    wanted = 1.0 if flops < SMALL else min(float(TASKS), max(2.0, flops / SMALL))
    best, best_cost = None, math.inf
    ways = (False, True) if sizes.a_in_place else (True,)
    splits = [s for s in (1, 2, 4, 8, 16) if s == 1 or s * MIN_DEPTH <= sizes.k]
    panels = {split: _panel(sizes, lanes, split, machine) for split in splits}
    for tiles, columns, split, pack_a in itertools.product(_cuts(row_tiles), _cuts(col_panels), splits, ways):
        axis, depth, blocks = panels[split]
        parts = -(-blocks // -(-blocks // split))
        candidate = Blocking(rows, lanes, tiles, columns, axis, depth, parts, pack_a)
        if best is not None and not _fits(candidate, sizes, blocks, machine):
            continue
        cost = _cost(candidate, sizes, wanted, machine)
        if cost < best_cost:
            best, best_cost = candidate, cost
    assert best is not None
    return best, best_cost


def _panel(sizes: Sizes, lanes: int, split: int, machine: Machine) -> tuple[int, int, int]:
    """(axis, k of a panel, number of panels): panels take at most a quarter of the second-level cache,
    and there is at least one for each of `split` partial sums if the axes allow it."""
    most = max(1, machine.l2_bytes // 4 // (lanes * sizes.itemsize))
    most = max(1, min(most, -(-sizes.k // split)))
    axis, unit = 0, sizes.k // max(1, sizes.depth[0]) if sizes.depth else 1
    while axis < len(sizes.depth) - 1 and unit > most:
        axis += 1
        unit //= max(1, sizes.depth[axis])
    extent = sizes.depth[axis] if sizes.depth else 1
    parts = -(-extent * unit // most)
    units = -(-extent // parts)
    return axis, units * unit, -(-extent // units) * math.prod(sizes.depth[:axis])


def _cuts(count: int) -> list[int]:
    """Block sizes to try for `count` tiles: count / 1, 2, 3, ... rounded up."""
    return list(dict.fromkeys(-(-count // parts) for parts in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)))


def _fits(b: Blocking, sizes: Sizes, blocks: int, machine: Machine) -> bool:
    """Whether the scratch of a task stays within the second-level cache."""
    packed = b.row_tiles * b.rows * b.depth if b.pack_a and b.col_panels > 1 else 0
    sums = b.row_tiles * b.rows * b.col_panels * b.lanes if blocks > 1 else 0
    return max(packed, sums) * sizes.itemsize <= machine.l2_bytes // 2


def _cost(b: Blocking, sizes: Sizes, wanted: float, machine: Machine) -> float:
    """Cycles of the whole problem on one core, plus what too few or uneven tasks would lose."""
    width = machine.lanes(sizes.itemsize)
    row_tiles, panels = -(-sizes.rows // b.rows), -(-sizes.cols // b.lanes)
    row_blocks, col_blocks = -(-row_tiles // b.row_tiles), -(-panels // b.col_panels)
    blocks = -(-sizes.k // b.depth)
    vectors = b.lanes // width
    cycles = sizes.k * max(b.rows * vectors, LATENCY) + blocks * (CALL + 2 * b.rows * vectors)
    products = sizes.batch * row_tiles * panels * cycles
    pack_a = sizes.batch * sizes.rows * sizes.k * sizes.a_cost * col_blocks if b.pack_a else 0.0
    pack_b = sizes.batch * sizes.cols * sizes.k * sizes.b_cost * row_blocks
    stores = sizes.batch * sizes.rows * sizes.cols * (sizes.c_cost + (0.3 * b.split if b.split > 1 else 0.0))
    tasks = sizes.batch * row_blocks * col_blocks * b.split
    even = row_blocks * b.row_tiles * col_blocks * b.col_panels / (row_tiles * panels)
    few = max(1.0, wanted / tasks) ** 0.5
    return (products + pack_a + pack_b + stores) * even * few + TASK * tasks
