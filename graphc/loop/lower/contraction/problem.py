"""The canonical form of every contraction: C[b, m, n] = sum over k of A[b, m, k] * B[b, k, n].

b, m, n and k are multi-indices (tuples of axes); where an element lives is given by index maps, so
matrix products in any layout, convolutions and their gradients are the same problem and share one lowering.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from graphc.ir.node import Node
from graphc.ir.types import Shape
from graphc.loop.ir import Expr
from graphc.loop.lowered import Temp

Index = tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Access:
    """An operand element: node[index], or zero where a bound (coordinate, extent) has its coordinate
    outside range(extent). Of a temporary, an element without bounds."""

    node: Node | Temp
    index: Index
    bounds: tuple[tuple[Expr, int], ...] = ()


@dataclass(frozen=True)
class Window:
    """B is read under a window that moves by single elements.

    With columns (image, *q) and depth (channel, *t), the spatial coordinates of b(batch, depth, col) are
    q + base + t*step; elements outside range(extents) are zeros.
    """

    extents: Shape
    base: tuple[int, ...]
    step: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Contraction:
    """`anchor`'s value (or the part of it that `c` reaches) as a packed contraction.

    batch, rows, cols, depth  extents of the axes of b, m, n and k
    a(b, m, k), b(b, k, n)    where the operand elements are
    c(b, m, n)                index of the anchor's element
    window                    what is known about B if this is a convolution at unit stride whose planes are
                              contiguous
    alike                     how many of the last batch axes A does not depend on
    """

    anchor: Node
    batch: Shape
    rows: Shape
    cols: Shape
    depth: Shape
    a: Callable[[Index, Index, Index], Access]
    b: Callable[[Index, Index, Index], Access]
    c: Callable[[Index, Index, Index], Index]
    window: Window | None = None
    alike: int = 0

    @property
    def a_batch(self) -> Shape:
        """The batch axes that A depends on."""
        return self.batch[: len(self.batch) - self.alike]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(batch, M, N, K), flattened."""
        return math.prod(self.batch), math.prod(self.rows), math.prod(self.cols), math.prod(self.depth)

    @property
    def flops(self) -> float:
        """Multiply-adds count twice."""
        return 2.0 * math.prod(self.sizes)

    def swapped(self) -> Contraction:
        """The same values with rows and columns exchanged."""
        a, b, c = self.a, self.b, self.c
        return replace(
            self,
            rows=self.cols,
            cols=self.rows,
            a=lambda batch, row, depth: b(batch, depth, row),
            b=lambda batch, depth, col: a(batch, col, depth),
            c=lambda batch, row, col: c(batch, col, row),
            window=None,
            alike=0,
        )


def dot_problem(node: Node) -> Contraction:
    """dot_general: batch axes, a's free axes, b's free axes."""
    x, y = node.inputs
    x_depth, y_depth = node.attrs.contract
    x_batch, y_batch = node.attrs.batch
    x_free = tuple(d for d in range(x.type.rank) if d not in x_depth and d not in x_batch)
    y_free = tuple(d for d in range(y.type.rank) if d not in y_depth and d not in y_batch)

    def a(batch: Index, row: Index, depth: Index) -> Access:
        return Access(x, _place(x.type.rank, (x_batch, batch), (x_free, row), (x_depth, depth)))

    def b(batch: Index, depth: Index, col: Index) -> Access:
        return Access(y, _place(y.type.rank, (y_batch, batch), (y_free, col), (y_depth, depth)))

    return Contraction(
        anchor=node,
        batch=tuple(x.shape[d] for d in x_batch),
        rows=tuple(x.shape[d] for d in x_free),
        cols=tuple(y.shape[d] for d in y_free),
        depth=tuple(x.shape[d] for d in x_depth),
        a=a,
        b=b,
        c=lambda batch, row, col: (*batch, *row, *col),
    )


def _place(rank: int, *parts: tuple[tuple[int, ...], Index]) -> Index:
    """The index tuple whose axes dims[i] hold exprs[i], for each (dims, exprs)."""
    at = {d: e for dims, exprs in parts for d, e in zip(dims, exprs, strict=True)}
    return tuple(at[d] for d in range(rank))
