"""Columns in the order of memory: the loop along neighbouring rows goes inside the loops over their elements.

Where vectors run across rows, a vector of rows is swept down its elements, each of them a line or a few of
memory far from the one before: from beyond the second cache these come slowly, since nobody can ask for them
ahead. With the vector loop inside, a piece of many columns is swept: every element of it is a run of memory.
What a row carries from one element to the next and from one sweep to the next (its sums, the inverse of a
softmax's total) is in cache then, with a place for each row of the piece. Each row sees the same operations
in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from graphc.loop.inplace import expressions, walk
from graphc.loop.ir import Accumulate, Alloc, Block, Buffer, Expr, For, Let, Load, Local, Stmt, Store, load


def columns_inside(body: Sequence[Stmt], name: Callable[[str], str]) -> Block:
    """The body of a kernel with its vector loops inside the serial loops that they hold."""
    allocs: list[Stmt] = []
    result = [stmt for outer in body for stmt in _turned(outer, name, allocs)]
    return (*allocs, *result)


def _turned(stmt: Stmt, name: Callable[[str], str], allocs: list[Stmt]) -> list[Stmt]:
    """What a statement becomes; the memory that this needs is added to `allocs`."""
    if not isinstance(stmt, For):
        return [stmt]
    if stmt.mode == "vector":
        turn = _Turn(stmt, name)
        allocs += [Alloc(buffer) for buffer in (*turn.sums.values(), *turn.kept.values())]
        return turn.inside(stmt.body)
    inner = [s for each in stmt.body for s in _turned(each, name, allocs)]
    return [replace(stmt, body=tuple(inner))]


class _Turn:
    """A vector loop, to be written around each run of statements between the loops that it holds.

    sums    where the sums of rows are, which were in registers
    kept    where values are that one run names and another reads
    places  such values that are places, known from loop variables: named again, since reads at a place that
            is read from memory itself would be picked one by one
    """

    def __init__(self, loop: For, name: Callable[[str], str]) -> None:
        self.loop = loop
        self.sums: dict[Buffer, Buffer] = {}
        self.kept: dict[Expr, Buffer] = {}
        self.places: dict[Expr, Let] = {}
        named: dict[Expr, tuple[int, Let]] = {}
        for number, run in enumerate(_runs(loop.body)):
            for stmt in run:
                for local in _names_in(stmt):
                    home, let = named.get(local, (number, None))
                    if let is not None and home != number:
                        self._share(let, name)
                if isinstance(stmt, Let):
                    named[stmt.local] = number, stmt
                elif isinstance(stmt, Alloc):
                    self.sums[stmt.buffer] = self._room(name("sums"), stmt.buffer)

    def _share(self, let: Let, name: Callable[[str], str]) -> None:
        if not any(isinstance(e, Load | Local) for e in walk(let.value)):
            self.places[let.local] = let
        elif let.local not in self.kept:
            self.kept[let.local] = self._room(name("row"), let.local)

    def _room(self, name: str, of: Buffer | Local) -> Buffer:
        return Buffer(name, of.dtype, (self.loop.var.extent,), "scratch")

    def inside(self, body: Block) -> list[Stmt]:
        """The loops of a block, with the vector loop in each of them and around what is between them."""
        result: list[Stmt] = []
        for part in _parts(body):
            if isinstance(part, For):
                result.append(replace(part, body=tuple(self.inside(part.body))))
            elif run := self._run(part):
                result.append(replace(self.loop, body=tuple(run)))
        return result

    def _run(self, stmts: Sequence[Stmt]) -> list[Stmt]:
        """A run for one vector of rows: what it needs of others, its statements, what others need of it."""
        at = (self.loop.var,)
        made = {stmt.local for stmt in stmts if isinstance(stmt, Let)}
        needed = [e for e in dict.fromkeys(e for stmt in stmts for e in _names_in(stmt)) if e not in made]
        result: list[Stmt] = [self.places[e] for e in needed if e in self.places]
        result += [Let(e, load(self.kept[e], at)) for e in needed if e in self.kept]
        result += [self._of_rows(stmt) for stmt in stmts if not isinstance(stmt, Alloc)]
        return result + [Store(buffer, at, e) for e, buffer in self.kept.items() if e in made]

    def _of_rows(self, stmt: Stmt) -> Stmt:
        """A statement with the sums of its row where those of all rows are."""
        at = (self.loop.var,)
        match stmt:
            case Let(local, Load(_, buffer)) if buffer in self.sums:
                return Let(local, load(self.sums[buffer], at))
            case Store(buffer, _, value) if buffer in self.sums:
                return Store(self.sums[buffer], at, value)
            case Accumulate(buffer, _, how, value) if buffer in self.sums:
                return Accumulate(self.sums[buffer], at, how, value)
        return stmt


def _parts(body: Iterable[Stmt]) -> Iterator[For | list[Stmt]]:
    """The loops of a block and the runs of statements between them."""
    run: list[Stmt] = []
    for stmt in body:
        if not isinstance(stmt, For):
            run.append(stmt)
            continue
        if run:
            yield run
        run = []
        yield stmt
    if run:
        yield run


def _runs(body: Iterable[Stmt]) -> Iterator[list[Stmt]]:
    """The runs of statements between loops, at all depths, in textual order."""
    for part in _parts(body):
        if isinstance(part, For):
            yield from _runs(part.body)
        else:
            yield part


def _names_in(stmt: Stmt) -> list[Local]:
    """The names that a statement reads."""
    return [e for root in expressions(stmt) for e in walk(root) if isinstance(e, Local)]
