"""Few rows times a matrix as stored that does not stay in the caches (a small batch times a wide layer's
weights): B is read once, where it is, and arrives while tiles multiply.

With eight rows a core's multiply-adds take as long as its memory takes to deliver B, so neither may wait for
the other. What the machine's own prefetchers bring does not suffice: tiles go down narrow panels, whose rows
are far apart. So a task takes some panels and cuts K into blocks that fit into the second-level cache beside
their successors; at each step of K a tile asks for the same row of its panel in the next block. All rows of
the result are multiplied by a row of B as soon as it is in the first-level cache; sums wait there for the
next block.
"""

from __future__ import annotations

from graphc.loop.lower.contraction.blocking import (
    CALL,
    LATENCY,
    LOAD,
    MEMORY,
    TASK,
    THREADS,
    Rows,
    from_memory,
    idle,
    whole_panels,
)
from graphc.loop.lower.contraction.sizes import Blocking, Sizes, Source
from graphc.program import Machine

FEWEST_ROWS = 6  # with fewer, multiply-adds wait for memory however they are arranged
MOST_ROWS = 64  # with more, packing costs little
SHARE = 4  # a block of K takes this part of the second-level cache
LEAST_RUN = 1 << 10  # bytes of a row of B in a task: memory is slow to start a run
NEAR = 1.0  # cycles of a tile to load a line from the second-level cache; rows may begin within one
PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # numbers of tasks to try


def choose_streamed(sizes: Sizes, machine: Machine) -> tuple[Blocking, float] | None:
    """The blocking and its cost in cycles; None if the problem is not one of few rows, B lies otherwise, or
    fits into the caches."""
    few = FEWEST_ROWS <= sizes.rows <= MOST_ROWS and not sizes.together and sizes.batch == 1
    far = from_memory(sizes.cols * sizes.k * sizes.itemsize, machine)
    if not (few and far and sizes.b_pitch and len(sizes.depth) == 1):
        return None
    best = None
    for most, vectors in machine.tiles:
        for parts in PARTS:
            found = _cut(sizes, most, vectors, parts, machine)
            if found is not None and (best is None or found[1] < best[1]):
                best = found
    return best


def _cut(
    sizes: Sizes, most: int, vectors: int, parts: int, machine: Machine
) -> tuple[Blocking, float] | None:
    """With tiles of at most `most` rows of `vectors` vectors, and columns shared out among `parts` tasks."""
    width = machine.lanes(sizes.itemsize)
    lanes, cut = vectors * width, Rows.even(sizes.rows, most)
    panels = -(-sizes.cols // lanes)
    each = -(-panels // parts)
    run = each * lanes * sizes.itemsize
    if run < LEAST_RUN or not whole_panels(sizes.cols, lanes, width, True):
        return None
    blocks = -(-sizes.k * run // (machine.l2_bytes // SHARE))
    depth = -(-sizes.k // blocks)
    blocks = -(-sizes.k // depth)
    rows = (cut.most, cut.tall), (cut.most - 1, cut.tiles - cut.tall)
    step = sum(n * (max(r * vectors, LOAD * (r + vectors), LATENCY) + NEAR * (vectors + 1)) for r, n in rows)
    work = panels * (sizes.k * step + blocks * cut.tiles * (CALL + 2 * cut.most * vectors))
    work += sizes.rows * sizes.k * sizes.a_cost * parts
    work = max(work, MEMORY * sizes.cols * sizes.k * sizes.itemsize)
    tasks = -(-panels // each)
    even = each * tasks / panels
    blocking = Blocking(
        cut.most, lanes, cut.tiles, each, 0, depth, depth, blocks, each, 1, Source.TASK, 1, True, True
    )
    return blocking, work * idle(tasks, THREADS[-1]) * even + TASK * tasks
