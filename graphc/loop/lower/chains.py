"""A body in which functions follow one another (the tanh of a cell's new state, which its gates' sigmoids and
tanh lead to) in loops of their own, one for each link of the chain.

A function like these is a chain of two dozen instructions itself, each of which waits for the one before. A
core looks some hundred instructions ahead, so while the last link of one iteration waits, it does not reach
the next iteration. In loops of their own all iterations of a link are independent of each other, and there
are always several in flight; what a later link needs of an earlier one takes a round trip through the
first-level cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc.loop.inplace import children, expressions, walk
from graphc.loop.ir import (
    UNARY_OPS,
    Alloc,
    Binary,
    Block,
    Buffer,
    Expr,
    For,
    If,
    Let,
    Local,
    Stmt,
    Store,
    Unary,
    load,
)

SHORT = frozenset("neg abs sign floor ceil round trunc sqrt rsqrt not".split())  # one instruction or a few
LONG = (UNARY_OPS - SHORT) | {"pow", "atan2"}
LEAST = 4  # iterations of a loop: with fewer there is nothing to overlap


def link_by_link(body: Sequence[Stmt], name: Callable[[str], str]) -> list[Stmt]:
    """The statements of an epilogue, in which loops over rows, inside a loop over columns, become loops that
    compute one link of a chain each, with scratch memory between them. Where there is no chain of two
    functions, they stay.

    Stores stay behind the loads of their row: a result may still be written over an operand.
    """
    result: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, For) and stmt.mode == "vector":
            result += _cut(stmt, name)
        elif isinstance(stmt, For | If):
            result.append(replace(stmt, body=tuple(link_by_link(stmt.body, name))))
        else:
            result.append(stmt)
    return result


def _cut(columns: For, name: Callable[[str], str]) -> list[Stmt]:
    """A loop over columns with its loops over rows cut, after the scratch memory for what is kept."""
    allocs: list[Stmt] = []
    body: list[Stmt] = []
    for stmt in columns.body:
        rows = stmt if isinstance(stmt, For) and stmt.var.extent >= LEAST else None
        links = _links(rows.body) if rows is not None else {}
        if rows is None or len(set(links.values())) < 2:
            body.append(stmt)
            continue
        split = _Split(columns, rows, links, name)
        body += split.loops()
        allocs += [Alloc(buffer) for buffer in split.kept.values()]
    return [*allocs, replace(columns, body=tuple(body))]


def _links(body: Block) -> dict[Stmt, int]:
    """The link of a chain at which each statement can be run; none if the body has other statements than
    names and stores."""
    depth: dict[Expr, int] = {}
    links: dict[Stmt, int] = {}
    for stmt in body:
        if not isinstance(stmt, Let | Store):
            return {}
        link = max([_depth(e, depth) for e in expressions(stmt)])
        if isinstance(stmt, Let):
            depth[stmt.local] = link
        links[stmt] = max(link, 1)
    return links


def _depth(expr: Expr, known: dict[Expr, int]) -> int:
    """How many functions follow one another up to an expression."""
    inner = max([_depth(e, known) for e in children(expr)], default=known.get(expr, 0))
    return inner + (isinstance(expr, Unary | Binary) and expr.op in LONG)


class _Split:
    """The loops that a loop over rows becomes; `kept` are the values that later links read."""

    def __init__(self, columns: For, rows: For, links: dict[Stmt, int], name: Callable[[str], str]) -> None:
        self.rows, self.links, self.place = rows, links, (rows.var, columns.var)
        last: dict[Expr, int] = {}
        for stmt, link in links.items():
            last.update((e, max(last.get(e, 0), link)) for e in _names_in(stmt))
        shape = rows.var.extent, columns.var.extent
        self.kept = {
            stmt.local: Buffer(name("link"), stmt.local.dtype, shape, "scratch")
            for stmt, link in links.items()
            if isinstance(stmt, Let) and last.get(stmt.local, 0) > link
        }

    def loops(self) -> list[Stmt]:
        """A loop for each link, first to last."""
        return [self._loop(link) for link in sorted(set(self.links.values()))]

    def _loop(self, link: int) -> For:
        """The statements of a link, after what it needs of those before."""
        ours = [stmt for stmt in self.links if self.links[stmt] == link]
        made = {stmt.local for stmt in ours if isinstance(stmt, Let)}
        needed = dict.fromkeys([e for stmt in ours for e in _names_in(stmt) if e in self.kept])
        body: list[Stmt] = [Let(e, load(self.kept[e], self.place)) for e in needed if e not in made]
        body += ours
        body += [Store(buffer, self.place, e) for e, buffer in self.kept.items() if e in made]
        return For(self.rows.var, self.rows.extent, tuple(body), self.rows.mode, self.rows.lanes)


def _names_in(stmt: Stmt) -> list[Local]:
    """The names that a statement reads."""
    return [e for root in expressions(stmt) for e in walk(root) if isinstance(e, Local)]
