"""What the epilogue of a tile reads (parameters and their moments, a residual, the state before), asked for
before the tile is multiplied: it arrives while the multiply-adds run.

Rows of a tile are a few lines long and far apart, so no prefetcher of the machine sees them come.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.loop import index as ix
from graphc.loop.inplace import expressions, statements, walk
from graphc.loop.ir import Expr, For, If, Let, Load, Prefetch, Stmt, Store, Var
from graphc.program import LINE

WORTH = 8  # cycles of multiply-adds for each line that is fetched meanwhile


def fetch_ahead(epilogue: Sequence[Stmt], cycles: float, stores: bool = False) -> list[Stmt]:
    """Statements that fetch what `epilogue` loads from params, row by row, and then where it `stores`; none
    if the tile takes so few cycles that nothing could be hidden behind it."""
    inside: set[Expr] = {s.local for s, _ in statements(tuple(epilogue)) if isinstance(s, Let)}
    found = _Fetches(inside, stores).block(epilogue, None, {})
    return found if lines_of(found) * WORTH <= cycles else []


def lines_of(body: Sequence[Stmt]) -> int:
    """How many lines the statements fetch at most."""
    total = 0
    for stmt in body:
        if isinstance(stmt, For):
            total += stmt.var.extent * lines_of(stmt.body)
        else:
            total += lines_of(stmt.body) if isinstance(stmt, If) else 1
    return total


class _Fetches:
    """The loops of an epilogue, with fetches instead of its statements.

    `inside` are the values that are not known before the epilogue runs; `new` in the methods has the loops'
    new variables.
    """

    def __init__(self, inside: set[Expr], stores: bool) -> None:
        self.inside, self.stores = inside, stores

    def block(self, body: Sequence[Stmt], columns: Var | None, new: dict[Expr, Var]) -> list[Stmt]:
        """Fetches of what is loaded in runs along the loop over `columns`, if that is around."""
        result: list[Stmt] = []
        stores: list[Stmt] = []
        for stmt in body:
            if isinstance(stmt, For):
                result += self.loop(stmt, columns, new)
            elif isinstance(stmt, If):
                inner = self.block(stmt.body, columns, new)
                if inner and self.moved(stmt.condition, new) is stmt.condition:
                    result.append(If(stmt.condition, tuple(inner)))
            elif columns is not None:
                loads = [e for root in expressions(stmt) for e in walk(root) if isinstance(e, Load)]
                for load in dict.fromkeys(loads):
                    result += self.run(load, columns, new)
                if self.stores and isinstance(stmt, Store):
                    stores += self.run(stmt, columns, new)
        return [*result, *stores]

    def loop(self, loop: For, columns: Var | None, new: dict[Expr, Var]) -> list[Stmt]:
        if self.moved(loop.extent, new) is not loop.extent:
            return []
        if loop.mode == "vector":
            return self.block(loop.body, loop.var, new)
        var = Var(loop.var.dtype, f"{loop.var.name}_ahead", loop.var.extent)
        inner = self.block(loop.body, columns, {**new, loop.var: var})
        return [For(var, loop.extent, tuple(inner))] if inner else []

    def run(self, load: Load | Store, columns: Var, new: dict[Expr, Var]) -> list[Stmt]:
        """A fetch for each line of a run of elements along the columns."""
        if load.buffer.space != "param" or len(load.index) != 1:
            return []
        (place,) = load.index
        start = self.moved(ix.sub(place, columns), new) if ix.linear(place, columns) == 1 else None
        if start is None:
            return []
        step = LINE // load.buffer.dtype.itemsize
        return [Prefetch(load.buffer, (ix.add(start, at),)) for at in range(0, columns.extent, step)]

    def moved(self, expr: Expr, new: dict[Expr, Var]) -> Expr | None:
        """The expression in terms of the new variables; None if it cannot be told before the epilogue."""
        if ix.variables(expr) & self.inside:
            return None
        for old, var in new.items():
            step = ix.linear(expr, old) if isinstance(old, Var) else None
            if step is None:
                return None
            if step:
                expr = ix.add(ix.sub(expr, ix.mul(old, step)), ix.mul(var, step))
        return expr
