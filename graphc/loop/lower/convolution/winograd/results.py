"""Results: A^T m A of every tile m of products, and the epilogue of the group.

Products have result channels along vectors, the result pixels along rows. Tiles of a block of channels
are put together in scratch, pixel by pixel, as a run of whole rows of the image; the epilogue reads that
turned round, with vectors along pixels.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from graphc.loop import index as ix
from graphc.loop.ir import Buffer, Expr, load
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.problem import Contraction, Index
from graphc.loop.lower.convolution.winograd.geometry import Geometry
from graphc.loop.lower.convolution.winograd.transforms import nested


class Results:
    """Writes the results of bands of tile rows; `band` is the most rows."""

    def __init__(self, problem: Contraction, geometry: Geometry, fused: Fused, width: int, band: int) -> None:
        self.p, self.g, self.fused, self.width, self.band = problem, geometry, fused, width, band
        self.w = fused.scope
        self.pixels: Buffer | None = None
        self.half: Buffer | None = None

    def room(self) -> None:
        """Scratch for a band; the tiles of its last row may reach beyond it. And for a tile that is
        transformed along columns only."""
        g = self.g
        self.half = self.w.alloc("half", self.p.anchor.dtype, (g.m[0], g.size[1], self.width))
        size = g.m[0] * self.band * g.space[1] + g.m[1]
        self.pixels = self.w.alloc("pixels", self.p.anchor.dtype, (size, self.width))

    def finish(
        self,
        products: Buffer,
        at: tuple[Expr, Expr, int],
        batch: Index,
        image: Expr,
        top: Expr,
        rows: Expr,
        channels: tuple[Expr, int],
    ) -> None:
        """Finish `rows` rows of tiles from row `top` on, of an image and `channels` (the first, how many: a
        vector at most). Their products are products[point, start + tile * pitch + lane] for `at` = (start,
        number of the first tile, pitch)."""
        self._transform(products, at, rows, channels[1])
        w, g, pixels = self.w, self.g, self.pixels
        assert pixels is not None
        high, wide = g.m[0], g.space[1]
        first = ix.mul(ix.mul(top, high), wide)
        left = ix.mul(ix.sub(g.space[0], ix.mul(top, high)), wide)
        whole = g.space[0] % high == 0 and high * wide % self.width == 0
        # a run of whole vectors for each row of tiles, or one run of all
        runs, most = (rows, high * wide) if whole else (ix.ONE, high * self.band * wide)
        count = ix.const(most) if whole else ix.minimum(ix.mul(rows, high * wide), left)
        with (
            w.loop("y", runs, self.band) as y,
            w.loop("v", count, most, "vector", self.width) as v,
            w.loop("k", channels[1]) as k,
        ):
            pixel = ix.add(ix.mul(y, most), v)
            place = ix.unflatten(ix.add(first, pixel), g.space)
            index = self.p.c(batch, (ix.add(channels[0], k),), (image, *place))
            self.fused.finish(index, load(pixels, (pixel, k)))

    def _transform(self, products: Buffer, at: tuple[Expr, Expr, int], rows: Expr, channels: int) -> None:
        """The results of all tiles to their pixels. Tiles of a row go from right to left: those at the right
        border reach into the next row of pixels, which is written later."""
        w, g, pixels, half = self.w, self.g, self.pixels, self.half
        assert pixels is not None
        assert half is not None
        start, tile0, pitch = at
        wide = g.space[1]
        with w.loop("y", rows, self.band) as y, w.loop("x", g.grid[1]) as back:
            x = ix.sub(g.grid[1] - 1, back)
            tile = ix.add(tile0, ix.flatten((y, x), g.grid))
            place = ix.add(start, ix.mul(tile, pitch))
            pixel = ix.add(ix.mul(y, g.m[0] * wide), ix.mul(x, g.m[1]))

            def across() -> AbstractContextManager[Expr]:
                return w.loop("k", channels, None, "vector", self.width)

            def product(i: int, j: Expr, k: Expr) -> Expr:
                return load(products, (ix.add(i * g.size[1], j), ix.add(place, k)))

            def write(i: Expr, j: int, k: Expr, value: Expr) -> None:
                w.store(pixels, (ix.add(pixel, ix.add(ix.mul(i, wide), j)), k), value)

            nested(w, g.matrices("at"), half, across, product, write)
