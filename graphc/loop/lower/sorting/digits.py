"""Longer lines: a radix sort of keys and positions, a digit after the other from the lowest.

All digits are counted while the keys are made. Then a pass over the pairs moves each to where its digit's run
stands; a digit that is the same in the whole line (those of small integers) is passed over. Pairs go back and
forth between the two sides of scratch memory.
"""

from __future__ import annotations

from graphc.ir.partition import Group
from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import ONE, ZERO, Accumulate, Buffer, Const, Expr, Store, binary, cast, load
from graphc.loop.lower import cost
from graphc.loop.lower.evaluate import Evaluator
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import cut
from graphc.loop.lower.scope import Scope
from graphc.loop.lower.sorting.keys import DIGIT_BITS, DIGITS, Lines
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

OF_DIGIT = 6.0  # cycles of one digit of one element: loads, a count, two stores
OF_TABLE = 1.2  # cycles for each entry of a digit's table of counts


def digits_cycles(lines: Lines) -> float:
    """Cycles that a line takes."""
    return lines.key_digits * (OF_DIGIT * lines.extent + OF_TABLE * DIGITS)


def fits(lines: Lines, machine: Machine) -> bool:
    """Whether the two sides of a line's pairs leave half of a core's cache for other things."""
    pair = lines.key_type.itemsize + lines.place_type.itemsize
    return 2 * pair * lines.extent <= machine.l2_bytes // 2


def sort_by_digits(group: Group, lines: Lines, machine: Machine) -> KernelCall:
    """One kernel; a task takes some lines."""
    frame, scope = Frame(group), Scope()
    work = cost.traffic(group) + cost.flops(group)
    grid = cut(lines.count, cost.tasks_wanted(work))
    frame.set_tasks(grid.tasks)
    evaluator = frame.evaluator(scope)
    with scope.loop("l", grid.extent(frame.task()), grid.block) as some:
        line = ix.below(ix.add(ix.mul(frame.task(), grid.block), some), grid.size)
        sort = _Sort(scope, lines)
        sort.begin(evaluator, line, machine)
        with scope.loop("d", lines.key_digits) as digit:
            sort.move(digit)
        side = sort.current()
        with scope.loop("p", lines.kept, None, "vector", machine.lanes(8)) as at:
            position = cast(load(sort.places, (side, at)), int64)
            frame.store(scope, lines.node, lines.result(line, at), position)
    return frame.call(scope, "sort_digits", work)


class _Sort:
    """The memory of one line's sort: pairs on two sides, counts of each digit, and which side is current."""

    def __init__(self, scope: Scope, lines: Lines) -> None:
        self.scope, self.lines = scope, lines
        sides = (2, lines.extent)
        self.keys = scope.alloc("keys", lines.key_type, sides)
        self.places = scope.alloc("places", lines.place_type, sides)
        self.counts = scope.alloc("counts", lines.place_type, (lines.key_digits, DIGITS))
        self.side = scope.alloc("side", int64, (), "local")

    def current(self) -> Expr:
        return self.scope.let(load(self.side, ()), "side")

    def begin(self, evaluator: Evaluator, line: Expr, machine: Machine) -> None:
        """Make the keys, and count their digits."""
        scope, lines, kind = self.scope, self.lines, self.lines.place_type
        scope.put(Store(self.side, (), ZERO))
        tables, lanes = lines.key_digits * DIGITS, machine.lanes(kind.itemsize)
        with scope.loop("b", tables, None, "vector", lanes) as b:
            scope.store(self.counts, ix.unflatten(b, self.counts.shape), Const(kind, 0))
        with scope.loop("k", lines.extent, None, "vector", machine.lanes(lines.key_type.itemsize)) as at:
            key = lines.unsigned(lines.key(scope, evaluator, line, at))
            scope.store(self.keys, (ZERO, at), key)
            scope.store(self.places, (ZERO, at), cast(at, kind))
        with scope.loop("c", lines.extent) as at:
            key = scope.let(load(self.keys, (ZERO, at)), "key")
            for d in range(lines.key_digits):
                digit = lines.digit(scope, key, Const(key.dtype, DIGIT_BITS * d))
                scope.put(Accumulate(self.counts, (ix.const(d), digit), "add", Const(kind, 1)))

    def move(self, digit: Expr) -> None:
        """Order the pairs by a digit, unless all have the same."""
        scope, lines, kind = self.scope, self.lines, self.lines.place_type
        side = self.current()
        shift = scope.let(cast(ix.mul(digit, DIGIT_BITS), lines.key_type), "shift")
        first = lines.digit(scope, load(self.keys, (side, ZERO)), shift)
        differ = binary("lt", load(self.counts, (digit, first)), Const(kind, lines.extent))
        with scope.when(differ):
            start_runs(scope, self.counts, digit)
            other = scope.let(binary("sub", ONE, side), "other")
            with scope.loop("m", lines.extent) as at:
                key = scope.let(load(self.keys, (side, at)), "key")
                value = lines.digit(scope, key, shift)
                to = scope.let(load(self.counts, (digit, value)), "to")
                scope.store(self.counts, (digit, value), binary("add", to, Const(kind, 1)))
                place = ix.canonical(cast(to, int64))
                scope.store(self.keys, (other, place), key)
                scope.store(self.places, (other, place), load(self.places, (side, at)))
            scope.put(Store(self.side, (), other))


def start_runs(scope: Scope, counts: Buffer, row: Expr) -> None:
    """Replace the counts of a row by where the run of each digit starts: the sum of those before it."""
    kind = counts.dtype
    total = scope.alloc("total", kind, (), "local")
    scope.put(Store(total, (), Const(kind, 0)))
    with scope.loop("b", counts.shape[-1]) as b:
        count = scope.let(load(counts, (row, b)), "count")
        scope.store(counts, (row, b), load(total, ()))
        scope.put(Accumulate(total, (), "add", count))
