"""Convolution and its two gradients as contractions (problem.py): windows become index maps with bounds.

With s the stride, d the dilation, p the low padding, and per spatial axis::

    forward      y[n, o, q]  = sum over c, t of w[o, c, t]  * x[n, c, q*s + t*d - p]
    input grad   dx[n, c, i] = sum over o, t of w[o, c, t]  * dy[n, o, (i + p - t*d) / s]   (where exact)
    weight grad  dw[o, c, t] = sum over n, q of dy[n, o, q] * x[n, c, q*s + t*d - p]

The input gradient of a strided convolution splits into phases: positions i of equal (i + p) mod s see
the same taps, at unit stride, so no multiplication by an inserted zero is ever made.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from graphc.ir.node import Node
from graphc.ir.types import Shape
from graphc.loop import index as ix
from graphc.loop.ir import Expr
from graphc.loop.lower.contraction.problem import Access, Contraction, Index, Window


def conv_problems(node: Node) -> tuple[Contraction, ...]:
    """The contractions that together write `node` (conv, conv_input_grad or conv_weight_grad)."""
    if node.op.name == "conv":
        return (_forward(node),)
    if node.op.name == "conv_input_grad":
        return tuple(_input_grad(node, phase) for phase in _phases(node))
    return (_weight_grad(node),)


def _channel(group: Index, within: Expr, per_group: int) -> Expr:
    """Channel number of channel `within` of a group; () stands for the only group."""
    return ix.add(ix.mul(group[0], per_group), within) if group else within


def _groups(node: Node) -> Shape:
    return (node.attrs.groups,) if node.attrs.groups > 1 else ()


def _window(attrs, position: Sequence[Expr], tap: Sequence[Expr]) -> Index:
    """Input coordinates under `tap` of the window at output `position` (may lie in the padding)."""
    return tuple(
        ix.sub(ix.add(ix.mul(q, s), ix.mul(t, d)), p)
        for q, t, s, d, p in zip(position, tap, attrs.stride, attrs.dilation, attrs.low, strict=True)
    )


def _inside(coordinates: Index, extents: Shape, sure: Sequence[bool]) -> tuple[tuple[Expr, int], ...]:
    """Bounds for the coordinates that can leave their extent."""
    return tuple((c, e) for c, e, ok in zip(coordinates, extents, sure, strict=True) if not ok)


def _never_outside(attrs, positions: Shape) -> tuple[bool, ...]:
    """Per spatial axis: no window reaches outside the input."""
    return tuple(
        p <= 0 and (q - 1) * s + (k - 1) * d - p < e
        for q, s, k, d, p, e in zip(
            positions, attrs.stride, attrs.kernel, attrs.dilation, attrs.low, attrs.input_spatial, strict=True
        )
    )


def _forward(node: Node) -> Contraction:
    x, w = node.inputs
    at = node.attrs
    outs, ins = w.shape[0] // at.groups, w.shape[1]
    images, _, space = at.parts(node.shape)
    sure = _never_outside(at, space)

    def a(group: Index, row: Index, depth: Index) -> Access:
        return Access(w, (_channel(group, row[0], outs), *depth))

    def b(group: Index, depth: Index, col: Index) -> Access:
        coordinates = _window(at, col[1:], depth[1:])
        place = at.place(col[0], _channel(group, depth[0], ins), coordinates)
        return Access(x, place, _inside(coordinates, at.input_spatial, sure))

    def c(group: Index, row: Index, col: Index) -> Index:
        return at.place(col[0], _channel(group, row[0], outs), col[1:])

    still = all(s == 1 for s in at.stride) and not at.last
    window = Window(at.input_spatial, tuple(-p for p in at.low), at.dilation) if still else None
    cols, depth = (images, *space), (ins, *at.kernel)
    return Contraction(node, _groups(node), (outs,), cols, depth, a, b, c, window)


def _weight_grad(node: Node) -> Contraction:
    x, dy = node.inputs
    at = node.attrs
    outs, ins = node.shape[0] // at.groups, node.shape[1]
    images, _, space = at.parts(dy.shape)
    sure = _never_outside(at, space)

    def a(group: Index, row: Index, depth: Index) -> Access:
        return Access(dy, at.place(depth[0], _channel(group, row[0], outs), depth[1:]))

    def b(group: Index, depth: Index, col: Index) -> Access:
        coordinates = _window(at, depth[1:], col[1:])
        place = at.place(depth[0], _channel(group, col[0], ins), coordinates)
        return Access(x, place, _inside(coordinates, at.input_spatial, sure))

    def c(group: Index, row: Index, col: Index) -> Index:
        return (_channel(group, row[0], outs), *col)

    return Contraction(node, _groups(node), (outs,), (ins, *at.kernel), (images, *space), a, b, c)


class AxisPhase:
    """One residue class of input positions along one spatial axis.

    Positions are first + j*stride for j < count; taps are tap + u*step for u < taps; the output
    coordinate under tap u of position j is j + base - u*back.
    """

    def __init__(self, residue: int, stride: int, dilation: int, low: int, kernel: int, extent: int) -> None:
        self.stride = stride
        self.first = (residue - low) % stride
        self.count = len(range(self.first, extent, stride))
        seen = [t for t in range(kernel) if (t * dilation - residue) % stride == 0]
        self.taps = len(seen)
        self.tap = seen[0] if seen else 0
        self.step = stride // math.gcd(stride, dilation)
        self.base = (self.first + low - self.tap * dilation) // stride
        self.back = self.step * dilation // stride

    def stays_inside(self, outputs: int) -> bool:
        """Every tap of every position is within range(outputs)."""
        return self.base - (self.taps - 1) * self.back >= 0 and self.count - 1 + self.base < outputs


Phase = tuple[AxisPhase, ...]


def axis_phases(stride: int, dilation: int, low: int, kernel: int, extent: int) -> list[AxisPhase]:
    """The non-empty residue classes along one axis."""
    phases = [AxisPhase(r, stride, dilation, low, kernel, extent) for r in range(stride)]
    return [phase for phase in phases if phase.count]


def _phases(node: Node) -> list[Phase]:
    """The non-empty combinations of residue classes over all spatial axes."""
    at = node.attrs
    per_axis = [
        axis_phases(*axis)
        for axis in zip(at.stride, at.dilation, at.low, at.kernel, at.input_spatial, strict=True)
    ]
    return list(itertools.product(*per_axis))


def _input_grad(node: Node, phase: Phase) -> Contraction:
    dy, w = node.inputs
    at = node.attrs
    outs, ins = w.shape[0] // at.groups, w.shape[1]
    images, _, extents = at.parts(dy.shape)
    sure = [axis.stays_inside(e) for axis, e in zip(phase, extents, strict=True)]

    def a(group: Index, row: Index, depth: Index) -> Access:
        taps = [ix.add(ix.mul(u, axis.step), axis.tap) for u, axis in zip(depth[1:], phase, strict=True)]
        return Access(w, (_channel(group, depth[0], outs), row[0], *taps))

    def b(group: Index, depth: Index, col: Index) -> Access:
        coordinates = tuple(
            ix.sub(ix.add(j, axis.base), ix.mul(u, axis.back))
            for j, u, axis in zip(col[1:], depth[1:], phase, strict=True)
        )
        place = at.place(col[0], _channel(group, depth[0], outs), coordinates)
        return Access(dy, place, _inside(coordinates, extents, sure))

    def c(group: Index, row: Index, col: Index) -> Index:
        place = [ix.add(ix.mul(j, axis.stride), axis.first) for j, axis in zip(col[1:], phase, strict=True)]
        return at.place(col[0], _channel(group, row[0], ins), place)

    still = Window(extents, tuple(axis.base for axis in phase), tuple(-axis.back for axis in phase))
    return Contraction(
        node,
        _groups(node),
        (ins,),
        (images, *(axis.count for axis in phase)),
        (outs, *(axis.taps for axis in phase)),
        a,
        b,
        c,
        None if at.last else still,
    )
