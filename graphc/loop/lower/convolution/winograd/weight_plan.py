"""How a weight gradient in the Winograd domain is cut, and what it costs (unit: a cycle of one core)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from graphc.ir.node import Node
from graphc.ir.types import Shape, float32
from graphc.loop.lower.contraction.blocking import (
    BEYOND,
    CALL,
    KERNEL,
    LATENCY,
    SMALL,
    TASK,
    THREADS,
    Rows,
    Span,
    choose_tile,
    idle,
)
from graphc.loop.lower.convolution.winograd.dilated import APART
from graphc.loop.lower.convolution.winograd.transforms import Filtering, filtering, outputs_of
from graphc.loop.lower.convolution.winograd.weight_images import images_of
from graphc.program import Machine

SIZE = 6  # points along an axis: F(4x4, 3x3), F(2x2, 5x5)
DEPTH = 64  # tiles that are multiplied at once, roughly
DEPTHS = (1 << 30, 256, 192, 128, 96, 64, 48, 32)
SHARES = (1, 2, 4, 8)
MOST_BLOCKS = 8  # of channels, where every task transforms its own
MOST_AHEAD = 256  # tiles that are all transformed ahead: their products are one long sum
LEAST = 32  # channels of a block, if there are several
VERTICAL = 9.0  # cycles to compute a vector of a row of points, and to turn it round
LOAD = 2.0  # cycles to load a vector of a row of an image, from the second-level cache
HORIZONTAL = 10.0  # cycles to compute a tile's points of a row
STORE = 2.0  # cycles to store a vector of points
FAR = 4.0  # cycles to move a vector between the second- and the third-level cache
MEMORY = 12.0  # cycles to move a vector to or from memory
BACK = 8.0  # cycles for a vector of dU to be transformed back


@dataclass(frozen=True)
class Plan:
    """outputs, taps          of F(m, r), along each axis
    groups, outs, ins      of the convolution; channels are those of a group
    images, tiles          tiles along each axis of an image
    rows                   rows of points, those of a task together
    out_block, in_block    channels of a task
    shares                 parts that the strips of all images are cut into
    strips_at_once         strips that are transformed, then multiplied
    tile_rows, lanes       the register tile
    width                  elements of a vector
    ahead                  all tiles are transformed by kernels of their own, and tasks finish their results
    """

    outputs: tuple[int, int]
    taps: tuple[int, int]
    groups: int
    outs: int
    ins: int
    images: int
    tiles: Shape
    rows: tuple[tuple[int, ...], ...]
    out_block: int
    in_block: int
    shares: int
    strips_at_once: int
    tile_rows: int
    lanes: int
    width: int
    ahead: bool = False

    @property
    def filterings(self) -> tuple[Filtering, Filtering]:
        """Along each axis."""
        (high, wide), (down, across) = self.outputs, self.taps
        return filtering(high, down), filtering(wide, across)

    @property
    def size(self) -> tuple[int, int]:
        """Points along each axis."""
        first, second = self.filterings
        return first.inputs, second.inputs

    @property
    def points(self) -> int:
        return math.prod(self.size)

    @property
    def rows_at_once(self) -> int:
        return len(self.rows[0])

    @property
    def points_at_once(self) -> int:
        return self.rows_at_once * self.size[1]

    @property
    def order(self) -> list[int]:
        """The place of each row of points among those of all tasks."""
        order = [row for rows in self.rows for row in rows]
        return [order.index(row) for row in range(self.size[0])]

    @property
    def strips(self) -> int:
        """Rows of tiles of all images."""
        return self.images * self.tiles[0]

    @property
    def strips_of_share(self) -> int:
        return -(-self.strips // self.shares)

    @property
    def blocks(self) -> int:
        return -(-self.strips_of_share // self.strips_at_once)

    @property
    def task_space(self) -> Shape:
        """Groups, shares, blocks of output and input channels, groups of rows."""
        blocks = self.outs // self.out_block, self.ins // self.in_block
        return (self.groups, self.shares, *blocks, len(self.rows))

    @property
    def tasks(self) -> int:
        return math.prod(self.task_space)

    @property
    def flops(self) -> float:
        """Multiply-adds of the products count twice."""
        tiles = self.strips * self.tiles[1]
        return 2.0 * self.groups * self.points * tiles * self.outs * self.ins

    def pitch(self, channels: int) -> int:
        """Channels of a buffer: whole vectors."""
        return -(-channels // self.width) * self.width

    def row_spans(self) -> list[Span]:
        """Rows of a block of dU, in tiles of nearly equal height."""
        return Rows.even(self.out_block, self.tile_rows).spans()

    def column_spans(self) -> list[Span]:
        """Columns of a block of dU, whole vectors; the last tile may be narrower."""
        full, rest = divmod(self.pitch(self.in_block), self.lanes)
        spans = Span(0, full, self.lanes), Span(full * self.lanes, int(rest > 0), rest)
        return [span for span in spans if span.count]


def plan_weight_grad(node: Node, machine: Machine) -> tuple[Plan, float] | None:
    """The cheapest plan of a conv_weight_grad, and its cost; None if it has no images (weight_images.py), or
    is not in float32."""
    images = images_of(node) if machine.winograd else None
    if images is None or node.dtype is not float32 or not node.type.size:
        return None
    x, dy = node.inputs
    if not x.type.size or not dy.type.size:
        return None
    groups = node.attrs.groups
    shape = (groups, node.shape[0] // groups, images.channels, images.count, *images.space)
    plan, cost = _choose(images.window, shape, machine)
    spread = APART * (x.type.size + dy.type.size) if max(images.apart) > 1 else 0.0
    return plan, cost + spread


@lru_cache(maxsize=256)
def _choose(taps: tuple[int, int], shape: Shape, machine: Machine) -> tuple[Plan, float]:
    plans = [(plan, _cost(plan, machine)) for plan in candidates(SIZE, taps, shape, machine)]
    return min(plans, key=lambda pair: pair[1])


def candidates(size: int, taps: tuple[int, int], shape: Shape, machine: Machine) -> Iterator[Plan]:
    """Plans for (groups, outs, ins, images, height, width) of dy, with `size` points along each axis that has
    several taps."""
    groups, outs, ins, images, *space = shape
    width = machine.lanes(float32.itemsize)
    outputs = outputs_of(size, taps)
    tiles = tuple([-(-extent // m) for extent, m in zip(space, outputs, strict=True)])
    strips, ways = images * tiles[0], _row_groups(outputs[0] + taps[0] - 1)
    for out_block, in_block in itertools.product(_blocks(outs, width), _blocks(ins, width)):
        rows, lanes = choose_tile(out_block, in_block, DEPTH, machine, float32.itemsize)
        whole = Plan(
            outputs, taps, groups, outs, ins, images, tiles, ways[0], out_block, in_block, 1, strips,
            rows, lanes, width
        )  # fmt: skip
        sums = whole.points * out_block * whole.pitch(in_block) * float32.itemsize
        if strips * tiles[1] <= MOST_AHEAD and sums <= machine.l2_bytes // 2:
            yield replace(whole, ahead=True)
        if out_block * MOST_BLOCKS < outs or in_block * MOST_BLOCKS < ins:
            continue
        for groups_of_rows, shares in itertools.product(ways, SHARES):
            of_share = -(-strips // shares)
            if shares > 1 and (shares - 1) * of_share >= strips:
                continue
            counts = [-(-of_share // max(1, depth // tiles[1])) for depth in DEPTHS]
            for at_once in dict.fromkeys([-(-of_share // max(count, 1)) for count in counts]):
                yield replace(whole, rows=groups_of_rows, shares=shares, strips_at_once=at_once)


def _blocks(channels: int, width: int) -> list[int]:
    """Numbers of channels that divide all, in whole vectors, or all of them."""
    cuts = [channels // n for n in (2, 4, 8, 16, 32) if channels % n == 0]
    return [channels, *[c for c in cuts if c % width == 0 and c >= LEAST]]


def _row_groups(size: int) -> list[tuple[tuple[int, ...], ...]]:
    """Ways to cut the rows of points into groups; pairs of opposite points stay together."""
    order = [*range(1, size - 1), *sorted({0, size - 1})]
    lengths = dict.fromkeys([n for n in (size, 2, 1) if size % n == 0])
    return [tuple(tuple(order[i : i + n]) for i in range(0, size, n)) for n in lengths]


def _cost(plan: Plan, machine: Machine) -> float:
    """Cycles on one core, and what too few tasks lose."""
    work = _products(plan) + TASK
    if plan.ahead:
        work += _block_traffic(plan)
        more = _ahead(plan, machine)
    else:
        work += _transforms(plan, plan.out_block, plan.in_block, machine) + _traffic(plan, machine)
        more = _combination(plan, machine)
    worth = min(THREADS[-1], max(1, int(plan.flops / SMALL)))
    return plan.tasks * work * idle(plan.tasks, worth) + more


def _products(plan: Plan) -> float:
    """Cycles of a task to multiply."""
    calls = steps = 0.0
    for rows, columns in itertools.product(plan.row_spans(), plan.column_spans()):
        vectors = columns.size // plan.width
        calls += rows.count * columns.count * (CALL + 2 * rows.size * vectors)
        steps += rows.count * columns.count * max(rows.size * vectors, LATENCY)
    return plan.points_at_once * (plan.blocks * calls + plan.strips_of_share * plan.tiles[1] * steps)


def _transforms(plan: Plan, outs: int, ins: int, machine: Machine) -> float:
    """Cycles to transform a share of the tiles, at some rows of points."""
    total, line = 0.0, -(-plan.tiles[1] * plan.outputs[1] // plan.width)
    pixels = plan.images * math.prod(plan.tiles) * math.prod(plan.outputs)
    size = plan.groups * pixels * (plan.outs + plan.ins) * float32.itemsize
    fetch = MEMORY if size > machine.l2_bytes else FAR
    for reach, channels in ((plan.size, ins), (plan.outputs, outs)):
        fetched = plan.outputs[0] * fetch / len(plan.rows)  # the tasks of other rows find it in a cache
        vertical = fetched + LOAD * reach[0] + plan.rows_at_once * VERTICAL
        horizontal = plan.rows_at_once * (reach[1] + HORIZONTAL + STORE * plan.size[1])
        vectors = plan.pitch(channels) // plan.width
        total += vectors * (line * plan.width * vertical + plan.tiles[1] * horizontal)
    return plan.strips_of_share * total


def _traffic(plan: Plan, machine: Machine) -> float:
    """Cycles of a task to move what does not stay in the second-level cache."""
    in_vectors, out_vectors = (plan.pitch(c) // plan.width for c in (plan.in_block, plan.out_block))
    points = plan.points_at_once * plan.strips_at_once * plan.tiles[1] * (in_vectors + out_vectors)
    sums = plan.points_at_once * plan.out_block * in_vectors
    total = sums * _far(plan, machine)  # written once at the end
    if (points + sums) * machine.vector_bytes > machine.l2_bytes * 7 // 8:
        total += 2 * FAR * (plan.blocks * points + (plan.blocks - 1) * sums)
    return total


def _block_traffic(plan: Plan) -> float:
    """Cycles of a task to fetch transformed tiles (the task before has left M in the cache), and to transform
    back."""
    tiles = plan.strips * plan.tiles[1]
    per_row = plan.out_block * plan.in_block / plan.ins
    back = BACK * plan.points * plan.out_block * plan.pitch(plan.in_block)
    return (FAR * plan.points * tiles * (plan.pitch(plan.in_block) + per_row) + back) / plan.width


def _ahead(plan: Plan, machine: Machine) -> float:
    """Cycles of the kernels that transform all tiles."""
    channels = plan.pitch(plan.outs) + plan.pitch(plan.ins)
    points = plan.points * plan.strips * plan.tiles[1] * channels / plan.width
    return 2 * KERNEL + plan.groups * (_transforms(plan, plan.outs, plan.ins, machine) + MEMORY * points)


def _combination(plan: Plan, machine: Machine) -> float:
    """Cycles of the second kernel."""
    vectors = plan.groups * plan.points * plan.outs * plan.pitch(plan.ins) // plan.width
    return KERNEL + vectors * (_far(plan, machine) * plan.shares + BACK)


def _far(plan: Plan, machine: Machine) -> float:
    """Cycles to move a vector of the shares of dU."""
    size = plan.groups * plan.shares * plan.points * plan.outs * plan.ins * float32.itemsize
    return MEMORY if size > BEYOND * machine.l2_bytes else FAR
