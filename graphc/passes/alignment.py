"""Which axes of a node carry, one to one and in order, given axes of its operand.

Fusion asks this to know whether loops fit: a value that depends on `row i` must be read at row i. It is
answered from the ops' own lowering rules, by looking at the index they read an operand at.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from graphc.ir.node import Kind, Node
from graphc.ir.types import Shape, int64
from graphc.loop.ir import Expr, Var
from graphc.loop.lower.evaluate import dummy
from graphc.ops.view import reshape_groups

Axes = tuple[int, ...]
AxisMap = tuple[int | None, ...]

_maps: WeakKeyDictionary[Node, tuple[AxisMap, ...]] = WeakKeyDictionary()


def proper(shape: Shape) -> Axes:
    """The axes with more than one index."""
    return tuple([a for a, extent in enumerate(shape) if extent != 1])


def follow(node: Node, operand: int, axes: Axes) -> Axes | None:
    """The axes of `node` that axes of its operand become; None if some is lost, mixed or moved."""
    if node.kind is Kind.ELEMENTWISE:
        return axes
    if node.op.name == "reshape":
        return follow_reshape(node.inputs[0].shape, node.shape, axes)
    mapped = axis_maps(node)[operand]
    source = node.inputs[operand].shape
    result = [mapped[a] for a in axes]
    if any(b is not None and node.shape[b] != source[a] for a, b in zip(axes, result, strict=True)):
        return None
    return None if None in result else tuple(result)  # type: ignore[arg-type]


def follow_reshape(source: Shape, target: Shape, axes: Axes) -> Axes | None:
    """`follow` for a reshape: every run of dims of equal size keeps all of its axes or none."""
    if source == target:
        return axes
    if 0 in source:
        return None
    new: dict[int, tuple[int, ...]] = {}
    for ins, outs in reshape_groups(source, target):
        live_in = tuple([d for d in ins if source[d] != 1])
        live_out = tuple([d for d in outs if target[d] != 1])
        for d in live_in:
            new[d] = live_out
        taken = [a for a in axes if a in live_in]
        if taken and tuple(taken) != live_in:
            return None
    result: list[int] = []
    for a in axes:
        for b in new.get(a, ()):
            if b not in result:
                result.append(b)
    return tuple(result)


def axis_maps(node: Node) -> tuple[AxisMap, ...]:
    """For each operand and each of its axes: the axis of `node` whose index it is read at, or None."""
    known = _maps.get(node)
    if known is None:
        known = _maps[node] = _look(node)
    return known


def _look(node: Node) -> tuple[AxisMap, ...]:
    """Run the lowering rule on symbols and watch what it reads."""
    index = tuple([Var(int64, f"x{a}", max(extent, 1)) for a, extent in enumerate(node.shape)])
    axis_of: dict[Expr, int] = {v: a for a, v in enumerate(index)}
    seen: list[list[AxisMap]] = [[] for _ in node.inputs]

    def reader(i: int):
        def read(at: Sequence[Expr], mask: Expr | None = None, other: Expr | None = None) -> Expr:
            seen[i].append(tuple([axis_of.get(e) for e in at]))
            return dummy(node.inputs[i].dtype)

        return read

    assert node.op.lower is not None
    node.op.lower(node, index, [reader(i) for i in range(len(node.inputs))])
    maps = []
    for x, reads in zip(node.inputs, seen, strict=True):
        agreed = [set(column) for column in zip(*reads, strict=True)] if reads else []
        maps.append(tuple([c.pop() if len(c) == 1 else None for c in agreed]) or (None,) * x.type.rank)
    return tuple(maps)
