"""The rows of a source that a band's windows reach, copied into scratch with the padding around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir.node import Node
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Buffer, Expr, identity_of
from graphc.loop.lower.contraction.fused import Fused
from graphc.loop.lower.contraction.pack import Line, clip, copy_line
from graphc.loop.lower.contraction.problem import Access


@dataclass(frozen=True, eq=False)
class BandCopy:
    """Copies parts of `source` [N, C, *space] into scratch: channels `pitch` elements apart, of `shape`
    elements each."""

    fused: Fused
    source: Node
    shape: Shape
    pitch: int
    width: int

    def room(self, channels: int) -> Buffer:
        """Scratch for so many channels."""
        return self.fused.scope.alloc("band", self.source.dtype, (channels * self.pitch,))

    def copy(self, band: Buffer, image: Expr, first: Expr, channels: int, begin: Sequence[Expr]) -> None:
        """The `channels` of an image from `first` on, from coordinates `begin` on; zeros outside of it."""
        w, extents = self.fused.scope, self.source.shape[2:]
        with w.loop("c", channels) as c, w.nest("y", self.shape[:-1]) as rows:

            def access(x: Expr) -> Access:
                at = tuple(ix.add(b, i) for b, i in zip(begin, (*rows, x), strict=True))
                return Access(
                    self.source, (image, ix.add(first, c), *at), tuple(zip(at, extents, strict=True))
                )

            def put(x: Expr, value: Expr | None) -> None:
                where = ix.add(ix.mul(c, self.pitch), ix.flatten((*rows, x), self.shape))
                zero = identity_of("add", self.source.dtype)
                w.store(band, (where,), zero if value is None else value)

            line = Line(ix.const(self.shape[-1]), self.shape[-1], access)
            copy_line(w, line, clip(line), lambda a: self.fused.read(replace(a, bounds=())), put, self.width)
