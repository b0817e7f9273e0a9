"""The first few of a line: a tournament of blocks.

One pass finds the best element of each block. Then, for each element wanted, the best of the blocks says in
which block it is, and that block's best is found again among what is left of it. Elements come in the order
of (key, position), so what was taken last tells what is left: nothing is moved or marked, equal elements keep
their order, and the time does not depend on the values. Where blocks are about the square root of a line,
rounds are short beside the pass over the line.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from graphc.ir.partition import Group
from graphc.ir.types import TensorType, int64
from graphc.loop import index as ix
from graphc.loop.ir import Accumulate, Const, Expr, Store, binary, cast, load, select
from graphc.loop.lower import cost
from graphc.loop.lower.evaluate import Evaluator
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import Grid, cut
from graphc.loop.lower.scope import Scope
from graphc.loop.lower.sorting.keys import Lines
from graphc.loop.lowered import KernelCall, Temp
from graphc.program import Machine

OF_KEY = 5.0  # cycles of the keys of a vector: eight operations, two of them in a cycle, and a load
OF_APART = 1.5  # cycles of an element that is loaded alone, where those of a line are no neighbours
OF_BLOCK = 2.0  # cycles of a vector of the blocks' best: a load, a comparison, a minimum
OF_LOOP = 25.0  # cycles until the lanes of a minimum are one


def first_cycles(lines: Lines, machine: Machine) -> float:
    """Cycles that a line takes."""
    return sum(_cycles(lines, machine, _block(lines, machine)))


def _cycles(lines: Lines, machine: Machine, block: int) -> tuple[float, float]:
    """Cycles of the pass over a line in blocks of this size, and of its rounds."""
    lanes = machine.lanes(lines.key_type.itemsize)
    key = OF_KEY if lines.around[2] == 1 else OF_KEY + OF_APART * lanes
    blocks = -(-lines.extent // block)
    a_block = key * -(-block // lanes) + OF_LOOP
    a_list = OF_BLOCK * -(-blocks // lanes) + OF_LOOP
    return blocks * a_block, lines.kept * 2 * (a_block + a_list)


def _block(lines: Lines, machine: Machine) -> int:
    """Elements of a block: of whole vectors, as many as take the fewest cycles."""
    sizes = [machine.lanes(lines.key_type.itemsize)]
    while sizes[-1] < lines.extent:
        sizes.append(2 * sizes[-1])
    return min(sizes, key=lambda size: sum(_cycles(lines, machine, size)))


def find_first(group: Group, lines: Lines, machine: Machine) -> tuple[KernelCall, ...]:
    """One kernel; two where there are fewer lines than tasks: then tasks share the blocks of a line."""
    blocks = _Tournament(group, lines, machine)
    tasks = cost.tasks_wanted(cost.traffic(group) + blocks.pass_work + blocks.round_work)
    if tasks <= lines.count:
        return (blocks.call(tasks),)
    return blocks.begin_call(tasks), blocks.end_call()


class _Tournament:
    """The kernels; and the parts they are made of."""

    def __init__(self, group: Group, lines: Lines, machine: Machine) -> None:
        self.group, self.lines = group, lines
        self.lanes = machine.lanes(lines.key_type.itemsize)
        self.blocks = Grid(lines.extent, _block(lines, machine))
        self.pass_work, self.round_work = [
            lines.count * cycles for cycles in _cycles(lines, machine, self.blocks.block)
        ]
        self.found = Temp("first_best", TensorType((lines.count, self.blocks.tasks), lines.key_type))

    @cached_property
    def last(self) -> Const:
        """The key that comes after all others."""
        kind = self.lines.key_type
        return Const(kind, 2 ** (8 * kind.itemsize - 1) - 1)

    # ----------------------------------------------------------------- kernels

    def call(self, tasks: int) -> KernelCall:
        """Everything; a task takes some lines."""
        frame, scope, grid = Frame(self.group), Scope(), cut(self.lines.count, tasks)
        frame.set_tasks(grid.tasks)
        with scope.loop("l", grid.extent(frame.task()), grid.block) as some:
            line = ix.below(ix.add(ix.mul(frame.task(), grid.block), some), grid.size)
            rounds = _Rounds(self, frame, scope, line)
            with scope.loop("b", self.blocks.tasks) as block:
                scope.store(rounds.best, (block,), self.best(scope, rounds.evaluator, line, block))
            rounds.play()
        return frame.call(scope, "sort_first", self.pass_work + self.round_work)

    def begin_call(self, tasks: int) -> KernelCall:
        """The best of each block; a task takes some of a line."""
        frame, scope = Frame(self.group), Scope()
        evaluator = frame.evaluator(scope)
        grid = cut(self.blocks.tasks, -(-tasks // self.lines.count))
        frame.set_tasks(self.lines.count * grid.tasks)
        line, task = ix.floordiv(frame.task(), grid.tasks), ix.mod(frame.task(), grid.tasks)
        with scope.loop("b", grid.extent(task), grid.block) as some:
            block = ix.below(ix.add(ix.mul(task, grid.block), some), grid.size)
            place = ix.flatten((line, block), self.found.type.shape)
            frame.store(scope, self.found, place, self.best(scope, evaluator, line, block))
        return frame.call(scope, "sort_first_begin", self.pass_work)

    def end_call(self) -> KernelCall:
        """The rounds; a task takes a line."""
        frame, scope = Frame(self.group), Scope()
        frame.set_tasks(self.lines.count)
        rounds = _Rounds(self, frame, scope, frame.task())
        with scope.loop("b", self.blocks.tasks, None, "vector", self.lanes) as block:
            place = ix.flatten((rounds.line, block), self.found.type.shape)
            scope.store(rounds.best, (block,), frame.read(self.found, place))
        rounds.play()
        return frame.call(scope, "sort_first_end", self.round_work)

    # -------------------------------------------------------------------- parts

    def best(self, scope: Scope, evaluator: Evaluator, line: Expr, block: Expr) -> Expr:
        """The best key of a block."""
        return self.least_in(scope, block, self.last, lambda at: self.lines.key(scope, evaluator, line, at))

    def least_in(self, scope: Scope, block: Expr, none: Const, of: Callable[[Expr], Expr]) -> Expr:
        """The smallest value of the positions in a block (of the line), or `none`."""
        grid = self.blocks

        def value(e: Expr) -> Expr:
            return of(ix.below(ix.add(ix.mul(block, grid.block), e), grid.size))

        return self.least(scope, grid.extent(block), grid.block, none, value)

    def least(self, scope: Scope, extent: Expr, most: int, none: Const, of: Callable[[Expr], Expr]) -> Expr:
        """The smallest value of range(extent), or `none`."""
        least = scope.alloc("least", none.dtype, (), "local")
        scope.put(Store(least, (), none))
        with scope.loop("e", extent, most, "vector", self.lanes) as e:
            scope.put(Accumulate(least, (), "min", of(e)))
        return scope.let(load(least, ()), "least")


class _Rounds:
    """The rounds of a line: `best` holds the best key of each block, `left` how many elements it has left."""

    def __init__(self, parent: _Tournament, frame: Frame, scope: Scope, line: Expr) -> None:
        self.parent, self.frame, self.scope, self.line = parent, frame, scope, line
        self.evaluator = frame.evaluator(scope)
        lines = parent.lines
        self.best = scope.alloc("best", lines.key_type, (parent.blocks.tasks,))
        self.left = scope.alloc("left", lines.place_type, (parent.blocks.tasks,))
        self.last_key = scope.alloc("last_key", lines.key_type, (), "local")
        self.last_at = scope.alloc("last_at", lines.place_type, (), "local")

    def play(self) -> None:
        """Take one element after the other."""
        scope, lines, blocks = self.scope, self.parent.lines, self.parent.blocks
        kind = lines.place_type
        with scope.loop("b", blocks.tasks, None, "vector", self.parent.lanes) as block:
            scope.store(self.left, (block,), cast(blocks.extent(block), kind))
        scope.put(Store(self.last_key, (), self.parent.last))
        scope.put(Store(self.last_at, (), Const(kind, -1)))
        with scope.loop("r", lines.kept) as r:
            key, block = self._winner()
            at = self._take(key, block)
            self.frame.store(scope, lines.node, lines.result(self.line, r), cast(at, int64))
            self._play_again(key, at, block)
            scope.put(Store(self.last_key, (), key))
            scope.put(Store(self.last_at, (), at))

    def _winner(self) -> tuple[Expr, Expr]:
        """The best key, and the first block that has it."""
        scope, lines, blocks = self.scope, self.parent.lines, self.parent.blocks.tasks
        count, kind = ix.const(blocks), lines.place_type
        key = self.parent.least(scope, count, blocks, self.parent.last, lambda b: load(self.best, (b,)))

        def number(b: Expr) -> Expr:
            has_it = binary("eq", load(self.best, (b,)), key)
            some_left = binary("gt", load(self.left, (b,)), Const(kind, 0))
            return select(binary("and", has_it, some_left), cast(b, kind), Const(kind, blocks))

        block = self.parent.least(scope, count, blocks, Const(kind, blocks), number)
        return key, ix.below(ix.canonical(scope.let(cast(block, int64), "block")), blocks)

    def _take(self, key: Expr, block: Expr) -> Expr:
        """Where the first of a block's elements with this key is that has not been taken."""
        scope, lines, kind = self.scope, self.parent.lines, self.parent.lines.place_type
        none = Const(kind, lines.extent)
        again = binary("eq", key, load(self.last_key, ()))
        after = scope.let(select(again, load(self.last_at, ()), Const(kind, -1)), "after")

        def place(at: Expr) -> Expr:
            here = scope.let(cast(at, kind), "at")
            same = binary("eq", lines.key(scope, self.evaluator, self.line, at), key)
            return select(binary("and", same, binary("gt", here, after)), here, none)

        return self.parent.least_in(scope, block, none, place)

    def _play_again(self, key: Expr, at: Expr, block: Expr) -> None:
        """The best of what is left of a block after the element at a position has been taken."""
        scope, lines, kind = self.scope, self.parent.lines, self.parent.lines.place_type

        def candidate(other: Expr) -> Expr:
            mine = scope.let(lines.key(scope, self.evaluator, self.line, other), "key")
            later = binary("and", binary("eq", mine, key), binary("gt", cast(other, kind), at))
            return select(binary("or", binary("gt", mine, key), later), mine, self.parent.last)

        scope.store(self.best, (block,), self.parent.least_in(scope, block, self.parent.last, candidate))
        left = binary("sub", load(self.left, (block,)), Const(kind, 1))
        scope.store(self.left, (block,), left)
