"""Nested transforms of images, a strip of tiles at a time: M d M^T of every tile d, channels along lanes.

A strip is a row of tiles of one image. The vertical products come first, on rows as they lie in memory
(vectors along a row serve all tiles of the strip at once, and rows that are not asked for are not computed);
what they give is turned round in registers into lines [column][channel], between columns that stay zero; the
horizontal products follow with lanes along channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Buffer, Expr, identity_of, load
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.problem import Access
from graphc.loop.lower.convolution.winograd.transforms import Matrix, apply

Put = Callable[[Expr, Expr, Expr, Expr], None]  # number of the point, tile of the strip, channel, value


@dataclass(frozen=True, eq=False)
class Tiles:
    """Overlapping tiles of images, and the matrices for both their sides.

    pixel    pixel(image, channel, y, x) is one that is inside its image
    extents  height and width of an image

    Tile (i, j) has the elements from (i*step[0] - low[0], j*step[1] - low[1]) on, as many along each axis as
    its matrix has columns; what is outside of the image is zero.
    """

    pixel: Callable[[Expr, Expr, Expr, Expr], Access]
    extents: Shape
    matrices: tuple[Matrix, Matrix]
    step: Shape
    low: Shape
    count: Shape

    @property
    def reach(self) -> tuple[int, int]:
        """Elements of a tile along each axis."""
        first, second = self.matrices
        return len(first[0]), len(second[0])

    @property
    def columns(self) -> int:
        """Columns of a strip."""
        return (self.count[1] - 1) * self.step[1] + self.reach[1]

    @property
    def inside(self) -> int:
        """Columns of a strip that are in the image, from column low[1] on."""
        return max(0, min(self.columns - self.low[1], self.extents[1]))


class Strip:
    """Writes the transform of a strip for `channels` channels and some rows of the matrix: one of the groups
    of `rows`, which are all of one length.

    stage  those rows times the columns of the image, of a vector of channels: [row][channel][column]
    lines  the same for all channels, with zeros around the image: [row][column][channel]
    """

    def __init__(
        self, tiles: Tiles, fused: Fused, channels: int, rows: Sequence[Sequence[int]], width: int
    ) -> None:
        self.tiles, self.fused, self.w = tiles, fused, fused.scope
        self.channels, self.rows, self.width = channels, rows, width
        dtype, size = fused.anchor.dtype, len(rows[0])
        self.blocks = -(-channels // width)
        self.run = -(-max(1, tiles.inside) // width) * width
        self.stage = self.w.alloc("stage", dtype, (size, width, self.run))
        columns = max(tiles.columns, tiles.low[1] + self.run)
        self.lines = self.w.alloc("lines", dtype, (size, columns, self.blocks * width))
        if self.run > tiles.inside:
            self._clear(self.stage)
        if tiles.inside < tiles.columns:
            self._clear(self.lines)

    def transform(self, group: Expr, image: Expr, row: Expr, channel: Expr, put: Put) -> None:
        """Transform strip `row` of an image, for the channels from `channel` on and a group of rows: put()
        every point; number r*n + j is row r of the group, column j."""
        with self.w.loop("b", self.blocks) as b:
            first = ix.mul(b, self.width)
            for number, rows in enumerate(self.rows):
                chosen = ix.compare("eq", group, number)
                with self.w.when(chosen):
                    self._vertical(rows, image, row, channel, first)
            self._turn(first)
        self._horizontal(put)

    def _vertical(self, rows: Sequence[int], image: Expr, row: Expr, channel: Expr, first: Expr) -> None:
        """stage = these rows of the matrix times the rows of the strip, for a vector of channels; channels
        beyond the last are copies of that."""
        w, tiles = self.w, self.tiles
        matrix, height = [tiles.matrices[0][r] for r in rows], tiles.extents[0]
        with w.loop("c", self.width) as c, w.loop("x", tiles.inside, None, "vector", self.width) as x:
            at = ix.add(channel, ix.minimum(ix.add(first, c), self.channels - 1))
            values: list[Expr | None] = []
            for r in range(tiles.reach[0]):
                y = ix.add(ix.mul(row, tiles.step[0]), r - tiles.low[0])
                access = tiles.pixel(image, at, y, x)
                access = replace(access, bounds=(*access.bounds, (y, height)))
                values.append(self.fused.read(access) if any(m[r] for m in matrix) else None)
            for r, value in enumerate(apply(w, matrix, values)):
                assert value is not None
                w.store(self.stage, (ix.const(r), c, x), value)

    def _turn(self, first: Expr) -> None:
        """Copy the stage to the lines."""
        w, left = self.w, self.tiles.low[1]
        with (
            w.loop("r", len(self.rows[0])) as r,
            w.loop("x", self.run, None, "vector", self.width) as x,
            w.loop("c", self.width) as c,
        ):
            w.store(self.lines, (r, ix.add(x, left), ix.add(first, c)), load(self.stage, (r, c, x)))

    def _horizontal(self, put: Put) -> None:
        """Multiply the lines with the matrix from the right."""
        w, tiles = self.w, self.tiles
        with (
            w.loop("r", len(self.rows[0])) as r,
            w.loop("t", tiles.count[1]) as t,
            w.loop("c", self.channels, None, "vector", self.width) as c,
        ):
            places = [(r, ix.add(ix.mul(t, tiles.step[1]), q), c) for q in range(tiles.reach[1])]
            values = [w.let(load(self.lines, place), "x") for place in places]
            for j, value in enumerate(apply(w, tiles.matrices[1], values)):
                assert value is not None
                put(ix.add(ix.mul(r, len(tiles.matrices[1])), j), t, c, value)

    def _clear(self, buffer: Buffer) -> None:
        w, lanes = self.w, buffer.shape[-1]
        with w.nest("z", buffer.shape[:-1]) as outer, w.loop("z", lanes, None, "vector", self.width) as z:
            w.store(buffer, (*outer, z), identity_of("add", buffer.dtype))
