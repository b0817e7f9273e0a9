"""Convolutions of lines as convolutions of planes, which Winograd's algorithm can run.

The line goes down a plane of one column, so that a long one can be cut into bands. With dilation d the plane
has d columns: line element y*d + x is in row y and column x, where neighbouring taps are one above the other.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.loop import index as ix
from graphc.loop.lower.contraction.problem import Access, Contraction, Index, Window


def is_line(problem: Contraction) -> bool:
    """Whether this is a convolution of lines, whose dilation divides all there is."""
    window = problem.window
    if window is None or len(window.extents) != 1:
        return False
    return not any(size % window.step[0] for size in (*window.extents, *window.base, problem.cols[1]))


def upright(problem: Contraction) -> Contraction:
    """The convolution of planes: columns (image, y, x) and depth (channel, t, 0)."""
    window = problem.window
    assert window is not None
    wide = abs(window.step[0])

    def line(col: Index) -> Index:
        return (col[0], ix.add(ix.mul(col[1], wide), col[2]))

    def a(batch: Index, row: Index, depth: Index) -> Access:
        return problem.a(batch, row, depth[:2])

    def b(batch: Index, depth: Index, col: Index) -> Access:
        return problem.b(batch, depth[:2], line(col))

    def c(batch: Index, row: Index, col: Index) -> Index:
        return problem.c(batch, row, line(col))

    (extent,), (base,), (step,) = window.extents, window.base, window.step
    plane = Window((extent // wide, wide), (base // wide, 0), (step // wide, 1))
    cols, depth = (problem.cols[0], problem.cols[1] // wide, wide), (*problem.depth, 1)
    return replace(problem, cols=cols, depth=depth, a=a, b=b, c=c, window=plane)
