"""Which loops: the iteration space of a group, as a row-major factorisation of a flat range.

A space of `size` points is walked by loops over `dims` (their product is `size`); every node's index is
unflattened from the flat point, and the index simplifier makes plain strides of that. Choosing loops is
choosing factors: *refine* splits a loop where some index divides its variable (a reshape seen from the other
side), *collapse* joins neighbours that every index treats as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from graphc.ir.types import Shape, int64
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Binary, Const, Expr, Let, Load, Stmt, Var

Index = tuple[Expr, ...]
PHASES = 4  # most phases of a strided window that a loop is split into
TAPS = 16  # extent of the loops over window taps, at most
ROUNDS = 6  # refinements before giving up (each splits at least one loop)


@dataclass(eq=False)
class Footprint:
    """What the body of a nest reads and computes with its loop variables.

    places   (position, itemsize) of every load and store, in elements
    others   other index expressions: masks, conditions, values made of indices
    lets     how many values the body names
    names    the loop variables, where there are several spaces
    sources  the variables that each named value depends on
    """

    places: list[tuple[Expr, int]] = field(default_factory=list)
    others: list[Expr] = field(default_factory=list)
    lets: int = 0
    names: dict[int, Index] = field(default_factory=dict)
    sources: dict[Expr, frozenset[Expr]] = field(default_factory=dict)

    def add_block(self, stmts: Iterable[Stmt]) -> None:
        """Note what the `Let`s of a block read."""
        for stmt in stmts:
            if isinstance(stmt, Let):
                self.lets += 1
                self.add_value(stmt.value)
                direct = ix.variables(stmt.value)
                self.sources[stmt.local] = direct.union(*[self.sources.get(v, ()) for v in direct])

    def step(self, place: Expr, var: Var) -> int | None:
        """How far a position moves with `var`; None where that depends on data (the row of a lookup) or is
        not always the same."""
        if any(var in self.sources.get(v, ()) for v in ix.variables(place)):
            return None
        return ix.linear(place, var)

    def add_value(self, value: Expr) -> None:
        stack, seen = [value], {value}
        while stack:
            e = stack.pop()
            if isinstance(e, Load):
                self.places.append((ix.flatten(e.index, e.buffer.shape), e.dtype.itemsize))
                stack.extend([x for x in (e.mask, e.other) if x is not None])
            elif e.dtype is int64 and isinstance(e, Binary | Var):
                self.others.append(e)
            else:
                fresh = [x for x in ix.operands(e) if x not in seen]
                seen.update(fresh)
                stack.extend(fresh)

    @property
    def expressions(self) -> list[Expr]:
        """Every distinct index expression."""
        return list(dict.fromkeys([p for p, _ in self.places] + self.others))


def variables(stem: str, dims: Sequence[int]) -> Index:
    """A loop variable for every factor (zero for a factor of 1)."""
    return tuple([Var(int64, f"{stem}{i}", d) if d != 1 else ZERO for i, d in enumerate(dims)])


def refine(dims: Shape, names: Index, expressions: Iterable[Expr]) -> Shape:
    """Split factors whose variables are divided: alone, or (by a little stride) with window taps added."""
    cuts: dict[Expr, set[int]] = {}
    for atom, by in divisions(expressions):
        terms = ix.form(atom.a).terms
        if len(terms) == 1 or by <= PHASES:
            for var, k in terms:
                taps = all(v is var or (isinstance(v, Var) and v.extent <= TAPS) for v, _ in terms)
                if k == 1 and taps and (len(terms) > 1 or ix.form(atom.a).constant == 0 or by <= PHASES):
                    cuts.setdefault(var, set()).add(by)
    result: list[int] = []
    for extent, var in zip(dims, names, strict=True):
        result.extend(_split_extent(extent, sorted(cuts.get(var, ()))))
    return tuple(result)


def _split_extent(extent: int, cuts: list[int]) -> list[int]:
    """Row-major factors of `extent` such that every cut that can be is a product of trailing ones."""
    factors, done = [], 1
    for cut in cuts:
        if extent % cut == 0 and cut % done == 0 and 1 < cut < extent:
            factors.append(cut // done)
            done = cut
    factors.append(extent // done)
    return [f for f in reversed(factors) if f != 1] or [1]


def divisions(expressions: Iterable[Expr]) -> list[tuple[Binary, int]]:
    """All divisions and remainders by constants inside expressions, with their divisors."""
    found: dict[tuple[Binary, int], None] = {}
    seen: set[Expr] = set()
    stack = list(expressions)
    while stack:
        e = stack.pop()
        if e in seen:
            continue
        seen.add(e)
        if isinstance(e, Binary) and e.op in ("div", "rem") and isinstance(e.b, Const):
            found[e, int(e.b.value)] = None
        stack.extend(ix.operands(e))
    return list(found)


def collapse(dims: Shape, names: Index, expressions: Sequence[Expr]) -> Shape:
    """Join neighbouring factors whose variables every expression steps through as through one."""
    result = [dims[-1]] if dims else []
    inner = names[-1] if dims else ZERO
    inner_extent = dims[-1] if dims else 1
    for extent, var in zip(dims[-2::-1], names[-2::-1], strict=True):
        if result[-1] == 1:
            result[-1], inner, inner_extent = extent, var, extent
        elif extent == 1:
            continue
        elif all(_steps_as_one(e, var, inner, inner_extent) for e in expressions):
            result[-1] *= extent
            inner, inner_extent = var, extent
        else:
            result.append(extent)
            inner, inner_extent = var, extent
    return tuple(reversed(result))


def _steps_as_one(expr: Expr, outer: Expr, inner: Expr, extent: int) -> bool:
    assert isinstance(outer, Var)
    assert isinstance(inner, Var)
    a, b = ix.linear(expr, outer), ix.linear(expr, inner)
    return a is not None and b is not None and a == b * extent


def settle(dims: Shape, probe: Callable[[Shape, Index], Footprint]) -> tuple[Shape, Index, Footprint]:
    """The factorisation to use: refined until no index divides, then collapsed."""
    dims = tuple([d for d in dims if d != 1]) or (1,)
    names = variables("i", dims)
    found = probe(dims, names)
    for _ in range(ROUNDS):
        finer = refine(dims, names, found.expressions)
        if finer == dims:
            break
        dims, names = finer, variables("i", finer)
        found = probe(dims, names)
    joined = collapse(dims, names, found.expressions)
    if joined != dims:
        dims, names = joined, variables("i", joined)
        found = probe(dims, names)
    return dims, names, found


@dataclass(frozen=True)
class Grid:
    """A flat range cut into blocks, one for each task."""

    size: int
    block: int

    @property
    def tasks(self) -> int:
        return -(-self.size // self.block)

    def extent(self, task: Expr) -> Expr:
        """How many points task number `task` has."""
        if self.size % self.block == 0:
            return ix.const(self.block)
        return ix.minimum(self.block, ix.sub(self.size, ix.mul(task, self.block)))


def cut(size: int, wanted: int, inner: int = 1, multiple: int = 1) -> Grid:
    """Cut range(size) into about `wanted` blocks.

    Even blocks are preferred, and blocks that divide (or are multiples of) `inner`, the last factor of the
    range, so that block number and place in it give the index without division; `multiple` is a size that
    blocks should be multiples of.
    """
    wanted = max(1, min(wanted, size))
    least = -(-size // wanted)
    for block in range(least, min(2 * least, size) + 1):
        aligned = inner % block == 0 or block % inner == 0 or block == size
        if size % block == 0 and aligned and block % multiple == 0:
            return Grid(size, block)
    return Grid(size, min(size, -(-least // multiple) * multiple))


def lanes_for(extent: int, width: int, most: int) -> int:
    """Lanes of a vector loop over `extent` points: 1, 2 or 4 machine vectors of `width` (at most `most`),
    whichever wastes least; a short loop gets the smallest power of two that holds it."""
    if extent <= width:
        return max(2, 1 << (extent - 1).bit_length())
    best, best_cost = width, math.inf
    vectors = 1
    while vectors <= most:
        cost = -(-extent // (vectors * width)) * (vectors + 1)
        if cost <= best_cost:
            best, best_cost = vectors * width, cost
        vectors *= 2
    return best
