"""Blocks of K: which part of the depth axes a packed panel covers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Expr
from graphc.loop.lower.contraction.problem import Index
from graphc.loop.lower.writer import Writer


@dataclass(frozen=True, eq=False)
class DepthBlock:
    """A block of K: `outer` fixes the leading axes; the next axis runs over [start, start + count),
    count <= most; the rest (`inner`) are whole. A position in it has one index for each axis from that
    one on."""

    outer: Index
    start: Expr
    count: Expr
    most: int
    inner: Shape

    @property
    def size(self) -> Expr:
        """Number of k."""
        return ix.mul(self.count, math.prod(self.inner))

    @property
    def rank(self) -> int:
        """Axes of a position in the block."""
        return 1 + len(self.inner)

    def at(self, local: Index) -> Index:
        """The depth index of a position in the block."""
        return (*self.outer, ix.add(self.start, local[0]), *local[1:])

    def first(self) -> Index:
        """The depth index of the block's first k."""
        return self.at((ZERO,) * self.rank)

    def flat(self, local: Index) -> Expr:
        """The place of a position among the block's k."""
        return ix.flatten(local, (self.most, *self.inner))

    def extent(self, axis: int) -> tuple[Expr, int]:
        """(extent, bound of it) of an axis."""
        return (
            (self.count, self.most) if axis == 0 else (ix.const(self.inner[axis - 1]), self.inner[axis - 1])
        )

    @contextmanager
    def loops(self, w: Writer, axes: Sequence[int], rest: Index | None = None) -> Iterator[Index]:
        """Serial loops over some axes; yields a position, the other axes as in `rest` (or 0)."""
        with ExitStack() as stack:
            local: list[Expr] = list(rest) if rest is not None else [ZERO] * self.rank
            for axis in axes:
                local[axis] = stack.enter_context(w.loop("k", *self.extent(axis)))
            yield tuple(local)


@dataclass(frozen=True, eq=False)
class DepthCut:
    """K cut into `count` blocks of at most `units` steps of axis `axis` (and all of the axes after it)."""

    depth: Shape
    axis: int
    units: int

    @property
    def inner(self) -> Shape:
        return self.depth[self.axis + 1 :]

    @property
    def parts(self) -> int:
        """Blocks along the cut axis."""
        return -(-self.depth[self.axis] // self.units)

    @property
    def count(self) -> int:
        return math.prod(self.depth[: self.axis]) * self.parts

    @property
    def most(self) -> int:
        """Most k in a block."""
        return self.units * math.prod(self.inner)

    def block(self, number: Expr) -> DepthBlock:
        """A block by its number."""
        outer = ix.unflatten(ix.floordiv(number, self.parts), self.depth[: self.axis]) if self.axis else ()
        start = ix.mul(ix.mod(number, self.parts), self.units)
        count = ix.minimum(self.units, ix.sub(self.depth[self.axis], start))
        return DepthBlock(outer, start, count, self.units, self.inner)
