"""How a contraction is cut: register tile, cache blocks, tasks.

Decided by shapes and the machine alone, never by the number of threads, so results do not depend on it. The
candidates are few, so all are tried against one cost model; its unit is a cycle of one core.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from graphc.loop import index as ix
from graphc.loop.ir import Expr
from graphc.loop.lower.contraction.balance import THREADS, Side, imbalance
from graphc.loop.lower.contraction.sizes import Blocking, Sizes, Source
from graphc.loop.lower.writer import Writer
from graphc.program import Machine

SMALL = 1 << 16  # flops worth a task of their own
LOAD = (
    1.02  # cycles to load a vector or to broadcast an element: one-vector tiles do it for each multiply-add
)
NARROW = 0.7  # cycles to broadcast an element to less than a vector, and to multiply it
LATENCY = 5  # cycles a multiply-add takes: fewer accumulators than this leave the pipe idle
STREAM = 0.5  # cycles to fetch an element of A from beyond the second-level cache
SCATTERED = 1.0  # the same if more rows are read at once than caches and prefetchers follow
STREAMS = 8  # rows that a prefetcher follows
SETS, WAYS = 4096, 6  # addresses so many bytes apart share a cache set; lines of a set to be used for A
CALL = 30  # cycles of a tile call besides its multiply-adds
PARTS = (8, 4, 2, 1)  # lanes of tiles narrower than a vector
NARROW_GAIN = 0.04  # least part of the columns whose waste a narrower last tile must save
TASK = 300  # cycles to start a task
WALK = 3.0  # cycles to fetch an element from memory, a line or a few for every step of K
ASKED = 0.3  # the same if tiles ask for it a row of tiles ahead
ACROSS = 12.0  # cycles of a step of K that fetches a cache line of its own from beyond the second-level cache
BEYOND = 16  # second-level caches that surely do not fit into all caches
MOST_TASKS = 96  # more are not tried if fewer do
KERNEL = 3000  # cycles to start a kernel: a barrier
MIN_DEPTH = 64  # least K of a partial sum
RUN = 5.0  # cycles to start a run of the result, or of an array that an epilogue reads or writes beside it
FAR_RUN = 16.0  # the same beyond the second-level cache, once for neighbouring tiles
LINES = 8  # lines of a set, in the first-level and in the second-level cache
ROWS_AHEAD = 12  # rows of B on their way to the first-level cache
CROWDED = 1.5  # cycles to fetch a row of B that others have displaced
MEMORY = 0.125  # cycles to fetch a byte from memory, at best: nothing is done meanwhile if it is copied
AGAIN = 1.5  # cycles of a step of K that waits for a line of A which was there for the tiles above
UNASKED = 2.0  # cycles to fetch an element of A from memory, in short runs that nobody has asked for
FAR = 0.4  # cycles more to copy an element to memory outside the second-level cache, and fetch it again


@dataclass(frozen=True)
class Span:
    """`count` tiles of `size` rows or columns each, from `start` on."""

    start: int
    count: int
    size: int


@dataclass(frozen=True)
class Rows:
    """`count` rows in `tiles` tiles of nearly equal height: the first `tall` have `most` rows, the others one
    row less."""

    count: int
    most: int

    @classmethod
    def even(cls, count: int, most: int) -> Rows:
        """`count` rows in as few tiles of at most `most` rows as there can be, as even as they can be."""
        return cls(count, -(-count // -(-count // most)))

    @property
    def tiles(self) -> int:
        return -(-self.count // self.most)

    @property
    def tall(self) -> int:
        return self.count - self.tiles * (self.most - 1)

    def spans(self) -> list[Span]:
        """The tall tiles, then the others; no span is empty."""
        tall = Span(0, self.tall, self.most)
        short = Span(self.tall * self.most, self.tiles - self.tall, self.most - 1)
        return [span for span in (tall, short) if span.count]

    def steps(self, vectors: float, least: float = 0.0) -> float:
        """Cycles for one step of K and one column panel of `vectors` vectors (or a part of one), over all
        tiles; each takes at `least` so many."""
        tall, tiles = self.tall, self.tiles
        high, low = _step(self.most, vectors), _step(self.most - 1, vectors)
        return tall * max(least, high) + (tiles - tall) * max(least, low)


def _step(rows: int, vectors: float) -> float:
    """Cycles for one step of K of a tile."""
    if vectors < 1:
        return max(NARROW * rows, LATENCY)
    return max(rows * vectors, LOAD * (rows + vectors), LATENCY)


def choose_tile(
    rows: int,
    cols: int,
    depth: int,
    machine: Machine,
    itemsize: int,
    pitch: int | None = None,
    beside: int = 0,
    exact: bool = False,
) -> tuple[int, int]:
    """The (rows, lanes) of the register tile that covers rows x cols in the fewest cycles, if the rows are
    cut as `Rows` does. `pitch`: bytes from row to row of A where it is read in place; `beside`: arrays that
    the epilogue goes through beside the result, for which the rows of a wide tile are longer runs; `exact`:
    the tile of the last panel must not be wider than what is left (one vector if no tile is so)."""
    width = machine.lanes(itemsize)
    best, best_cost = (1, width), math.inf
    arrays = beside + _far(rows * cols * itemsize, beside, machine)
    for most, vectors in machine.tiles:
        vectors = min(vectors, -(-cols // width))
        panel = min(depth, machine.l2_bytes // 4 // (vectors * width * itemsize))
        size = rows * panel * itemsize
        if exact and not whole_panels(cols, vectors * width, width, True):
            continue
        panels = -(-cols // (vectors * width))
        narrow = narrow_tile(cols, vectors * width, width, exact)
        cut = Rows.even(rows, most)
        steps = panels_steps(cut, panels, vectors, narrow / width)
        cost = (steps + panels * rows * _fetch(cut.most, size, pitch, machine)) * depth
        cost += cut.tiles * panels * (CALL + 2 * cut.most * vectors)
        cost *= 1.0 if panels == 1 or not narrow else 1.02  # few distinct tiles: each is compiled once
        cost += RUN * arrays * rows * panels
        if cost < best_cost:
            best, best_cost = (cut.most, vectors * width), cost
    return best


@lru_cache(maxsize=4096)
def panels_steps(cut: Rows, panels: int, vectors: int, narrow: float, least: float = 0.0) -> float:
    """Cycles for one step of K of all tiles, with `panels` panels of `vectors` vectors, the last of `narrow`
    if that is not 0."""
    last = cut.steps(narrow or vectors, least)
    return (panels - 1) * cut.steps(vectors, least) + last


def _far(result_bytes: int, beside: int, machine: Machine) -> bool:
    """Whether a result and the arrays beside it do not stay in the second-level cache."""
    return result_bytes * (1 + beside) > machine.l2_bytes


def choose_gate_tile(
    rows: int, inner: int, gates: int, depth: int, machine: Machine, itemsize: int, pitch: int | None
) -> tuple[tuple[int, int], int]:
    """((rows, lanes), panels): the register tile for `inner` cells of several gates, and how many of its
    panels have all gates of a block of cells. A block is a whole number of vectors of each gate."""
    width = machine.lanes(itemsize)
    best, best_cost = ((1, width), gates), math.inf
    for most, vectors in machine.tiles:
        common = math.gcd(vectors, gates)
        together = gates // common
        panels = -(-inner * common // (vectors * width)) * together
        cut = Rows.even(rows, most)
        step = cut.steps(vectors) + rows * _fetch(cut.most, rows * depth * itemsize, pitch, machine)
        cost = panels * (step * depth + cut.tiles * (CALL + 2 * cut.most * vectors))
        if cost < best_cost:
            best, best_cost = ((cut.most, vectors * width), together), cost
    return best


def _fetch(rows: int, size: int, pitch: int | None, machine: Machine) -> float:
    """Cycles to fetch an element of a block of A of `size` bytes, for one panel."""
    if pitch is not None:
        sets = SETS // math.gcd(pitch, SETS)
        if rows > WAYS * sets or (rows > STREAMS and 2 * size > machine.l2_bytes):
            return SCATTERED
    return STREAM if size > machine.l2_bytes else 0.0  # every panel fetches A anew


def narrow_tile(cols: int, lanes: int, width: int, exact: bool = False) -> int:
    """Lanes of a narrower tile for the last panel of columns; 0 if that is full, or the gain too small
    for one more tile. `exact`: exactly the columns that are left, if they make a tile (0 if not)."""
    rest = cols % lanes
    if exact:
        return rest if rest % width == 0 or rest in PARTS else 0
    rest = -(-rest // width) * width
    gain = lanes - rest
    return rest if rest and gain > NARROW_GAIN * cols else 0


def panel_lanes(
    w: Writer, number: Expr, cols: int, lanes: int, width: int, exact: bool = False
) -> Iterator[int]:
    """The lanes that the tiles of panel `number` of `cols` columns can have: the last panel may have a
    narrower tile (`exact`: as in `narrow_tile`). What follows each is run if the panel has so many."""
    panels, last = -(-cols // lanes), narrow_tile(cols, lanes, width, exact) or lanes
    if last == lanes or panels == 1:
        yield last
        return
    for size, op in ((lanes, "lt"), (last, "eq")):
        with w.when(ix.compare(op, number, panels - 1)):
            yield size


def whole_panels(cols: int, lanes: int, width: int, exact: bool) -> bool:
    """Whether tiles of all panels have no more lanes than there are columns."""
    return cols % lanes in (0, narrow_tile(cols, lanes, width, exact))


@lru_cache(maxsize=1024)
def choose_blocks(sizes: Sizes, machine: Machine) -> tuple[Blocking, float]:
    """Cut the problem so that packed panels stay in the second-level cache, packing is shared as widely as
    balance allows, and a big problem has enough tasks. Returns the blocking and its cost, which is infinite
    if B cannot be read where it is as `sizes` wants."""
    rows, lanes = sizes.tile or choose_tile(
        sizes.rows, sizes.cols, sizes.k, machine, sizes.itemsize, sizes.a_pitch, sizes.beside, sizes.b_place
    )
    row_tiles, together = -(-sizes.rows // rows), max(sizes.together, 1)
    panel_cuts = [together * c for c in _cuts(-(-sizes.cols // lanes) // together)]
    splits = [s for s in (1, 2, 4, 8, 16) if s == 1 or (s * MIN_DEPTH <= sizes.k and not sizes.together)]
    best, best_cost = None, math.inf
    for split, (axis, units, depth, blocks) in _panels(sizes, lanes, splits, machine):
        sources = _sources(sizes, axis)
        room = machine.l2_bytes * 3 // 8 // (depth * lanes * sizes.itemsize)
        group = max(1, room // together) * together
        parts = -(-blocks // -(-blocks // split))
        for tiles, panels, source in itertools.product(_cuts(row_tiles), panel_cuts, sources):
            candidate = Blocking(
                rows,
                lanes,
                tiles,
                panels,
                axis,
                units,
                depth,
                blocks,
                group,
                parts,
                source,
                together,
                sizes.b_place,
            )
            if tiles * panels > 1 and not _fits(candidate, sizes, machine):
                continue
            if best is not None and _tasks(candidate, sizes) > MOST_TASKS:
                continue
            cost = _cost(candidate, sizes, machine, best_cost)
            if best is None or cost < best_cost:
                best, best_cost = candidate, cost
    assert best is not None
    return best._replace(below=_passes_by(best, sizes, machine)), best_cost


def _passes_by(b: Blocking, sizes: Sizes, machine: Machine) -> bool:
    """Whether more passes by from one use of A where it is to the next, by another group of panels, than the
    second-level cache holds; and whether tiles, which load no more than a vector or an element a cycle, have
    time to ask for rows. A task with one group is done with a block of K when it goes on to the next one."""
    if b.source is Source.TASK or b.row_tiles == 1 or b.lanes <= machine.lanes(sizes.itemsize):
        return False
    blocks = 1 if b.col_panels > b.group else -(-b.blocks // b.split)
    elements = (b.row_tiles * b.rows * blocks + b.group * b.lanes) * b.depth
    return elements * sizes.itemsize > machine.l2_bytes


def _panels(
    sizes: Sizes, lanes: int, splits: list[int], machine: Machine
) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """(split, panel) for each number of partial sums: the largest panel, and if that is too large to read A
    where it is, or for the lines of A to stay for the tiles below, one that is not."""
    kept = _kept_steps(sizes, machine)
    for split in splits:
        panel = _panel(sizes, lanes, split, machine)
        yield split, panel
        if panel[2] > kept >= MIN_DEPTH:
            yield split, _panel(sizes, lanes, split, machine, kept)
        if sizes.a_pitch is not None and panel[0] < sizes.a_flat:
            extent = sizes.depth[sizes.a_flat]
            depth = math.prod(sizes.depth[sizes.a_flat :])
            if depth >= MIN_DEPTH:
                yield split, (sizes.a_flat, extent, depth, math.prod(sizes.depth[: sizes.a_flat]))


def _sources(sizes: Sizes, axis: int) -> tuple[Source, ...]:
    """Where panels that are cut along an axis of K may find A."""
    if sizes.a_pitch is None or axis < sizes.a_flat:
        return Source.TASK, Source.KERNEL
    if sizes.a_flat == 0 and sizes.alike == 1:
        return Source.PLACE, Source.TASK
    return Source.PLACE, Source.TASK, Source.KERNEL


def _panel(
    sizes: Sizes, lanes: int, split: int, machine: Machine, limit: int | None = None
) -> tuple[int, int, int, int]:
    """(axis, steps of it, k of a panel, number of panels): panels take at most a quarter of the
    second-level cache, or half of it if that is all of K (nothing has to be summed up in memory then), they
    have at most `limit` steps, and there is at least one for each of `split` partial sums if the axes allow
    it."""
    most = max(1, machine.l2_bytes // 4 // (lanes * sizes.itemsize))
    most = sizes.k if sizes.k <= 2 * most else most
    most = max(1, min(most, -(-sizes.k // split), limit or sizes.k))
    if not sizes.depth:
        return 0, 1, 1, 1
    axis, unit = 0, sizes.k // sizes.depth[0]
    while axis < len(sizes.depth) - 1 and unit > most:
        axis += 1
        unit //= sizes.depth[axis]
    extent = sizes.depth[axis]
    units = -(-extent // -(-extent * unit // most))
    if units == 1 and axis < len(sizes.depth) - 1:  # all of the next axis
        axis, extent = axis + 1, sizes.depth[axis + 1]
        units, unit = extent, unit // extent
    return axis, units, units * unit, -(-extent // units) * math.prod(sizes.depth[:axis])


def _kept_steps(sizes: Sizes, machine: Machine) -> int:
    """Steps of K whose lines of A the second-level cache can hold at once, if each step is in a line of its
    own: several tiles read them, one below the other."""
    if not sizes.a_across:
        return sizes.k
    return machine.l2_bytes // math.gcd(sizes.a_step, machine.l2_bytes // LINES)


def _cuts(count: int) -> list[int]:
    """Block sizes to try for `count` tiles: count / 1, 2, 3, ... rounded up."""
    return list(dict.fromkeys(-(-count // parts) for parts in (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)))


def _tasks(b: Blocking, sizes: Sizes) -> int:
    row_tiles, panels = -(-sizes.rows // b.rows), -(-sizes.cols // b.lanes)
    return sizes.batch * -(-row_tiles // b.row_tiles) * -(-panels // b.col_panels) * b.split


def _fits(b: Blocking, sizes: Sizes, machine: Machine) -> bool:
    """Whether the scratch of a task stays within the second-level cache."""
    packed = b.row_tiles * b.rows * b.depth if b.source is Source.TASK and b.col_panels > 1 else 0
    sums = b.row_tiles * b.rows * b.col_panels * b.lanes if b.blocks > 1 else 0
    return max(packed, sums) * sizes.itemsize <= machine.l2_bytes // 2


def _stays(depth: int, pitch: int, machine: Machine) -> bool:
    """Whether `depth` rows of B, `pitch` bytes apart, take at most half of the lines of any set of the
    second-level cache, so that they stay from one tile to the next."""
    way = machine.l2_bytes // LINES
    return depth * math.gcd(pitch, way) <= LINES // 2 * way


def _cost(b: Blocking, sizes: Sizes, machine: Machine, limit: float = math.inf) -> float:
    """Cycles of the whole problem on one core, and (unless above `limit`) what uneven tasks lose."""
    width = machine.lanes(sizes.itemsize)
    row_tiles, panels = -(-sizes.rows // b.rows), -(-sizes.cols // b.lanes)
    row_blocks, col_blocks = -(-row_tiles // b.row_tiles), -(-panels // b.col_panels)
    vectors = b.lanes // width
    narrow = narrow_tile(sizes.cols, b.lanes, width, b.b_place)
    calls = b.blocks * panels * row_tiles
    elements = sizes.batch * sizes.rows * sizes.k
    placed, a_bytes = b.source is Source.PLACE and sizes.a_across, elements // sizes.alike * sizes.itemsize
    asked = placed and _passes_by(b, sizes, machine)
    gone = asked and b.depth > _kept_steps(sizes, machine)
    walked = placed and not asked and (a_bytes > machine.l2_bytes or _collide(b.depth, sizes.a_step))
    cut, least = Rows(sizes.rows, b.rows), ACROSS if walked else 0.0
    steps = panels_steps(cut, panels, vectors, narrow / width, least)
    work = sizes.batch * (sizes.k * steps + calls * (CALL + 2 * b.rows * vectors))
    if sizes.b_place and not whole_panels(sizes.cols, b.lanes, width, True):
        return math.inf
    if sizes.b_place:
        pitch = sizes.b_pitch or 0
        stays = _stays(b.depth, pitch, machine)
        again, far = (row_blocks, sizes.b_far) if stays else (row_tiles, FAR)
        work += sizes.batch * sizes.k * panels * row_tiles * _crowded(pitch)
        work += sizes.batch * sizes.cols * sizes.k * far * again
    elif not sizes.b_fixed:
        work += sizes.batch * sizes.cols * sizes.k * sizes.b_cost * row_blocks
    matrix = sizes.b_once and not sizes.b_fixed
    if matrix and from_memory(sizes.cols * sizes.k * sizes.itemsize, machine):
        waits = WALK if sizes.b_place else MEMORY * sizes.itemsize
        work += sizes.batch * sizes.cols * sizes.k * waits
    if gone:
        work += AGAIN * sizes.batch * sizes.k * panels * row_tiles
    before = 0.0
    if placed and a_bytes > BEYOND * machine.l2_bytes:
        work += (ASKED if asked else WALK) * elements * panels
    if b.source is Source.TASK:
        far = UNASKED if sizes.a_across and from_memory(a_bytes, machine) else 0.0
        far += FAR if b.row_tiles * b.rows * b.depth * sizes.itemsize > machine.l2_bytes else 0.0
        work += elements * (sizes.a_cost + far) * col_blocks
    elif b.source is Source.KERNEL and not sizes.a_fixed:
        each = sizes.stage_cost + (FAR if a_bytes > machine.l2_bytes else 0.0)
        before = KERNEL + elements // sizes.alike * each
    results = sizes.batch * sizes.rows * sizes.cols
    work += results * sizes.c_cost
    if _far(results * sizes.itemsize, sizes.beside, machine):
        runs = sizes.batch * sizes.rows * -(-panels // min(b.group, b.col_panels))
        work += FAR_RUN * (1 + sizes.beside) * runs
    after = combining(results, b.split) + (results * sizes.added_cost if b.split > 1 else 0.0)
    tasks = _tasks(b, sizes)
    more = before + after + TASK * tasks
    if work + more >= limit:
        return work + more
    worth = min(THREADS[-1], max(1, int(2.0 * results * sizes.k / SMALL)))
    down = Side.cut(row_tiles, b.row_tiles)
    along = Side.cut(panels - 1 + (narrow or b.lanes) / b.lanes, b.col_panels)
    sides = (along, down) if sizes.b_place or sizes.b_fixed else (down, along)
    return work * imbalance(sizes.batch * b.split, *sides, worth) + more


def _collide(depth: int, step: int) -> bool:
    """Whether lines `step` bytes apart, one for each of `depth` steps of K, are more than the sets of the
    first-level cache into which they fall can hold."""
    return depth * math.gcd(step, SETS) > LINES * SETS


def from_memory(operand_bytes: int, machine: Machine) -> bool:
    """Whether an operand does not stay in any cache, which it shares with others."""
    return operand_bytes > machine.l3_bytes // 2


def _crowded(pitch: int) -> float:
    """Cycles that a step of K loses if rows of B, `pitch` bytes apart, compete for the sets of the
    first-level cache: what is fetched ahead of its use is then gone before it."""
    return CROWDED if math.gcd(pitch, SETS) * ROWS_AHEAD > SETS * LINES else 0.0


def packing(sizes: Sizes, blocking: Blocking, machine: Machine) -> float:
    """Cycles to pack B in a kernel of its own, once for all tasks, and to fetch it from where it then is."""
    elements = sizes.batch * sizes.cols * sizes.k
    far = elements * sizes.itemsize > machine.l2_bytes
    row_blocks = -(-sizes.rows // (blocking.rows * blocking.row_tiles))
    return KERNEL + elements * (sizes.b_cost + (FAR * (1 + row_blocks) if far else 0.0))


def combining(results: int, splits: int) -> float:
    """Cycles to add up `splits` partial sums of each result, in a kernel of their own."""
    return KERNEL + 1.2 * results * splits if splits > 1 else 0.0


@cache
def idle(tasks: int, worth: int) -> float:
    """How much longer `tasks` equal tasks take than if they could be cut at will, over the usual numbers of
    threads; but no more threads are waited for than the work is `worth`."""
    threads = [min(t, worth) for t in THREADS]
    return sum(-(-tasks // t) * t / tasks for t in threads) / len(threads)
