"""How the elements of an operand lie in memory, found by reading it at symbolic indices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.ir.types import Shape, int64
from graphc.loop import index as ix
from graphc.loop.ir import Expr, Load, Var
from graphc.loop.lower.contraction.problem import Access, Contraction, Index

Strides = tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """Strides, in elements, along the row (or column) axes and the depth axes; None where a step is not
    constant.

    `direct`: an element is a plain load, without conversion, bounds or masks.
    """

    side: Strides
    depth: Strides
    direct: bool

    @property
    def along_side(self) -> bool:
        """Neighbours along the innermost row (column) axis are neighbours in memory, or one element."""
        return bool(self.side) and self.side[-1] in (0, 1)

    @property
    def across(self) -> bool:
        """Copies run along the rows (columns): neighbours along the depth are not neighbours in memory."""
        return self.along_side and not self.along_depth

    @property
    def along_depth(self) -> bool:
        return bool(self.depth) and self.depth[-1] in (0, 1)


def run_length(strides: Strides, extents: Shape) -> int:
    """Elements along flattened axes that are neighbours in memory from the first on (0: not even two)."""
    run = 0
    for stride, extent in zip(reversed(strides), reversed(extents), strict=True):
        if stride != max(run, 1):
            break
        run = max(run, 1) * extent
    return run


def flat_stride(strides: Strides, extents: Shape) -> int | None:
    """The one stride along flattened axes; None if there is none."""
    live = [(s, e) for s, e in zip(strides, extents, strict=True) if e != 1]
    if not live:
        return 0
    step, size = live[-1]
    for stride, extent in reversed(live[:-1]):
        if step is None or stride != step * size:
            return None
        size *= extent
    return step


def flat_from(strides: Strides, extents: Shape) -> int:
    """The first axis from which on all axes have one stride; the last axis if even its steps differ."""
    for first in range(len(extents)):
        if flat_stride(strides[first:], extents[first:]) is not None:
            return first
    return max(len(extents) - 1, 0)


def along_rows(problem: Contraction) -> bool:
    """Whether neighbouring rows of the result, and not its columns, are neighbours in memory."""
    at = symbols("b", problem.batch), symbols("m", problem.rows), symbols("n", problem.cols)
    place = ix.flatten(problem.c(*at), problem.anchor.shape)
    return bool(at[1]) and ix.linear(place, at[1][-1]) == 1


def along_columns(problem: Contraction) -> bool:
    """Whether neighbouring columns of the result are neighbours in memory: not so in a phase of a strided
    gradient."""
    at = symbols("b", problem.batch), symbols("m", problem.rows), symbols("n", problem.cols)
    return ix.linear(ix.flatten(problem.c(*at), problem.anchor.shape), at[2][-1]) == 1


def symbols(stem: str, shape: Shape) -> tuple[Var, ...]:
    """One variable per axis."""
    return tuple(Var(int64, f"{stem}{i}", extent) for i, extent in enumerate(shape))


def probe(
    find: Callable[[Access], Load | None], access: Callable[..., Access], shapes: tuple[Shape, Shape, Shape]
) -> Layout:
    """The layout of an operand: `access` takes batch, side and depth indices in ranges `shapes`; `find`
    reads one."""
    batch, side, depth = (symbols(stem, shape) for stem, shape in zip("bsd", shapes, strict=True))
    place = access(batch, side, depth)
    load = find(place)
    if load is None:
        return Layout((None,) * len(side), (None,) * len(depth), False)
    offset = ix.flatten(load.index, load.buffer.shape)
    return Layout(_strides(offset, side), _strides(offset, depth), load.mask is None and not place.bounds)


def columns_layout(find: Callable[[Access], Load | None], problem: Contraction) -> Layout:
    """The layout of B, whose side are the columns of the result."""

    def access(batch: Index, col: Index, depth: Index) -> Access:
        return problem.b(batch, depth, col)

    return probe(find, access, (problem.batch, problem.cols, problem.depth))


def _strides(offset: Expr, axes: tuple[Var, ...]) -> Strides:
    return tuple(ix.linear(offset, v) for v in axes)
