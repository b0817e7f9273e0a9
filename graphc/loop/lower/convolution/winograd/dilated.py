"""Dilated convolutions as convolutions of smaller images, which Winograd's algorithm can run.

With dilation d, results whose coordinates are equal modulo d read source elements whose coordinates are, and
no others. So where d divides the images and the padding, each is d x d images under an undilated window.
"""

from __future__ import annotations

import math
from dataclasses import replace

from graphc.loop import index as ix
from graphc.loop.lower.contraction.pack import GATHER
from graphc.loop.lower.contraction.problem import Access, Contraction, Index, Window

APART = 3 * GATHER  # cycles to read an element of the source, or store a result, that lie apart in memory


def is_dilated(problem: Contraction) -> bool:
    """Whether this is a dilated convolution of planes whose dilation divides all there is."""
    window = problem.window
    if window is None or len(window.extents) != 2 or max(map(abs, window.step)) == 1:
        return False
    sizes = zip(window.step, window.base, window.extents, problem.cols[1:], strict=True)
    return all(not any(size % step for size in some) for step, *some in sizes)


def spreading(problem: Contraction) -> float:
    """Cycles to read and store elements that lie apart, more than neighbours."""
    window = problem.window
    assert window is not None
    planes = math.prod((*problem.batch, problem.cols[0]))
    read = problem.depth[0] * math.prod(window.extents)
    return APART * planes * (read + problem.sizes[1] * math.prod(problem.cols[1:]))


def undilated(problem: Contraction) -> Contraction:
    """The convolution of the smaller images, number (image, row modulo d, column modulo d)."""
    window = problem.window
    assert window is not None
    apart = tuple(abs(step) for step in window.step)
    images = (problem.cols[0], *apart)

    def whole(col: Index) -> Index:
        image, *phase = ix.unflatten(col[0], images)
        return (image, *[ix.add(ix.mul(q, d), p) for q, d, p in zip(col[1:], apart, phase, strict=True)])

    def b(batch: Index, depth: Index, col: Index) -> Access:
        return problem.b(batch, depth, whole(col))

    def c(batch: Index, row: Index, col: Index) -> Index:
        return problem.c(batch, row, whole(col))

    def divided(sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(size // d for size, d in zip(sizes, apart, strict=True))

    planes = Window(divided(window.extents), divided(window.base), divided(window.step))
    cols = (math.prod(images), *divided(problem.cols[1:]))
    return replace(problem, cols=cols, b=b, c=c, window=planes)
