"""Which convolutions Winograd's algorithm can run, and their tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.loop import index as ix
from graphc.loop.ir import Expr
from graphc.loop.lower.contraction.problem import Contraction
from graphc.loop.lower.convolution.winograd.transforms import Filtering, filtering

TAPS = 3


@dataclass(frozen=True)
class Geometry:
    """A convolution of 3x3 windows at unit stride, in tiles of m x m results.

    Source coordinate `origin` + q + t meets tap t of result q along an axis; `turned` axes have the taps in
    the opposite order. Coordinates outside range(extents) are zeros.
    """

    m: int
    groups: int
    results: int  # channels of a group
    channels: int
    images: int
    space: tuple[int, int]
    extents: tuple[int, int]
    origin: tuple[int, int]
    turned: tuple[bool, bool]

    @property
    def filtering(self) -> Filtering:
        return filtering(self.m, TAPS)

    @property
    def size(self) -> int:
        """Elements of a tile of the source along an axis."""
        return self.m + TAPS - 1

    @property
    def points(self) -> int:
        return self.size**2

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles of an image along each axis."""
        high, wide = self.space
        return -(-high // self.m), -(-wide // self.m)

    @property
    def tiles(self) -> int:
        """Tiles of all images; number (image * rows + row) * columns + column."""
        return self.images * math.prod(self.grid)

    def tap(self, at: tuple[Expr, Expr]) -> tuple[Expr, ...]:
        """The weight's index for the tap that source element `at` of a window meets."""
        return tuple([ix.sub(TAPS - 1, t) if turn else t for t, turn in zip(at, self.turned, strict=True)])


def geometry(problem: Contraction, m: int) -> Geometry | None:
    """The tiles of a problem; None if it is no such convolution."""
    window = problem.window
    if window is None or not problem.anchor.dtype.is_float or problem.depth[1:] != (TAPS, TAPS):
        return None
    if len(problem.rows) != 1 or any(abs(step) != 1 for step in window.step):
        return None
    high, wide = problem.cols[1:]
    if not all((*problem.sizes, *window.extents)) or high * wide == 1:
        return None
    (y, x), (dy, dx) = window.base, window.step
    return Geometry(
        m,
        problem.sizes[0],
        problem.rows[0],
        problem.depth[0],
        problem.cols[0],
        (high, wide),
        (window.extents[0], window.extents[1]),
        (y + min(0, dy * (TAPS - 1)), x + min(0, dx * (TAPS - 1))),
        (dy < 0, dx < 0),
    )
