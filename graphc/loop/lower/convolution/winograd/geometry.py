"""Which convolutions Winograd's algorithm can run, and their tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from graphc.loop import index as ix
from graphc.loop.ir import Expr
from graphc.loop.lower.contraction.problem import Contraction
from graphc.loop.lower.convolution.winograd.transforms import Filtering, Matrix, filtering, outputs_of


@dataclass(frozen=True)
class Geometry:
    """A convolution of small windows (`taps`) at unit stride, in tiles of m[0] x m[1] results.

    Source coordinate `origin` + q + t meets tap t of result q along an axis; `turned` axes have the taps in
    the opposite order. Coordinates outside range(extents) are zeros.
    """

    m: tuple[int, int]
    taps: tuple[int, int]
    groups: int
    results: int  # channels of a group
    channels: int
    images: int
    space: tuple[int, int]
    extents: tuple[int, int]
    origin: tuple[int, int]
    turned: tuple[bool, bool]

    @cached_property
    def filterings(self) -> tuple[Filtering, Filtering]:
        """Along each axis."""
        (high, wide), (down, across) = self.m, self.taps
        return filtering(high, down), filtering(wide, across)

    def matrices(self, name: str) -> tuple[Matrix, Matrix]:
        """A^T ("at"), G ("g") or B^T ("bt") of each axis."""
        first, second = self.filterings
        return getattr(first, name), getattr(second, name)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Elements of a tile of the source along each axis."""
        first, second = self.filterings
        return first.inputs, second.inputs

    @cached_property
    def points(self) -> int:
        return math.prod(self.size)

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Tiles of an image along each axis."""
        (high, wide), m = self.space, self.m
        return -(-high // m[0]), -(-wide // m[1])

    @cached_property
    def tiles(self) -> int:
        """Tiles of all images; number (image * rows + row) * columns + column."""
        return self.images * math.prod(self.grid)

    def tap(self, at: tuple[Expr, Expr]) -> tuple[Expr, ...]:
        """The weight's index for the tap that source element `at` of a window meets."""
        return tuple(
            [
                ix.sub(taps - 1, t) if turn else t
                for t, taps, turn in zip(at, self.taps, self.turned, strict=True)
            ]
        )


def geometry(problem: Contraction, size: int) -> Geometry | None:
    """The tiles of a problem, of `size` elements of the source along axes with more than one tap; None if it
    is no such convolution."""
    window = problem.window
    if window is None or not problem.anchor.dtype.is_float or len(window.extents) != 2:
        return None
    if len(problem.rows) != 1 or any(abs(step) != 1 for step in window.step):
        return None
    down, across = problem.depth[1:]
    m = outputs_of(size, (down, across))
    if down * across == 1 or size <= max(down, across):
        return None
    high, wide = problem.cols[1:]
    if not all((*problem.sizes, *window.extents)) or high * wide == 1:
        return None
    (y, x), (dy, dx) = window.base, window.step
    return Geometry(
        m,
        (down, across),
        problem.sizes[0],
        problem.rows[0],
        problem.depth[0],
        problem.cols[0],
        (high, wide),
        (window.extents[0], window.extents[1]),
        (y + min(0, dy * (down - 1)), x + min(0, dx * (across - 1))),
        (dy < 0, dx < 0),
    )
