"""Nested transforms of images, a strip of tiles at a time: M d M^T of every tile d, channels along lanes.

A strip is a row of tiles of one image. The vertical products come first, on rows as they lie in memory
(vectors along a row serve all tiles of the strip at once, and rows that are not asked for are not computed);
what they give is transposed in registers into lines [column][channel], between columns that stay zero; the
horizontal products follow with lanes along channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.ir.node import Node
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Buffer, Expr, identity_of, load
from graphc.loop.lower.fused import Fused
from graphc.loop.lower.problem import Access
from graphc.loop.lower.winograd.transforms import Matrix, apply

Put = Callable[[int, Expr, Expr, Expr], None]  # number of the point, tile of the strip, channel, value


@dataclass(frozen=True, eq=False)
class Tiles:
    """Overlapping tiles of the images of `source` [N, channels, H, W], and the matrix for both their sides.

    Tile (i, j) has the elements from (i*step - low[0], j*step - low[1]) on, as many along each axis as
    `matrix` has columns; what is outside of the image is zero.
    """

    source: Node
    matrix: Matrix
    step: int
    low: tuple[int, int]
    count: Shape

    @property
    def reach(self) -> int:
        """Elements of a tile along an axis."""
        return len(self.matrix[0])

    @property
    def columns(self) -> int:
        """Columns of a strip."""
        return (self.count[1] - 1) * self.step + self.reach

    @property
    def inside(self) -> range:
        """The columns of a strip that are in the image."""
        low = self.low[1]
        return range(low, max(low, min(self.columns, self.source.shape[3] + low)))


class Strip:
    """Writes the transform of a strip for `channels` channels.

    `rows` is how many rows of the matrix are asked for at a time; `lines` has their products with the
    columns of a strip.
    """

    def __init__(self, tiles: Tiles, fused: Fused, channels: int, rows: int, width: int) -> None:
        self.tiles, self.fused, self.w = tiles, fused, fused.scope
        self.channels, self.width = channels, width
        pitch = -(-channels // width) * width
        dtype = fused.anchor.dtype
        self.lines = self.w.alloc("lines", dtype, (rows, tiles.columns, pitch))
        if len(tiles.inside) < tiles.columns:
            _clear(fused, self.lines)

    def vertical(self, rows: Sequence[int], image: Expr, row: Expr, channel: Expr) -> None:
        """lines[r] = row `rows[r]` of the matrix times the rows of strip `row` of an image, for the channels
        from `channel` on."""
        w, tiles = self.w, self.tiles
        matrix = [tiles.matrix[r] for r in rows]
        height, inside = tiles.source.shape[2], tiles.inside
        with (
            w.loop("x", len(inside), None, "vector", self.width) as x,
            w.loop("c", self.channels) as c,
        ):
            column = ix.add(x, inside.start)
            values = []
            for r in range(tiles.reach):
                y = ix.add(ix.mul(row, tiles.step), r - tiles.low[0])
                place = (image, ix.add(channel, c), y, ix.sub(column, tiles.low[1]))
                access = Access(tiles.source, place, ((y, height),))
                values.append(self.fused.read(access) if any(m[r] for m in matrix) else None)
            for r, value in enumerate(apply(w, matrix, values)):
                assert value is not None
                w.store(self.lines, (ix.const(r), column, c), value)

    def horizontal(self, put: Put) -> None:
        """Multiply what is in `lines` with the matrix from the right; point r*n + j is row r, column j."""
        w, tiles = self.w, self.tiles
        size = len(tiles.matrix)
        with (
            w.loop("t", tiles.count[1]) as t,
            w.loop("c", self.channels, None, "vector", self.width) as c,
        ):
            for r in range(self.lines.shape[0]):
                values: list[Expr | None] = [
                    w.let(load(self.lines, (ix.const(r), ix.add(ix.mul(t, tiles.step), q), c)), "x")
                    for q in range(tiles.reach)
                ]
                for j, value in enumerate(apply(w, tiles.matrix, values)):
                    assert value is not None
                    put(r * size + j, t, c, value)


def _clear(fused: Fused, buffer: Buffer) -> None:
    w = fused.scope
    with (
        w.nest("z", buffer.shape[:-1]) as outer,
        w.loop("z", buffer.shape[-1], None, "vector", buffer.shape[-1]) as z,
    ):
        w.store(buffer, (*outer, z), identity_of("add", buffer.dtype))
