"""The canonical form of pending graphs: equal structures have equal keys, whatever tensors they are of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.arrays import aligned_copy
from graphc.frontend.drawn import Drawn
from graphc.frontend.errors import TracerError, here
from graphc.frontend.evaluation.parts import part_of
from graphc.frontend.evaluation.places import outline
from graphc.frontend.shown import Shown
from graphc.ir.node import Kind, Node, site_of
from graphc.ops.constant import CONSTANT, INPUT
from graphc.ops.view import PAD, SLICE

FEW = 256  # others that may always be looked through for a graph
A_NODE = 16  # and so many for each of its nodes


class Overwritten:
    """Bound to an input whose buffer an in-place update has taken over."""


OVERWRITTEN = Overwritten()


class Gone(RuntimeError):
    """A value is wanted that depends on one whose buffer an in-place update has taken over."""


@dataclass
class Pending:
    """A pending graph in canonical form: `key` is equal for equal structures.

    order    leaves and operations, operands first; `index` gives positions in it
    arrays   values of the leaves, in order; `leaves` the nodes that had them
    scalars  what the key leaves open: values of constants, places of elements (`places`)
    parts    which of the arrays are parts of known values (`graphc.frontend.evaluation.parts`), until `cut`
    """

    order: list[Node] = field(default_factory=list)
    index: dict[Node, int] = field(default_factory=dict)
    key: list[Any] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)
    leaves: list[list[Node]] = field(default_factory=list)
    leaf_at: list[int] = field(default_factory=list)
    scalars: list[Any] = field(default_factory=list)
    scalar_at: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)

    def cut(self) -> None:
        """Make arrays of their own of those that are parts of others, as a program takes them."""
        for slot in self.parts:
            self.arrays[slot] = aligned_copy(self.arrays[slot])
        self.parts.clear()

    def scalar(self, number: int) -> np.ndarray:
        """One of `scalars` as an array, for a program that takes it."""
        node = self.order[self.scalar_at[number]]
        if node.op is CONSTANT:
            return node.attrs.array  # type: ignore[no-any-return]
        return np.array(self.scalars[number], np.int64)

    @property
    def places(self) -> list[int]:
        """Which of `scalars` are places."""
        return [i for i, at in enumerate(self.scalar_at) if self.order[at].op is not CONSTANT]

    def pays(self, others: int) -> bool:
        """Whether so many others may be looked through for the sake of this graph.

        Who reads thousands of small values one by one must not look at all the others each time.
        """
        return others <= max(FEW, A_NODE * len(self.order))


def canonical(
    targets: Sequence[Node],
    given: Sequence[Node] = (),
    barriers: bool = False,
    parts: int = 0,
    through: Collection[Node] = (),
) -> Pending:
    """Number everything that `targets` need, stopping at `given` nodes and those whose value is known.

    `barriers`: keep them, since the graph is still to be differentiated. `parts`: so many parts of known
    values are leaves; where there are more, none is. `through`: nodes that are numbered although their value
    is known.
    """
    found = Pending()
    index, order, key = found.index, found.order, found.key
    for node in given:
        index[node] = len(order)
        order.append(node)
        key.append(node.type)
    outside = dict(index)
    slots: dict[int, int] = {}
    stack = list(targets)[::-1]
    while stack:
        node = stack.pop()
        if node in index:
            continue
        bound = node.bound
        if bound is not None and node not in through:
            if type(bound) is Node:
                if bound in index:
                    index[node] = index[bound]
                else:
                    stack += (node, bound)
                continue
            if type(bound) is Drawn:
                bound = node.bound = bound.array()
            elif type(bound) is Shown:
                bound = bound.snapshot()
            elif type(bound) is not np.ndarray:
                raise _no_value(node, bound, next((t for t in targets if t not in index), node))
            _leaf(found, slots, node, bound)
            continue
        op = node.op
        if op is CONSTANT:
            _constant(found, node)
            continue
        if op is SLICE and parts and (part := part_of(node, outside)) is not None:
            if len(found.parts) == parts:
                return canonical(targets, given, barriers, 0, through)
            found.parts.append(len(found.arrays))
            _leaf(found, slots, node, part)
            continue
        inputs = node.inputs
        waiting = [n for n in inputs if n not in index]
        if waiting:
            stack.append(node)
            waiting.reverse()
            stack += waiting
        elif op.kind is Kind.BARRIER and not barriers:
            index[node] = index[inputs[0]]
        else:
            if op is INPUT:
                raise _no_value(node, None, next((t for t in targets if t not in index), node))
            if (op is SLICE or op is PAD) and (open_ := outline(node)) is not None:
                _place(found, node, *open_)
                continue
            index[node] = len(order)
            order.append(node)
            attrs = node.attrs
            key.append((op, attrs.__dict__.get("_key") or attrs.key, *[index[n] for n in inputs]))
    return found


def _leaf(found: Pending, slots: dict[int, int], node: Node, array: np.ndarray) -> None:
    """Number a leaf by its array: two inputs with one buffer are one."""
    slot = slots.get(id(array))
    if slot is not None:
        found.index[node] = found.leaf_at[slot]
        found.leaves[slot].append(node)
        return
    slots[id(array)] = len(found.arrays)
    found.index[node] = len(found.order)
    found.leaf_at.append(len(found.order))
    found.order.append(node)
    found.arrays.append(array)
    found.leaves.append([node])
    found.key.append((node.type.shape, node.type.dtype))


def _place(found: Pending, node: Node, shape: tuple, places: tuple[int, ...]) -> None:
    """Which elements are taken is left open in the key, as numbers are."""
    found.index[node] = len(found.order)
    found.scalar_at.append(len(found.order))
    found.scalars.append(places)
    found.key.append((node.op, shape, found.index[node.inputs[0]]))
    found.order.append(node)


def _constant(found: Pending, node: Node) -> None:
    """Scalar floats are left open in the key, so that a number that changes can become an input."""
    found.index[node] = len(found.order)
    attrs = node.attrs
    if node.type.dtype.is_float and not node.type.shape:
        found.scalar_at.append(len(found.order))
        found.scalars.append(attrs.key)
        found.key.append(node.type.dtype)
    else:
        found.key.append(attrs.key)
    found.order.append(node)


def _no_value(node: Node, bound: Any, target: Node) -> Exception:
    """The error for a target that needs the input `node`, which has no value."""
    made = site_of(target)
    place = f" made at {made}" if made else ""
    if bound is OVERWRITTEN:
        return Gone(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"{node.type}{place}"
        )
    if bound is not None and getattr(bound, "active", False):
        return TracerError(
            f"the value of a traced tensor ({target.type}{place}, from {bound.what}) is not known while "
            "tracing: Python's if, while, bool(), int(), float(), .item(), .numpy() and print need it. "
            "Write graphc.where(condition, a, b) for a choice, graphc.scan(step, init, xs) for a loop that "
            "carries values; or take the decision outside the compiled "
            f"function, on the tensor that it returns\n  at {here()}"
        )
    what = getattr(bound, "what", "a tensor")
    return TracerError(
        f"leaked tracer: a tensor made inside a trace from {what}{place} is used after the trace has "
        f"ended; return it from the traced function instead of keeping it\n  at {here()}"
    )
