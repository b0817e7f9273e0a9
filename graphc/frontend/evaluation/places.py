"""Which element is taken is no matter of a program.

    log_probs.append(torch.log(policy(state)[action]))      # another action at every step of every episode

A slice of one element of an axis, and its transpose (zeros around one element), have their place in their
attributes. Like the value of a number it is left open in the key of a pending graph: when a structure comes
again with other places, these become an input of its program.
"""

from __future__ import annotations

from typing import Any

from graphc import ops
from graphc.ir.node import Node, freeze
from graphc.ir.types import TensorType, int64
from graphc.ops.view import PAD

Outline = tuple[tuple, tuple[int, ...]]


def outline(node: Node) -> Outline | None:
    """What tells a slice (or a padding) from others but for its places, and these; None if it has none."""
    attrs = node.attrs
    if node.op is PAD:
        return _padding(node)
    known: Outline | str | None = attrs.__dict__.get("_outline", "")
    if type(known) is str:
        known = attrs.__dict__["_outline"] = _slicing(attrs)
    return known  # type: ignore[return-value]


def _slicing(attrs: Any) -> Outline | None:
    boxes = list(zip(attrs.start, attrs.stop, attrs.step, strict=True))
    places = tuple([start for start, stop, _ in boxes if stop - start == 1])
    if not places:
        return None
    return tuple([None if stop - start == 1 else (start, stop, by) for start, stop, by in boxes]), places


def _padding(node: Node) -> Outline | None:
    attrs, own = node.attrs, node.inputs[0].type.shape
    widths = list(zip(own, attrs.low, attrs.high, strict=True))
    places = tuple([low for extent, low, high in widths if extent == 1 and low + high])
    if not places:
        return None
    shape = [low + high if extent == 1 else (low, high) for extent, low, high in widths]
    return (*shape, freeze(attrs.value)), places


def places_type(places: tuple[int, ...]) -> TensorType:
    """The type of the input that gives them."""
    return TensorType((len(places),), int64)


def at_places(node: Node, operand: Node, places: Node) -> Node:
    """The slice or padding of `operand` at `places`, an int64 vector."""
    return _padded(node, operand, places) if node.op is PAD else _sliced(node, operand, places)


def _place(places: Node, number: int) -> Node:
    return ops.slice_(places, (number,), (number + 1,), (1,))


def _sliced(node: Node, x: Node, places: Node) -> Node:
    attrs, own = node.attrs, x.type.shape
    one = [stop - start == 1 for start, stop in zip(attrs.start, attrs.stop, strict=True)]
    start = tuple([0 if single else s for single, s in zip(one, attrs.start, strict=True)])
    stop = tuple([extent if single else s for single, s, extent in zip(one, attrs.stop, own, strict=True)])
    step = tuple([1 if single else s for single, s in zip(one, attrs.step, strict=True)])
    x = ops.slice_(x, start, stop, step)
    for number, axis in enumerate([axis for axis, single in enumerate(one) if single]):
        x = ops.take(x, _place(places, number), axis)
    return x


def _padded(node: Node, x: Node, places: Node) -> Node:
    attrs = node.attrs
    widths = list(zip(x.type.shape, attrs.low, attrs.high, strict=True))
    one = [extent == 1 and low + high > 0 for extent, low, high in widths]
    low = tuple([0 if single else w for single, w in zip(one, attrs.low, strict=True)])
    high = tuple([0 if single else w for single, w in zip(one, attrs.high, strict=True)])
    x = ops.pad(x, low, high, attrs.value)
    for number, axis in enumerate([axis for axis, single in enumerate(one) if single]):
        extent = node.type.shape[axis]
        shape = (*x.shape[:axis], extent, *x.shape[axis + 1 :])
        others = tuple([i for i in range(len(shape)) if i != axis])
        wide = ops.broadcast(ops.reshape(x, tuple([shape[i] for i in others])), shape, others)
        place = ops.broadcast(ops.reshape(_place(places, number), ()), (extent,), ())
        test = ops.broadcast(ops.eq(ops.iota((extent,), 0, int64), place), shape, (axis,))
        x = ops.select(test, wide, ops.full(shape, attrs.value, x.dtype))
    return x
