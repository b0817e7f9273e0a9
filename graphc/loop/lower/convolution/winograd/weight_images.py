"""The images of a weight gradient: those of volumes are slices, those of dilated images every d-th pixel.

dw[o, c, t] sums dy[n, o, q] * x[n, c, q*s + t*d - p] over all n and q. The last two axes make images under
windows at unit stride (those of lines have one row). Over the axes before them, each tap makes channels of
its own: channel (c, t) of image (n, q) is slice q*s + t*d - p of x, zeros if there is none. Along the last
two, pixels that are equal modulo d meet no others, so where d divides images and padding, they are images
themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.node import Node
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Expr
from graphc.loop.lower.contraction.problem import Access, Index

PLANE = 2  # axes of an image
MOST_TAPS = 5  # of a window, along each of them


@dataclass(frozen=True, eq=False)
class Images:
    """Of the conv_weight_grad `node`.

    numbers  what an image's number is made of: sample, slices, residues along the image's axes
    taps     taps over slices, which a channel's number of x has behind the channel
    space    extents of an image of dy
    extents  those of an image of x
    low      its padding
    """

    node: Node
    numbers: Shape
    taps: Shape
    space: Shape
    extents: Shape
    low: Shape

    @property
    def count(self) -> int:
        return math.prod(self.numbers)

    @property
    def channels(self) -> int:
        """Channels of x in a group."""
        return self.node.shape[1] * math.prod(self.taps)

    @property
    def window(self) -> tuple[int, int]:
        """Taps along each axis of an image."""
        return _plane(self.node.attrs.kernel, 1)

    @property
    def apart(self) -> Shape:
        """From one pixel of an image to the next."""
        return _plane(self.node.attrs.dilation, 1)

    def of_x(self, image: Expr, channel: Expr, y: Expr, x: Expr) -> Access:
        """A pixel that is inside its image; `channel` counts those of all groups."""
        at, source = self.node.attrs, self.node.inputs[0]
        sample, slices, pixel = self._place(image, y, x)
        c, *taps = ix.unflatten(channel, (source.shape[1], *self.taps))
        lead = zip(slices, taps, at.stride, at.dilation, at.low, strict=False)
        coordinates = [ix.sub(ix.add(ix.mul(q, s), ix.mul(t, d)), p) for q, t, s, d, p in lead]
        bounds = tuple(zip(coordinates, source.shape[2:-PLANE], strict=True))
        return Access(source, (sample, c, *coordinates, *pixel), bounds)

    def of_dy(self, image: Expr, channel: Expr, y: Expr, x: Expr) -> Access:
        """A pixel that is inside its image."""
        sample, slices, pixel = self._place(image, y, x)
        return Access(self.node.inputs[1], (sample, channel, *slices, *pixel))

    def _place(self, image: Expr, y: Expr, x: Expr) -> tuple[Expr, Index, Index]:
        """(sample, slice, coordinates in it)."""
        sample, *rest = ix.unflatten(image, self.numbers)
        slices, residues = rest[: len(self.taps)], rest[len(self.taps) :]
        pixel = [ix.add(ix.mul(q, d), r) for q, d, r in zip((y, x), self.apart, residues, strict=True)]
        return sample, tuple(slices), tuple(pixel[-len(self.node.attrs.kernel) :])

    def weight(self, out: Expr, channel: Expr, tap: Sequence[Expr]) -> Index:
        """The index of a weight; `channel` is one of a group."""
        c, *taps = ix.unflatten(channel, (self.node.shape[1], *self.taps))
        return (out, c, *taps, *tap[-len(self.node.attrs.kernel) :])


def images_of(node: Node) -> Images | None:
    """None if `node` is no weight gradient with such images."""
    if node.op.name != "conv_weight_grad" or node.attrs.last:
        return None
    at, (x, dy) = node.attrs, node.inputs
    apart, low = _plane(at.dilation, 1), _plane(at.low, 0)
    space, extents = _plane(dy.shape[2:], 1), _plane(x.shape[2:], 1)
    sizes = zip(apart, low, extents, space, strict=True)
    window = _plane(at.kernel, 1)
    if max(window) == 1 or max(window) > MOST_TAPS or max(at.stride[-PLANE:]) > 1:
        return None
    if any(size % d for d, *some in sizes for size in some):
        return None
    return Images(
        node,
        (x.shape[0], *dy.shape[2:-PLANE], *apart),
        node.shape[2:-PLANE],
        _divided(space, apart),
        _divided(extents, apart),
        _divided(low, apart),
    )


def _plane(sizes: Shape, missing: int) -> tuple[int, int]:
    """The last two of some axes; a line is a plane of one row."""
    *_, down, across = (missing, *sizes)
    return down, across


def _divided(sizes: Shape, apart: Shape) -> Shape:
    return tuple(size // d for size, d in zip(sizes, apart, strict=True))
