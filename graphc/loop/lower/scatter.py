"""Loops of scatters: rows, or single elements, are added to places that are read from memory.

Each place adds up what goes there in the order of the elements, whatever the number of tasks.

Rows. A task owns a range of the scattered axis and takes the rows that go there. It reads the places in
blocks and first lists which rows of the block are its own, without a branch that could be mispredicted.
With the list it knows which rows come next, and asks for them while it adds: of a large operand a range gets
a row here and there, which no prefetcher of the machine sees come.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod

from graphc.ir.node import Node
from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import (
    ONE,
    ZERO,
    Accumulate,
    Expr,
    Mode,
    Prefetch,
    Select,
    Store,
    cast,
    load,
)
from graphc.loop.lower.box import enter, make_box
from graphc.loop.lower.contraction.fused import place as load_of
from graphc.loop.lower.contraction.problem import Access
from graphc.loop.lower.evaluate import Evaluator
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import Grid, cut, lanes_for
from graphc.loop.lower.scope import Scope
from graphc.program import LINE

RANGES = 16  # most parts that a scatter cuts the scattered axis into
BLOCK = 2048  # places that are read at a time: the list of those in a range is in the first cache
AHEAD = 4  # rows between the one that is added and the one that is asked for
LINES = 16  # of a row that are asked for; in longer rows the machine's prefetcher sees the rest come


def around(node: Node, axis: int) -> tuple[int, int, int]:
    """(elements before the axis, its extent, elements after it)."""
    return prod(node.shape[:axis]), node.shape[axis], prod(node.shape[axis + 1 :])


@dataclass(frozen=True)
class _Rows:
    """A scatter of rows: to `outer` x `extent` rows of `inner` elements, from `count` rows each."""

    scope: Scope
    frame: Frame
    evaluator: Evaluator
    node: Node
    ranges: Grid
    lanes: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        return around(self.node, self.node.attrs.axis)

    @property
    def count(self) -> int:
        return self.node.inputs[1].type.size

    def across(self) -> AbstractContextManager[Expr]:
        """The loop over the elements of a row."""
        inner = self.sizes[2]
        mode: Mode = "vector" if inner > 1 else "serial"
        return self.scope.loop("v", inner, None, mode, self.lanes)

    def begin(self, before: Expr, part: Expr) -> None:
        """The rows of a range, before anything is added."""
        base = self.node.inputs[0]
        with self.scope.loop("a", self.ranges.extent(part), self.ranges.block) as a, self.across() as after:
            at = ix.add(ix.mul(part, self.ranges.block), a)
            place = ix.flatten((before, at, after), self.sizes)
            value = self.evaluator.value(base, ix.unflatten(place, self.node.shape))
            self.frame.store(self.scope, self.node, place, value)

    def position(self, j: Expr) -> Expr:
        """Where row number `j` goes."""
        indices = self.node.inputs[1]
        return _position(self.scope, self.evaluator.value(indices, ix.unflatten(j, indices.shape)))

    def add(self, before: Expr, j: Expr) -> None:
        """Add row number `j`."""
        outer, _, inner = self.sizes
        updates, at = self.node.inputs[2], self.position(j)
        with self.across() as after:
            source = ix.flatten((before, j, after), (outer, self.count, inner))
            value = self.evaluator.value(updates, ix.unflatten(source, updates.shape))
            place = ix.flatten((before, at, after), self.sizes)
            self.frame.accumulate(self.scope, self.node, place, "add", value)

    def add_range(self, before: Expr, part: Expr) -> None:
        """Add the rows that go to a range, a block of places after the other."""
        scope, block = self.scope, min(BLOCK, self.count)
        low, extent = ix.mul(part, self.ranges.block), self.ranges.extent(part)
        mine = scope.alloc("mine", int64, (block,))
        blocks = Grid(self.count, block)
        with scope.loop("b", blocks.tasks) as number:
            first = ix.mul(number, block)
            found = scope.alloc("found", int64, (), "local")
            scope.put(Store(found, (), ZERO))
            with scope.loop("j", blocks.extent(number), block) as step:
                j = ix.below(ix.add(first, step), self.count)
                at = ix.sub(self.position(j), low)
                inside = ix.both(ix.compare("ge", at, ZERO), ix.compare("lt", at, extent))
                scope.put(Store(mine, (scope.let(load(found, ()), "n"),), j))
                scope.put(Accumulate(found, (), "add", Select(int64, inside, ONE, ZERO)))
            many = ix.canonical(scope.let(load(found, ()), "many"))
            with scope.loop("k", many, block) as k:
                ahead = ix.minimum(ix.add(k, AHEAD), ix.sub(many, 1))
                self._ask(before, ix.canonical(scope.let(load(mine, (ahead,)), "ahead")))
                self.add(before, ix.canonical(scope.let(load(mine, (k,)), "row")))

    def _ask(self, before: Expr, j: Expr) -> None:
        """Ask for the beginning of row number `j`, if rows are read from memory as they stand."""
        outer, _, inner = self.sizes
        updates = self.node.inputs[2]
        source = ix.flatten((before, j, ZERO), (outer, self.count, inner))
        access = Access(updates, ix.unflatten(source, updates.shape))
        found = load_of(self.frame.group, self.frame.buffer, access)
        if found is None or len(found.index) != 1:
            return
        step = LINE // updates.dtype.itemsize
        for at in range(0, min(inner, LINES * step), step):
            self.scope.put(Prefetch(found.buffer, (ix.add(found.index[0], at),), near=False))


def scatter_rows(
    scope: Scope, frame: Frame, evaluator: Evaluator, node: Node, wanted: int, width: int
) -> None:
    """Whole rows are added; a task owns a range of the scattered axis and looks for its rows."""
    outer, extent, inner = around(node, node.attrs.axis)
    shares = cut(outer, wanted)
    ranges = cut(extent, min(RANGES, max(1, wanted // shares.tasks)))
    frame.set_tasks(shares.tasks * ranges.tasks)
    part = ix.mod(frame.task(), ranges.tasks)
    share = ix.floordiv(frame.task(), ranges.tasks)
    rows = _Rows(scope, frame, evaluator, node, ranges, lanes_for(max(inner, 2), width, 4))
    with scope.loop("o", shares.extent(share), shares.block) as row:
        before = ix.add(ix.mul(share, shares.block), row)
        rows.begin(before, part)
        if ranges.tasks > 1:
            rows.add_range(before, part)
        else:
            with scope.loop("j", rows.count) as j:
                rows.add(before, j)


def scatter_along(
    scope: Scope, frame: Frame, evaluator: Evaluator, node: Node, wanted: int, width: int
) -> None:
    """Lines along the axis are independent, with indices of their own; a line is added up in order."""
    base, indices, updates = node.inputs
    axis = node.attrs.axis
    outer, extent, inner = around(node, axis)
    count = indices.shape[axis]
    box = make_box((outer, inner), None, 1, wanted)
    frame.set_tasks(box.tasks)
    with enter(scope, box, frame.task()) as line:
        before, after = ix.unflatten(line, (outer, inner))
        mode: Mode = "vector" if inner == 1 < extent else "serial"
        with scope.loop("a", extent, None, mode, lanes_for(max(extent, 2), width, 4)) as a:
            place = ix.flatten((before, a, after), (outer, extent, inner))
            frame.store(scope, node, place, evaluator.value(base, ix.unflatten(place, node.shape)))
        lead, tail = ix.unflatten(before, node.shape[:axis]), ix.unflatten(after, node.shape[axis + 1 :])
        smaller = zip((*lead, *tail), indices.shape[:axis] + indices.shape[axis + 1 :], strict=True)
        has_updates = ix.all_of(ix.compare("lt", i, n) for i, n in smaller)
        with scope.when(has_updates), scope.loop("j", count) as j:
            source = (*lead, j, *tail)
            at = _position(scope, evaluator.value(indices, source))
            value = evaluator.value(updates, source)
            place = ix.flatten((before, at, after), (outer, extent, inner))
            frame.accumulate(scope, node, place, "add", value)


def _position(scope: Scope, value: Expr) -> Expr:
    """A loaded index as an index expression."""
    return ix.canonical(scope.let(cast(value, int64), "at"))
