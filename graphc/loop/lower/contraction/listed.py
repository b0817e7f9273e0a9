"""Fetches of an epilogue shared out over the tiles before it: a list of places, from which each tile asks for
a few lines every now and then.

Asked for all at once, as many lines as an epilogue goes through hold up the loads of the first tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir.types import int64
from graphc.loop import index as ix
from graphc.loop.ir import (
    FETCH_STEPS,
    Alloc,
    Buffer,
    Expr,
    For,
    If,
    Listed,
    Note,
    Prefetch,
    Stmt,
    Tile,
    Var,
    address,
)
from graphc.loop.lower.contraction.fetch import MOST_LINES
from graphc.program import LINE


@dataclass(frozen=True, eq=False)
class Shares:
    """A loop of fetches as a list: `places` for each row, and so many neighbouring lines from each.

    first  fetches of what all rows read, which are made at once
    tiles  that share the list, each with `depth` steps of K
    """

    first: tuple[Prefetch, ...]
    loop: For
    places: tuple[Prefetch, ...]
    lines: int
    tiles: int
    depth: int

    @property
    def most(self) -> int:
        """Places of the loop."""
        return self.loop.var.extent * len(self.places)

    @property
    def share(self) -> int:
        """How much further on the list the next tile begins."""
        return -(-self.most // self.tiles)

    @property
    def length(self) -> int:
        """Places that the tiles ask for: each goes through as many as it gets round to."""
        return (self.tiles - 1) * self.share + self.depth // FETCH_STEPS

    def blank(self, places: Buffer) -> list[Stmt]:
        """The list before anything is noted: of places that cost nothing."""
        i = Var(int64, "blank", self.length)
        note = Note(places, i, places, (ix.ZERO,))
        return [Alloc(places), For(i, ix.const(self.length), (note,))]

    def notes(self, places: Buffer) -> For:
        """The loop that writes the list."""
        row = ix.mul(self.loop.var, len(self.places))
        notes = [Note(places, ix.add(row, i), p.buffer, p.index) for i, p in enumerate(self.places)]
        return replace(self.loop, body=tuple(notes))

    def fetch(self, places: Buffer, tile: Expr) -> Listed:
        """What a tile asks for."""
        return Listed(address(places, (ix.mul(tile, self.share),)), self.lines)


def shares(fetches: Sequence[Stmt], needed: int, tiles: int, depth: int) -> Shares | None:
    """The list of a nest of fetches, as many of them as `tiles` tiles with `depth` steps of K get round to;
    None if these are not the `needed` first lines of all rows, or the nest is more than one loop over rows.
    """
    first = tuple([stmt for stmt in fetches if isinstance(stmt, Prefetch)])
    loops = [stmt for stmt in fetches if isinstance(stmt, For)]
    if len(loops) != 1 or len(first) + 1 < len(fetches):
        return None
    (loop,) = loops
    runs = _runs([stmt for stmt in loop.body if isinstance(stmt, Prefetch)])
    if sum(map(len, runs)) < len(loop.body):
        return None
    lines = math.gcd(*[len(run) for run in runs], MOST_LINES)
    places = [run[i] for run in runs for i in range(0, len(run), lines)]
    room = depth // FETCH_STEPS * tiles // loop.var.extent
    if room * lines * loop.var.extent < needed - len(first):
        return None
    return Shares(first, loop, tuple(places[:room]), lines, tiles, depth)


def _runs(fetches: Sequence[Prefetch]) -> list[list[Prefetch]]:
    """Fetches of neighbouring lines, one after the other."""
    runs: list[list[Prefetch]] = []
    for fetch in fetches:
        if runs and _follows(runs[-1][-1], fetch):
            runs[-1].append(fetch)
        else:
            runs.append([fetch])
    return runs


def _follows(a: Prefetch, b: Prefetch) -> bool:
    (before,), (after,) = a.index, b.index
    return a.buffer is b.buffer and ix.sub(after, before) == ix.const(LINE // a.buffer.dtype.itemsize)


def asking(body: Sequence[Stmt], fetch: Listed) -> list[Stmt]:
    """The statements, with tiles that ask for what is listed."""
    result: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, For | If):
            stmt = replace(stmt, body=tuple(asking(stmt.body, fetch)))
        elif isinstance(stmt, Tile):
            stmt = replace(stmt, fetch=fetch)
        result.append(stmt)
    return result
