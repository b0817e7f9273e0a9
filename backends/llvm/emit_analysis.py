"""Questions about loop IR that can be answered before any code is emitted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from graphc.ir.types import bool_, int64
from graphc.loop import inplace, ir


def children(e: ir.Expr) -> tuple[ir.Expr, ...]:
    """The operands whose values an expression needs (a Load's index is an address: not among them)."""
    if isinstance(e, ir.Unary | ir.Cast):
        return (e.x,)
    if isinstance(e, ir.Binary):
        return (e.a, e.b)
    if isinstance(e, ir.Select):
        return (e.condition, e.a, e.b)
    if isinstance(e, ir.Load):
        return tuple(c for c in (e.mask, e.other) if c is not None)
    return ()


def element_count(buffer: ir.Buffer) -> int:
    """Number of elements of a buffer."""
    return math.prod(buffer.shape)


def statements(body: ir.Block) -> Iterator[ir.Stmt]:
    """All statements of a block, nested ones too."""
    stack = list(reversed(body))
    while stack:
        stmt = stack.pop()
        yield stmt
        if isinstance(stmt, ir.For | ir.If):
            stack.extend(reversed(stmt.body))


def written(body: ir.Block) -> frozenset[ir.Buffer]:
    """Buffers that a block writes."""
    result = set()
    for stmt in statements(body):
        if isinstance(stmt, ir.Store | ir.Accumulate):
            result.add(stmt.buffer)
        elif isinstance(stmt, ir.Tile):
            result.add(stmt.c.buffer)
        elif isinstance(stmt, ir.Note):
            result.add(stmt.places)
    return frozenset(result)


def loaded(body: Iterable[ir.Stmt]) -> set[ir.Buffer]:
    """Buffers that statements load from (not those nested in them)."""
    values = [e for stmt in body for root in inplace.expressions(stmt) for e in inplace.walk(root)]
    return {e.buffer for e in values if isinstance(e, ir.Load)}


def reductions(loop: ir.For) -> Iterable[tuple[ir.Buffer, ir.Combine]]:
    """Locals from outside the loop that it accumulates into, independently of its variable."""
    tainted = {loop.var.name}
    inner: set[ir.Buffer] = set()
    for stmt in statements(loop.body):
        if isinstance(stmt, ir.Alloc):
            inner.add(stmt.buffer)
        elif isinstance(stmt, ir.Let) and depends(stmt.value, tainted):
            tainted.add(stmt.local.name)
        elif isinstance(stmt, ir.Accumulate):
            outer = stmt.buffer.space == "local" and stmt.buffer not in inner
            if outer and not any(depends(e, tainted) for e in stmt.index):
                yield stmt.buffer, stmt.combine


def expressions(body: ir.Block) -> Iterator[ir.Expr]:
    """All expressions in a block of Lets and Stores, each once, index expressions too."""
    stack: list[ir.Expr] = []
    for stmt in body:
        if isinstance(stmt, ir.Let):
            stack.append(stmt.value)
        elif isinstance(stmt, ir.Store):
            stack += [stmt.value, *stmt.index]
    seen: set[int] = set()
    while stack:
        e = stack.pop()
        if id(e) not in seen:
            seen.add(id(e))
            yield e
            stack.extend(children(e))
            if isinstance(e, ir.Load):
                stack.extend(e.index)


def depends(expr: ir.Expr, names: set[str]) -> bool:
    """Whether an expression uses one of the named variables or bound values."""
    stack, seen = [expr], set()
    while stack:
        e = stack.pop()
        if isinstance(e, ir.Var | ir.Local):
            if e.name in names:
                return True
        elif id(e) not in seen:
            seen.add(id(e))
            stack.extend(children(e))
            if isinstance(e, ir.Load):
                stack.extend(e.index)
    return False


def is_pure_index(expr: ir.Expr) -> bool:
    """Whether an int64 expression is arithmetic only, so that addresses may look through its name."""
    if expr.dtype is not int64:
        return False
    stack, seen = [expr], set()
    while stack:
        e = stack.pop()
        if id(e) in seen:
            continue
        seen.add(id(e))
        if isinstance(e, ir.Load) or (isinstance(e, ir.Cast) and e.x.dtype is not bool_):
            return False
        stack.extend(children(e))
    return True
