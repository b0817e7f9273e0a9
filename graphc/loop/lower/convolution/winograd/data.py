"""Transformed data: B^T d B of every tile d of the source, with channels along vectors.

Planes lie in memory with pixels along rows. A block of channels (a vector of them) of some rows is first
turned round in registers, into scratch with the channels of a pixel side by side and zeros around the image.
There a tile is loads at constant distances, whatever the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphc.loop import index as ix
from graphc.loop.ir import ZERO, Buffer, Expr, identity_of, load
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.problem import Contraction, Index
from graphc.loop.lower.convolution.winograd.geometry import Geometry
from graphc.loop.lower.convolution.winograd.transforms import apply

Put = Callable[[Expr, Expr, Expr, Expr], None]  # point, tile, channel, value
WIDE = 12  # pixels of a row from which on rows are turned round one by one


class Data:
    """Writes the transform of bands of tile rows; `band` is the most rows."""

    def __init__(self, problem: Contraction, geometry: Geometry, fused: Fused, width: int, band: int) -> None:
        self.p, self.g, self.fused, self.width, self.band = problem, geometry, fused, width, band
        self.w = fused.scope
        g = geometry
        counts = zip((band, g.grid[1]), g.m, g.size, strict=True)
        self.high, self.wide = [(count - 1) * m + size for count, m, size in counts]
        self.stage: Buffer | None = None
        self.half: Buffer | None = None

    def room(self) -> None:
        """Scratch for a band, zeros: what is outside the image is never written. And for a row of tiles that
        is transformed along columns only."""
        self.half = self.w.alloc("half", self.p.anchor.dtype, (self.g.size[0], self.wide, self.width))
        shape = (self.high, self.wide, self.width)
        self.stage = self.w.alloc("stage", self.p.anchor.dtype, shape)
        with self.w.nest("z", shape[:2]) as at, self.w.loop("c", self.width, None, "vector", self.width) as c:
            self.w.store(self.stage, (*at, c), identity_of("add", self.p.anchor.dtype))

    def transform(
        self, batch: Index, image: Expr, top: Expr, rows: Expr, first: Expr, put: Put, tile0: Expr, count: int
    ) -> None:
        """put(point, tile, channel, value) for `count` channels from `first` on, and `rows` rows of tiles
        from row `top` on, numbered from `tile0`."""
        self._fill(batch, image, top, rows, first, count)
        with self.w.loop("y", rows, self.band) as y:
            self._columns(ix.mul(y, self.g.m[0]), count)
            self._rows(ix.add(tile0, ix.mul(y, self.g.grid[1])), first, count, put)

    def _columns(self, top: Expr, count: int) -> None:
        """half = B^T stage, for the rows of the stage from `top` on. Neighbouring tiles share columns."""
        w, g, stage, half = self.w, self.g, self.stage, self.half
        assert stage is not None
        assert half is not None
        with w.loop("x", self.wide) as x, w.loop("c", count, None, "vector", self.width) as c:
            column = [w.let(load(stage, (ix.add(top, i), x, c)), "d") for i in range(g.size[0])]
            for i, value in enumerate(apply(w, g.filterings[0].bt, column)):
                assert value is not None
                w.store(half, (ix.const(i), x, c), value)

    def _rows(self, tile0: Expr, first: Expr, count: int, put: Put) -> None:
        """The tiles of a row: half B."""
        w, g, half = self.w, self.g, self.half
        assert half is not None
        with (
            w.loop("x", g.grid[1]) as x,
            w.loop("i", g.size[0]) as i,
            w.loop("c", count, None, "vector", self.width) as c,
        ):
            row = [w.let(load(half, (i, ix.add(ix.mul(x, g.m[1]), j), c)), "h") for j in range(g.size[1])]
            for j, value in enumerate(apply(w, g.filterings[1].bt, row)):
                assert value is not None
                put(ix.add(ix.mul(i, g.size[1]), j), ix.add(tile0, x), ix.add(first, c), value)

    def _fill(self, batch: Index, image: Expr, top: Expr, rows: Expr, first: Expr, count: int) -> None:
        """The inside of the stage."""
        w, g = self.w, self.g
        start = ix.add(ix.mul(top, g.m[0]), g.origin[0])  # source row of the first row of the stage
        high = ix.add(ix.mul(rows, g.m[0]), g.size[0] - g.m[0])
        low = ix.mul(ix.minimum(ZERO, start), -1)
        end = ix.minimum(high, ix.sub(g.extents[0], start))
        left = max(0, -g.origin[1])
        right = min(self.wide, g.extents[1] - g.origin[1])
        if right <= left:
            return
        if right - left == g.extents[1] < WIDE:
            self._fill_run(batch, image, start, low, end, first, count, left)
            return
        with (
            w.loop("y", ix.sub(end, low), self.high) as i,
            w.loop("c", count, None, "vector", self.width) as c,
            w.loop("x", right - left) as j,
        ):
            y, x = ix.add(low, i), ix.add(j, left)
            self._copy(batch, image, ix.add(first, c), (ix.add(start, y), ix.add(x, g.origin[1])), (y, x, c))

    def _fill_run(
        self, batch: Index, image: Expr, start: Expr, low: Expr, end: Expr, first: Expr, count: int, left: int
    ) -> None:
        """Whole short rows: they are one run of pixels."""
        w, g = self.w, self.g
        wide = g.extents[1]
        most = min(self.high, g.extents[0])
        whole = ix.compare("eq", ix.sub(end, low), most)

        def run(rows: int, at: Expr) -> None:
            with w.loop("c", count, None, "vector", self.width) as c, w.loop("x", rows * wide) as j:
                dy, x = ix.unflatten(j, (rows, wide))
                y = ix.add(at, dy)
                self._copy(batch, image, ix.add(first, c), (ix.add(start, y), x), (y, ix.add(x, left), c))

        if ix.is_true(whole):
            run(most, low)
            return
        with w.loop("y", ix.sub(end, low), self.high) as i:
            run(1, ix.add(low, i))

    def _copy(
        self, batch: Index, image: Expr, channel: Expr, pixel: tuple[Expr, Expr], to: tuple[Expr, ...]
    ) -> None:
        """One element: the source at a pixel, which is inside the image, to its place in the stage."""
        g = self.g
        assert self.stage is not None
        assert self.p.window is not None
        # the tap and the result that meet at a pixel do not matter: the access is linear
        tap = g.tap((ix.ZERO, ix.ZERO))
        at = [ix.sub(i, o) for i, o in zip(pixel, g.origin, strict=True)]
        access = self.p.b(batch, (channel, *tap), (image, *at))
        value = self.fused.read(replace(access, bounds=()))
        self.w.store(self.stage, to, value)
