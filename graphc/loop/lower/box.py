"""Writing the loops over a box: which of them are cut into tasks, which one runs as vectors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod

from graphc.ir.types import Shape, row_major_strides
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Expr
from graphc.loop.lower.nest import Grid, cut
from graphc.loop.lower.scope import Scope

ONE_BLOCK = Grid(1, 1)


@dataclass(frozen=True)
class Box:
    """Loops over `dims`. Of those other than `vector`, the first `lead` are one flat range cut by `outer`;
    the vector loop is cut by `inner`, and what a task has of it into pieces of `piece` points (0: one).
    Factors in `unroll` have no loops: the body is written for each of their points (`offsets`)."""

    dims: Shape
    vector: int | None = None
    lanes: int = 1
    lead: int = 0
    outer: Grid = ONE_BLOCK
    inner: Grid = ONE_BLOCK
    unroll: tuple[int, ...] = ()
    piece: int = 0

    @property
    def tasks(self) -> int:
        return self.outer.tasks * self.inner.tasks

    @property
    def width(self) -> int:
        """Points of a vector loop."""
        return self.piece or self.inner.block

    @property
    def serial(self) -> list[int]:
        """Positions of the loops that are not the vector one."""
        return [d for d in range(len(self.dims)) if d != self.vector and d not in self.unroll]

    def around(self) -> Box:
        """The loops around the vector one, cut into the same tasks (which must not cut the vector loop)."""
        assert self.inner.tasks == 1
        assert not self.unroll
        return Box(tuple([self.dims[d] for d in self.serial]), lead=self.lead, outer=self.outer)

    @property
    def offsets(self) -> list[int]:
        """Flat distances of the points of the unrolled factors."""
        strides = row_major_strides(self.dims)
        points = itertools.product(*[range(self.dims[d]) for d in self.unroll])
        return [sum(i * strides[d] for i, d in zip(p, self.unroll, strict=True)) for p in points]


def make_box(
    dims: Shape, vector: int | None, lanes: int, wanted: int = 1, unroll: tuple[int, ...] = ()
) -> Box:
    """A box cut into about `wanted` tasks: outermost loops first, the vector loop if they are not enough."""
    if vector is not None and dims[vector] == 1:
        vector = None
    box = Box(dims, vector, lanes, unroll=unroll)
    extents = [dims[d] for d in box.serial]
    inner = ONE_BLOCK if vector is None else Grid(dims[vector], dims[vector])
    if wanted <= 1:
        return Box(dims, vector, lanes, inner=inner, unroll=unroll)
    lead = next((j for j in range(1, len(extents) + 1) if prod(extents[:j]) >= wanted), len(extents))
    flat = prod(extents[:lead])
    outer = cut(flat, wanted, extents[lead - 1]) if lead else ONE_BLOCK
    if vector is not None and outer.tasks * 2 <= wanted:
        inner = cut(dims[vector], wanted // outer.tasks, 1, lanes)
    return Box(dims, vector, lanes, lead, outer, inner, unroll)


@contextmanager
def enter(scope: Scope, box: Box, task: Expr = ZERO, vector_first: bool = False) -> Iterator[Expr]:
    """Open the loops of one task; gives the flat point inside them."""
    digits: list[Expr] = [ZERO] * len(box.dims)
    share = ix.floordiv(task, box.inner.tasks)
    serial = box.serial
    with ExitStack() as stack:
        if vector_first:
            _enter_vector(stack, scope, box, task, digits)
        if box.lead:
            start = ix.mul(share, box.outer.block)
            var = stack.enter_context(scope.loop("i", box.outer.extent(share), box.outer.block))
            lead = serial[: box.lead]
            place = ix.below(ix.add(start, var), box.outer.size)
            flat = ix.unflatten(place, [box.dims[d] for d in lead])
            for d, digit in zip(lead, flat, strict=True):
                digits[d] = digit
        for d in serial[box.lead :]:
            digits[d] = stack.enter_context(scope.loop("i", box.dims[d]))
        if not vector_first:
            _enter_vector(stack, scope, box, task, digits)
        yield ix.flatten(digits, box.dims)


def _enter_vector(stack: ExitStack, scope: Scope, box: Box, task: Expr, digits: list[Expr]) -> None:
    if box.vector is None:
        return
    part = ix.mod(task, box.inner.tasks)
    extent, most, start = box.inner.extent(part), box.inner.block, ix.mul(part, box.inner.block)
    if box.piece and box.piece < most:
        pieces = ix.floordiv(ix.add(extent, box.piece - 1), box.piece)
        piece = stack.enter_context(scope.loop("p", pieces, -(-most // box.piece)))
        first = ix.mul(piece, box.piece)
        extent, most, start = ix.minimum(box.piece, ix.sub(extent, first)), box.piece, ix.add(start, first)
    var = stack.enter_context(scope.loop("v", extent, most, mode="vector", lanes=box.lanes))
    digits[box.vector] = ix.below(ix.add(start, var), box.inner.size)
