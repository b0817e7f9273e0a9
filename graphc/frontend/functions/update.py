"""Writing part of a tensor: the transposes of slicing, as nodes."""

from __future__ import annotations

from graphc import ops
from graphc.ir.node import Node
from graphc.ir.types import Shape, bool_, int64


def _spaced(n: Node, axis: int, step: int) -> Node:
    """`n` with step - 1 zeros after each element along `axis`."""
    shape = n.shape
    unit = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    high = [0] * len(unit)
    high[axis + 1] = step - 1
    wide = ops.pad(ops.reshape(n, unit), (0,) * len(unit), tuple(high), 0)
    return ops.reshape(wide, (*shape[:axis], shape[axis] * step, *shape[axis + 1 :]))


def in_box(shape: Shape, start: Shape, stop: Shape, step: Shape) -> Node | None:
    """Whether each position lies in start:stop:step; None if all do."""
    test = None
    for axis, extent in enumerate(shape):
        low, high, by = start[axis], stop[axis], step[axis]
        if (low, high, by) == (0, extent, 1):
            continue
        i = ops.iota((extent,), 0, int64)
        parts = []
        if low > 0:
            parts.append(ops.ge(i, ops.full((extent,), low, int64)))
        if high < extent:
            parts.append(ops.lt(i, ops.full((extent,), high, int64)))
        if by > 1:
            offset = ops.rem(ops.sub(i, ops.full((extent,), low, int64)), ops.full((extent,), by, int64))
            parts.append(ops.eq(offset, ops.full((extent,), 0, int64)))
        for part in parts:
            wide = ops.broadcast(part, shape, (axis,))
            test = wide if test is None else ops.bit_and(test, wide)
    return test


def set_box(base: Node, value: Node, start: Shape, stop: Shape, step: Shape) -> Node:
    """`base` with its elements start:stop:step replaced by `value` (of just that shape)."""
    if value.type.size == 0:
        return base
    shape = base.shape
    test = in_box(shape, start, stop, step)
    if test is None:
        return value
    low, high = [], []
    for axis, extent in enumerate(shape):
        if step[axis] > 1:
            value = _spaced(value, axis, step[axis])
            room = extent - start[axis]
            if value.shape[axis] > room:
                value = ops.slice_axis(value, axis, 0, room)
        low.append(start[axis])
        high.append(extent - start[axis] - value.shape[axis])
    fill = False if base.dtype is bool_ else 0
    return ops.select(test, ops.pad(value, tuple(low), tuple(high), fill), base)
