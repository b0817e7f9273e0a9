"""Planes of one channel in scratch, padded and split into phases, so that windows are shifts.

Along an axis with stride s a window's taps t*d fall into residue classes mod s, the *phases*. With the
elements of each phase kept together, outputs that are neighbours read neighbours under every tap, whatever
the stride. Rows follow each other without further gaps, and so do images: number outputs as if every row had
the padded width, and under a tap all outputs of all images read one contiguous run. Results that fall between
rows are computed and dropped.

Both the forward convolution (phases of x) and the input gradient (of dy, where not the source but the result
has phases) are sums over taps of such planes; see `forward_layout` and `gradient_layout`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.node import Node
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Expr
from graphc.loop.lower.convolution.as_contraction import axis_phases

SPREAD = 3  # largest stride along rows for which rows of the input gradient are computed whole
Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """Elements first + i*step of a phase, for i < count, hold coordinates start + i*stride of the source."""

    first: int
    step: int
    start: int
    stride: int
    count: int

    def element(self, i: Expr) -> Expr:
        return ix.add(ix.mul(i, self.step), self.first)

    def coordinate(self, i: Expr) -> Expr:
        return ix.add(ix.mul(i, self.stride), self.start)


@dataclass(frozen=True)
class Axis:
    """The source along one spatial axis, in phases of `size` elements; zero where it does not reach.

    Element r of a phase is coordinate r*stride + phase - low of range(extent). With a `spread` (the stride is
    1 then) coordinates lie that far apart: coordinate c is element c*spread + low.
    """

    stride: int
    low: int
    extent: int
    phases: Numbers
    size: int
    spread: int = 1

    def filled(self, phase: int) -> Run:
        """The elements of a phase that are inside the source."""
        if self.spread > 1:
            count = min(self.extent, -(-(self.size - self.low) // self.spread))
            return Run(self.low, self.spread, 0, 1, max(0, count))
        first = max(0, -(-(self.low - phase) // self.stride))
        last = min(self.size - 1, (self.extent - 1 + self.low - phase) // self.stride)
        return Run(first, 1, first * self.stride + phase - self.low, self.stride, max(0, last + 1 - first))


@dataclass(frozen=True)
class Tap:
    """A weight (its index along the kernel's axes), and what it meets for result 0: number of the phase,
    place in the phase's plane."""

    weight: Numbers
    phase: int
    shift: int


@dataclass(frozen=True)
class Part:
    """The results at first + j*step for j < count, along each axis, and their taps."""

    first: Numbers
    step: Numbers
    count: Shape
    taps: tuple[Tap, ...]


@dataclass(frozen=True)
class Layout:
    """Planes of a source and the parts of the result that are computed from them."""

    axes: tuple[Axis, ...]
    parts: tuple[Part, ...]

    @property
    def plane(self) -> Shape:
        """Extents of the plane of one phase of one image."""
        return tuple([axis.size for axis in self.axes])

    @property
    def phases(self) -> list[Numbers]:
        """The phases along all axes, in the order of their numbers."""
        return list(itertools.product(*[axis.phases for axis in self.axes]))

    @property
    def image(self) -> int:
        """Elements of the plane of one phase of one image."""
        return math.prod(self.plane)

    @property
    def elements(self) -> int:
        """Elements of all phases of one image."""
        return len(self.phases) * self.image

    @property
    def reach(self) -> int:
        """The largest shift of a tap."""
        return max((tap.shift for part in self.parts for tap in part.taps), default=0)

    def offset(self, tap: Tap) -> Numbers:
        """The coordinates of the source that a tap meets for result 0, if the source is not spread."""
        places, shift = [], tap.shift
        for axis in reversed(self.axes):
            shift, place = divmod(shift, axis.size)
            places.append(place)
        phases = self.phases[tap.phase]
        return tuple(
            [p * a.stride + f - a.low for p, a, f in zip(reversed(places), self.axes, phases, strict=True)]
        )

    def wide(self, part: Part, images: int) -> int:
        """How many outputs a part of so many images has, those between rows and images included."""
        last = number([c - 1 for c in part.count], self.plane)
        return (images - 1) * self.image + last + 1


def number(place: Sequence[int], shape: Shape) -> int:
    """Row-major number of a place."""
    result = 0
    for p, extent in zip(place, shape, strict=True):
        result = result * extent + p
    return result


def forward_layout(attrs, outputs: Shape) -> Layout:
    """Planes of x for y[q] = sum over t of w[t] * x[q*stride + t*dilation - low]."""
    axes, found = [], []
    for q, s, d, p, k, e in zip(
        outputs, attrs.stride, attrs.dilation, attrs.low, attrs.kernel, attrs.input_spatial, strict=True
    ):
        phases = tuple(sorted({t * d % s for t in range(k)}))
        axes.append(Axis(s, p, e, phases, q + (k - 1) * d // s))
        found.append([(t, phases.index(t * d % s), t * d // s) for t in range(k)])
    zeros, ones = (0,) * len(axes), (1,) * len(axes)
    part = Part(zeros, ones, outputs, _taps(axes, found))
    return Layout(tuple(axes), (part,))


def gradient_layout(node: Node) -> Layout:
    """Planes of dy for a conv_input_grad: a part for each combination of residue classes of positions.

    Along rows a small stride makes no classes, so that vectors run along whole rows: dy is spread instead,
    with zeros between its elements.
    """
    at, extents = node.attrs, node.inputs[0].shape[2:]
    strides, spreads = list(at.stride), [1] * len(extents)
    if 1 < strides[-1] <= SPREAD:
        strides[-1], spreads[-1] = 1, strides[-1]
    axes, per_axis = [], []
    for s, d, p, k, e, extent, spread in zip(
        strides, at.dilation, at.low, at.kernel, at.input_spatial, extents, spreads, strict=True
    ):
        ways = axis_phases(s, d, p, k, e)
        some = [way for way in ways if way.taps]
        low = max([0, *(-(way.base - (way.taps - 1) * way.back) for way in some)])
        size = max([1, *(low + way.count + way.base for way in some)])
        axes.append(Axis(1, low, extent, (0,), size, spread))
        per_axis.append(ways)
    parts = []
    for phase in itertools.product(*per_axis):
        found = [
            [(way.tap + u * way.step, 0, way.base - u * way.back + axis.low) for u in range(way.taps)]
            for way, axis in zip(phase, axes, strict=True)
        ]
        first, step = tuple(way.first for way in phase), tuple(way.stride for way in phase)
        # From low places to high ones, as forward: a block of rows needs fewest registers so.
        taps = sorted(_taps(axes, found), key=lambda tap: (tap.phase, tap.shift))
        parts.append(Part(first, step, tuple(way.count for way in phase), tuple(taps)))
    return Layout(tuple(axes), tuple(parts))


def _taps(axes: Sequence[Axis], found: Sequence[Sequence[tuple[int, int, int]]]) -> tuple[Tap, ...]:
    """The products of (weight index, phase number, offset) along each axis."""
    phases = tuple(len(axis.phases) for axis in axes)
    plane = tuple(axis.size for axis in axes)
    result = []
    for taps in itertools.product(*found):
        weight, phase, offset = zip(*taps, strict=True)
        result.append(Tap(weight, number(phase, phases), number(offset, plane)))
    return tuple(result)
