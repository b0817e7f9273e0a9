"""Short lines: the position of each element is the number of elements that come before it.

Elements are counted in vectors, each against all others: two operations for each vector and each element, no
branches and no exchanges of lanes. Elements that stand in front of a vector come before its equal ones, those
behind come after them; only within the vector positions are compared as well.
"""

from __future__ import annotations

from graphc.ir.partition import Group
from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Accumulate, Buffer, Const, Expr, Store, binary, cast, load, select
from graphc.loop.lower import cost
from graphc.loop.lower.frame import Frame
from graphc.loop.lower.nest import cut
from graphc.loop.lower.scope import Scope
from graphc.loop.lower.sorting.keys import Lines
from graphc.loop.lowered import KernelCall
from graphc.program import Machine

OF_COUNTING = 3.5  # cycles to count one element for a vector: a load to all lanes, a comparison, a masked add


def counted_cycles(lines: Lines, machine: Machine) -> float:
    """Cycles that a line takes."""
    n = lines.extent
    return OF_COUNTING * n * -(-n // machine.lanes(lines.key_type.itemsize))


def sort_by_counting(group: Group, lines: Lines, machine: Machine) -> KernelCall:
    """One kernel; a task takes some lines."""
    frame, scope = Frame(group), Scope()
    evaluator = frame.evaluator(scope)
    n, kind = lines.extent, lines.key_type
    lanes = machine.lanes(kind.itemsize)
    work = cost.traffic(group) + lines.count * counted_cycles(lines, machine)
    grid = cut(lines.count, cost.tasks_wanted(work))
    frame.set_tasks(grid.tasks)
    with scope.loop("l", grid.extent(frame.task()), grid.block) as some:
        line = ix.below(ix.add(ix.mul(frame.task(), grid.block), some), grid.size)
        keys, ranks = scope.alloc("keys", kind, (n,)), scope.alloc("ranks", kind, (n,))
        with scope.loop("k", n, None, "vector", lanes) as at:
            scope.store(keys, (at,), lines.key(scope, evaluator, line, at))
        whole, rest = divmod(n, lanes)
        if whole:
            with scope.loop("g", whole) as some_vector:
                _count(scope, keys, ranks, ix.mul(some_vector, lanes), lanes, lanes)
        if rest:
            _count(scope, keys, ranks, ix.const(whole * lanes), rest, lanes)
        with scope.loop("p", n) as at:
            rank = ix.below(ix.canonical(scope.let(cast(load(ranks, (at,)), int64), "rank")), n)
            with scope.when(ix.compare("lt", rank, lines.kept)):
                frame.store(scope, lines.node, lines.result(line, rank), at)
    return frame.call(scope, "sort_counted", work)


def _count(scope: Scope, keys: Buffer, ranks: Buffer, first: Expr, size: int, lanes: int) -> None:
    """The ranks of `size` neighbours, those from `first` on."""
    (n,), kind = keys.shape, keys.dtype
    one, none = Const(kind, 1), Const(kind, 0)

    def add(count: Buffer, comes_before: Expr) -> None:
        scope.put(Accumulate(count, (), "add", select(comes_before, one, none)))

    with scope.loop("v", size, None, "vector", lanes) as v:
        at = ix.add(first, v)
        count = scope.alloc("count", kind, (), "local")
        scope.put(Store(count, (), none))
        mine = scope.let(load(keys, (at,)), "key")
        if first is not ZERO:
            with scope.loop("j", first, n) as j:  # all in front
                add(count, binary("le", load(keys, (j,)), mine))
        with scope.loop("j", size) as j:
            other = scope.let(load(keys, (ix.add(first, j),)), "key")
            tie = binary("and", binary("eq", other, mine), ix.compare("lt", j, v))
            add(count, binary("or", binary("lt", other, mine), tie))
        behind = ix.add(first, size)
        if (left := ix.sub(n, behind)) is not ZERO:
            with scope.loop("j", left, n) as j:
                add(count, binary("lt", load(keys, (ix.add(behind, j),)), mine))
        scope.store(ranks, (at,), load(count, ()))
