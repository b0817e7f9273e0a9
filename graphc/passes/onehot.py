"""Sums that have one term: of values that are zero except where an index is a given number.

The loss of a label, and what the gradient of a softmax subtracts for it, are written with one-hot masks:
``sum(where(arange(classes) == label, value, 0))``. That is the value at the label, no sum at all; if the
value is the same for all classes, not even a look-up. A label outside of the range meets nothing, as before.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc import ops
from graphc.ir.node import Kind, Node
from graphc.ops.spread import scalar_value


@dataclass(frozen=True, eq=False)
class Hot:
    """``where(iota == labels, value, 0)`` along an axis; labels have the shape of `value` without it."""

    axis: int
    labels: Node
    value: Node

    def sum(self) -> Node:
        """The sum along the axis: its one term, with all its bits."""
        labels, extent = self.labels, self.value.shape[self.axis]
        zero, last = ops.like(labels, 0), ops.like(labels, extent - 1)
        trusted = labels.kind is Kind.CHECK and labels.attrs.low >= 0 and labels.attrs.high <= extent
        value = at_one(self.value, self.axis)
        if value is None:
            place = labels if trusted else ops.minimum(ops.maximum(labels, zero), last)
            line = (*labels.shape[: self.axis], 1, *labels.shape[self.axis :])
            found = ops.take_along(self.value, ops.reshape(place, line), self.axis)
            value = ops.reshape(found, labels.shape)
        if trusted:
            return value
        within = ops.bit_and(ops.le(zero, labels), ops.le(labels, last))
        return ops.select(within, value, ops.like(value, 0))


def hot(x: Node, axis: int) -> Hot | None:
    """How a value is one-hot along an axis; None if it is not."""
    if x.op.name != "select" or scalar_value(x.inputs[2]) != 0 or x.inputs[0].op.name != "eq":
        return None
    for place, wide in (x.inputs[0].inputs, x.inputs[0].inputs[::-1]):
        if place.op.name == "iota" and place.attrs.axis == axis:
            labels = at_one(wide, axis)
            return None if labels is None else Hot(axis, labels, x.inputs[1])
    return None


def at_one(x: Node, axis: int) -> Node | None:
    """`x` without an axis along which it is known to be the same; None if it is not known to be."""
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    number = scalar_value(x)
    if number is not None:
        return ops.full(shape, number, x.dtype)
    if x.op.name != "broadcast" or axis not in x.attrs.new_axes:
        return None
    return ops.broadcast(x.inputs[0], shape, tuple([d - (d > axis) for d in x.attrs.dims]))
