"""How a convolution is cut for Winograd's algorithm; choose.py knows what that costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.loop.lower.contraction.blocking import Rows
from graphc.loop.lower.contraction.pack import PAD, padded
from graphc.loop.lower.convolution.winograd.geometry import Geometry


@dataclass(frozen=True)
class Plan:
    """lanes           result channels of a panel, the lanes of the register tile
    height             most rows (tiles of the image) of the register tile
    images, band       a task has `band` rows of tiles of so many images; all rows, if of more than one
    panels             panels of a task
    depth              channels whose transformed weights a task has at once
    data_ahead         a kernel of its own transforms the source; else every task transforms its part
    weights_ahead      likewise for the weights
    """

    geometry: Geometry
    lanes: int
    height: int
    images: int
    band: int
    panels: int
    depth: int
    data_ahead: bool
    weights_ahead: bool

    @property
    def all_panels(self) -> int:
        return -(-self.geometry.results // self.lanes)

    @property
    def tiles(self) -> int:
        """Most tiles of a task."""
        return self.images * self.band * self.geometry.grid[1]

    @property
    def rows(self) -> Rows:
        """The tiles of a task as rows of register tiles."""
        return Rows(self.tiles, self.height)

    @property
    def cut(self) -> tuple[int, int, int]:
        """(shares of images, bands of tile rows, shares of panels): the tasks of a group."""
        g = self.geometry
        return -(-g.images // self.images), -(-g.grid[0] // self.band), -(-self.all_panels // self.panels)

    @property
    def tasks(self) -> int:
        return self.geometry.groups * math.prod(self.cut)


def plane(rows: int, pitch: int) -> int:
    """Elements between points: not a multiple of what makes cache lines of all points compete for a set."""
    return -(-rows * pitch // (64 * PAD)) * 64 * PAD + PAD


def pitch_of(channels: int, itemsize: int) -> int:
    """Elements from a tile to the next in transformed data."""
    return padded(channels, itemsize)
