"""Convolutions of lines as convolutions of planes of one column, which Winograd's algorithm can run.

The line goes down the plane, so that a long one can be cut into bands.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.loop.lower.contraction.problem import Access, Contraction, Index, Window


def is_line(problem: Contraction) -> bool:
    """Whether this is a convolution of lines."""
    return problem.window is not None and len(problem.window.extents) == 1


def upright(problem: Contraction) -> Contraction:
    """The convolution of planes: columns (image, q, 0) and depth (channel, t, 0)."""
    window = problem.window
    assert window is not None

    def a(batch: Index, row: Index, depth: Index) -> Access:
        return problem.a(batch, row, depth[:2])

    def b(batch: Index, depth: Index, col: Index) -> Access:
        return problem.b(batch, depth[:2], col[:2])

    def c(batch: Index, row: Index, col: Index) -> Index:
        return problem.c(batch, row, col[:2])

    plane = Window((*window.extents, 1), (*window.base, 0), (*window.step, 1))
    cols, depth = (*problem.cols, 1), (*problem.depth, 1)
    return replace(problem, cols=cols, depth=depth, a=a, b=b, c=c, window=plane)
