"""Adding up cotangents. The parts of a value that was cut into slices are put together, not added."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from graphc.autodiff.common import add_cotangents
from graphc.ir.node import Node
from graphc.ops.view import concat


@dataclass(frozen=True)
class _Piece:
    """`value` lies at positions from `start` of `axis`, between zeros."""

    value: Node
    axis: int
    start: int

    @property
    def size(self) -> int:
        return self.value.type.shape[self.axis]


# How many positions of which axis the terms of a sum of pieces fill, counted with repetitions.
_filled: weakref.WeakKeyDictionary[Node, tuple[int, int]] = weakref.WeakKeyDictionary()


def accumulate(old: Node | None, part: Node) -> Node:
    """old + part; where these are slices between zeros that together fill the value, their concatenation."""
    if old is None:
        return part
    total = add_cotangents(old, part)
    piece = _piece(part)
    if piece is None:
        return total
    before = _piece(old)
    axis, filled = (before.axis, before.size) if before else _filled.get(old, (-1, 0))
    if axis != piece.axis:
        return total
    filled += piece.size
    if filled == total.type.shape[axis]:
        pieces = _side_by_side(total)
        if pieces is not None:
            return concat([p.value for p in pieces], axis)
    _filled[total] = axis, filled
    return total


def _side_by_side(total: Node) -> list[_Piece] | None:
    """The terms of a sum of pieces in their order on the axis; None if some lie on each other."""
    found: list[_Piece] = []
    stack = [total]
    while stack:
        node = stack.pop()
        piece = _piece(node)
        if piece is None:
            stack.extend(node.inputs)
        else:
            found.append(piece)
    found.sort(key=lambda p: p.start)
    end = 0
    for piece in found:
        if piece.start != end:
            return None
        end += piece.size
    return found


def _piece(node: Node) -> _Piece | None:
    """A value that zeros extend along one axis."""
    if node.op.name != "pad" or node.attrs.value != 0:
        return None
    widths = zip(node.attrs.low, node.attrs.high, strict=True)
    axes = [axis for axis, (low, high) in enumerate(widths) if low or high]
    return _Piece(node.inputs[0], axes[0], node.attrs.low[axes[0]]) if len(axes) == 1 else None
