"""Convolutions run by Winograd's algorithm whatever they cost, under every schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.partition import Group
from graphc.ir.types import DType, float32
from graphc.loop.lower.convolution.as_contraction import conv_problems
from graphc.loop.lower.convolution.winograd.geometry import geometry
from graphc.loop.lower.convolution.winograd.kernels import winograd_calls
from graphc.loop.lower.convolution.winograd.plan import Plan
from graphc.loop.lower.ways import anchor_of
from graphc.loop.lowered import KernelCall
from graphc.program import Machine
from tests.loop.test_ways import leaf


@dataclass(frozen=True)
class Case:
    """x [images, channels, *space] under results x channels/groups filters of `taps`."""

    images: int
    channels: int
    results: int
    space: tuple[int, int]
    low: tuple[int, int] = (1, 1)
    high: tuple[int, int] = (1, 1)
    groups: int = 1
    taps: tuple[int, int] = (3, 3)

    def _weights(self, dtype: DType) -> Node:
        return leaf("w", self.results, self.channels // self.groups, *self.taps, dtype=dtype)

    def forward(self, dtype: DType = float32) -> Node:
        x = leaf("x", self.images, self.channels, *self.space, dtype=dtype)
        return ops.conv(x, self._weights(dtype), low=self.low, high=self.high, groups=self.groups)

    def gradient(self, dtype: DType = float32) -> Node:
        dy = leaf("dy", *self.forward().shape, dtype=dtype)
        at = {"low": self.low, "high": self.high, "groups": self.groups}
        return ops.conv_input_grad(dy, self._weights(dtype), self.space, **at)


CASES = {
    "whole-tiles": Case(2, 16, 32, (8, 8)),
    "ragged": Case(3, 21, 40, (7, 6), (0, 1), (2, 1)),
    "no-padding": Case(2, 5, 7, (9, 10), (0, 0), (0, 0)),
    "wide-padding": Case(1, 6, 5, (3, 4), (2, 2), (2, 2)),
    "far-padding": Case(1, 9, 17, (5, 6), (4, 3), (3, 4)),
    "two-pixels": Case(5, 8, 20, (2, 1)),
    "long-rows": Case(1, 17, 16, (5, 37)),
    "groups": Case(2, 24, 36, (6, 9), groups=3),
    "two-taps": Case(2, 9, 20, (9, 8), (1, 0), (0, 1), taps=(2, 2)),
    "four-taps": Case(1, 7, 18, (8, 7), (1, 2), (2, 1), taps=(4, 4)),
    "five-taps": Case(2, 5, 16, (7, 9), (2, 1), (2, 3), taps=(5, 5)),
    "uneven-taps": Case(1, 5, 9, (5, 9), (0, 2), (2, 2), taps=(2, 5)),
    "column": Case(3, 18, 12, (23, 1), (1, 0), (1, 0), taps=(3, 1)),
    "row": Case(2, 6, 24, (3, 21), (0, 2), (0, 1), taps=(1, 4)),
}


def schedules(case: Case, machine: Machine, itemsize: int = 4) -> Iterator[dict]:
    """Options of plans: both sizes of tiles, data and weights transformed in tasks or ahead, blocks of rows
    or of images that do and do not divide evenly."""
    width = machine.lanes(itemsize)
    vectors = -(-case.results // case.groups // width)
    for size, ahead, several in ((6, 0, 0), (6, 1, 1), (6, 2, 0), (6, 3, 1), (4, 2, 1), (4, 1, 0)):
        if size <= max(case.taps):
            continue
        most, wide = machine.tiles[(size + ahead) % len(machine.tiles)]
        yield {
            "size": size,
            "lanes": min(wide, vectors) * width,
            "height": most,
            "several": several,
            "panels": 1 + ahead % 2,
            "data_ahead": bool(ahead & 1),
            "weights_ahead": bool(ahead & 2),
        }


def forced(
    group: Group, machine: Machine, size: int, height: int, several: int, **options
) -> list[KernelCall]:
    """The kernels of a group around a convolution, by a plan with these options."""
    (problem,) = conv_problems(anchor_of(group))
    g = geometry(problem, size)
    assert g is not None
    rows, columns = g.grid
    images, band = (min(2, g.images), rows) if several else (1, -(-rows // 2))
    tiles = images * band * columns
    height = -(-tiles // -(-tiles // height))
    plan = Plan(geometry=g, height=height, images=images, band=band, depth=16, **options)
    once, each = winograd_calls(problem, plan, group, machine, anchor_of(group).op.name)
    return [*once, *each]
